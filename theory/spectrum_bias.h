// What the eigenvalues of Sigma look like through N samples and a sketch to k dimensions: the bias of both
// Marchenko-Pastur steps, for every rank. Not in the paper, whose Figure 3 shows sampled eigenvalues.
//
//     struct power_law law = {.n = 65536, .alpha = 1.1, .scale = 1};
//     struct population population = population_power_law(&law);
//     TRY(spectrum_bias(&population, 2048, 512, ranks, n_ranks, expected));   // eigenvalue seen at each rank
//
// Y = Z diag(sqrt lambda) U^T S^T with z of variance 1 and E |S x|^2 = |x|^2; seen are the eigenvalues of Y^T Y / N. For
// samples of unequal scale, g = s x, N / kappa stands for N, kappa = E s^4 / (E s^2)^2.
#ifndef DQ_THEORY_SPECTRUM_BIAS_H
#define DQ_THEORY_SPECTRUM_BIAS_H

#include "theory/power_law.h"

// Eigenvalues of Sigma: a smooth falling function of the rank, or a list.
struct population {
    int64_t n;                                           // how many, >= 1
    double (*eigenvalue)(const void *context, double k); // > 0 and falling for 1 <= k <= n; NULL: list
    const void *context;
    const double *list; // [n] falling, >= 0, the first > 0
};

struct population population_power_law(const struct power_law *law); // borrows the law

// expected[i] = eigenvalue seen at rank ranks[i], counted from 1: where as many as ranks[i] - 1/2 are expected above.
// samples (N / kappa) and dim (k) > 0, may be INFINITY: that step is left out. Ranks rise and are at most
// 0.95 min(samples, dim, number of eigenvalues > 0). Relative error about 1e-3 from the binning of ranks, far below the
// error of the limit itself (1 to 4 % of an eigenvalue at ranks 3 to 300).
//
// STATUS_INVALID where these ranges do not hold or the equation is not solved.
enum status spectrum_bias(const struct population *population, double samples, double dim, const int64_t *ranks,
                          int64_t n_ranks, double *expected);

// First order: lambda_j is seen as lambda_j (1 + j c (1/N + 1/k)), c = -(pi/alpha) cot(pi/alpha), far from both ends;
// c > 0 (seen too large) for alpha < 2, 0 at 2. alpha > 1.
double spectrum_bias_first_order(double alpha);

#endif
