// Proposition 4 with constants, after appendix B. Blocks J_p = {2^p, …, 2^(p+1) - 1}, p >= 0, with S_p = sum of lambda
// over J_p <= scale q^p, q = 2^(1-alpha) < 1. Claim I holds with beta instead of 2 beta + 2, as a variance is at most
// the second moment: E |X_ij - Sigma_ij|^2 <= E[h_i^2 h_j^2] / m <= beta lambda_i lambda_j / m. Claim II: a block of
// rank <= r has E |X - Sigma|_S1 <= sqrt(r beta S_p S_k / m). So
//     E |X - Sigma|_S1 <= 2 sum_{p<k} sqrt(beta min(m, 2^p) S_p S_k / m) + sum_p min(sqrt(beta 2^p / m), 2) S_p
// which is rates_proposition4_blocks. With s_p = min(1, sqrt(2^p / m)) q^p and
// sum_{k>p} q^(k/2) = q^(p/2) sqrt(q) / (1 - sqrt(q)) it is
//     <= scale A sum_p s_p,   A = 2 sqrt(beta q) / (1 - sqrt(q)) + max(sqrt(beta), 2).
// With r = sqrt(2) q = 2^(3/2 - alpha), sum_p s_p is at most
//     alpha < 3/2: m^(1-alpha) (r / (r - 1) + 1 / (1 - q));
//     alpha = 3/2: (1 + log2 n) / sqrt(m) <= (1 / log 2 + 1 / log 16) log(n) / sqrt(m) for n >= 16;
//     alpha > 3/2: 1 / ((1 - r) sqrt(m)).
#include "theory/rates.h"

#include <math.h>

enum status hypothesis_check(const struct hypothesis *h) {
    enum status status = power_law_check(&h->law);
    if (status != STATUS_OK) return status;
    if (!(h->law.alpha > 1)) return status_set(STATUS_INVALID, "alpha = %g, the theorems need > 1", h->law.alpha);
    if (!(h->beta >= 1 && isfinite(h->beta)))
        return status_set(STATUS_INVALID, "beta = %g, must be >= 1 and finite", h->beta);
    if (h->m < 1 || h->m > h->law.n)
        return status_set(STATUS_INVALID, "m = %lld samples, must be in 1 … n = %lld", (long long)h->m,
                          (long long)h->law.n);
    return STATUS_OK;
}

static double f_alpha(double alpha, double m, double n) {
    if (alpha < 1.5) return pow(m, 1 - alpha);
    return (alpha > 1.5 ? 1 : log(n)) / sqrt(m);
}

enum status rates_f_alpha(const struct hypothesis *h, double *f) {
    enum status status = hypothesis_check(h);
    if (status == STATUS_OK) *f = f_alpha(h->law.alpha, (double)h->m, (double)h->law.n);
    return status;
}

static enum status theorem2_check(const struct hypothesis *h, double constant) {
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    if (h->m > h->law.n / 16)
        return status_set(STATUS_INVALID, "Theorem 2: m = %lld samples, must be at most n / 16 = %lld", (long long)h->m,
                          (long long)(h->law.n / 16));
    if (!(constant > 0 && isfinite(constant)))
        return status_set(STATUS_INVALID, "Theorem 2: constant = %g, must be > 0", constant);
    return STATUS_OK;
}

static double theorem2(const struct hypothesis *h, double constant, int64_t m) {
    double n = (double)h->law.n;
    return constant * h->law.scale * log(n / (double)m) * f_alpha(h->law.alpha, (double)m, n);
}

enum status rates_theorem2(const struct hypothesis *h, double constant, double *error) {
    enum status status = theorem2_check(h, constant);
    if (status == STATUS_OK) *error = theorem2(h, constant, h->m);
    return status;
}

int64_t rates_fractional(int64_t m) {
    REQUIRE(m >= 0 && m <= INT64_MAX / 16, "number of samples");
    return 16 * m;
}

enum status rates_samples(const struct hypothesis *h, double constant, double error, int64_t *m) {
    struct hypothesis most = *h;
    most.m = h->law.n / 16;
    enum status status = theorem2_check(&most, constant);
    if (status != STATUS_OK) return status;
    if (!(theorem2(h, constant, most.m) <= error))
        return status_set(STATUS_INVALID, "Theorem 2: n = %lld is too small for an error of %g", (long long)h->law.n,
                          error);
    // The bound falls with m.
    int64_t low = 0, high = most.m;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (theorem2(h, constant, middle) <= error)
            high = middle;
        else
            low = middle;
    }
    *m = high;
    return STATUS_OK;
}

enum status rates_proposition4_constant(double alpha, double beta, double *constant) {
    struct hypothesis h = {.law = {.n = 1, .alpha = alpha, .scale = 1}, .beta = beta, .m = 1};
    enum status status = hypothesis_check(&h);
    if (status != STATUS_OK) return status;
    double q = exp2(1 - alpha), r = exp2(1.5 - alpha);
    double a = 2 * sqrt(beta * q) / (1 - sqrt(q)) + fmax(sqrt(beta), 2);
    if (alpha < 1.5)
        *constant = a * (r / (r - 1) + 1 / (1 - q));
    else if (alpha > 1.5)
        *constant = a / (1 - r);
    else
        *constant = a * (1 / log(2) + 1 / log(16));
    return STATUS_OK;
}

enum status rates_proposition4(const struct hypothesis *h, double *bound) {
    double constant;
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    if (h->law.n < 16)
        return status_set(STATUS_INVALID, "Proposition 4: n = %lld, the constant needs >= 16", (long long)h->law.n);
    status = rates_proposition4_constant(h->law.alpha, h->beta, &constant);
    if (status == STATUS_OK) *bound = constant * h->law.scale * f_alpha(h->law.alpha, (double)h->m, (double)h->law.n);
    return status;
}

enum status rates_proposition4_blocks(const struct hypothesis *h, double *bound) {
    enum status status = hypothesis_check(h);
    if (status != STATUS_OK) return status;
    double sums[64], size = 1, m = (double)h->m, sum = 0;
    int n_blocks = 0;
    for (int64_t first = 1; first <= h->law.n; n_blocks++) {
        int64_t last = first <= h->law.n / 2 ? 2 * first - 1 : h->law.n;
        sums[n_blocks] = power_law_sum(&h->law, first, last);
        first = last + 1;
    }
    for (int p = 0; p < n_blocks; p++, size *= 2) {
        for (int k = p + 1; k < n_blocks; k++) sum += 2 * sqrt(h->beta * fmin(1, size / m) * sums[p] * sums[k]);
        sum += fmin(sqrt(h->beta * size / m), 2) * sums[p];
    }
    *bound = sum;
    return STATUS_OK;
}
