// Equations, for samples x_i [r], i < n, and their second moment M = (1/n) sum x_i x_i^T = L L^T:
//     h_i = L^-1 x_i                         whitened, (1/n) sum h_i h_i^T = 1
//     beta(u) = (1/n) sum <h_i, u>^4         |u| = 1; the direction L^-T u in the coordinates of x
//     u <- normalise((1/n) sum <h_i, u>^3 h_i)   does not lower beta(u), which is convex in u (Regalia and Kofidis, 2003)
// The ratio of one direction: m4 / m2^2, m_p = mean x^p. Leaving sample i out gives log(m4') - 2 log(m2'), m_p' = (n m_p - x_i^p) /
// (n - 1); the standard error is the root of (n - 1) / n times their summed squares around their mean (Quenouille, Tukey).
#include "spectra/beta.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STARTS = 12, STARTS_AT_SAMPLES = 6, ITERATIONS = 500, PARTS = 32, DIMS_LEAST = 8 };

// ---- one direction ----

struct beta_ratio beta_ratio(const double *products, int64_t n) {
    double sum2 = 0, sum4 = 0, largest = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(products[i]));
    if (!(scale > 0) || !isfinite(scale) || n < 3) return (struct beta_ratio){NAN, NAN, NAN, NAN, NAN, NAN};
    for (int64_t i = 0; i < n; i++) {
        double square = products[i] / scale * (products[i] / scale);
        sum2 += square;
        sum4 += square * square;
        largest = fmax(largest, square);
    }
    double count = (double)n, left = count - 1, value = log(count * sum4 / (sum2 * sum2)), shift = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        double square = products[i] / scale * (products[i] / scale), rest2 = sum2 - square,
               rest4 = sum4 - square * square;
        double without = log(left * fmax(rest4, 1e-300) / (rest2 * rest2)) - value;
        shift += without;
        squares += without * without;
    }
    squares -= shift * shift / count;
    struct beta_ratio ratio = {.value = exp(value), .log_se = sqrt(left / count * fmax(squares, 0))};
    // Without the rest of a single number there is nothing but rounding.
    if (sum2 - largest <= 1e-14 * sum2) ratio.log_se = INFINITY;
    double rest2 = sum2 - largest;
    ratio.low = ratio.value * exp(-1.96 * ratio.log_se);
    ratio.high = ratio.value * exp(1.96 * ratio.log_se);
    ratio.without_largest = rest2 > 0 ? left * (sum4 - largest * largest) / (rest2 * rest2) : NAN;
    ratio.largest_share = largest * largest / sum4;
    return ratio;
}

int64_t beta_directions_known(int64_t n) {
    int64_t r = (int64_t)(sqrt((double)n) / 2);
    while (4 * (r + 1) * (r + 1) <= n) r++;
    while (4 * r * r > n) r--;
    return r;
}

// ---- whitening ----

struct whitened {
    double *h;      // [n, r]
    double *factor; // [r, r] L, lower
    int64_t n, r;
};

static void whitened_free(struct whitened *w) {
    mem_buffer_free(w->h);
    mem_buffer_free(w->factor);
}

// sum of h_i h_i^T / n, in parts whose size n alone decides.
static enum status second_moment(const double *x, int64_t n, int64_t r, int64_t stride, double *out) {
    void *buffer = NULL;
    enum status status = mem_buffer_new(PARTS * r * r * 8, "sums of parts", &buffer);
    if (status != STATUS_OK) return status;
    double *partial = buffer;
#pragma omp parallel for schedule(dynamic)
    for (int64_t part = 0; part < PARTS; part++) {
        int64_t first = n * part / PARTS, count = n * (part + 1) / PARTS - first;
        double *sum = partial + part * r * r;
        memset(sum, 0, (size_t)(r * r) * sizeof *sum);
        if (count)
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)r, (int)r, (int)count, 1, x + first * stride,
                        (int)stride, x + first * stride, (int)stride, 0, sum, (int)r);
    }
    for (int64_t k = 0; k < r * r; k++) {
        double sum = 0;
        for (int64_t part = 0; part < PARTS; part++) sum += partial[part * r * r + k];
        out[k] = sum / (double)n;
    }
    mem_buffer_free(buffer);
    return STATUS_OK;
}

