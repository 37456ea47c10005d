// Bias of a sampled and sketched spectrum: against the Marchenko-Pastur law in closed form, exact moments, first-order
// perturbation, symmetry of both steps, and simulation.
#include "tests/check.h"

#include "core/base/rng.h"
#include "theory/spectrum_bias.h"

#include <cblas.h>
#include <lapacke.h>

#undef I // of <complex.h>

enum { RANKS = 400 };

static int64_t ranks_up_to(int64_t last, int64_t *ranks) {
    int64_t n = 0;
    for (int64_t j = 1; j <= last && n < RANKS; j += 1 + j / 25) ranks[n++] = j;
    return n;
}

// x with n (1 - F(x)) = target, F the Marchenko-Pastur law of c = n / N < 1: density sqrt((b - x)(x - a)) / (2 pi c x).
static double marchenko_pastur(double c, double share) {
    double middle = 1 + c, half = 2 * sqrt(c), sum = 0;
    const int steps = 200000;
    for (int i = 0; i < steps; i++) {
        double t = M_PI * (i + 0.5) / steps, x = middle + half * cos(t), density = half * sin(t) / (2 * M_PI * c * x);
        double piece = density * half * sin(t) * M_PI / steps;
        if (sum + piece > share) return x;
        sum += piece;
    }
    return middle - half;
}

static void equal_eigenvalues_give_marchenko_pastur(void **state) {
    (void)state;
    enum { N = 1000 };
    double *list = calloc(N, sizeof *list), expected[3];
    const int64_t ranks[] = {1, 300, 900};
    for (int i = 0; i < N; i++) list[i] = 2.5;
    struct population population = {.n = N, .list = list};
    for (int i = 0; i < 2; i++) {
        check_ok(spectrum_bias(&population, i ? 3000 : INFINITY, i ? INFINITY : 3000, ranks, 3, expected));
        for (int r = 0; r < 3; r++)
            check_near(expected[r], 2.5 * marchenko_pastur(1.0 / 3, ((double)ranks[r] - 0.5) / N), 1e-4, 0);
    }
    free(list);
}

static void moments_are_those_of_two_steps(void **state) {
    (void)state;
    const double alphas[] = {1.3, 2, 3};
    for (int a = 0; a < 3; a++) {
        struct power_law law = {.n = 20000, .alpha = alphas[a], .scale = 3};
        struct population population = population_power_law(&law);
        double expected[340], first = 0, second = 0, sum = 0, square = 0;
        int64_t ranks[340];
        for (int i = 0; i < 340; i++) ranks[i] = i + 1;
        check_ok(spectrum_bias(&population, 360, 9000, ranks, 340, expected));
        for (int i = 339; i >= 0; i--) sum += expected[i], square += expected[i] * expected[i];
        for (int64_t k = law.n; k >= 1; k--) {
            double lambda = power_law_eigenvalue(&law, k);
            first += lambda, second += lambda * lambda;
        }
        // 20 of 360 eigenvalues are missing from the sums; a rank stands for its spread, relative variance about 1 / 360.
        assert_true(sum < first * (1 + 1e-3) && sum > first * (1 - 0.03));
        check_near(square, second + first * first * (1 / 360.0 + 1 / 9000.0), 6e-3, 0);
    }
}

static void both_steps_bias_alike(void **state) {
    (void)state;
    struct power_law law = {.n = 1 << 20, .alpha = 1.2, .scale = 1};
    struct population population = population_power_law(&law);
    int64_t ranks[RANKS], n = ranks_up_to(450, ranks);
    double a[RANKS], b[RANKS];
    check_ok(spectrum_bias(&population, 500, 3000, ranks, n, a));
    check_ok(spectrum_bias(&population, 3000, 500, ranks, n, b));
    for (int64_t i = 0; i < n; i++) check_near(a[i], b[i], 1e-7, 0);
}

static void first_order_is_the_slope_at_many_samples(void **state) {
    (void)state;
    const double alphas[] = {1.3, 1.5, 2, 2.5, 3};
    struct power_law law = {.n = INT64_C(1) << 50, .scale = 1};
    for (int a = 0; a < 5; a++) {
        law.alpha = alphas[a];
        struct population population = population_power_law(&law);
        const int64_t rank = 200;
        double seen, more, c = spectrum_bias_first_order(alphas[a]), lambda = power_law_eigenvalue(&law, rank);
        check_ok(spectrum_bias(&population, 1e6, 2e5, &rank, 1, &seen));
        check_near((seen / lambda - 1) / (200 * (1e-6 + 5e-6)), c, 0.01, 0.01);
        check_ok(spectrum_bias(&population, 1e6, INFINITY, &rank, 1, &more));
        check_near((more / lambda - 1) / (200 * 1e-6), c, 0.01, 0.01);
    }
}

static void without_steps_nothing_changes(void **state) {
    (void)state;
    struct power_law law = {.n = 1000, .alpha = 1.1, .scale = 2};
    struct population population = population_power_law(&law);
    const int64_t ranks[] = {1, 10, 700};
    double seen[3];
    check_ok(spectrum_bias(&population, INFINITY, INFINITY, ranks, 3, seen));
    for (int i = 0; i < 3; i++) check_near(seen[i], power_law_eigenvalue(&law, ranks[i]), 1e-12, 0);
}

