// A bound that is sharper than Theorem 2's for alpha >= 3/2 and is not in the paper:
// E tr(P Sigma) = O(scale m^(1-alpha)) for every alpha > 1, under the paper's own assumption (beta-reasonable samples).
// sharper-bound.md proves it. With it
//     E QE <= v E tr(P Sigma)
// for every rounding with M (x - y) = 0 and |E[(x - y)(x - y)^T | M]|_S(inf) <= v for every M.
//
//     struct hypothesis h = {.law = {.n = 1 << 20, .alpha = 2, .scale = 1}, .beta = 3, .m = 4096};
//     double energy;
//     TRY(sharper_bound(&h, &energy));
//
// STATUS_INVALID outside the domain of hypothesis_check.
#ifndef DQ_THEORY_SHARPER_BOUND_H
#define DQ_THEORY_SHARPER_BOUND_H

#include "theory/rates.h"

// Upper bound on E tr(P Sigma), the best over k of 3 T_k + delta_k T_0 (Theorem A). Holds for every n, m. The constants
// are those of a proof: below m of some hundreds times beta, for alpha < 1.5 of thousands, the bound is the trace, T_0.
enum status sharper_bound(const struct hypothesis *h, double *energy);

// The same for Gaussian samples, the best over k of T_k (m - 1) / (m - k - 1) (Theorem B; Halko, Martinsson and Tropp,
// SIAM Review 2011, Theorem 10.5): within a small factor of the truth. beta plays no part.
enum status sharper_bound_gaussian(const struct hypothesis *h, double *energy);

// Lower bound on tr(P Sigma) for every sample, if lambda_k = scale k^-alpha: T_m, as P has rank n - m or more.
enum status sharper_bound_floor(const struct hypothesis *h, double *energy);

// Closed form of sharper_bound: scale m^(1-alpha) (3 (304 beta)^(alpha-1) + alpha) / (alpha - 1). STATUS_INVALID also
// for m < 304 beta (1 + log 2 + (alpha - 1) log m), where it need not hold.
enum status sharper_bound_rate(const struct hypothesis *h, double *energy);

#endif