// L of the second moment: of its correlations, so that coordinates of any size are factored alike.
static enum status factor_moment(double *moment, int64_t r) {
    double *root = mem_new((size_t)r, sizeof *root);
    bool good = true;
    for (int64_t a = 0; a < r; a++) {
        root[a] = sqrt(moment[a * r + a]);
        good = good && root[a] > 0 && isfinite(root[a]);
    }
    for (int64_t a = 0; good && a < r; a++)
        for (int64_t b = 0; b < r; b++) moment[a * r + b] /= root[a] * root[b];
    good = good && LAPACKE_dpotrf_work(LAPACK_ROW_MAJOR, 'L', (lapack_int)r, moment, (lapack_int)r) == 0;
    for (int64_t a = 0; good && a < r; a++) good = moment[a * r + a] > 1e-7;
    for (int64_t a = 0; good && a < r; a++)
        for (int64_t b = 0; b < r; b++) moment[a * r + b] = b <= a ? moment[a * r + b] * root[a] : 0;
    free(root);
    if (good) return STATUS_OK;
    return status_set(STATUS_INVALID, "beta: the samples span fewer than %lld directions, ask for fewer", (long long)r);
}

static enum status whiten(const double *x, int64_t n, int64_t r, int64_t stride, struct whitened *out) {
    enum status status = STATUS_OK;
    struct whitened w = {.n = n, .r = r};
    void *h = NULL, *factor = NULL;
    if (n < r + 1)
        return status_set(STATUS_INVALID, "beta: %lld samples are too few for %lld directions", (long long)n,
                          (long long)r);
    TRY(mem_buffer_new(n * r * 8, "whitened samples", &h));
    TRY(mem_buffer_new(r * r * 8, "second moment", &factor));
    w.h = h, w.factor = factor;
    TRY(second_moment(x, n, r, stride, w.factor));
    TRY(factor_moment(w.factor, r));
    for (int64_t i = 0; i < n; i++) memcpy(w.h + i * r, x + i * stride, (size_t)r * sizeof *w.h);
#pragma omp parallel for schedule(dynamic)
    for (int64_t part = 0; part < PARTS; part++) {
        int64_t first = n * part / PARTS, count = n * (part + 1) / PARTS - first;
        if (count)
            cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (int)count, (int)r, 1,
                        w.factor, (int)r, w.h + first * r, (int)r);
    }
    *out = w;
    h = factor = NULL;
done:
    mem_buffer_free(h);
    mem_buffer_free(factor);
    return status;
}

// |(1/n) sum h h^T - 1| at most: what rounding left of the covariance.
static enum status whitening_defect(const struct whitened *w, double *out) {
    int64_t r = w->r;
    double *moment = mem_new((size_t)(r * r), sizeof *moment), sum = 0;
    enum status status = second_moment(w->h, w->n, r, r, moment);
    for (int64_t a = 0; a < r; a++)
        for (int64_t b = 0; b < r; b++) {
            double difference = moment[a * r + b] - (a == b);
            sum += difference * difference;
        }
    free(moment);
    *out = sqrt(sum);
    return status;
}

static double norm2(const double *h, int64_t r) { return cblas_ddot((int)r, h, 1, h, 1); }

// ---- power iteration ----

