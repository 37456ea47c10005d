// The methods that run the optimizer of discquant/optimizer.h over batches of calibration windows, with reports and states: `discquant` on x,
// `qat` (discquant/qat.h) on latent weights.
#ifndef DQ_DISCQUANT_OPTIMIZATION_H
#define DQ_DISCQUANT_OPTIMIZATION_H

#include "discquant/method.h"

// Members of struct method.
void optimization_describe(const struct run_settings *settings, struct record *record);
enum status optimization_work(struct run *run);

// Where the optimization begins: x, or latent weights, by the settings.
enum status optimization_begin(struct run *run);

#endif
