// beta-reasonableness: closed forms, brute force over angles, and a certificate that nothing exceeds.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "spectra/beta.h"

#include <lapacke.h>

#undef I // of <complex.h>

static double normal(uint64_t seed, uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = seed, .stream = RNG_TEST + stream}, (uint64_t)i);
}

static double uniform(uint64_t seed, uint64_t stream, int64_t i) {
    return (double)rng_uniform((struct rng){.seed = seed, .stream = RNG_TEST + stream}, (uint64_t)i);
}

static double *gaussian(int64_t n, int64_t r, uint64_t seed) {
    double *x = mem_new((size_t)(n * r), sizeof *x);
    for (int64_t k = 0; k < n * r; k++) x[k] = normal(seed, 0, k);
    return x;
}

// ---- one direction ----

static double ratio_without(const double *x, int64_t n, int64_t left_out) {
    double sum2 = 0, sum4 = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i == left_out) continue;
        sum2 += x[i] * x[i];
        sum4 += x[i] * x[i] * x[i] * x[i];
    }
    double count = (double)n - (left_out >= 0);
    return count * sum4 / (sum2 * sum2);
}

static void ratio_and_its_error_equal_their_definitions(void **state) {
    (void)state;
    enum { N = 57 };
    double x[N], logs[N], mean = 0, squares = 0;
    int largest = 0;
    for (int i = 0; i < N; i++) x[i] = 1e-9 * normal(3, 1, i) * exp(normal(3, 2, i));
    for (int i = 0; i < N; i++) {
        logs[i] = log(ratio_without(x, N, i));
        mean += logs[i] / N;
        if (fabs(x[i]) > fabs(x[largest])) largest = i;
    }
    for (int i = 0; i < N; i++) squares += (logs[i] - mean) * (logs[i] - mean);
    struct beta_ratio ratio = beta_ratio(x, N);
    check_near(ratio.value, ratio_without(x, N, -1), 1e-12, 0);
    check_near(ratio.log_se, sqrt((N - 1.0) / N * squares), 1e-9, 0);
    check_near(ratio.low, ratio.value * exp(-1.96 * ratio.log_se), 1e-12, 0);
    check_near(ratio.high, ratio.value * exp(1.96 * ratio.log_se), 1e-12, 0);
    check_near(ratio.without_largest, ratio_without(x, N, largest), 1e-12, 0);
}

static void ratio_of_degenerate_numbers_is_not_a_number(void **state) {
    (void)state;
    double zeros[5] = {0}, bad[4] = {1, NAN, 2, 3}, endless[4] = {1, INFINITY, 2, 3}, one[6] = {0, 0, 3, 0, 0, 0};
    assert_true(isnan(beta_ratio(zeros, 5).value));
    assert_true(isnan(beta_ratio(bad, 4).value));
    assert_true(isnan(beta_ratio(endless, 4).value));
    assert_true(isnan(beta_ratio(one, 2).value));
    struct beta_ratio ratio = beta_ratio(one, 6);
    check_near(ratio.value, 6, 1e-12, 0);
    check_near(ratio.largest_share, 1, 1e-12, 0);
    assert_true(isinf(ratio.high) && ratio.low == 0);
}

// 1000 sets of 1000 Gaussian numbers: the interval holds the true value 3 in 92 % of them (standard error of the count 0.9 %), so that
// fewer than 88 % or more than 96 % come with probability below 1e-5; the mean stated error is within 15 % of the spread, whose own
// error is 2.2 % and which it falls short of by 3 %.
static void interval_of_gaussian_numbers_holds_three(void **state) {
    (void)state;
    enum { SETS = 1000, N = 1000 };
    double sum = 0, squares = 0, stated = 0;
    int inside = 0;
    for (int s = 0; s < SETS; s++) {
        double x[N];
        for (int i = 0; i < N; i++) x[i] = normal((uint64_t)s, 3, i);
        struct beta_ratio ratio = beta_ratio(x, N);
        inside += ratio.low <= 3 && 3 <= ratio.high;
        sum += log(ratio.value);
        squares += log(ratio.value) * log(ratio.value);
        stated += ratio.log_se / SETS;
    }
    double spread = sqrt((squares - sum * sum / SETS) / (SETS - 1));
    print_message("inside %d of %d, stated %.4f, spread %.4f\n", inside, SETS, stated, spread);
    assert_true(inside >= 880 && inside <= 960);
    check_near(stated, spread, 0.15, 0);
}

static void directions_known_is_the_largest_with_four_squares(void **state) {
    (void)state;
    for (int64_t n = 0; n < 70000; n += n < 300 ? 1 : 37) {
        int64_t r = 0;
        while (4 * (r + 1) * (r + 1) <= n) r++;
        assert_int_equal(beta_directions_known(n), r);
    }
}

// ---- closed forms ----