static void a_list_is_its_law(void **state) {
    (void)state;
    struct power_law law = {.n = 30000, .alpha = 1.5, .scale = 1e-9};
    struct population population = population_power_law(&law);
    double *list = calloc((size_t)law.n, sizeof *list), a[RANKS], b[RANKS];
    for (int64_t k = 0; k < law.n; k++) list[k] = power_law_eigenvalue(&law, k + 1);
    int64_t ranks[RANKS], n = ranks_up_to(450, ranks);
    check_ok(spectrum_bias(&population, 2048, 512, ranks, n, a));
    check_ok(spectrum_bias(&(struct population){.n = law.n, .list = list}, 2048, 512, ranks, n, b));
    for (int64_t i = 0; i < n; i++) check_near(a[i], b[i], 1e-4, 0);
    free(list);
}

// Eigenvalues of Y Y^T / N, Y [N, k] = Z diag(sqrt lambda) S^T with Gaussian Z and S of variance 1 / k. Adds their logarithms.
static void simulate(const struct power_law *law, int samples, int dim, uint64_t seed, double *logs) {
    int n = (int)law->n;
    double *z = calloc((size_t)samples * (size_t)n, sizeof *z), *s = calloc((size_t)dim * (size_t)n, sizeof *s);
    double *y = calloc((size_t)samples * (size_t)dim, sizeof *y),
           *gram = calloc((size_t)dim * (size_t)dim, sizeof *gram);
    double *values = calloc((size_t)dim, sizeof *values);
    for (int64_t i = 0; i < (int64_t)samples * n; i++)
        z[i] = rng_normal((struct rng){seed, RNG_TEST}, (uint64_t)i) * sqrt(power_law_eigenvalue(law, i % n + 1));
    for (int64_t i = 0; i < (int64_t)dim * n; i++)
        s[i] = rng_normal((struct rng){seed, RNG_TEST + 1}, (uint64_t)i) / sqrt(dim);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, samples, dim, n, 1, z, n, s, n, 0, y, dim);
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, dim, samples, 1.0 / samples, y, dim, 0, gram, dim);
    assert_int_equal(LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'N', 'L', dim, gram, dim, values), 0);
    for (int i = 0; i < dim; i++) logs[i] += log(values[dim - 1 - i]);
    free(z), free(s), free(y), free(gram), free(values);
}

// 24 draws: the mean log eigenvalue at rank j has a standard error of about sqrt(2 (1/N + 1/k) / 24) = 0.04 at rank 1 and less
// below; averages over a third of the ranks 0.015 at most. The limit's own error at this size is about 0.01.
// Tolerance 0.06: more than 3 standard errors; false alarms below 1 %.
static void simulation_agrees(void **state) {
    (void)state;
    enum { SAMPLES = 240, DIM = 60, DRAWS = 24 };
    const double alphas[] = {1.1, 1.5, 2.5};
    for (int a = 0; a < 3; a++) {
        struct power_law law = {.n = 1500, .alpha = alphas[a], .scale = 1};
        struct population population = population_power_law(&law);
        double logs[DIM] = {0}, expected[DIM];
        int64_t ranks[DIM];
        for (int i = 0; i < DIM; i++) ranks[i] = i + 1;
        check_ok(spectrum_bias(&population, SAMPLES, DIM, ranks, 54, expected));
        for (int draw = 0; draw < DRAWS; draw++) simulate(&law, SAMPLES, DIM, (uint64_t)(100 * a + draw), logs);
        const int edges[] = {2, 8, 20, 36};
        for (int e = 0; e < 3; e++) {
            double mean = 0, biased = 0;
            for (int i = edges[e]; i < edges[e + 1]; i++) {
                mean += (logs[i] / DRAWS - log(expected[i])) / (edges[e + 1] - edges[e]);
                biased += log(expected[i] / power_law_eigenvalue(&law, i + 1)) / (edges[e + 1] - edges[e]);
            }
            print_message("alpha %.1f ranks %d to %d: simulated / expected %.3f; expected / law %.3f\n", alphas[a],
                          edges[e] + 1, edges[e + 1], exp(mean), exp(biased));
            check_near(mean, 0, 0, 0.06);
        }
    }
}

static void bad_requests_are_refused(void **state) {
    (void)state;
    struct power_law law = {.n = 100, .alpha = 1.1, .scale = 2};
    struct population population = population_power_law(&law);
    const double rising[] = {1, 2}, nan[] = {1, NAN};
    const int64_t zero = 0, one = 1, most = 96, falling[] = {5, 4};
    double out[2];
    check_fails(spectrum_bias(&population, 0, 10, &one, 1, out), STATUS_INVALID);
    check_fails(spectrum_bias(&population, 10, NAN, &one, 1, out), STATUS_INVALID);
    check_fails(spectrum_bias(&population, 1000, 1000, &zero, 1, out), STATUS_INVALID);
    check_fails(spectrum_bias(&population, 1000, 1000, &most, 1, out), STATUS_INVALID);
    check_fails(spectrum_bias(&population, 1000, 1000, falling, 2, out), STATUS_INVALID);
    check_fails(spectrum_bias(&(struct population){.n = 2, .list = rising}, 10, 10, &one, 1, out), STATUS_INVALID);
    check_fails(spectrum_bias(&(struct population){.n = 2, .list = nan}, 10, 10, &one, 1, out), STATUS_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_eigenvalues_give_marchenko_pastur),
        cmocka_unit_test(moments_are_those_of_two_steps),
        cmocka_unit_test(both_steps_bias_alike),
        cmocka_unit_test(first_order_is_the_slope_at_many_samples),
        cmocka_unit_test(without_steps_nothing_changes),
        cmocka_unit_test(a_list_is_its_law),
        cmocka_unit_test(simulation_agrees),
        cmocka_unit_test(bad_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
