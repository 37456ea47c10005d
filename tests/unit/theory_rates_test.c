// Sums over power laws, F_alpha, Theorem 2, Proposition 4's constants, the sharper bound's closed forms.
#include "tests/check.h"

#include "theory/rates.h"
#include "theory/residual.h"
#include "theory/sharper_bound.h"
#include "theory/student.h"

#include <gsl/gsl_sf_zeta.h>

static struct hypothesis hypothesis(double alpha, int64_t n, int64_t m) {
    return (struct hypothesis){.law = {.n = n, .alpha = alpha, .scale = 1}, .beta = 3, .m = m};
}

static double sum_by_terms(const struct power_law *law, int64_t first, int64_t last) {
    long double sum = 0;
    for (int64_t k = last; k >= first; k--)
        sum += (long double)law->scale * powl((long double)k, -(long double)law->alpha);
    return (double)sum;
}

static double directions_by_terms(const struct power_law *law, double mu) {
    long double sum = 0;
    for (int64_t k = law->n; k >= 1; k--) {
        long double lambda = (long double)law->scale * powl((long double)k, -(long double)law->alpha);
        sum += lambda / (lambda + (long double)mu);
    }
    return (double)sum;
}

static void sums_of_a_power_law_are_the_sums_of_its_terms(void **state) {
    (void)state;
    const double alphas[] = {0, 0.5, 1, 1.1, 1.5, 2, 3, 12};
    for (size_t i = 0; i < sizeof alphas / sizeof *alphas; i++) {
        struct power_law law = {.n = 30000, .alpha = alphas[i], .scale = 0.7};
        const int64_t ranges[][2] = {{1, 30000}, {1, 7}, {17, 20000}, {5000, 5001}, {7000, 30000}, {5, 4}};
        for (size_t j = 0; j < sizeof ranges / sizeof *ranges; j++)
            check_near(power_law_sum(&law, ranges[j][0], ranges[j][1]), sum_by_terms(&law, ranges[j][0], ranges[j][1]),
                       1e-12, 0);
    }
}

static void the_tail_of_a_long_law_is_the_zeta_function(void **state) {
    (void)state;
    struct power_law law = {.n = INT64_C(1000000000000000), .alpha = 3, .scale = 2};
    check_near(power_law_sum(&law, 1, law.n), 2 * gsl_sf_zeta(3), 1e-12, 0);
    check_near(power_law_sum(&law, 1001, law.n), 2 * gsl_sf_hzeta(3, 1001), 1e-12, 0);
    law.alpha = 1.5;
    check_near(power_law_sum(&law, 34, law.n), 2 * (gsl_sf_hzeta(1.5, 34) - gsl_sf_hzeta(1.5, 1e15 + 1)), 1e-12, 0);
}

static void directions_are_the_sum_of_their_terms(void **state) {
    (void)state;
    const double alphas[] = {0.5, 1.1, 2, 6, 40};
    for (size_t i = 0; i < sizeof alphas / sizeof *alphas; i++)
        for (double knee = 1; knee < 1e6; knee *= 9) {
            struct power_law law = {.n = 30000, .alpha = alphas[i], .scale = 0.3};
            double mu = 0.3 * pow(knee, -alphas[i]);
            check_near(power_law_directions(&law, mu), directions_by_terms(&law, mu), 1e-11, 0);
        }
}

static void f_alpha_has_its_three_cases(void **state) {
    (void)state;
    double f;
    struct hypothesis h = hypothesis(1.25, 65536, 256);
    check_ok(rates_f_alpha(&h, &f));
    check_near(f, 0.25, 1e-15, 0); // 256^(-1/4)
    h.law.alpha = 1.5;
    check_ok(rates_f_alpha(&h, &f));
    check_near(f, log(2), 1e-15, 0); // 16 log 2 / 16
    h.law.alpha = 2.75;
    check_ok(rates_f_alpha(&h, &f));
    check_near(f, 1.0 / 16, 1e-15, 0);
}

static void theorem_2_is_the_product_it_states(void **state) {
    (void)state;
    double error, f;
    struct hypothesis h = hypothesis(1.25, 65536, 256);
    h.law.scale = 5;
    check_ok(rates_theorem2(&h, 7, &error));
    check_near(error, 7 * 5 * log(256) * 0.25, 1e-14, 0);
    assert_int_equal(rates_fractional(256), 4096);

    // The number of samples for an error is the least one whose bound is no larger.
    check_ok(rates_samples(&h, 7, 36, &h.m));
    check_ok(rates_theorem2(&h, 7, &error));
    assert_true(error <= 36);
    h.m--;
    check_ok(rates_theorem2(&h, 7, &error));
    assert_true(error > 36);
    check_fails(rates_samples(&h, 7, 1e-9, &h.m), STATUS_INVALID);
    h = hypothesis(2, 15, 1); // n / 16 < 1
    check_fails(rates_theorem2(&h, 1, &error), STATUS_INVALID);
    check_fails(rates_samples(&h, 1, 1e9, &h.m), STATUS_INVALID);
    h.law.n = 16;
    check_ok(rates_f_alpha(&h, &f));
    check_ok(rates_theorem2(&h, 1, &error));
    check_near(error, log(16) * f, 1e-15, 0);
}

