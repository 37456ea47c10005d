// In the Hadamard basis position order[k] of the transform holds coordinate k of the eigenbasis:
//     g_i = sign_i / sqrt(n) sum_k H[i][order_k] sqrt(lambda_k) z_k.
//
// z_k, k = 0 …, of a row comes from Philox with key = seed and counter (block, stream + row), as in core/base/rng.h:
//     Gaussian     block k / 4: words (0, 1) give z of k % 4 = 0, 1 and words (2, 3) those of 2, 3, cosine and sine of
//                  Box-Muller
//     Rademacher   block k / 128: bit k % 32 of word k / 32 % 4
//     Student      block k: t = sqrt(degrees (u^(-2 / degrees) - 1)) cos(2 pi v), u from words (0, 1), v from word 2.
//                  This is exact: the radius R of a bivariate t has P(R^2 > r^2) = (1 + r^2 / degrees)^(-degrees / 2),
//                  and each of its coordinates is a t. u has 64 bits, because |t| goes like u^(-1 / degrees): with 32 the
//                  fourth moment would be 1 % low for 5 degrees.
#include "theory/gradients.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/base/walsh.h"

#include <omp.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, GROUP = 8 };

struct gradients {
    struct gradients_options options;
    double *root;   // [n] sqrt(lambda_k)
    double *sign;   // [n] +-1 / sqrt(n); NULL in the identity basis
    int64_t *order; // [n]; NULL in the identity basis
};

static enum status options_check(const struct gradients_options *o) {
    enum status status = power_law_check(&o->law);
    if (status != STATUS_OK) return status;
    if (o->basis == BASIS_HADAMARD && !walsh_has_size(o->law.n))
        return status_set(STATUS_INVALID, "Hadamard basis: n = %lld, must be a power of two", (long long)o->law.n);
    if (o->law.n > INT64_C(1) << 40)
        return status_set(STATUS_INVALID, "gradients: n = %lld, must be at most 2^40", (long long)o->law.n);
    if (!(o->degrees > 2 && o->degrees <= 1e6))
        return status_set(STATUS_INVALID,
                          "Student's t: %g degrees of freedom, must be > 2 (else no variance) and <= 10^6", o->degrees);
    return STATUS_OK;
}

enum status gradients_new(const struct gradients_options *options, struct gradients **out) {
    enum status status = STATUS_OK;
    struct gradients *g = mem_new(1, sizeof *g);
    void *buffer = NULL;
    g->options = *options;
    if (g->options.degrees == 0) g->options.degrees = 5;
    TRY(options_check(&g->options));
    int64_t n = g->options.law.n;
    TRY(mem_buffer_new(n * (int64_t)sizeof(double), "eigenvalues", &buffer));
    g->root = buffer;
    for (int64_t k = 0; k < n; k++) g->root[k] = sqrt(power_law_eigenvalue(&g->options.law, k + 1));
    if (g->options.basis == BASIS_HADAMARD) {
        TRY(mem_buffer_new(n * (int64_t)sizeof(double), "signs of the basis", &buffer));
        g->sign = buffer;
        TRY(mem_buffer_new(n * (int64_t)sizeof(int64_t), "order of the basis", &buffer));
        g->order = buffer;
        double unit = 1 / sqrt((double)n);
        struct rng signs = {.seed = g->options.seed, .stream = GRADIENTS_BASIS};
        struct rng order = {.seed = g->options.seed, .stream = GRADIENTS_BASIS + 1};
        for (int64_t i = 0; i < n; i++) g->sign[i] = rng_bits(signs, (uint64_t)i) >> 31 ? -unit : unit;
        rng_permutation(order, g->order, n);
    }
    *out = g;
    g = NULL;
done:
    gradients_free(g);
    return status;
}

void gradients_free(struct gradients *g) {
    if (!g) return;
    mem_buffer_free(g->root);
    mem_buffer_free(g->sign);
    mem_buffer_free(g->order);
    free(g);
}

const struct gradients_options *gradients_settings(const struct gradients *g) { return &g->options; }