// Rows of u [STARTS, r], unit: the samples of the largest norm, then random ones.
static void start_directions(const struct whitened *w, uint64_t seed, double *u) {
    int64_t r = w->r, taken[STARTS_AT_SAMPLES];
    for (int k = 0; k < STARTS; k++) {
        double *row = u + k * r;
        int64_t best = -1;
        for (int64_t i = 0; k < STARTS_AT_SAMPLES && i < w->n; i++) {
            bool used = false;
            for (int j = 0; j < k; j++) used = used || taken[j] == i;
            if (!used && (best < 0 || norm2(w->h + i * r, r) > norm2(w->h + best * r, r))) best = i;
        }
        struct rng rng = {.seed = seed, .stream = RNG_INIT + (uint64_t)k};
        for (int64_t a = 0; a < r; a++) row[a] = best >= 0 ? w->h[best * r + a] : rng_normal(rng, (uint64_t)a);
        if (k < STARTS_AT_SAMPLES) taken[k] = best;
        cblas_dscal((int)r, 1 / sqrt(norm2(row, r)), row, 1);
    }
}

// One part's share of values[k] = sum <h, u_k>^4 and next[k] = sum <h, u_k>^3 h.
static void cube_part(const struct whitened *w, int64_t part, const double *u, double *products, double *values,
                      double *next) {
    int64_t r = w->r, first = w->n * part / PARTS, count = w->n * (part + 1) / PARTS - first;
    const double *h = w->h + first * r;
    double *p = products + first * STARTS;
    memset(values, 0, STARTS * sizeof *values);
    memset(next, 0, (size_t)(STARTS * r) * sizeof *next);
    if (!count) return;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)count, STARTS, (int)r, 1, h, (int)r, u, (int)r, 0, p,
                STARTS);
    for (int64_t i = 0; i < count; i++)
        for (int k = 0; k < STARTS; k++) {
            double q = p[i * STARTS + k], cube = q * q * q;
            values[k] += cube * q;
            p[i * STARTS + k] = cube;
        }
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, STARTS, (int)r, (int)count, 1, p, STARTS, h, (int)r, 0, next,
                (int)r);
}

// All starts take a step together. `parts`: PARTS times (STARTS values, STARTS * r sums).
static void power_step(const struct whitened *w, double *u, double *products, double *parts, double *values) {
    int64_t r = w->r, each = STARTS * (r + 1);
#pragma omp parallel for schedule(dynamic)
    for (int64_t part = 0; part < PARTS; part++)
        cube_part(w, part, u, products, parts + part * each, parts + part * each + STARTS);
    for (int64_t k = 1; k < PARTS; k++) cblas_daxpy((int)each, 1, parts + k * each, 1, parts, 1);
    for (int k = 0; k < STARTS; k++) {
        double *row = u + k * r, *next = parts + STARTS + k * r, length = sqrt(norm2(next, r));
        values[k] = parts[k] / (double)w->n;
        for (int64_t a = 0; length > 0 && a < r; a++) row[a] = next[a] / length;
    }
}

static void products_with(const double *x, int64_t n, int64_t r, int64_t stride, const double *u, double *products) {
#pragma omp parallel for
    for (int64_t i = 0; i < n; i++) products[i] = cblas_ddot((int)r, x + i * stride, 1, u, 1);
}

// The row of u [STARTS, r] whose ratio, or the low end of whose interval, is the largest.
static int choose(const struct whitened *w, const double *u, bool by_low_end, double *products, double *score) {
    int winner = 0;
    *score = -INFINITY;
    for (int k = 0; k < STARTS; k++) {
        products_with(w->h, w->n, w->r, w->r, u + k * w->r, products);
        struct beta_ratio ratio = beta_ratio(products, w->n);
        double value = by_low_end ? ratio.low : ratio.value;
        if (value > *score) *score = value, winner = k;
    }
    return winner;
}

