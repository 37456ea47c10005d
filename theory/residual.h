// How much of a fresh gradient the span of m sampled gradients leaves over: tr(P Sigma) = E |P g|^2, where P projects
// on the null space of the samples M [m, n]. This is what bounds and predicts the error of every rounding with
// M (x - y) = 0 (theory/error_law.h); error-law.md derives
//     tr(P Sigma) ~ m mu,   where mu solves   sum_k lambda_k / (lambda_k + mu) = m.
//
//     struct power_law law = {.n = 4096, .alpha = 2, .scale = 1};
//     double energy;
//     TRY(residual_energy_power_law(&law, 16, &energy));   // 0.145
#ifndef DQ_THEORY_RESIDUAL_H
#define DQ_THEORY_RESIDUAL_H

#include "theory/power_law.h"

// mu for eigenvalues lambda [n] >= 0 in any order. 0 if m is at least the number of positive ones: the samples then
// span everything. STATUS_INVALID if m is not positive or an eigenvalue is negative or not finite.
enum status residual_mu(const double *lambda, int64_t n, double m, double *mu);
enum status residual_mu_power_law(const struct power_law *law, double m, double *mu);

// m mu; the trace of Sigma for m = 0.
enum status residual_energy(const double *lambda, int64_t n, double m, double *energy);
enum status residual_energy_power_law(const struct power_law *law, double m, double *energy);

// m mu for n -> infinity and m >> 1: scale ((pi / alpha) / sin(pi / alpha))^alpha m / (m + 1/2)^alpha. alpha > 1.
double residual_asymptote(double alpha, double scale, double m);

#endif
