// The quantity of Proposition 4: |Sigma_hat - Sigma|_S1, the sum of the absolute eigenvalues of the error of the
// empirical covariance Sigma_hat = (1 / m) sum g_i g_i^T.
//
//     for (int64_t i = 0; i < m; i++) gradients_row_eigen(gradients, GRADIENTS_SAMPLES, i, rows + i * n);
//     TRY(trace_norm_error(rows, m, lambda, n, &norm));
#ifndef DQ_THEORY_TRACE_NORM_H
#define DQ_THEORY_TRACE_NORM_H

#include "core/base/status.h"

#include <stdint.h>

enum { TRACE_NORM_MOST = 2048 }; // n; about a second and 32 MiB

// rows [m, n] are the samples in the basis where Sigma = diag(lambda), lambda [n]: the norm is the same in every basis.
// STATUS_UNSUPPORTED for n > TRACE_NORM_MOST, STATUS_INVALID for values that are not finite.
enum status trace_norm_error(const double *rows, int64_t m, const double *lambda, int64_t n, double *norm);

#endif