// The unit u [r] of the largest score among the ends of all iterations, which stop when no start gains 1e-12 of its fourth moment
// any more.
static enum status power_iteration(const struct whitened *w, uint64_t seed, bool by_low_end, double *best,
                                   double *score) {
    enum status status = STATUS_OK;
    int64_t r = w->r;
    void *u = NULL, *products = NULL, *parts = NULL;
    double values[STARTS], before[STARTS] = {0};
    TRY(mem_buffer_new(STARTS * r * 8, "directions", &u));
    TRY(mem_buffer_new(w->n * STARTS * 8, "products", &products));
    TRY(mem_buffer_new(PARTS * STARTS * (r + 1) * 8, "sums of parts", &parts));
    start_directions(w, seed, u);
    for (int k = 0; k < ITERATIONS; k++) {
        power_step(w, u, products, parts, values);
        bool gains = false;
        for (int j = 0; j < STARTS; j++) gains = gains || values[j] > before[j] * (1 + 1e-12);
        memcpy(before, values, sizeof before);
        if (!gains) break;
    }
    int winner = choose(w, u, by_low_end, products, score);
    memcpy(best, (const double *)u + winner * r, (size_t)r * sizeof *best);
done:
    mem_buffer_free(u);
    mem_buffer_free(products);
    mem_buffer_free(parts);
    return status;
}

// u -> L^-T u, which has the same inner products with x as u with h.
static void direction_of_rows(const struct whitened *w, double *u) {
    cblas_dtrsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, (int)w->r, w->factor, (int)w->r, u, 1);
}

enum status beta_propose(const double *x, int64_t n, int64_t r, int64_t stride, uint64_t seed, double *proposed) {
    enum status status = STATUS_OK;
    struct whitened w = {0};
    double *u = mem_new((size_t)r, sizeof *u), score, best = -INFINITY;
    for (int64_t dims = r; status == STATUS_OK; dims /= 2) {
        status = whiten(x, n, dims, stride, &w);
        if (status == STATUS_OK) status = power_iteration(&w, seed, true, u, &score);
        if (status == STATUS_OK && score > best) {
            best = score;
            direction_of_rows(&w, u);
            memset(proposed, 0, (size_t)r * sizeof *proposed);
            memcpy(proposed, u, (size_t)dims * sizeof *proposed);
        }
        whitened_free(&w);
        w = (struct whitened){0};
        if (dims < 2 * DIMS_LEAST) break;
    }
    free(u);
    return status;
}

// ---- a sample ----

static void leverage(const struct whitened *w, struct beta_sample *out) {
    double largest = 0, sum = 0, n = (double)w->n, r = (double)w->r;
    for (int64_t i = 0; i < w->n; i++) {
        double square = norm2(w->h + i * w->r, w->r);
        largest = fmax(largest, square);
        sum += square * square;
    }
    out->leverage_low = largest * largest / n;
    out->leverage_high = largest;
    out->average = 3 * sum / n / (r * (r + 2));
}

enum status beta_of_sample(const double *x, int64_t n, int64_t r, int64_t stride, uint64_t seed,
                           struct beta_sample *out, double *best) {
    REQUIRE(r >= 1 && stride >= r, "at least one direction");
    enum status status = STATUS_OK;
    struct whitened w = {0};
    struct beta_sample result = {.directions = r};
    struct beta_certificate certificate;
    double *u = mem_new((size_t)r, sizeof *u), defect, score;
    void *products = NULL;
    TRY(whiten(x, n, r, stride, &w));
    TRY(mem_buffer_new(n * 8, "products", &products));
    TRY(whitening_defect(&w, &defect));
    TRY(power_iteration(&w, seed, false, u, &score));
    products_with(w.h, n, r, r, u, products);
    struct beta_ratio ratio = beta_ratio(products, n);
    result.lower = ratio.value;
    result.lower_without_largest = ratio.without_largest;
    result.lower_largest_share = ratio.largest_share;
    leverage(&w, &result);
    TRY(beta_certificate(w.h, n, r, ratio.value, &certificate));
    // The second moment along a unit vector is 1 - defect at least.
    result.upper = certificate.upper / ((1 - defect) * (1 - defect));
    result.t = certificate.t;
    result.least = certificate.least;
    direction_of_rows(&w, u);
    if (best) memcpy(best, u, (size_t)r * sizeof *best);
    *out = result;
done:
    whitened_free(&w);
    mem_buffer_free(products);
    free(u);
    return status;
}
