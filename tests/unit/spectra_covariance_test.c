// Eigenvalues of the covariance of sketches against a singular value decomposition of the rows, norms against sums over pairs
// and repeated draws.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "spectra/norms.h"

#include <lapacke.h>

#undef I // of <complex.h>

enum { SKETCHES = 3 };

struct table {
    struct sketch_rows rows;
    float *at;
    double *norms;
};

// Row i: a common mean, decaying directions; sketches are different numbers; gaps of 5 floats between samples.
static struct table table_new(int64_t samples, int64_t dim, uint64_t seed) {
    struct table t;
    int64_t stride = SKETCHES * dim + 5;
    t.at = calloc((size_t)(samples * stride), sizeof *t.at);
    t.norms = calloc((size_t)samples, sizeof *t.norms);
    for (int64_t i = 0; i < samples; i++)
        for (int64_t j = 0; j < stride; j++) {
            int64_t k = j % dim + 1;
            double z = rng_normal((struct rng){seed, RNG_TEST}, (uint64_t)(i * stride + j));
            t.at[i * stride + j] = j < SKETCHES * dim ? (float)(0.5 / (double)k + z / (double)k) : NAN;
            if (j < dim) t.norms[i] += (double)t.at[i * stride + j] * (double)t.at[i * stride + j];
        }
    t.rows = (struct sketch_rows){t.at, samples, SKETCHES, dim, stride, dim};
    return t;
}

static void table_free(struct table *t) { free(t->at), free(t->norms); }

// Squared singular values of the rows left, over their number: another way to the same eigenvalues.
static void by_singular_values(const struct sketch_rows *rows, int64_t sketch, const struct covariance_part *part,
                               double *values) {
    int64_t left = rows->samples - part->skip, dim = rows->dim, most = left < dim ? left : dim, n = 0;
    double *a = calloc((size_t)(left * dim), sizeof *a), *s = calloc((size_t)most, sizeof *s), unused[1];
    double *super = calloc((size_t)most, sizeof *super);
    for (int64_t i = 0; i < rows->samples; i++) {
        if (i >= part->skip_first && i < part->skip_first + part->skip) continue;
        for (int64_t j = 0; j < dim; j++) a[n * dim + j] = (double)sketch_row(rows, i, sketch)[j];
        n++;
    }
    for (int64_t j = 0; j < dim && part->centred; j++) {
        double mean = 0;
        for (int64_t i = 0; i < left; i++) mean += a[i * dim + j] / (double)left;
        for (int64_t i = 0; i < left; i++) a[i * dim + j] -= mean;
    }
    assert_int_equal(
        LAPACKE_dgesvd(LAPACK_ROW_MAJOR, 'N', 'N', (int)left, (int)dim, a, (int)dim, s, unused, 1, unused, 1, super),
        0);
    for (int64_t i = 0; i < most; i++) values[i] = s[i] * s[i] / (double)(part->centred ? left - 1 : left);
    free(a), free(s), free(super);
}

static void eigenvalues_are_squared_singular_values(void **state) {
    (void)state;
    struct backend *backend = NULL;
    check_ok(backend_open("cpu", &backend));
    const int64_t sizes[][2] = {{40, 17}, {17, 40}, {300, 200}, {150, 700}, {700, 131}, {16, 16}};
    const struct covariance_part parts[] = {{0}, {.centred = true}, {3, 5, false}, {0, 4, true}, {11, 5, true}};
    for (size_t s = 0; s < 6; s++) {
        struct table t = table_new(sizes[s][0], sizes[s][1], s);
        struct covariance *covariance = NULL;
        check_ok(covariance_new(&t.rows, 1, &covariance));
        for (size_t p = 0; p < 5; p++) {
            int64_t n = covariance_size(covariance, &parts[p]);
            double *got = calloc((size_t)n, sizeof *got), *want = calloc((size_t)n, sizeof *want);
            check_ok(covariance_eigenvalues(covariance, backend, &parts[p], got));
            by_singular_values(&t.rows, 1, &parts[p], want);
            // Of a Gram matrix to rounding relative to the largest eigenvalue.
            for (int64_t i = 0; i < n; i++) check_near(got[i], want[i], 1e-9, 1e-12 * want[0]);
            free(got), free(want);
        }
        covariance_free(covariance);
        table_free(&t);
    }
    backend_close(backend);
}