double gradients_kurtosis(const struct gradients *g) {
    double degrees = g->options.degrees;
    if (g->options.distribution == DISTRIBUTION_GAUSSIAN) return 3;
    if (g->options.distribution == DISTRIBUTION_RADEMACHER) return 1;
    return degrees > 4 ? 3 + 6 / (degrees - 4) : INFINITY;
}

double gradients_beta(const struct gradients *g) { return fmax(3, gradients_kurtosis(g)); }

static void words_at(struct rng rng, uint64_t block, uint32_t words[4]) {
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)rng.stream,
                                 (uint32_t)(rng.stream >> 32)};
    const uint32_t key[2] = {(uint32_t)rng.seed, (uint32_t)(rng.seed >> 32)};
    rng_philox(counter, key, words);
}

static void gaussian(struct rng rng, uint64_t first, uint64_t n, double z[BLOCK]) {
    for (uint64_t i = 0; i < n; i += 4) {
        uint32_t w[4];
        words_at(rng, (first + i) / 4, w);
        for (int pair = 0; pair < 2; pair++) {
            double u = ((double)w[2 * pair] + 1) * 0x1p-32, radius = sqrt(-2 * log(u)), sine, cosine;
            sincos(2 * M_PI * ((double)w[2 * pair + 1] * 0x1p-32), &sine, &cosine);
            z[i + 2 * (uint64_t)pair] = radius * cosine, z[i + 2 * (uint64_t)pair + 1] = radius * sine;
        }
    }
}

static void rademacher(struct rng rng, uint64_t first, double z[BLOCK]) {
    uint32_t w[4];
    words_at(rng, first / BLOCK, w);
    for (int i = 0; i < BLOCK; i++) z[i] = w[i / 32] >> (i % 32) & 1 ? 1 : -1;
}

static void student(struct rng rng, double degrees, uint64_t first, uint64_t n, double z[BLOCK]) {
    double unit = sqrt(degrees - 2); // t has variance degrees / (degrees - 2)
    for (uint64_t i = 0; i < n; i++) {
        uint32_t w[4];
        words_at(rng, first + i, w);
        double u = ((double)((uint64_t)w[0] << 32 | w[1]) + 1) * 0x1p-64;
        z[i] = unit * sqrt(expm1(-2 / degrees * log(u))) * cos(2 * M_PI * ((double)w[2] * 0x1p-32));
    }
}

// z_first … of the row, BLOCK of them or as many as there are; returns how many. first is a multiple of BLOCK.
static int64_t draw(const struct gradients *g, struct rng row, int64_t first, double z[BLOCK]) {
    int64_t left = g->options.law.n - first, n = left < BLOCK ? left : BLOCK;
    if (g->options.distribution == DISTRIBUTION_GAUSSIAN)
        gaussian(row, (uint64_t)first, (uint64_t)n, z);
    else if (g->options.distribution == DISTRIBUTION_RADEMACHER)
        rademacher(row, (uint64_t)first, z);
    else
        student(row, g->options.degrees, (uint64_t)first, (uint64_t)n, z);
    return n;
}

static struct rng row_rng(const struct gradients *g, uint64_t stream, int64_t row) {
    REQUIRE((uint32_t)stream == 0, "the lower 32 bits of a stream hold the row");
    REQUIRE(row >= 0 && row <= UINT32_MAX, "rows are counted in 32 bits");
    return (struct rng){.seed = g->options.seed, .stream = stream + (uint64_t)row};
}

void gradients_row_eigen(const struct gradients *g, uint64_t stream, int64_t row, double *out) {
    struct rng rng = row_rng(g, stream, row);
    double z[BLOCK];
    for (int64_t first = 0; first < g->options.law.n; first += BLOCK) {
        int64_t n = draw(g, rng, first, z);
        for (int64_t i = 0; i < n; i++) out[first + i] = g->root[first + i] * z[i];
    }
}

