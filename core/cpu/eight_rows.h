// Products eight rows at a time, with the sums in registers: tiles of attention, weight gradients of small matrices.
#ifndef DQ_CORE_CPU_EIGHT_ROWS_H
#define DQ_CORE_CPU_EIGHT_ROWS_H

#include "core/cpu/lanes.h"

#include <stdbool.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

// c [8, vectors * lanes] (+)= a [8, k] b [k, .]; a_(i, e) = a[i a_row + e a_col].
#define DEFINE_EIGHT_ROWS(name, vec, vectors)                                                                          \
    static inline __attribute__((always_inline)) void name(const float *a, int64_t a_row, int64_t a_col,               \
                                                           const float *b, int64_t b_row, float *c, int64_t c_row,     \
                                                           int64_t k, bool add) {                                      \
        enum { N = sizeof(vec) / sizeof(float) };                                                                      \
        vec sum[8][vectors];                                                                                           \
        UNROLL for (int i = 0; i < 8; i++) UNROLL for (int j = 0; j < vectors; j++) {                                  \
            if (add)                                                                                                   \
                sum[i][j] = *(const vec *)(c + i * c_row + j * N);                                                     \
            else                                                                                                       \
                sum[i][j] = (vec){0};                                                                                  \
        }                                                                                                              \
        for (int64_t e = 0; e < k; e++, a += a_col, b += b_row) {                                                      \
            vec b_e[vectors];                                                                                          \
            UNROLL for (int j = 0; j < vectors; j++) b_e[j] = *(const vec *)(b + j * N);                               \
            UNROLL for (int i = 0; i < 8; i++) UNROLL for (int j = 0; j < vectors; j++) sum[i][j] +=                   \
                a[i * a_row] * b_e[j];                                                                                 \
        }                                                                                                              \
        UNROLL for (int i = 0; i < 8; i++) UNROLL for (int j = 0; j < vectors; j++) * (vec *)(c + i * c_row + j * N) = \
            sum[i][j];                                                                                                 \
    }

DEFINE_EIGHT_ROWS(eight_rows_two, lanes, 2)
DEFINE_EIGHT_ROWS(eight_rows_one, lanes, 1)
DEFINE_EIGHT_ROWS(eight_rows_half, half_lanes, 1)

// The same for n columns, n a multiple of 8.
static inline __attribute__((always_inline)) void eight_rows(const float *a, int64_t a_row, int64_t a_col,
                                                             const float *b, int64_t b_row, float *c, int64_t c_row,
                                                             int64_t n, int64_t k, bool add) {
    int64_t j = 0;
    if (LANES == 16) // sixteen accumulators need the registers of AVX-512
        for (; j + 2 * LANES <= n; j += 2 * LANES) eight_rows_two(a, a_row, a_col, b + j, b_row, c + j, c_row, k, add);
    for (; j + LANES <= n; j += LANES) eight_rows_one(a, a_row, a_col, b + j, b_row, c + j, c_row, k, add);
    for (; j < n; j += LANES / 2) eight_rows_half(a, a_row, a_col, b + j, b_row, c + j, c_row, k, add);
}

#endif
