// A learning rate from short runs: an eighth of the steps (at least 16) each, with their own warmup and cosine, on all calibration windows but
// the last few (an eighth of them, at most 32), on which the KL divergence of the result is measured. First the powers of ten within a factor of
// 100 of the method's own rate; as long as the best is at the end of those tried, one further, at most 3; then half a decade to each side of the best.
// One line of metrics.jsonl per run: lr_search, kl_held_out (null where the run diverged). result.json gets lr, lr_search_kl.
#ifndef DQ_DISCQUANT_RATE_SEARCH_H
#define DQ_DISCQUANT_RATE_SEARCH_H

#include "discquant/run.h"

// Leaves x, or the latent weights, somewhere. STATUS_INVALID where fewer than two calibration windows are there, or every run diverged.
enum status rate_search(struct run *run, double *rate);

#endif
