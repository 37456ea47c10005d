// The paper's statements as numbers: F_alpha and Theorems 1 and 2 (section 2), Proposition 4 (section 2.2, appendix B).
//
//     struct hypothesis h = {.law = {.n = 1 << 20, .alpha = 1.25, .scale = 1}, .beta = 3, .m = 256};
//     double f, error;
//     TRY(rates_f_alpha(&h, &f));
//     TRY(rates_theorem2(&h, 1, &error));
//
// Every function returns STATUS_INVALID outside the domain of its statement. Logarithms are natural.
#ifndef DQ_THEORY_RATES_H
#define DQ_THEORY_RATES_H

#include "theory/power_law.h"

// What the statements assume: m independent samples of a beta-reasonable distribution on R^n,
// E <g, v>^4 <= beta (E <g, v>^2)^2 for all v, whose Sigma = E g g^T has eigenvalues lambda_k <= scale k^-alpha.
struct hypothesis {
    struct power_law law;
    double beta; // >= 1
    int64_t m;   // samples, 1 <= m <= n
};

// alpha > 1, beta >= 1, 1 <= m <= n and a sound law.
enum status hypothesis_check(const struct hypothesis *h);

// F_alpha(m, n) of Theorem 2: m^(1-alpha) for alpha < 3/2, log(n) / sqrt(m) for alpha = 3/2, 1 / sqrt(m) above. beta
// and scale play no part.
enum status rates_f_alpha(const struct hypothesis *h, double *f);

// Theorem 2 (ii): constant * scale * log(n / m) * F_alpha(m, n), a bound on E <g, x - y>^2. `constant` is what the
// paper's sign hides; it depends on alpha and beta. m <= n / 16.
enum status rates_theorem2(const struct hypothesis *h, double constant, double *error);

// Theorem 2 (i): coordinates that may stay fractional.
int64_t rates_fractional(int64_t m);

// Theorem 1: samples that make Theorem 2's bound at most `error` (squared, as there); m <= n / 16.
// STATUS_INVALID if no such m is enough.
enum status rates_samples(const struct hypothesis *h, double constant, double error, int64_t *m);

// Proposition 4 with what its sign hides written out: E |Sigma_hat - Sigma|_S1 <= K scale F_alpha(m, n) (K: rates.c).
// n >= 16. K grows without bound as alpha nears 3/2 from either side, or 1.
enum status rates_proposition4(const struct hypothesis *h, double *bound);
enum status rates_proposition4_constant(double alpha, double beta, double *constant);

// The sum over dyadic blocks from which the proof reads that bound, before the sums are estimated: smaller, and true
// for any n.
enum status rates_proposition4_blocks(const struct hypothesis *h, double *bound);

#endif
