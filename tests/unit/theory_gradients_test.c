// Synthetic gradients: the transform, the basis, rows as a function of their number, exact errors, distributions.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/base/walsh.h"
#include "theory/gradients.h"

#include <gsl/gsl_cdf.h>

static struct gradients *gradients_open(int64_t n, enum basis basis, enum distribution distribution) {
    struct gradients_options options = {
        .law = {.n = n, .alpha = 1.5, .scale = 2}, .basis = basis, .distribution = distribution, .seed = 21};
    struct gradients *gradients = NULL;
    check_ok(gradients_new(&options, &gradients));
    return gradients;
}

static double *numbers(int64_t n, uint64_t stream) {
    double *x = calloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = rng_normal((struct rng){.seed = 3, .stream = RNG_TEST + stream}, (uint64_t)i);
    return x;
}

static double inner(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void the_transform_is_its_matrix(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 256; n *= 2) {
        double *x = numbers(n, 1), *want = calloc((size_t)n, sizeof *want);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < n; k++) want[i] += __builtin_popcountll((uint64_t)(i & k)) % 2 ? -x[k] : x[k];
        walsh_transform(x, n);
        for (int64_t i = 0; i < n; i++) check_near(x[i], want[i], 0, 1e-12 * (double)n);
        free(x);
        free(want);
    }
    assert_false(walsh_has_size(0) || walsh_has_size(12) || walsh_has_size(-8));
}

// Sizes beyond the cache, where the work is cut differently: H H = n I, and a unit vector gives a Walsh function.
static void long_transforms_are_their_own_inverse(void **state) {
    (void)state;
    for (int64_t n = 2048; n <= 131072; n *= 2) {
        double *x = numbers(n, 2), *old = numbers(n, 2);
        walsh_transform(x, n);
        walsh_transform(x, n);
        for (int64_t i = 0; i < n; i++) check_near(x[i] / (double)n, old[i], 0, 1e-13);
        memset(x, 0, (size_t)n * sizeof *x);
        x[n - 3] = 1;
        walsh_transform(x, n);
        for (int64_t i = 0; i < n; i++)
            assert_true(x[i] == (__builtin_popcountll((uint64_t)(i & (n - 3))) % 2 ? -1 : 1));
        free(x);
        free(old);
    }
}

// Sigma by its eigenvectors, and its products by brute force.
static void errors_and_products_are_those_of_the_dense_covariance(void **state) {
    (void)state;
    enum { N = 128 };
    for (int basis = BASIS_IDENTITY; basis <= BASIS_HADAMARD; basis++) {
        struct gradients *g = gradients_open(N, (enum basis)basis, DISTRIBUTION_GAUSSIAN);
        double *u = calloc(N * N, sizeof *u), *d = numbers(N, 3), want[N] = {0}, out[N], work[N], along[N], error = 0;
        for (int k = 0; k < N; k++) gradients_eigenvector(g, k + 1, u + k * N);
        for (int k = 0; k < N; k++)
            for (int l = 0; l <= k; l++) check_near(inner(u + k * N, u + l * N, N), k == l, 0, 1e-13);
        gradients_to_eigen(g, d, work, along);
        for (int k = 0; k < N; k++) {
            double lambda = power_law_eigenvalue(&gradients_settings(g)->law, k + 1), product = inner(u + k * N, d, N);
            check_near(along[k], product, 0, 1e-13);
            error += lambda * product * product;
            for (int i = 0; i < N; i++) want[i] += lambda * product * u[k * N + i];
        }
        check_near(gradients_error(g, d, work), error, 1e-13, 0);
        gradients_covariance(g, d, out);
        for (int i = 0; i < N; i++) check_near(out[i], want[i], 0, 1e-13);
        gradients_covariance(g, d, d);
        assert_memory_equal(d, out, sizeof out);
        free(u);
        free(d);
        gradients_free(g);
    }
}

static void the_basis_does_not_change_what_is_drawn(void **state) {
    (void)state;
    enum { N = 512 };
    double spread[N], plain[N], eigen[N], work[N];
    struct gradients *h = gradients_open(N, BASIS_HADAMARD, DISTRIBUTION_STUDENT);
    struct gradients *i = gradients_open(N, BASIS_IDENTITY, DISTRIBUTION_STUDENT);
    gradients_row(h, GRADIENTS_FRESH, 77, spread);
    gradients_row(i, GRADIENTS_FRESH, 77, plain);
    gradients_row_eigen(h, GRADIENTS_FRESH, 77, eigen);
    assert_memory_equal(plain, eigen, sizeof plain);
    gradients_to_eigen(h, spread, work, spread);
    for (int k = 0; k < N; k++) check_near(spread[k], plain[k], 0, 1e-13);
    gradients_free(h);
    gradients_free(i);
}

