// Scales and offsets of a weight matrix on a grid, by the rules of core/quant/grid.h, on the host.
//
// With SCALE_SEARCH_MSE the scale is the one of some candidates that the grid can store with the least sum over the group of
// (w - nearest value)^2, the rule's own in a tie:
//   q3_k     all 64 multiples of the rule's d, for each group
//   mxfp4    2^(k - 2) .. 2^(k + 1), k of the rule
//   nvfp4    the rule's scale times 0.40, 0.41, …, 1.20, the number of the tensor as it is
//   others   the rule's scale times 0.40, 0.41, …, 1.20; q4_0 also the same with the opposite sign; asymmetric and q4_1: the range
//            between least and largest weight times that, asymmetric about 0, q4_1 about its middle
#ifndef DQ_CORE_QUANT_GRID_FIT_H
#define DQ_CORE_QUANT_GRID_FIT_H

#include "core/quant/grid.h"

#ifdef __cplusplus
extern "C" {
#endif

// w [rows, cols], scale [rows, grid_scale_cols]. grid_check has passed. STATUS_FORMAT with the tensor's name when a weight is not
// finite, or a scale or an offset leaves its number format.
enum status grid_fit(const struct grid *grid, const char *name, const float *w, int64_t rows, int64_t cols,
                     float *scale);

#ifdef __cplusplus
}
#endif
#endif
