// The mu-equation on spectra whose solution is known, and what is refused.
#include "tests/check.h"

#include "theory/error_law.h"
#include "theory/residual.h"

enum { N = 600 };

// sum_k 1 / (1 + mu) = m.
static void a_flat_spectrum_leaves_over_what_is_not_spanned(void **state) {
    (void)state;
    double lambda[N], mu, energy;
    for (int k = 0; k < N; k++) lambda[k] = 3;
    for (double m = 0.5; m < N; m *= 1.7) {
        check_ok(residual_mu(lambda, N, m, &mu));
        check_near(mu, 3 * (N - m) / m, 1e-12, 0);
        check_ok(residual_energy(lambda, N, m, &energy));
        check_near(energy, 3 * (N - m), 1e-12, 0);
    }
}

// a / (a + mu) A + b / (b + mu) B = m is a quadratic equation.
static void two_levels_solve_a_quadratic_equation(void **state) {
    (void)state;
    double lambda[N], mu, a = 1, b = 1e-6, n_a = 7, n_b = N - 7;
    for (int k = 0; k < N; k++) lambda[k] = k % 100 == 3 || k == 0 ? a : b;
    for (double m = 1; m < N; m += 31) {
        double p = m, q = m * (a + b) - a * n_a - b * n_b, r = a * b * (m - N);
        double root = q > 0 ? -2 * r / (q + sqrt(q * q - 4 * p * r)) : (-q + sqrt(q * q - 4 * p * r)) / (2 * p);
        check_ok(residual_mu(lambda, N, m, &mu));
        check_near(mu, root, 1e-11, 0);
    }
}

static void zero_eigenvalues_and_scale_change_nothing_else(void **state) {
    (void)state;
    double lambda[2 * N], mu, scaled;
    for (int k = 0; k < 2 * N; k++) lambda[k] = k % 2 ? pow(k + 1, -1.3) : 0;
    check_ok(residual_mu(lambda, 2 * N, 40, &mu));
    for (int k = 0; k < N; k++) lambda[k] = 1e-200 * pow(2 * k + 2, -1.3);
    check_ok(residual_mu(lambda, N, 40, &scaled));
    check_near(scaled, 1e-200 * mu, 1e-11, 0);
}

static void samples_that_span_everything_leave_nothing(void **state) {
    (void)state;
    const double lambda[] = {1, 0, 2, 0, 5};
    struct power_law law = {.n = 5, .alpha = 2, .scale = 1};
    double mu = 1, energy = 1;
    check_ok(residual_mu(lambda, 5, 3, &mu));
    assert_true(mu == 0);
    check_ok(residual_energy_power_law(&law, 5, &energy));
    assert_true(energy == 0);
    check_ok(residual_energy(lambda, 5, 0, &energy));
    assert_true(energy == 8);
    check_ok(residual_energy(lambda, 5, 2.999999, &energy));
    assert_true(energy > 0 && energy < 1e-4);
}

static void a_law_is_its_list_of_eigenvalues(void **state) {
    (void)state;
    const double alphas[] = {0.4, 1.1, 1.5, 3, 8};
    double *lambda = calloc(40000, sizeof *lambda), listed, law_mu;
    for (size_t i = 0; i < 5; i++)
        for (double m = 1; m < 40000; m *= 20) {
            struct power_law law = {.n = 40000, .alpha = alphas[i], .scale = 2};
            for (int64_t k = 0; k < law.n; k++) lambda[k] = power_law_eigenvalue(&law, k + 1);
            check_ok(residual_mu(lambda, law.n, m, &listed));
            check_ok(residual_mu_power_law(&law, m, &law_mu));
            check_near(law_mu, listed, 1e-9, 0);
        }
    free(lambda);
}

// m mu ~ scale ((pi / alpha) / sin(pi / alpha))^alpha m / (m + 1/2)^alpha once 1 << m << n; the slope in m is 1 -
// alpha.
static void long_laws_reach_the_asymptote(void **state) {
    (void)state;
    const double alphas[] = {1.5, 2, 3};
    for (size_t i = 0; i < 3; i++) {
        struct power_law law = {.n = INT64_C(1) << 60, .alpha = alphas[i], .scale = 0.1};
        double energy, more;
        check_ok(residual_energy_power_law(&law, 1000, &energy));
        check_near(energy, residual_asymptote(alphas[i], 0.1, 1000), 1e-5, 0);
        check_ok(residual_energy_power_law(&law, 10000, &more));
        check_near(log10(more / energy), 1 - alphas[i], 0, 0.001);
    }
    check_near(residual_asymptote(2, 1, 8), M_PI * M_PI / 4 * 8 / 72.25, 1e-14, 0);
}

static void mu_is_refused_for_what_is_no_spectrum(void **state) {
    (void)state;
    double lambda[] = {1, -1e-9, 2}, mu = 7;
    struct power_law law = {.n = 5, .alpha = -1, .scale = 1};
    check_fails(residual_mu(lambda, 3, 1, &mu), STATUS_INVALID);
    lambda[1] = NAN;
    check_fails(residual_mu(lambda, 3, 1, &mu), STATUS_INVALID);
    check_fails(residual_energy(lambda, 3, 0, &mu), STATUS_INVALID);
    lambda[1] = 1;
    check_fails(residual_mu(lambda, 3, 0, &mu), STATUS_INVALID);
    check_fails(residual_mu(lambda, 3, NAN, &mu), STATUS_INVALID);
    check_fails(residual_mu_power_law(&law, 1, &mu), STATUS_INVALID);
    check_fails(residual_energy_power_law(&law, 0, &mu), STATUS_INVALID);
    assert_true(mu == 7);
}

// The integrals over y of the three displacements.
static void displacements_of_an_even_grid_are_those_of_uniform_y(void **state) {
    (void)state;
    double y[N];
    for (int i = 0; i < N; i++) y[i] = (i + 0.5) / N;
    for (int r = ROUNDER_MARTINGALE; r <= ROUNDER_INDEPENDENT; r++)
        check_near(error_law_displacement((enum rounder)r, y, N), error_law_displacement((enum rounder)r, NULL, 0),
                   1e-5, 0);
    check_near(error_law_predict(2, 10, 5, 3), 1.2, 1e-15, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flat_spectrum_leaves_over_what_is_not_spanned),
        cmocka_unit_test(two_levels_solve_a_quadratic_equation),
        cmocka_unit_test(zero_eigenvalues_and_scale_change_nothing_else),
        cmocka_unit_test(samples_that_span_everything_leave_nothing),
        cmocka_unit_test(a_law_is_its_list_of_eigenvalues),
        cmocka_unit_test(long_laws_reach_the_asymptote),
        cmocka_unit_test(mu_is_refused_for_what_is_no_spectrum),
        cmocka_unit_test(displacements_of_an_even_grid_are_those_of_uniform_y),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