// Any cut, order, layout and number of threads gives the same bits.
static void rows_are_a_function_of_their_number(void **state) {
    (void)state;
    enum { N = 4096, ROWS = 21, STRIDE = 24 };
    for (int distribution = 0; distribution <= DISTRIBUTION_STUDENT; distribution++) {
        struct gradients *g = gradients_open(N, BASIS_HADAMARD, (enum distribution)distribution);
        double *rows = calloc(ROWS * N, sizeof *rows), *columns = calloc(N * STRIDE, sizeof *columns), one[N];
        threads_set(3);
        gradients_rows(g, GRADIENTS_SAMPLES, 100, ROWS, rows, N);
        check_ok(gradients_columns(g, GRADIENTS_SAMPLES, 100, 10, columns, STRIDE));
        threads_set(1);
        check_ok(gradients_columns(g, GRADIENTS_SAMPLES, 110, ROWS - 10, columns + 10, STRIDE));
        for (int i = ROWS - 1; i >= 0; i--) {
            gradients_row(g, GRADIENTS_SAMPLES, 100 + i, one);
            assert_memory_equal(one, rows + i * N, sizeof one);
            for (int j = 0; j < N; j++) assert_true(columns[j * STRIDE + i] == one[j]);
        }
        for (int j = 0; j < N; j++) assert_true(columns[j * STRIDE + ROWS] == 0);
        gradients_row(g, GRADIENTS_FRESH, 100, one);
        assert_true(memcmp(one, rows, sizeof one) != 0);
        free(rows);
        free(columns);
        gradients_free(g);
    }
    threads_set(0);
}

// Law with all eigenvalues 1 in the identity basis: rows are z itself. The share of |z| above each threshold against
// GSL's distribution functions, 2.6 * 10^5 draws, 6 standard errors: a false alarm has probability below 1e-7 in all.
static void draws_follow_their_distribution(void **state) {
    (void)state;
    enum { N = 1 << 18 };
    double *z = calloc(N, sizeof *z);
    const double degrees[] = {2.5, 3, 5, 12};
    for (int i = -1; i < 4; i++) {
        struct gradients_options options = {.law = {.n = N, .alpha = 0, .scale = 1},
                                            .distribution = i < 0 ? DISTRIBUTION_GAUSSIAN : DISTRIBUTION_STUDENT,
                                            .degrees = i < 0 ? 0 : degrees[i],
                                            .seed = 5};
        struct gradients *g = NULL;
        check_ok(gradients_new(&options, &g));
        gradients_row(g, GRADIENTS_SAMPLES, 0, z);
        for (double x = -6; x <= 6; x += 0.75) {
            double unit = i < 0 ? 1 : sqrt(degrees[i] / (degrees[i] - 2));
            double p = i < 0 ? gsl_cdf_ugaussian_P(x) : gsl_cdf_tdist_P(x * unit, degrees[i]), below = 0;
            for (int k = 0; k < N; k++) below += z[k] < x;
            check_near(below / N, p, 0, 6 * sqrt(p * (1 - p) / N) + 1e-5);
        }
        // Neighbours, which may share a block, are uncorrelated; so are their squares (finite for 12 degrees and
        // Gaussian).
        double next = 0, squares = 0;
        for (int k = 0; k + 1 < N; k++)
            next += z[k] * z[k + 1], squares += (z[k] * z[k] - 1) * (z[k + 1] * z[k + 1] - 1);
        check_near(next / N, 0, 0, 6 / sqrt(N));
        if (i < 0 || i == 3) check_near(squares / N, 0, 0, 6 * (gradients_kurtosis(g) - 1) / sqrt(N));
        gradients_free(g);
    }
    free(z);
}

