// T_k = sum_{j>k} lambda_j. Theorem A: for 0 <= k <= m, with delta_k = min(1, 2 exp(k - m / (152 beta))),
//     E tr(P Sigma) <= 3 T_k + delta_k T_0.
// Theorem B, Gaussian samples, 0 <= k <= m - 2: E tr(P Sigma) <= T_k (1 + k / (m - k - 1)).
#include "theory/sharper_bound.h"

#include <math.h>

static double tail(const struct hypothesis *h, int64_t k) { return power_law_sum(&h->law, k + 1, h->law.n); }

// Every k gives a bound; between two tried ones lies a factor of 2^(1/8) at most, or none.
static int64_t next(int64_t k) { return k < 16 ? k + 1 : k + k / 11; }

enum status sharper_bound(const struct hypothesis *h, double *energy) {
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    double trace = tail(h, 0), least = trace, budget = (double)h->m / (152 * h->beta);
    for (int64_t k = 1; k <= h->m && (double)k < budget; k = next(k))
        least = fmin(least, 3 * tail(h, k) + fmin(1, 2 * exp((double)k - budget)) * trace);
    *energy = least;
    return STATUS_OK;
}

enum status sharper_bound_gaussian(const struct hypothesis *h, double *energy) {
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    double least = tail(h, 0), m = (double)h->m;
    for (int64_t k = 1; k <= h->m - 2; k = next(k)) least = fmin(least, tail(h, k) * (m - 1) / (m - (double)k - 1));
    *energy = least;
    return STATUS_OK;
}

enum status sharper_bound_floor(const struct hypothesis *h, double *energy) {
    enum status status = hypothesis_check(h);
    if (status == STATUS_OK) *energy = tail(h, h->m);
    return status;
}

enum status sharper_bound_rate(const struct hypothesis *h, double *energy) {
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    double decay = h->law.alpha - 1, m = (double)h->m, least = 304 * h->beta * (1 + log(2) + decay * log(m));
    if (m < least)
        return status_set(STATUS_INVALID, "m = %lld samples, the closed form needs %.0f", (long long)h->m, ceil(least));
    *energy = h->law.scale * pow(m, -decay) * (3 * pow(304 * h->beta, decay) + h->law.alpha) / decay;
    return STATUS_OK;
}