static void statements_are_refused_outside_their_domain(void **state) {
    (void)state;
    double value = 5;
    const struct hypothesis good = hypothesis(1.5, 4096, 64);
    struct hypothesis bad[9];
    for (size_t i = 0; i < 9; i++) bad[i] = good;
    bad[0].law.alpha = 1;
    bad[1].law.alpha = NAN;
    bad[2].law.n = 0;
    bad[3].law.scale = 0;
    bad[4].law.scale = INFINITY;
    bad[5].beta = 0.99;
    bad[6].beta = INFINITY;
    bad[7].m = 0;
    bad[8].m = 4097;
    for (size_t i = 0; i < 9; i++) {
        check_fails(rates_f_alpha(&bad[i], &value), STATUS_INVALID);
        check_fails(rates_theorem2(&bad[i], 1, &value), STATUS_INVALID);
        check_fails(rates_proposition4(&bad[i], &value), STATUS_INVALID);
        check_fails(rates_proposition4_blocks(&bad[i], &value), STATUS_INVALID);
        check_fails(sharper_bound(&bad[i], &value), STATUS_INVALID);
        check_fails(sharper_bound_gaussian(&bad[i], &value), STATUS_INVALID);
        check_fails(sharper_bound_floor(&bad[i], &value), STATUS_INVALID);
        check_fails(sharper_bound_rate(&bad[i], &value), STATUS_INVALID);
    }
    struct hypothesis large = good;
    large.m = 257; // n / 16 = 256
    check_fails(rates_theorem2(&large, 1, &value), STATUS_INVALID);
    check_fails(rates_theorem2(&good, 0, &value), STATUS_INVALID);
    check_fails(rates_proposition4_constant(0.9, 3, &value), STATUS_INVALID);
    check_fails(sharper_bound_rate(&good, &value), STATUS_INVALID); // m too small
    assert_true(value == 5);
}

// The closed form estimates the sum over blocks from above, and not by much where no geometric series is nearly
// constant.
static void proposition_4_closed_form_covers_its_blocks(void **state) {
    (void)state;
    const double alphas[] = {1.05, 1.2, 1.45, 1.5, 1.55, 2, 4};
    for (size_t i = 0; i < 7; i++)
        for (int64_t n = 16; n <= INT64_C(1) << 40; n *= 64)
            for (int64_t m = 1; m <= n; m *= 5) {
                struct hypothesis h = hypothesis(alphas[i], n, m);
                double closed, blocks;
                check_ok(rates_proposition4(&h, &closed));
                check_ok(rates_proposition4_blocks(&h, &blocks));
                assert_true(blocks <= closed);
                if (n > 1 << 20 && m > 1000 && m < n / 1000 && (alphas[i] == 2 || alphas[i] == 4))
                    assert_true(closed < 5 * blocks);
            }
}

static void the_sharper_bounds_are_ordered(void **state) {
    (void)state;
    const double alphas[] = {1.1, 1.5, 2, 3};
    for (size_t i = 0; i < 4; i++)
        for (int64_t m = 1; m <= 1 << 30; m *= 4) {
            struct hypothesis h = hypothesis(alphas[i], INT64_C(1) << 40, m);
            double general, gaussian, floor_, rate;
            check_ok(sharper_bound(&h, &general));
            check_ok(sharper_bound_gaussian(&h, &gaussian));
            check_ok(sharper_bound_floor(&h, &floor_));
            assert_true(floor_ <= gaussian && gaussian <= general);
            assert_true(general <= power_law_sum(&h.law, 1, h.law.n) * (1 + 1e-12));
            if (m < 65536) continue;
            check_ok(sharper_bound_rate(&h, &rate));
            assert_true(general <= rate);
        }
}

// For alpha >= 3/2 the sharper bound falls faster than Theorem 2's: as m^(1-alpha), whatever alpha is.
static void the_sharper_bound_falls_with_its_power(void **state) {
    (void)state;
    const double alphas[] = {1.25, 1.5, 2, 3};
    for (size_t i = 0; i < 4; i++) {
        struct hypothesis few = hypothesis(alphas[i], INT64_C(1) << 62, 1 << 20), many = few;
        double a, b;
        many.m = 1 << 26;
        check_ok(sharper_bound(&few, &a));
        check_ok(sharper_bound(&many, &b));
        check_near(log(b / a) / log(64), 1 - alphas[i], 0, 0.05); // k / m still grows a little
        check_ok(sharper_bound_gaussian(&few, &a));
        check_ok(sharper_bound_gaussian(&many, &b));
        check_near(log(b / a) / log(64), 1 - alphas[i], 0, 0.005);
    }
}

static void intervals_are_students(void **state) {
    (void)state;
    struct student of = student_of((double[]){1, NAN, 2, 3}, 4);
    assert_int_equal(of.n, 3);
    check_near(of.mean, 2, 1e-15, 0);
    check_near(of.half, 0.95 / sqrt(2 * 0.975 * 0.025) / sqrt(3), 1e-9,
               0); // t with 2 degrees of freedom in closed form
    of = student_of((double[]){7, NAN}, 2);
    assert_true(of.mean == 7 && isnan(of.half));
    assert_true(isnan(student_of(NULL, 0).mean));
    of = student_of((double[]){3.1125, 3.1125, 3.1125}, 3);
    assert_true(of.half == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_of_a_power_law_are_the_sums_of_its_terms),
        cmocka_unit_test(the_tail_of_a_long_law_is_the_zeta_function),
        cmocka_unit_test(directions_are_the_sum_of_their_terms),
        cmocka_unit_test(f_alpha_has_its_three_cases),
        cmocka_unit_test(theorem_2_is_the_product_it_states),
        cmocka_unit_test(statements_are_refused_outside_their_domain),
        cmocka_unit_test(proposition_4_closed_form_covers_its_blocks),
        cmocka_unit_test(the_sharper_bounds_are_ordered),
        cmocka_unit_test(the_sharper_bound_falls_with_its_power),
        cmocka_unit_test(intervals_are_students),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