static void vectors_are_unit_eigenvectors_of_the_covariance(void **state) {
    (void)state;
    struct backend *backend = NULL;
    check_ok(backend_open("cpu", &backend));
    const int64_t sizes[][2] = {{60, 30}, {30, 60}};
    for (int s = 0; s < 4; s++) {
        int64_t samples = sizes[s % 2][0], dim = sizes[s % 2][1];
        struct table t = table_new(samples, dim, (uint64_t)s);
        struct covariance *covariance = NULL;
        const struct covariance_part part = {.skip_first = 2, .skip = 3, .centred = s >= 2};
        double *values = calloc(30, sizeof *values), *vectors = calloc((size_t)(10 * dim), sizeof *vectors);
        check_ok(covariance_new(&t.rows, 2, &covariance));
        double *loadings = calloc((size_t)(10 * samples), sizeof *loadings),
               *alone = calloc((size_t)(10 * samples), sizeof *alone);
        check_ok(covariance_vectors(covariance, backend, &part, 10, values, vectors));
        check_ok(covariance_factors(covariance, backend, &part, 10, values, vectors, loadings));
        check_ok(covariance_factors(covariance, backend, &part, 10, values, NULL, alone));
        assert_memory_equal(loadings, alone, (size_t)(10 * (samples - 3)) * sizeof *alone);
        double *mean = calloc((size_t)dim, sizeof *mean), left = (double)(samples - 3);
        for (int64_t i = 0; i < samples; i++)
            for (int64_t j = 0; j < dim && part.centred; j++)
                if (i < 2 || i >= 5) mean[j] += (double)sketch_row(&t.rows, i, 2)[j] / left;
        for (int r = 0; r < 10; r++) {
            const double *v = vectors + r * dim;
            double *image = calloc((size_t)dim, sizeof *image), length = 0;
            for (int64_t i = 0; i < samples; i++) {
                if (i >= 2 && i < 5) continue;
                double dot = 0;
                for (int64_t j = 0; j < dim; j++) dot += ((double)sketch_row(&t.rows, i, 2)[j] - mean[j]) * v[j];
                check_near(fabs(loadings[r * (samples - 3) + (i < 2 ? i : i - 3)]), fabs(dot), 1e-8, 1e-9);
                for (int64_t j = 0; j < dim; j++)
                    image[j] +=
                        dot * ((double)sketch_row(&t.rows, i, 2)[j] - mean[j]) / (part.centred ? left - 1 : left);
            }
            for (int64_t j = 0; j < dim; j++) length += v[j] * v[j];
            check_near(length, 1, 1e-10, 0);
            for (int64_t j = 0; j < dim; j++) check_near(image[j], values[r] * v[j], 0, 1e-9 * values[0]);
            free(image);
        }
        free(values), free(vectors), free(mean), free(loadings), free(alone);
        covariance_free(covariance);
        table_free(&t);
    }
    backend_close(backend);
}

static void one_thread_gives_the_bits_of_two(void **state) {
    (void)state;
    struct backend *backend = NULL;
    check_ok(backend_open("cpu", &backend));
    struct table t = table_new(500, 300, 9);
    double values[2][300];
    for (int threads = 1; threads <= 2; threads++) {
        struct covariance *covariance = NULL;
        threads_set(threads);
        check_ok(covariance_new(&t.rows, 0, &covariance));
        check_ok(
            covariance_eigenvalues(covariance, backend, &(struct covariance_part){10, 20, true}, values[threads - 1]));
        covariance_free(covariance);
    }
    threads_set(0);
    assert_memory_equal(values[0], values[1], sizeof values[0]);
    table_free(&t);
    backend_close(backend);
}

static void numbers_that_are_not_finite_are_refused(void **state) {
    (void)state;
    struct table t = table_new(20, 10, 3);
    struct covariance *covariance = NULL;
    t.at[7 * t.rows.sample_stride + 13] = INFINITY;
    check_fails(covariance_new(&t.rows, 1, &covariance), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "sample 7"));
    check_ok(covariance_new(&t.rows, 0, &covariance));
    covariance_free(covariance);
    t.rows.samples = 1;
    check_fails(covariance_new(&t.rows, 0, &covariance), STATUS_INVALID);
    table_free(&t);
}

