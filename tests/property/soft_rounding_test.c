// AdaRound's variables on a Gram matrix.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "discquant/soft_rounding.h"

static void the_sigmoid_is_rectified_and_invertible(void **state) {
    (void)state;
    for (double v = -6; v <= 6; v += 0.37) {
        double slope, ignored, h = soft_rounding_value(v, &slope), step = 1e-6;
        double difference = soft_rounding_value(v + step, &ignored) - soft_rounding_value(v - step, &ignored);
        assert_true(h >= 0 && h <= 1);
        check_near(slope, difference / (2 * step), 1e-6, 1e-9);
        if (h > 0 && h < 1) check_near(soft_rounding_variable(h), v, 1e-9, 1e-9);
    }
    double slope;
    check_near(soft_rounding_value(soft_rounding_variable(0), &slope), 0, 0, 1e-12);
    check_near(soft_rounding_value(soft_rounding_variable(1), &slope), 1, 0, 1e-12);
    check_near(soft_rounding_value(0, &slope), 0.5, 0, 1e-12);
}

enum { N = 9, ROWS = 40 };

// Inputs that depend on each other strongly, weights between neighbours one apart.
struct problem {
    struct hessian hessian;
    double sum[N * N];
    float w[ROWS * N], down[ROWS * N], up[ROWS * N], x[ROWS * N];
};

static void problem_make(struct problem *p) {
    struct rng rng = {.seed = 12, .stream = RNG_TEST};
    *p = (struct problem){.hessian = {.n = N, .rows = 30}};
    p->hessian.sum = p->sum;
    for (uint64_t t = 0; t < 30; t++) {
        double x[N], before = 0;
        for (uint64_t i = 0; i < N; i++) x[i] = before = 0.8 * before + rng_normal(rng, t * N + i);
        for (int i = 0; i < N; i++)
            for (int j = 0; j <= i; j++) p->sum[i * N + j] += x[i] * x[j];
    }
    for (int i = 0; i < ROWS * N; i++) {
        p->w[i] = 3 * (float)rng_normal(rng, 5000 + (uint64_t)i);
        p->down[i] = floorf(p->w[i]);
        p->up[i] = p->down[i] + (i % 17 ? 1 : 0); // some without freedom
    }
}

static double error_of(const struct problem *p, const float *w, const float *point) {
    double error = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            error +=
                ((double)w[i] - point[i]) * ((double)w[j] - point[j]) * p->sum[(i > j ? i : j) * N + (i > j ? j : i)];
    return error;
}

// Over all 2^N roundings of each row: the least error, and that of x and of round-to-nearest.
static void learned_roundings_come_near_to_the_best(void **state) {
    (void)state;
    struct problem p;
    struct soft_rounding_result result;
    double best_sum = 0, learned_sum = 0, nearest_sum = 0;
    problem_make(&p);
    struct soft_rounding_options options = {.steps = 1000, .rate = 0.01, .strength = 30};
    check_ok(soft_rounding(&p.hessian, p.w, p.down, p.up, ROWS, &options, p.x, &result));
    for (int r = 0; r < ROWS; r++) {
        const float *w = p.w + r * N, *down = p.down + r * N, *up = p.up + r * N, *x = p.x + r * N;
        float point[N];
        double best = INFINITY;
        for (int k = 0; k < 1 << N; k++) {
            for (int i = 0; i < N; i++) point[i] = k >> i & 1 ? up[i] : down[i];
            best = fmin(best, error_of(&p, w, point));
        }
        for (int i = 0; i < N; i++) {
            assert_true(x[i] == 0 || x[i] == 1);
            assert_true(x[i] == 0 || up[i] > down[i]);
            point[i] = x[i] > 0 ? up[i] : down[i];
        }
        double learned = error_of(&p, w, point);
        for (int i = 0; i < N; i++) point[i] = up[i] - w[i] < w[i] - down[i] ? up[i] : down[i];
        double nearest = error_of(&p, w, point);
        assert_true(learned <= nearest * (1 + 1e-5));
        best_sum += best, learned_sum += learned, nearest_sum += nearest;
    }
    check_near(result.error, learned_sum, 1e-4, 0);
    check_near(result.error_nearest, nearest_sum, 1e-4, 0);
    assert_true(learned_sum - best_sum < 0.15 * (nearest_sum - best_sum));
}

// What cannot be learned in no step stays at round-to-nearest.
static void without_steps_it_is_round_to_nearest(void **state) {
    (void)state;
    struct problem p;
    struct soft_rounding_result result;
    problem_make(&p);
    check_ok(soft_rounding(&p.hessian, p.w, p.down, p.up, ROWS, &(struct soft_rounding_options){0}, p.x, &result));
    check_near(result.error, result.error_nearest, 1e-12, 0);
    for (int i = 0; i < ROWS * N; i++) {
        if (p.up[i] > p.down[i]) assert_true((p.x[i] > 0) == (p.up[i] - p.w[i] < p.w[i] - p.down[i]));
    }
}

int main(void) {
    threads_set(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sigmoid_is_rectified_and_invertible),
        cmocka_unit_test(learned_roundings_come_near_to_the_best),
        cmocka_unit_test(without_steps_it_is_round_to_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
