// Methods that round a matrix from the Gram matrix of its inputs, in the order of the network ("true sequential"): q, k, v | o | gate,
// up | down of each layer, inputs from all matrices before them as they have been rounded. One pass through the network in all
// (core/nn/stream.h).
//
//     OUT/metrics.jsonl  a line per matrix: matrix, tokens, output_error (mean squared error of its outputs, per token and output),
//                        what the solver adds, seconds
//     OUT/result.json    output_error (sum over matrices), dead_inputs, fallbacks and fallback_layers: what did not go as asked
//
// After every --checkpoint-layers the state is kept: x of the layers done. A resumed run brings the windows through these layers.
#ifndef DQ_DISCQUANT_LAYERWISE_H
#define DQ_DISCQUANT_LAYERWISE_H

#include "discquant/hessian.h"
#include "discquant/method.h"

// One matrix to be rounded: host copies.
struct layerwise_matrix {
    const struct weight *weight;
    float *w, *scale; // [rows, cols] and as weight.scale
    float *x;         // [rows, cols] the result, what weight.x holds in the solver's form
    double error;     // tr((w - w') H (w - w')^T), the result
};

struct layerwise_solver {
    enum weight_form form; // WEIGHT_ROUNDED or WEIGHT_STRAIGHT: how the network uses x
    // Once for the matrices that share inputs, named `name` after the first; NULL: nothing to do.
    enum status (*prepare)(struct layerwise_solver *self, const struct hessian *hessian, const char *name);
    // Adds keys of its own to `line`.
    enum status (*solve)(struct layerwise_solver *self, const struct hessian *hessian, struct layerwise_matrix *matrix,
                         struct record *line);
    // What did not go as asked with the inputs just prepared; a new string, NULL for nothing. May be NULL itself.
    char *(*fallback)(const struct layerwise_solver *self);
};

enum status layerwise_run(struct run *run, struct layerwise_solver *solver);

#endif