// All points of {-1, 1}^r: E <x, u>^4 = 3 - 2 sum u_a^4, largest at equal entries; the relaxation is exact (at t = (r - 2) / r).
static void hypercube_has_three_less_two_over_r(void **state) {
    (void)state;
    for (int64_t r = 2; r <= 8; r++) {
        int64_t n = INT64_C(1) << r;
        double *x = mem_new((size_t)(n * r), sizeof *x), want = 3 - 2 / (double)r;
        for (int64_t i = 0; i < n; i++)
            for (int64_t a = 0; a < r; a++) x[i * r + a] = i >> a & 1 ? 1 : -1;
        struct beta_sample beta;
        check_ok(beta_of_sample(x, n, r, r, 1, &beta, NULL));
        check_near(beta.lower, want, 1e-9, 0);
        assert_true(beta.upper >= want && beta.upper <= want * (1 + 3e-3));
        check_near(beta.average, 3 * (double)r / (double)(r + 2), 1e-9, 0);
        check_near(beta.leverage_high, (double)r, 1e-9, 0);
        check_near(beta.leverage_low, (double)(r * r) / (double)n, 1e-9, 0);
        free(x);
    }
}

// Every coordinate is +-1 with probability p, else 0, on its own: E <x, u>^4 = p^2 (3 + (1/p - 3) sum u_a^4), so that beta is 1/p for p <
// 1/3. As a whole distribution: counts of all 3^r points in proportion.
static void sparse_signs_have_one_over_p(void **state) {
    (void)state;
    enum { R = 3, ZEROS = 8, N = 10 * 10 * 10 }; // p = 2 / 10
    double *x = mem_new(N * R, sizeof *x), best[R];
    for (int64_t i = 0; i < N; i++)
        for (int64_t a = 0, rest = i; a < R; a++, rest /= 10)
            x[i * R + a] = rest % 10 < ZEROS ? 0 : rest % 10 == 8 ? 1 : -1;
    struct beta_sample beta;
    check_ok(beta_of_sample(x, N, R, R, 1, &beta, best));
    check_near(beta.lower, 5, 1e-9, 0);
    assert_true(beta.upper >= 5 && beta.upper < 5 * (1 + 3e-3));
    double product[N];
    for (int64_t i = 0; i < N; i++) product[i] = best[0] * x[i * R] + best[1] * x[i * R + 1] + best[2] * x[i * R + 2];
    check_near(beta_ratio(product, N).value, beta.lower, 1e-9, 0);
    free(x);
}

// One sample along an axis that nothing else has: both ends of the leverage bracket are n.
static void lonely_sample_has_its_number(void **state) {
    (void)state;
    enum { N = 40, R = 4 };
    double *x = gaussian(N, R, 5);
    for (int64_t i = 0; i < N; i++) x[i * R + R - 1] = i == 17 ? 0.01 : 0;
    for (int64_t a = 0; a < R - 1; a++) x[17 * R + a] = 0;
    struct beta_sample beta;
    check_ok(beta_of_sample(x, N, R, R, 1, &beta, NULL));
    check_near(beta.lower, N, 1e-9, 0);
    check_near(beta.leverage_low, N, 1e-9, 0);
    check_near(beta.upper, N, 1e-6, 0);
    check_near(beta.lower_largest_share, 1, 1e-9, 0);
    free(x);
}

// ---- brute force ----

enum shape { SHAPE_GAUSSIAN, SHAPE_HEAVY, SHAPE_SPARSE, SHAPE_SCALES, SHAPE_OUTLIER, SHAPES };

