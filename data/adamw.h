// AdamW (Loshchilov and Hutter 2019) on weights of a network, with what it needs beside each: a gradient, to which every pass of a step adds,
// and two moments, all F32.
//
//     TRY(adamw_new(backend, weights, n, &adamw));
//     TRY(adamw_zero(adamw));                        // then passes: step_backward adds to the gradients
//     for (int64_t i = 0; i < n; i++) TRY(adamw_update(adamw, i, params));
#ifndef DQ_DATA_ADAMW_H
#define DQ_DATA_ADAMW_H

#include "core/nn/transformer.h"
#include "data/checkpoint.h"

struct adamw {
    struct backend *backend;
    struct weight *weights; // [n], the owner's
    int64_t n;
    struct view *m, *v; // moments per weight
};

// Gives every weight a gradient and the sink that adds to it; adamw_free takes both away.
enum status adamw_new(struct backend *backend, struct weight *weights, int64_t n, struct adamw **out);
void adamw_free(struct adamw *adamw); // accepts NULL

// Gradients to 0.
enum status adamw_zero(const struct adamw *adamw);

// Weight i and its moments by its gradient, with the caller's rate, beta1, beta2, decay, step and factor; eps is 1e-8, nothing is projected.
enum status adamw_update(const struct adamw *adamw, int64_t i, struct adamw_params params);

// Weights and moments, in a checkpoint that must not outlive them, as PREFIXw.0, PREFIXm.0, PREFIXv.0, …, and back.
enum status adamw_save(const struct adamw *adamw, const char *prefix, struct checkpoint *state);
enum status adamw_load(struct adamw *adamw, const char *prefix, const struct checkpoint *state);

#endif
