// Signed-gradient rounding of one decoder layer ("AutoRound": Cheng et al., "Optimize Weight Rounding via Signed Gradient Descent", 2023).
//
// Every weight has a variable V that is added to it in units of the grid's step before it is rounded to nearest; with y = (w - down) /
// (up - down) that is: up where x > 1/2, x = y + V. V starts at 0, round-to-nearest, and takes steps of equal size against the sign of the
// gradient of the layer's squared output error, which passes straight through the rounding,
//
//     x = projection onto [0, 1] of x - rate (1 - step / steps) sign(gradient)
//
// so that -y <= V <= 1 - y, and |V| <= 1/2 at the rate 1 / steps, whose steps add up to a half. Scales stay as they are. Inputs are those of
// the layers rounded before, outputs are compared with what the original layer makes of the original inputs. Each step sees a batch
// of windows; kept is the x that had the least error on its batch, relative to the outputs' squares there.
#ifndef DQ_DISCQUANT_BLOCK_ROUNDING_H
#define DQ_DISCQUANT_BLOCK_ROUNDING_H

#include "core/nn/rounding.h"
#include "core/nn/stream.h"

struct block_rounding_options {
    int64_t steps, batch; // windows per step; no more than there are
    double rate;          // of the first step; 0 = 1 / steps
    uint64_t seed;        // of the order of windows
};

struct block_rounding_result {
    double error_first,
        error;    // relative squared errors, at the first step (round-to-nearest) and of the x that is kept
    int64_t step; // it belongs to, counted from 0
};

// Rounds the matrices of layer inputs->layer: their x, in the form WEIGHT_ROUNDED. `inputs` stands before the layer, `targets` behind
// it. STATUS_INVALID when an error is not finite.
enum status block_rounding(struct rounding *rounding, struct step *step, const struct stream *inputs,
                           const struct stream *targets, const struct block_rounding_options *options,
                           struct block_rounding_result *result);

#endif
