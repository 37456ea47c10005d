// What Theorem 3 (iii) and the martingale ask of the walks: E x = y, tested along P (1 - 2y), where cutting steps at the box
// pushes; Cov x of order one in every direction, tested by the spike that a bias makes at large n.
#include "core/base/threads.h"
#include "tests/walk_cases.h"

// z of the mean of <x - y, P (1 - 2y)> over independent walks; P (x - y) = x - y where the engine keeps M x.
static double bias_z(enum walk_case kind, int64_t n, int64_t m, struct walk_options o, int walks, double *variance) {
    double *a = walk_case_matrix(kind, n, m, 5), *y = walk_case_start(n, 0, 6), *x = walk_case_numbers(n);
    double *c = walk_case_numbers(n), sum = 0, squares = 0, norm2 = 0;
    struct frame *f;
    check_ok(frame_new(a, n, m, NULL, &f));
    for (int64_t i = 0; i < n; i++) c[i] = 1 - 2 * y[i];
    frame_project(f, c);
    for (int64_t i = 0; i < n; i++) norm2 += c[i] * c[i];
    for (int w = 0; w < walks; w++) {
        struct walk_result r;
        double t = 0;
        o.walk = (uint32_t)w;
        check_ok(walk_round(f, y, &o, x, NULL, &r));
        for (int64_t i = 0; i < n; i++) t += (x[i] - y[i]) * c[i];
        sum += t, squares += t * t;
    }
    double mean = sum / walks;
    if (variance) *variance = (squares / walks - mean * mean) / norm2;
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
    free(c);
    return mean / sqrt((squares / walks - mean * mean) / walks);
}

// |z| <= 4.5: a false alarm in 150000 runs each.
static void martingales_have_mean_y(void **state) {
    (void)state;
    const char *names[] = {"zone", "leap", "gsw"};
    for (int e = 0; e < 3; e++)
        for (int local = 0; local < 2; local++) {
            enum walk_finish finishes[] = {WALK_STOP, WALK_LANDING}; // the second begins with the way to a vertex
            for (int k = 0; k < 2; k++) {
                struct walk_options o = {.engine = names[e], .finish = finishes[k], .seed = 40 + (uint64_t)k};
                double variance, z = bias_z(local ? CASE_LOCALISED : CASE_DECAYING, 256, 4, o, 2000, &variance);
                check_near(z, 0, 0, 4.5);
                assert_true(variance < 0.5);
            }
        }
}

static void textbook_discretisations_are_biased(void **state) {
    (void)state;
    double clamp =
        bias_z(CASE_DECAYING, 256, 4, (struct walk_options){.engine = "clamp", .step_size = 0.2}, 2000, NULL);
    double slack =
        bias_z(CASE_DECAYING, 256, 4, (struct walk_options){.engine = "slack", .step_size = 0.05}, 2000, NULL);
    assert_true(clamp > 20);  // outwards: E [x - y] = +a (1 - 2y) / (1 + 2a)
    assert_true(slack < -20); // inwards: to the nearer face
}

// n (slope of the bias)^2 / 3: one run shows it at n = 65536. For a martingale the square of a variable of variance < 1/4: above 1.5
// in one run of 1e6 if it is near normal.
static void bias_of_clamp_breaks_theorem_3_at_large_n(void **state) {
    (void)state;
    int64_t n = 65536, m = 16;
    double *a = walk_case_matrix(CASE_DECAYING, n, m, 5), *y = walk_case_start(n, 0, 6), *x = walk_case_numbers(n);
    double *c = walk_case_numbers(n), norm2 = 0, spike[3];
    struct frame *f;
    check_ok(frame_new(a, n, m, NULL, &f));
    for (int64_t i = 0; i < n; i++) c[i] = 1 - 2 * y[i];
    frame_project(f, c);
    for (int64_t i = 0; i < n; i++) norm2 += c[i] * c[i];
    const char *names[] = {"zone", "leap", "clamp"};
    for (int e = 0; e < 3; e++) {
        struct walk_options o = {.engine = names[e], .step_size = 0.1, .seed = 77};
        struct walk_result r;
        double t = 0;
        check_ok(walk_round(f, y, &o, x, NULL, &r));
        for (int64_t i = 0; i < n; i++) t += (x[i] - y[i]) * c[i];
        spike[e] = t * t / norm2;
    }
    assert_true(spike[0] < 1 && spike[1] < 1);
    assert_true(spike[2] > 20);
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
    free(c);
}

// x_i of a martingale that ends at 0 or 1 has variance y_i (1 - y_i); and no direction may have more than 1/4 for gsw. Checked by the
// largest of fixed random directions: (x - y) . d over 3000 walks, whose relative error is 2.6 %.
static void gram_schmidt_walk_has_covariance_below_a_quarter(void **state) {
    (void)state;
    enum { N = 96, M = 6, WALKS = 3000, DIRECTIONS = 40 };
    double *a = walk_case_matrix(CASE_DECAYING, N, M, 5), *y = walk_case_start(N, 0, 6), *x = walk_case_numbers(N);
    double *d = walk_case_numbers(DIRECTIONS * N), sums[DIRECTIONS] = {0};
    struct frame *f;
    for (int64_t i = 0; i < N; i++) y[i] = 0.5; // where variances are largest
    check_ok(frame_new(a, N, M, NULL, &f));
    for (int64_t k = 0; k < DIRECTIONS; k++) {
        double norm2 = 0, *dir = d + k * N;
        for (int64_t i = 0; i < N; i++)
            dir[i] = rng_normal((struct rng){.seed = 8, .stream = RNG_TEST}, (uint64_t)(k * N + i));
        frame_project(f, dir);
        for (int64_t i = 0; i < N; i++) norm2 += dir[i] * dir[i];
        for (int64_t i = 0; i < N; i++) dir[i] /= sqrt(norm2);
    }
    for (uint32_t w = 0; w < WALKS; w++) {
        struct walk_result r;
        check_ok(walk_round(f, y, &(struct walk_options){.engine = "gsw", .walk = w}, x, NULL, &r));
        for (int64_t k = 0; k < DIRECTIONS; k++) {
            double t = 0;
            for (int64_t i = 0; i < N; i++) t += (x[i] - y[i]) * d[k * N + i];
            sums[k] += t * t / WALKS;
        }
    }
    for (int64_t k = 0; k < DIRECTIONS; k++) assert_true(sums[k] < 0.25 * 1.16); // six standard errors
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
    free(d);
}

int main(void) {
    threads_set(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(martingales_have_mean_y),
        cmocka_unit_test(textbook_discretisations_are_biased),
        cmocka_unit_test(bias_of_clamp_breaks_theorem_3_at_large_n),
        cmocka_unit_test(gram_schmidt_walk_has_covariance_below_a_quarter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
