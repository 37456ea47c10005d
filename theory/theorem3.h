// What Theorem 3 promises of a rounding x of y, measured: d = x - y.
//
//     double kept = theorem3_kept(samples, m, n, d);          // (i)    0 up to rounding
//     bool good = theorem3_is_good(x, n);                     // (ii)   with probability THEOREM3_PROBABILITY at least
//     TRY(theorem3_covariance(draws, r, n, &norm));           // (iii)  O(1), from r draws of d
#ifndef DQ_THEORY_THEOREM3_H
#define DQ_THEORY_THEOREM3_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define THEOREM3_PROBABILITY 0.1

// (i) The largest |<g_i, d>| / (|g_i| |d|) over the rows of samples [m, n]; 0 where either is zero.
double theorem3_kept(const double *samples, int64_t m, int64_t n, const double *d);

// Coordinates that are exactly 0 or 1. x [n].
int64_t theorem3_integral(const double *x, int64_t n);

// (ii) At least n / 2 coordinates are integral.
bool theorem3_is_good(const double *x, int64_t n);

// (iii) Largest eigenvalue of (1 / r) sum d d^T over draws [r, n] of d. It is above the norm of E d d^T on average: by
// the factor theorem3_inflation if that is a multiple of the identity.
enum status theorem3_covariance(const double *draws, int64_t r, int64_t n, double *norm);

// (1 + sqrt(n / r))^2, the upper edge of the law of Marchenko and Pastur.
double theorem3_inflation(int64_t r, int64_t n);

#endif