// Numbers of several shapes, mixed by a random matrix: correlated, not centred, of very different sizes.
static double *sample_of(enum shape shape, int64_t n, int64_t r, uint64_t seed) {
    double *raw = gaussian(n, r, seed), *x = mem_new((size_t)(n * r), sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        double size = shape == SHAPE_SCALES ? exp(normal(seed, 7, i)) : shape == SHAPE_OUTLIER && i == 3 ? 30 : 1;
        for (int64_t a = 0; a < r; a++) {
            double *value = &raw[i * r + a];
            if (shape == SHAPE_HEAVY) *value /= fabs(normal(seed, 8, i * r + a)) + 0.05;
            if (shape == SHAPE_SPARSE) *value = uniform(seed, 9, i * r + a) < 0.2 ? *value : 1e-3 * *value;
            *value *= size;
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t a = 0; a < r; a++) {
            x[i * r + a] = 0.3;
            for (int64_t b = 0; b < r; b++) x[i * r + a] += raw[i * r + b] * normal(seed, 10, a * r + b);
            x[i * r + a] *= pow(10, -(double)a);
        }
    free(raw);
    return x;
}

// Largest ratio over 20000 directions of the plane; scaled to equal sizes first, so that angles are spread evenly.
static double largest_over_angles(const double *x, int64_t n) {
    double size[2] = {0}, best = 0, *product = mem_new((size_t)n, sizeof *product);
    for (int64_t i = 0; i < n; i++)
        for (int a = 0; a < 2; a++) size[a] += x[i * 2 + a] * x[i * 2 + a];
    double correlation = 0;
    for (int64_t i = 0; i < n; i++) correlation += x[i * 2] * x[i * 2 + 1] / sqrt(size[0] * size[1]);
    double across = sqrt(1 - correlation * correlation);
    for (int k = 0; k < 20000; k++) {
        double c = cos(M_PI * k / 20000), s = sin(M_PI * k / 20000);
        for (int64_t i = 0; i < n; i++) {
            double a = x[i * 2] / sqrt(size[0]), b = (x[i * 2 + 1] / sqrt(size[1]) - correlation * a) / across;
            product[i] = c * a + s * b;
        }
        best = fmax(best, ratio_without(product, n, -1));
    }
    free(product);
    return best;
}

// In the plane nonnegative forms are sums of squares and one parameter is all the freedom there is: the certificate is exact up to
// its margin of 1e-3 and the search's 1e-3. The grid of angles misses the maximum by a share of (pi / 20000)^2 or so.
static void plane_agrees_with_brute_force(void **state) {
    (void)state;
    for (int k = 0; k < 40; k++) {
        int64_t n = 7 + 9 * k;
        double *x = sample_of((enum shape)(k % SHAPES), n, 2, (uint64_t)k);
        struct beta_sample beta;
        check_ok(beta_of_sample(x, n, 2, 2, 1, &beta, NULL));
        double want = largest_over_angles(x, n);
        check_near(beta.lower, want, 1e-5, 0);
        assert_true(beta.upper >= want && beta.upper <= want * (1 + 3e-3));
        assert_true(beta.leverage_low <= beta.lower * (1 + 1e-12) && beta.lower <= beta.leverage_high * (1 + 1e-12));
        free(x);
    }
}

static void certificate_is_never_below_a_direction(void **state) {
    (void)state;
    double widest = 0;
    for (int k = 0; k < 250; k++) {
        int64_t r = 1 + k % 12, n = r + 2 + (k * 37) % 300; // both kinds of proof
        double *x = sample_of((enum shape)(k / 12 % SHAPES), n, r, (uint64_t)k + 100);
        for (int64_t i = 0; i < n; i++) // sizes that whitening can still undo
            for (int64_t a = 3; a < r; a++) x[i * r + a] *= pow(10, (double)(a - 3));
        struct beta_sample beta;
        check_ok(beta_of_sample(x, n, r, r, (uint64_t)k, &beta, NULL));
        assert_true(beta.upper >= beta.lower);
        assert_true(beta.least <= beta.upper);
        assert_true(beta.leverage_low <= beta.lower * (1 + 1e-9) && beta.upper <= beta.leverage_high * (1 + 1e-6));
        assert_true(beta.average <= beta.lower * (1 + 1e-9));
        // The bound leaves out no direction: also not those of single samples, nor random ones.
        double *product = mem_new((size_t)n, sizeof *product);
        for (int j = 0; j < 20; j++) {
            for (int64_t i = 0; i < n; i++) {
                product[i] = 0;
                for (int64_t a = 0; a < r; a++)
                    product[i] += x[i * r + a] * normal((uint64_t)j, 11, a) * pow(10, (double)(a < 3 ? a : 3));
            }
            assert_true(beta_ratio(product, n).value <= beta.upper);
        }
        widest = fmax(widest, beta.upper / beta.lower);
        free(product);
        free(x);
    }
    print_message("upper / lower at most %.3f\n", widest);
}

// Largest eigenvalue of L_t as a matrix [r^2, r^2] that acts on symmetric matrices: by the definition, through its images of them.
static double largest_eigenvalue(const double *h, int64_t n, int64_t r, double t) {
    int64_t d = r * (r + 1) / 2, k = 0;
    double *m = mem_new((size_t)(d * d), sizeof *m), *values = mem_new((size_t)d, sizeof *values);
    for (int64_t a = 0; a < r; a++)
        for (int64_t b = a; b < r; b++, k++) {
            int64_t l = 0;
            for (int64_t c = 0; c < r; c++)
                for (int64_t e = c; e < r; e++, l++) { // <E_ce, L_t(E_ab)>, E_ab = (e_a e_b^T + e_b e_a^T) / norm
                    double ab = a == b ? 1 : M_SQRT2, ce = c == e ? 1 : M_SQRT2;
                    for (int64_t i = 0; i < n; i++)
                        m[k * d + l] += ab * h[i * r + a] * h[i * r + b] * ce * h[i * r + c] * h[i * r + e] / (double)n;
                    m[k * d + l] += t * (k == l) - t * (a == b) * (c == e);
                }
        }
    assert_int_equal(LAPACKE_dsyev(LAPACK_ROW_MAJOR, 'N', 'U', (int)d, m, (int)d, values), 0);
    double largest = values[d - 1];
    free(m);
    free(values);
    return largest;
}

static void proof_accepts_what_is_above_and_refuses_what_is_below(void **state) {
    (void)state;
    for (int k = 0; k < 60; k++) {
        int64_t r = 2 + k % 6, n = k % 2 ? r + 1 + k / 12 : r * (r + 1) / 2 + k; // both kinds of proof
        double *h = sample_of((enum shape)(k % SHAPES), n, r, (uint64_t)k + 500), t = 0.3 * (k % 7), upper;
        for (int64_t i = 0; i < n; i++)
            for (int64_t a = 0; a < r; a++)
                h[i * r + a] *= 0.3 * pow(10, (double)a); // the operator asks for no whitening
        double largest = largest_eigenvalue(h, n, r, t);
        check_ok(beta_certificate_prove(h, n, r, t, largest * (1 + 1e-6), &upper));
        check_near(upper, largest, 2e-6, 0);
        check_ok(beta_certificate_prove(h, n, r, t, largest * (1 - 1e-6), &upper));
        assert_true(isinf(upper));
        free(h);
    }
}

// ---- what must not matter ----

static void any_basis_and_scale_give_the_same(void **state) {
    (void)state;
    enum { N = 300, R = 6 };
    double *x = sample_of(SHAPE_SCALES, N, R, 77), *y = mem_new(N * R, sizeof *y);
    struct beta_sample a, b;
    check_ok(beta_of_sample(x, N, R, R, 1, &a, NULL));
    for (int64_t i = 0; i < N; i++)
        for (int64_t k = 0; k < R; k++)
            for (int64_t j = 0; j < R; j++)
                y[i * R + k] += 1e-30 * x[i * R + j] * pow(10, (double)j) * normal(4, 12, k * R + j);
    check_ok(beta_of_sample(y, N, R, R, 1, &b, NULL));
    check_near(b.lower, a.lower, 1e-7, 0);
    check_near(b.upper, a.upper, 2e-3, 0);
    check_near(b.average, a.average, 1e-7, 0);
    check_near(b.leverage_high, a.leverage_high, 1e-7, 0);
    free(x);
    free(y);
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    enum { N = 700, R = 24 };
    double *x = sample_of(SHAPE_HEAVY, N, R, 78);
    for (int64_t i = 0; i < N; i++)
        for (int64_t a = 0; a < R; a++) x[i * R + a] *= pow(10, (double)a);
    struct beta_sample beta[3];
    memset(beta, 0, sizeof beta);
    for (int t = 0; t < 3; t++) {
        threads_set(t + 1);
        check_ok(beta_of_sample(x, N, R, R, 1, &beta[t], NULL));
    }
    assert_memory_equal(&beta[0], &beta[1], sizeof beta[0]);
    assert_memory_equal(&beta[0], &beta[2], sizeof beta[0]);
    threads_set(2);
    free(x);
}

static void too_few_samples_or_directions_are_refused(void **state) {
    (void)state;
    enum { N = 30, R = 5 };
    double *x = gaussian(N, R, 6);
    struct beta_sample beta;
    check_fails(beta_of_sample(x, R, R, R, 1, &beta, NULL), STATUS_INVALID);
    for (int64_t i = 0; i < N; i++) x[i * R + 2] = x[i * R] - 2 * x[i * R + 4];
    check_fails(beta_of_sample(x, N, R, R, 1, &beta, NULL), STATUS_INVALID);
    for (int64_t i = 0; i < N; i++) x[i * R + 2] = 0;
    check_fails(beta_of_sample(x, N, R, R, 1, &beta, NULL), STATUS_INVALID);
    x[7] = NAN;
    check_fails(beta_of_sample(x, N, R, R, 1, &beta, NULL), STATUS_INVALID);
    free(x);
}

int main(void) {
    threads_set(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ratio_and_its_error_equal_their_definitions),
        cmocka_unit_test(ratio_of_degenerate_numbers_is_not_a_number),
        cmocka_unit_test(interval_of_gaussian_numbers_holds_three),
        cmocka_unit_test(directions_known_is_the_largest_with_four_squares),
        cmocka_unit_test(hypercube_has_three_less_two_over_r),
        cmocka_unit_test(sparse_signs_have_one_over_p),
        cmocka_unit_test(lonely_sample_has_its_number),
        cmocka_unit_test(plane_agrees_with_brute_force),
        cmocka_unit_test(certificate_is_never_below_a_direction),
        cmocka_unit_test(proof_accepts_what_is_above_and_refuses_what_is_below),
        cmocka_unit_test(any_basis_and_scale_give_the_same),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(too_few_samples_or_directions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
