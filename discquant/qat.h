// Quantization-aware training by distillation, the paper's baseline (Table 4): latent weights start at the original ones, the network is
// their rounding to the nearest points of the grid, whose scales stay, and AdamW moves them by the gradient of the KL divergence from the
// original network, passed straight through the rounding (Bengio, Leonard and Courville 2013). Cosine schedule with warmup; a weight may leave
// the two neighbours of its original.
#ifndef DQ_DISCQUANT_QAT_H
#define DQ_DISCQUANT_QAT_H

#include "core/nn/rounding.h"

// Latent weights = the original ones; the form becomes WEIGHT_STRAIGHT.
enum status qat_start(struct rounding *rounding);

#endif
