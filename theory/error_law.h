// What a rounding that keeps M (x - y) = 0 costs on fresh gradients. error-law.md derives, for a covariance whose
// eigenvectors are rotated at random,
//     E QE = |x - y|^2 / (n - m) tr(P Sigma),     QE = (x - y)^T Sigma (x - y),
// and |x - y|^2 / n of three kinds of rounding:
//     ROUNDER_MARTINGALE    a walk with E x = y that ends in a vertex      mean of y (1 - y)           1/6 if uniform
//     ROUNDER_CLOSEST       vertex closest to y (objective 1 - 2y)         mean of min(y, 1 - y)^2     1/12
//     ROUNDER_INDEPENDENT   vertex of an objective that ignores y          mean of 1/2 - y (1 - y)     1/3
//
//     TRY(residual_energy_power_law(&law, m, &energy));
//     double share = error_law_displacement(ROUNDER_MARTINGALE, NULL, 0);
//     double qe = error_law_predict(share * n, n, m, energy);
#ifndef DQ_THEORY_ERROR_LAW_H
#define DQ_THEORY_ERROR_LAW_H

#include <stdint.h>

enum rounder { ROUNDER_MARTINGALE, ROUNDER_CLOSEST, ROUNDER_INDEPENDENT };

// |x - y|^2 / n once all but O(m) coordinates are rounded, m << n; for y [n] in [0, 1], or NULL: uniform y.
double error_law_displacement(enum rounder rounder, const double *y, int64_t n);

// distance2 / (n - m) * energy. distance2 = |x - y|^2, energy = tr(P Sigma); 0 <= m < n. m = 0: no constraints.
double error_law_predict(double distance2, int64_t n, int64_t m, double energy);

#endif