// ---- norms

static double dot_of(const struct sketch_rows *rows, int64_t sketch, int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t k = 0; k < rows->dim; k++)
        sum += (double)sketch_row(rows, i, sketch)[k] * (double)sketch_row(rows, j, sketch)[k];
    return sum;
}

static double mean2_without(const struct sketch_rows *rows, int64_t skip) {
    double sum = 0, n = (double)(rows->samples - (skip >= 0));
    for (int64_t i = 0; i < rows->samples; i++)
        for (int64_t j = 0; j < rows->samples; j++)
            if (i != j && i != skip && j != skip) sum += dot_of(rows, 0, i, j);
    return sum / (n * (n - 1));
}

static void norms_are_means_over_pairs_and_errors_a_jackknife(void **state) {
    (void)state;
    enum { N = 25 };
    struct table t = table_new(N, 8, 4);
    t.rows.sketches = 1; // the rows themselves are the gradients
    double inner[N], sum2 = 0, mean = 0, spread = 0;
    struct norms norms;
    check_ok(norms_inner(&t.rows, t.norms, 1, inner));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) sum2 += dot_of(&t.rows, 0, i, j);
    check_ok(norms_estimate(&(struct norms_input){N, t.norms, 1, sum2, inner}, &norms));
    check_near(norms.mean2.value, mean2_without(&t.rows, -1), 1e-10, 0);
    check_near(norms.mean2_naive, sum2 / N / N, 1e-12, 0);
    for (int i = 0; i < N; i++) mean += mean2_without(&t.rows, i) / N;
    for (int i = 0; i < N; i++) spread += pow(mean2_without(&t.rows, i) - mean, 2);
    check_near(norms.mean2.error, sqrt((N - 1.0) / N * spread), 1e-8, 0);

    double first = 0, second = 0, variance = 0;
    for (int i = 0; i < N; i++) first += t.norms[i] / N, second += t.norms[i] * t.norms[i] / N;
    for (int i = 0; i < N; i++) variance += pow(t.norms[i] - first, 2) / (N - 1);
    check_near(norms.second.value, first, 1e-12, 0);
    check_near(norms.second.error, sqrt(variance / N), 1e-9, 0); // the jackknife of a mean is its standard error
    check_near(norms.kappa.value, second / first / first, 1e-12, 0);
    check_ok(norms_estimate(&(struct norms_input){N, t.norms, 1, sum2, NULL}, &norms));
    assert_true(isnan(norms.mean2.error) && norms.second.error > 0);
    table_free(&t);
}

// 600 draws of 30 samples with |E g|^2 = 0.25 sum 1/k^2. Mean over draws within 4 standard errors (false alarm 6e-5). The jackknife's
// mean squared error against the variance over draws: that of 600 skewed draws is known to about 8 %, its root to 4 %; allowed are 15 %.
static void unbiased_mean_and_its_error_hold_over_draws(void **state) {
    (void)state;
    enum { DRAWS = 600, N = 30, DIM = 12 };
    double truth = 0, sum = 0, square = 0, naive = 0, error2 = 0;
    for (int k = 1; k <= DIM; k++) truth += 0.25 / k / k;
    for (int draw = 0; draw < DRAWS; draw++) {
        struct table t = table_new(N, DIM, (uint64_t)(1000 + draw));
        t.rows.sketches = 1;
        double inner[N], sum2 = 0;
        struct norms norms;
        check_ok(norms_inner(&t.rows, t.norms, 1, inner));
        for (int i = 0; i < N; i++) sum2 += inner[i];
        check_ok(norms_estimate(&(struct norms_input){N, t.norms, 1, sum2, inner}, &norms));
        sum += norms.mean2.value, square += norms.mean2.value * norms.mean2.value, naive += norms.mean2_naive;
        error2 += norms.mean2.error * norms.mean2.error / DRAWS;
        table_free(&t);
    }
    double mean = sum / DRAWS, spread = sqrt(square / DRAWS - mean * mean), error = spread / sqrt(DRAWS);
    print_message("|E g|^2 = %.4f: unbiased %.4f +- %.4f, naive %.4f; stated error %.4f, spread %.4f\n", truth, mean,
                  error, naive / DRAWS, sqrt(error2), spread);
    check_near(mean, truth, 0, 4 * error);
    assert_true(naive / DRAWS > truth + 5 * error);
    check_near(sqrt(error2), spread, 0.15, 0);
}

