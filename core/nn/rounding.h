// A model prepared for rounding: its linear weights on a grid, one variable x in [0, 1] for each of them.
//
//     TRY(rounding_new(model, &grid, DTYPE_F32, &rounding)); // scales and neighbours
//     TRY(rounding_to_nearest(rounding));                  // or an optimizer that moves x
//     transformer_set_form(model, rounding->form);         // evaluate, save
//
// A method leaves its result in x and `form`, which is what evaluates, saves and exports it: WEIGHT_ROUNDED, up where x > 1/2, else down; or
// WEIGHT_STRAIGHT, the grid point nearest to x, where x holds latent weights that may have left the two neighbours.
#ifndef DQ_CORE_NN_ROUNDING_H
#define DQ_CORE_NN_ROUNDING_H

#include "core/nn/transformer.h"

struct rounding {
    struct transformer *model; // borrowed; its linear weights have grid, scale and x until rounding_free
    struct grid grid;
    enum weight_form form;  // of the result: WEIGHT_ROUNDED (at first) or WEIGHT_STRAIGHT
    int64_t weights;        // in the linear layers
    int64_t fixed;          // of these without freedom: outside the grid's range or exactly on it
    int64_t groups;         // scales
    double bits_per_weight; // grid_bits_per_weight over all of them
    double step2; // mean over matrices of 12 mean (nearest - w)^2: the grid step squared, had errors been uniform
};

// x has the given dtype, F32 or BF16. STATUS_FORMAT when a scale leaves its number format, STATUS_INVALID when the width of a matrix
// does not suit the grid.
enum status rounding_new(struct transformer *model, const struct grid *grid, enum dtype x, struct rounding **out);
void rounding_free(struct rounding *rounding); // accepts NULL

// x = y: the point of the original weights, whose rounding is round-to-nearest. The form becomes WEIGHT_ROUNDED.
enum status rounding_to_nearest(struct rounding *rounding);

// x uniform in [0, 1) from Philox (seed, RNG_INIT + index of the weight), in BF16 rounded to nearest; 0 where there is no
// freedom.
enum status rounding_random(struct rounding *rounding, uint64_t seed);

// Share of weights with |x - 0| or |x - 1| <= 0.01. After rounding_random weights without freedom are integral (x = 0).
enum status rounding_fraction_integral(const struct rounding *rounding, double *fraction);

// Every x from host values [weights], in the order of the network.
enum status rounding_set(struct rounding *rounding, const double *x);

// Neighbours of one weight's stored values: host [rows, cols] each. down = up where there is no freedom.
enum status rounding_neighbours(const struct rounding *rounding, const struct weight *weight, float *down, float *up);

// The result of one matrix, as a saved model holds it: host arrays of the caller.

// values [rows, cols].
enum status rounding_values(const struct rounding *rounding, const struct weight *weight, float *values);

// codes [rows, cols] and scale [rows, grid_scale_cols]: grid_value of them are the values to the bit.
enum status rounding_codes(const struct rounding *rounding, const struct weight *weight, uint8_t *codes);
enum status rounding_scales(const struct rounding *rounding, const struct weight *weight, float *scale);

// Latent weights [rows, cols] of one matrix, whose numbers are lost. The form becomes WEIGHT_STRAIGHT, so that every other matrix needs some
// too. Values on the grid come back as they are where x is F32; in BF16 up to 6 bits.
enum status rounding_set_latent(struct rounding *rounding, const struct weight *weight, float *latent);

#endif