void gradients_row(const struct gradients *g, uint64_t stream, int64_t row, double *out) {
    if (!g->order) {
        gradients_row_eigen(g, stream, row, out);
        return;
    }
    struct rng rng = row_rng(g, stream, row);
    int64_t n = g->options.law.n;
    double z[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t drawn = draw(g, rng, first, z);
        for (int64_t i = 0; i < drawn; i++) out[g->order[first + i]] = g->root[first + i] * z[i];
    }
    walsh_transform(out, n);
    for (int64_t i = 0; i < n; i++) out[i] *= g->sign[i];
}

void gradients_rows(const struct gradients *g, uint64_t stream, int64_t first, int64_t rows, double *out,
                    int64_t stride) {
    REQUIRE(stride >= g->options.law.n, "stride of a row");
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < rows; i++) gradients_row(g, stream, first + i, out + i * stride);
}

enum status gradients_columns(const struct gradients *g, uint64_t stream, int64_t first, int64_t rows, double *out,
                              int64_t stride) {
    REQUIRE(stride >= rows, "stride of a coordinate");
    int64_t n = g->options.law.n, groups = (rows + GROUP - 1) / GROUP, width = rows < GROUP ? rows : GROUP;
    int threads = groups < threads_count() ? (int)groups : threads_count();
    void *buffer = NULL;
    enum status status = mem_buffer_new(threads * width * n * (int64_t)sizeof(double), "rows of gradients", &buffer);
    if (status != STATUS_OK) return status;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads > 0 ? threads : 1)
    for (int64_t group = 0; group < groups; group++) {
        double *scratch = (double *)buffer + omp_get_thread_num() * width * n;
        int64_t from = group * GROUP, n_rows = rows - from < GROUP ? rows - from : GROUP;
        for (int64_t i = 0; i < n_rows; i++) gradients_row(g, stream, first + from + i, scratch + i * n);
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < n_rows; i++) out[j * stride + from + i] = scratch[i * n + j];
    }
    mem_buffer_free(buffer);
    return STATUS_OK;
}

double gradients_error(const struct gradients *g, const double *d, double *work) {
    int64_t n = g->options.law.n;
    double sum = 0;
    if (g->order) {
        for (int64_t i = 0; i < n; i++) work[i] = g->sign[i] * d[i];
        walsh_transform(work, n);
    }
    for (int64_t k = n - 1; k >= 0; k--) {
        double along = g->root[k] * (g->order ? work[g->order[k]] : d[k]);
        sum += along * along;
    }
    return sum;
}

void gradients_covariance(const struct gradients *g, const double *d, double *out) {
    int64_t n = g->options.law.n;
    if (!g->order) {
        for (int64_t k = 0; k < n; k++) out[k] = g->root[k] * g->root[k] * d[k];
        return;
    }
    for (int64_t i = 0; i < n; i++) out[i] = g->sign[i] * d[i];
    walsh_transform(out, n);
    for (int64_t k = 0; k < n; k++) out[g->order[k]] *= g->root[k] * g->root[k];
    walsh_transform(out, n);
    for (int64_t i = 0; i < n; i++) out[i] *= g->sign[i];
}

void gradients_to_eigen(const struct gradients *g, const double *d, double *work, double *out) {
    int64_t n = g->options.law.n;
    if (!g->order) {
        memmove(out, d, (size_t)n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < n; i++) work[i] = g->sign[i] * d[i];
    walsh_transform(work, n);
    for (int64_t k = 0; k < n; k++) out[k] = work[g->order[k]];
}

void gradients_eigenvector(const struct gradients *g, int64_t k, double *out) {
    int64_t n = g->options.law.n;
    REQUIRE(k >= 1 && k <= n, "eigenvectors are counted from 1");
    if (!g->order) {
        memset(out, 0, (size_t)n * sizeof *out);
        out[k - 1] = 1;
        return;
    }
    uint64_t position = (uint64_t)g->order[k - 1];
    for (int64_t i = 0; i < n; i++) out[i] = __builtin_parityll(position & (uint64_t)i) ? -g->sign[i] : g->sign[i];
}