static void kurtosis_is_what_is_said(void **state) {
    (void)state;
    enum { N = 1 << 18 };
    struct gradients_options options = {.law = {.n = N, .alpha = 0, .scale = 1}, .seed = 9};
    double *z = calloc(N, sizeof *z), mean = 0, fourth = 0;
    struct gradients *g = NULL;
    options.distribution = DISTRIBUTION_RADEMACHER;
    check_ok(gradients_new(&options, &g));
    gradients_row(g, GRADIENTS_SAMPLES, 1, z);
    for (int k = 0; k < N; k++) assert_true(z[k] * z[k] == 1), mean += z[k];
    check_near(mean / N, 0, 0, 6 / sqrt(N));
    assert_true(gradients_kurtosis(g) == 1 && gradients_beta(g) == 3);
    gradients_free(g);

    options.distribution = DISTRIBUTION_STUDENT;
    options.degrees =
        12; // E z^8 = 97.2 (t: 105 * 12^4 / (10 * 8 * 6 * 4), over (12 / 10)^4 … ), so 6 standard errors are 0.11
    check_ok(gradients_new(&options, &g));
    gradients_row(g, GRADIENTS_SAMPLES, 1, z);
    for (int k = 0; k < N; k++) fourth += z[k] * z[k] * z[k] * z[k];
    check_near(gradients_kurtosis(g), 3.75, 1e-15, 0);
    check_near(fourth / N, 3.75, 0, 0.27);
    gradients_free(g);

    options.degrees = 0;
    check_ok(gradients_new(&options, &g));
    assert_true(gradients_settings(g)->degrees == 5 && gradients_kurtosis(g) == 9 && gradients_beta(g) == 9);
    gradients_free(g);
    options.degrees = 4;
    check_ok(gradients_new(&options, &g));
    assert_true(isinf(gradients_kurtosis(g)));
    gradients_free(g);
    free(z);
}

// E g g^T = Sigma in both bases: <g, d>^2 over 20000 rows has mean QE(d); its standard error is sqrt(beta - 1) QE /
// sqrt(20000) at most, and 6 of them are allowed.
static void fresh_rows_have_the_exact_error_on_average(void **state) {
    (void)state;
    enum { N = 64, ROWS = 20000 };
    double *d = numbers(N, 5), row[N], work[N];
    for (int basis = 0; basis <= BASIS_HADAMARD; basis++)
        for (int distribution = 0; distribution <= DISTRIBUTION_RADEMACHER; distribution++) {
            struct gradients *g = gradients_open(N, (enum basis)basis, (enum distribution)distribution);
            double sum = 0;
            for (int i = 0; i < ROWS; i++) {
                gradients_row(g, GRADIENTS_FRESH, i, row);
                double product = inner(row, d, N);
                sum += product * product;
            }
            check_near(sum / ROWS, gradients_error(g, d, work), 6 * sqrt((gradients_beta(g) - 1) / ROWS), 0);
            gradients_free(g);
        }
    free(d);
}

static void impossible_gradients_are_refused(void **state) {
    (void)state;
    const struct gradients_options good = {.law = {.n = 64, .alpha = 1.5, .scale = 1}, .basis = BASIS_HADAMARD};
    struct gradients_options bad[5];
    struct gradients *g = NULL;
    for (int i = 0; i < 5; i++) bad[i] = good;
    bad[0].law.n = 96;
    bad[1].law.n = 0;
    bad[2].law.scale = -1;
    bad[3].degrees = 2;
    bad[4].degrees = NAN;
    for (int i = 0; i < 5; i++) check_fails(gradients_new(&bad[i], &g), STATUS_INVALID);
    int64_t before = mem_buffer_bytes();
    for (int k = 0; k < 3; k++) {
        mem_fail_at(k);
        check_fails(gradients_new(&good, &g), STATUS_NO_MEMORY);
    }
    mem_fail_at(-1);
    assert_int_equal(mem_buffer_bytes(), before);
    assert_null(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_transform_is_its_matrix),
        cmocka_unit_test(long_transforms_are_their_own_inverse),
        cmocka_unit_test(errors_and_products_are_those_of_the_dense_covariance),
        cmocka_unit_test(the_basis_does_not_change_what_is_drawn),
        cmocka_unit_test(rows_are_a_function_of_their_number),
        cmocka_unit_test(draws_follow_their_distribution),
        cmocka_unit_test(kurtosis_is_what_is_said),
        cmocka_unit_test(fresh_rows_have_the_exact_error_on_average),
        cmocka_unit_test(impossible_gradients_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