// Gaussian sketches of 40 gradients [200] to 50 numbers, 4 of them: inner products and |E g|^2 agree with the exact ones
// within 5 standard errors of a sketch.
static void sketched_norms_agree_with_exact_ones(void **state) {
    (void)state;
    enum { N = 40, DIM = 200, K = 50, J = 4 };
    static float g[N][DIM], y[N][J][K];
    double norms[N], inner[N], got[N], mean2 = 0, sum[DIM] = {0}, sum2 = 0;
    for (int i = 0; i < N; i++)
        for (int d = 0; d < DIM; d++)
            g[i][d] = (float)(0.2 + rng_normal((struct rng){5, RNG_TEST}, (uint64_t)(i * DIM + d))),
            sum[d] += (double)g[i][d];
    for (int d = 0; d < DIM; d++) sum2 += sum[d] * sum[d];
    for (int j = 0; j < J; j++)
        for (int k = 0; k < K; k++)
            for (int d = 0; d < DIM; d++) {
                float s =
                    (float)(rng_normal((struct rng){5, RNG_TEST + 1}, (uint64_t)((j * K + k) * DIM + d)) / sqrt(K));
                for (int i = 0; i < N; i++) y[i][j][k] += s * g[i][d];
            }
    for (int i = 0; i < N; i++) {
        norms[i] = inner[i] = 0;
        for (int d = 0; d < DIM; d++)
            norms[i] += (double)g[i][d] * (double)g[i][d], inner[i] += (double)g[i][d] * sum[d];
    }
    struct sketch_rows rows = {&y[0][0][0], N, J, K, J * K, K};
    struct norms exact;
    struct estimate sketched;
    check_ok(norms_inner(&rows, norms, 1, got));
    for (int i = 0; i < N; i++) check_near(got[i], inner[i], 0, 5 * sqrt(norms[i] * sum2 / K / J));
    check_ok(norms_estimate(&(struct norms_input){N, norms, 1, sum2, inner}, &exact));
    check_ok(norms_mean2_sketched(&rows, norms, 1, &sketched));
    mean2 = exact.mean2.value;
    check_near(sketched.value, mean2, 0, 5 * sqrt(2.0 / K / J) * (mean2 + norms[0] / N));
    assert_true(sketched.error > exact.mean2.error * 0.8);
}

static void norms_without_meaning_are_refused(void **state) {
    (void)state;
    double norms[] = {1, 2, 3, 4}, nothing[] = {0, 0, 0}, lone[] = {0, 1, 0}, nan[] = {1, NAN, 1};
    struct norms out;
    check_fails(norms_estimate(&(struct norms_input){2, norms, 1, 1, NULL}, &out), STATUS_INVALID);
    check_fails(norms_estimate(&(struct norms_input){3, nothing, 1, 1, NULL}, &out), STATUS_INVALID);
    check_fails(norms_estimate(&(struct norms_input){3, lone, 1, 1, NULL}, &out), STATUS_INVALID);
    check_fails(norms_estimate(&(struct norms_input){3, nan, 1, 1, NULL}, &out), STATUS_INVALID);
    check_fails(norms_estimate(&(struct norms_input){3, norms, 1, NAN, NULL}, &out), STATUS_INVALID);
    check_ok(norms_estimate(&(struct norms_input){3, norms, 1, 1, NULL}, &out));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eigenvalues_are_squared_singular_values),
        cmocka_unit_test(vectors_are_unit_eigenvectors_of_the_covariance),
        cmocka_unit_test(one_thread_gives_the_bits_of_two),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(norms_are_means_over_pairs_and_errors_a_jackknife),
        cmocka_unit_test(unbiased_mean_and_its_error_hold_over_draws),
        cmocka_unit_test(sketched_norms_agree_with_exact_ones),
        cmocka_unit_test(norms_without_meaning_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
