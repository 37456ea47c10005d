// walk/vertex.h: optimality is shown by multipliers that the test computes itself.
#include "core/base/threads.h"
#include "tests/walk_cases.h"
#include "walk/vertex.h"

// The minimum of <c, x> over {x in [0,1]^n: a . x = a . y}, one constraint, by sorting: the textbook's fractional knapsack.
static double knapsack(const double *a, const double *c, const double *y, int64_t n) {
    // Over v: max of sum min(0, c_i - v a_i) + v b; the maximum is at a breakpoint c_i / a_i.
    double b = 0, best = -INFINITY;
    for (int64_t i = 0; i < n; i++) b += a[i] * y[i];
    for (int64_t k = 0; k < n; k++) {
        double v = c[k] / a[k], sum = v * b;
        for (int64_t i = 0; i < n; i++) sum += fmin(0, c[i] - v * a[i]);
        best = fmax(best, sum);
    }
    return best;
}

static void one_constraint_is_the_fractional_knapsack(void **state) {
    (void)state;
    int64_t n = 333;
    for (uint64_t seed = 0; seed < 20; seed++) {
        double *a = walk_case_matrix(CASE_DECAYING, n, 1, seed), *row = walk_case_numbers(n), *c = walk_case_numbers(n);
        double *y = walk_case_start(n, 0, seed), *x = walk_case_numbers(n);
        for (int64_t i = 0; i < n; i++) {
            row[i] = a[i * frame_stride(1)];
            c[i] = rng_normal((struct rng){.seed = seed, .stream = RNG_TEST + 2}, (uint64_t)i);
        }
        struct frame *f;
        struct vertex_result r;
        check_ok(frame_new(a, n, 1, NULL, &f));
        check_ok(vertex_minimise(f, y, c, x, &r));
        check_near(r.objective, knapsack(row, c, y, n), 1e-9, 0);
        assert_true(r.fractional <= 1);
        frame_free(f);
        mem_buffer_free(a);
        free(row);
        free(c);
        free(y);
        free(x);
    }
}

static void vertices_are_feasible_and_nearly_minimal(void **state) {
    (void)state;
    const int64_t shapes[][2] = {{2000, 12}, {400, 60}, {64, 64}, {30, 40}};
    for (int s = 0; s < 4; s++)
        for (enum walk_case kind = 0; kind < N_CASES; kind++)
            for (int cost = 0; cost < 3; cost++) {
                int64_t n = shapes[s][0], m = shapes[s][1];
                if (kind == CASE_KAPPA && m > n) continue;
                double *a = walk_case_matrix(kind, n, m, 4), *y = walk_case_start(n, 0, 5);
                double *x = walk_case_numbers(n), *c = walk_case_numbers(n), objective = 0, at_y = 0;
                struct frame *f;
                struct vertex_result r;
                vertex_closest_cost(y, n, c);
                for (int64_t i = 0; i < n && cost; i++)
                    c[i] = cost == 1 ? rng_normal((struct rng){.seed = 1, .stream = RNG_TEST}, (uint64_t)i) : 1;
                check_ok(frame_new(a, n, m, NULL, &f));
                check_ok(vertex_minimise(f, y, c, x, &r));
                int64_t fractional = 0;
                for (int64_t i = 0; i < n; i++) {
                    assert_true(x[i] >= 0 && x[i] <= 1);
                    fractional += x[i] > 0 && x[i] < 1;
                    objective += c[i] * x[i], at_y += c[i] * y[i];
                }
                assert_true(fractional <= f->rank);
                assert_int_equal(fractional, r.fractional);
                assert_true(r.residual <= 1e-12 * sqrt((double)n));
                check_near(frame_residual(f, x, y, NULL), r.residual, 1e-6, 1e-15);
                check_near(objective, r.objective, 1e-12, 1e-12);
                assert_true(r.objective <= at_y + 1e-9 * (double)n);
                assert_true(r.gap >= -1e-9 * (double)n);
                if (!(r.gap <= 1e-3 * (double)n))
                    print_error("n %d kind %d cost %d gap %g\n", (int)n, (int)kind, cost, r.gap);
                assert_true(r.gap <= 1e-3 * (double)n);
                frame_free(f);
                mem_buffer_free(a);
                free(y);
                free(x);
                free(c);
            }
}

// |x - y|^2 / n: 1/12 for the closest vertex, 1/3 for a cost that knows nothing of y (n >> m, y uniform).
static void the_closest_vertex_is_twice_as_close_as_a_walk(void **state) {
    (void)state;
    int64_t n = 30000, m = 8;
    double *a = walk_case_matrix(CASE_DECAYING, n, m, 4), *y = walk_case_start(n, 0, 5), *x = walk_case_numbers(n);
    double *c = walk_case_numbers(n), want[] = {1.0 / 12, 1.0 / 3, 1.0 / 6};
    struct frame *f;
    struct vertex_result r;
    struct walk_result walk;
    check_ok(frame_new(a, n, m, NULL, &f));
    for (int k = 0; k < 3; k++) {
        double sum = 0;
        if (k == 0) vertex_closest_cost(y, n, c);
        for (int64_t i = 0; i < n && k == 1; i++)
            c[i] = rng_normal((struct rng){.seed = 2, .stream = RNG_TEST}, (uint64_t)i);
        if (k < 2) check_ok(vertex_minimise(f, y, c, x, &r));
        if (k == 2) check_ok(walk_round(f, y, &(struct walk_options){.finish = WALK_VERTEX}, x, NULL, &walk));
        for (int64_t i = 0; i < n; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
        check_near(sum / (double)n, want[k], 0.02, 0);
    }
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
    free(c);
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    double *a = walk_case_matrix(CASE_DECAYING, 50, 3, 4), *y = walk_case_start(50, 0, 5), x[50], c[50] = {0};
    struct frame *f;
    struct vertex_result r;
    check_ok(frame_new(a, 50, 3, NULL, &f));
    check_ok(vertex_minimise(f, y, c, x, &r)); // every vertex is one of least cost
    assert_true(r.fractional <= 3);
    c[7] = NAN;
    check_fails(vertex_minimise(f, y, c, x, &r), STATUS_INVALID);
    c[7] = 0, y[3] = 2;
    check_fails(vertex_minimise(f, y, c, x, &r), STATUS_INVALID);
    frame_free(f);
    mem_buffer_free(a);
    free(y);
}

int main(void) {
    threads_set(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_constraint_is_the_fractional_knapsack),
        cmocka_unit_test(vertices_are_feasible_and_nearly_minimal),
        cmocka_unit_test(the_closest_vertex_is_twice_as_close_as_a_walk),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
