// Spectra lambda_k = scale k^-alpha, k = 1 .. n: the model of the eigenvalues of the gradients' covariance Sigma
// (paper, section 1.1.2) and, where a bound asks for it, their envelope. Sums cost the same for n = 10^3 and n = 10^15.
//
//     struct power_law law = {.n = 1 << 20, .alpha = 1.5, .scale = 1};
//     double trace = power_law_sum(&law, 1, law.n);           // E |g|^2
//     double tail = power_law_sum(&law, k + 1, law.n);        // T_k
#ifndef DQ_THEORY_POWER_LAW_H
#define DQ_THEORY_POWER_LAW_H

#include "core/base/status.h"

#include <stdint.h>

struct power_law {
    int64_t n;    // number of weights, >= 1
    double alpha; // decay, >= 0; the paper's theorems ask for > 1
    double scale; // the paper's C, > 0; gradient squared
};

// STATUS_INVALID unless the ranges above hold.
enum status power_law_check(const struct power_law *law);

// lambda_k, k >= 1.
double power_law_eigenvalue(const struct power_law *law, int64_t k);

// Sum of lambda_k over first <= k <= last; 0 if there is no such k. first >= 1. Relative error about 1e-12.
double power_law_sum(const struct power_law *law, int64_t first, int64_t last);

// Sum over k of lambda_k / (lambda_k + mu), the number of directions above mu > 0. Relative error about 1e-11.
double power_law_directions(const struct power_law *law, double mu);

#endif
