// Quantization grids: the points a weight may be rounded to.
//
// A weight matrix w [rows, cols] is cut along its columns (the inputs) into groups of `group_size`; the last group of a
// row is shorter where the width is no multiple. Group k of row i has one scale s, and its weights may take the values
// s * level for the sorted levels of the codebook. Scales are rounded to fp16 before neighbours are taken, so that what
// is evaluated is what can be stored.
//
// The paper's block scaling (Section 4.1, after Frantar et al. 2024) with b bits: s = 2 max|w| / (2^b - 1), levels
// -2^(b-1) .. 2^(b-1) - 1. Its largest level lies half a step inside max|w|, so the largest weights of positive sign are outside the
// range and have no freedom: down = up.
#ifndef DQ_CORE_QUANT_GRID_H
#define DQ_CORE_QUANT_GRID_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GRID_LEVELS_MAX = 256 };

struct grid {
    int bits;
    int64_t group_size;   // -1 = the whole row
    double scale_divisor; // s = max|w| / scale_divisor
    int n_levels;
    float levels[GRID_LEVELS_MAX]; // ascending
    bool uniform;                  // levels are consecutive integers, so neighbours are floor and ceiling
};

struct neighbours {
    float down, up;
};

// bits 2 .. 8, group_size -1 or >= 1; STATUS_INVALID otherwise.
enum status grid_block(int bits, int64_t group_size, struct grid *out);

// Groups per row of a matrix of this width.
int64_t grid_groups(const struct grid *grid, int64_t cols);

// Number of columns in one (full) group of a matrix of this width.
int64_t grid_group_cols(const struct grid *grid, int64_t cols);

// The fp16-rounded scale of n weights (given as float); 0 for all zeros. Infinity when it exceeds fp16's range.
float grid_scale_of(const struct grid *grid, const float *w, int64_t n);

// Neighbours of one weight. The definition; backends vectorize it.
struct neighbours grid_neighbours(const struct grid *grid, float w, float scale);

#ifdef __cplusplus
}
#endif
#endif
