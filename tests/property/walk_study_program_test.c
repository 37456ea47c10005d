// What discquant-walk's studies conclude from: intervals, slopes, verdicts, on data whose answer is known; shifted starts; and the
// studies themselves, small.
#include "tests/files.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "data/json.h"
#include "walk/instance.h"
#include "walk/judge.h"
#include "walk/shift.h"

#define PROGRAM "walk/discquant-walk"

static double normal(uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 11, .stream = RNG_TEST + stream}, (uint64_t)i);
}

// 200 sets of 20 normals: the 95 % interval misses the mean in 10 of them, give or take 3.1; 30 or more has probability 1e-7, and
// percentile intervals of 20 values are a little short.
static void intervals_hold_the_mean_as_often_as_they_say(void **state) {
    (void)state;
    int missed = 0;
    for (int set = 0; set < 200; set++) {
        double values[20];
        for (int i = 0; i < 20; i++) values[i] = 3 + normal(1, set * 20 + i);
        struct nest nest = {.levels = 1, .counts = {20}, .values = values, .stride = 1};
        struct interval interval = bootstrap_mean(&nest, (uint64_t)set);
        assert_true(interval.low <= interval.mean && interval.mean <= interval.high);
        missed += interval.low > 3 || interval.high < 3;
    }
    assert_in_range(missed, 1, 30);
}

// Values that differ between M only: 100 walks of each M must not make the interval narrower than one does.
static void what_walks_share_stays_shared(void **state) {
    (void)state;
    double one[10], many[1000];
    for (int i = 0; i < 1000; i++) many[i] = one[i / 100] = normal(2, i / 100);
    struct nest outer = {.levels = 1, .counts = {10}, .values = one, .stride = 1},
                nested = {.levels = 2, .counts = {10, 100}, .values = many, .stride = 1};
    struct interval a = bootstrap_mean(&outer, 5), b = bootstrap_mean(&nested, 5);
    check_near(b.mean, a.mean, 0, 1e-12);
    check_near((b.high - b.low) / (a.high - a.low), 1, 0.1, 0);
}

static void one_value_has_no_interval(void **state) {
    (void)state;
    double value = 2;
    struct nest nest = {.levels = 1, .counts = {1}, .values = &value, .stride = 1};
    struct interval interval = bootstrap_mean(&nest, 1);
    assert_true(interval.mean == 2 && isnan(interval.low) && isnan(interval.high));
    assert_int_equal(judge_below(&interval, 3), VERDICT_UNDECIDED);
    assert_int_equal(judge_near(&interval, 2, 1), VERDICT_UNDECIDED);
}

static void slopes_of_power_laws_are_their_powers(void **state) {
    (void)state;
    double m[4] = {8, 16, 32, 64}, values[4][30];
    struct nest nests[4];
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 30; i++) values[k][i] = pow(m[k], -1.5) * exp(0.1 * normal(3, k * 30 + i));
        nests[k] = (struct nest){.levels = 1, .counts = {30}, .values = values[k], .stride = 1};
    }
    struct interval slope = bootstrap_slope(nests, m, 4, 1);
    // sd of the slope: 0.1 / sqrt(30) / sqrt(sum (log m - mean)^2) = 0.012; six of them
    check_near(slope.mean, -1.5, 0, 0.07);
    assert_true(slope.high - slope.low > 0.02 && slope.high - slope.low < 0.1);
    values[0][0] = -1e9;
    assert_true(isnan(slope_of(m, (double[]){1, 2, -1, 3}, 4)));
    struct interval ratio = bootstrap_ratio(&nests[1], &nests[1], 1);
    check_near(ratio.low, 1, 1e-12, 0);
    check_near(ratio.high, 1, 1e-12, 0);
}

static void verdicts_follow_from_intervals(void **state) {
    (void)state;
    const struct interval narrow = {1, 0.9, 1.1}, wide = {1, -3, 5};
    assert_int_equal(judge_below(&narrow, 1.2), VERDICT_HOLDS);
    assert_int_equal(judge_below(&narrow, 1), VERDICT_UNDECIDED);
    assert_int_equal(judge_below(&narrow, 0.8), VERDICT_FAILS);
    assert_int_equal(judge_above(&narrow, 0.8), VERDICT_HOLDS);
    assert_int_equal(judge_above(&narrow, 1), VERDICT_UNDECIDED);
    assert_int_equal(judge_above(&narrow, 1.2), VERDICT_FAILS);
    assert_int_equal(judge_near(&narrow, 1.05, 0.1), VERDICT_HOLDS);
    assert_int_equal(judge_near(&narrow, 1.15, 0.1), VERDICT_UNDECIDED);
    assert_int_equal(judge_near(&narrow, 1.3, 0.1), VERDICT_FAILS);
    assert_int_equal(judge_near(&wide, 1, 0.1), VERDICT_UNDECIDED);
    assert_int_equal(verdict_and(VERDICT_HOLDS, VERDICT_UNDECIDED), VERDICT_UNDECIDED);
    assert_int_equal(verdict_and(VERDICT_FAILS, VERDICT_UNDECIDED), VERDICT_FAILS);
}

// t - y lies in the row space and cancels the offsets; inside the box M t is the same, also where y stands at its faces.
static void shifted_starts_cancel_offsets(void **state) {
    (void)state;
    enum { N = 400, SAMPLES = 12, STRIDE = 16 };
    double *matrix, *kept = calloc((size_t)N * STRIDE, sizeof *kept), y[N], t[N], work[2 * N], offsets[SAMPLES], left,
                    residual;
    struct frame *frame;
    check_ok(frame_matrix_new(N, SAMPLES, &matrix));
    assert_int_equal(frame_stride(SAMPLES), STRIDE);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < SAMPLES; k++) matrix[i * STRIDE + k] = kept[i * STRIDE + k] = normal(4, i * SAMPLES + k);
    for (int i = 0; i < N; i++) y[i] = t[i] = i % 10 == 0 ? 0 : i % 10 == 1 ? 0.999 : 0.1 + 0.8 * (i % 7) / 6;
    for (int k = 0; k < SAMPLES; k++) offsets[k] = 3 * normal(5, k);
    check_ok(shift_new(matrix, N, SAMPLES, STRIDE, offsets, t, &left));
    assert_true(left < 1e-12);
    check_ok(frame_new(matrix, N, SAMPLES, NULL, &frame));
    double norm = 0, outside = 0;
    for (int i = 0; i < N; i++) work[i] = t[i] - y[i], norm += work[i] * work[i];
    frame_project(frame, work);
    for (int i = 0; i < N; i++) outside += work[i] * work[i];
    assert_true(outside < 1e-24 * norm);
    check_ok(shift_into_box(frame, t, work, &residual));
    assert_true(residual < 1e-10);
    for (int k = 0; k < SAMPLES; k++) {
        double sum = offsets[k];
        for (int i = 0; i < N; i++) sum += kept[i * STRIDE + k] * (t[i] - y[i]);
        check_near(sum, 0, 0, 1e-8);
    }
    for (int i = 0; i < N; i++) assert_true(t[i] >= 0 && t[i] <= 1);
    frame_free(frame);
    mem_buffer_free(matrix);
    free(kept);
}

// tr(P Sigma) and QE of an instance against sums over coordinates, in the identity basis.
static void instances_know_their_error(void **state) {
    (void)state;
    struct problem problem = {.n = 64, .m = 3, .alpha = 1.5, .scale = 2, .basis = BASIS_IDENTITY};
    struct instance *instance;
    double figures[FIGURES], qe = 0, energy = 0;
    check_ok(instance_new(&problem, 9, &instance));
    instance_start(instance, 1);
    check_ok(instance_walk(instance, &(struct walker){.engine = "gsw", .finish = WALK_VERTEX}, 1, 0, figures));
    for (int i = 0; i < 64; i++) {
        double lambda = 2 * pow(i + 1, -1.5), d = instance->x[i] - instance->y[i];
        qe += lambda * d * d;
        energy += lambda * (1 - instance->frame->norm2[i]);
    }
    check_near(figures[FIGURE_QE], qe, 1e-12, 0);
    check_near(instance_energy(instance), energy, 1e-10, 0);
    assert_true(figures[FIGURE_FRACTIONAL] <= 3 && figures[FIGURE_RESIDUAL] < 1e-12);
    instance_free(instance);
}

// A study of few draws ends with all of its verdicts, and none of them fails.
static void check_study(const char *name, const char *replicates, int n_verdicts, const char *const *verdicts) {
    char *folder = files_folder();
    struct process process = process_call(PROGRAM, "validate", name, "--quick", "--quiet", "--replicates", replicates,
                                          "--seed", "1", "--out", files_path(folder, "run"));
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    json_t *result = NULL;
    check_ok(json_read_file(files_path(folder, "run/result.json"), &result));
    for (int i = 0; i < n_verdicts; i++) {
        const char *verdict = json_string_value(json_object_get(result, verdicts[i]));
        if (!verdict || !strstr(process.out, verdicts[i])) fail_msg("%s: no verdict on %s", name, verdicts[i]);
        if (strcmp(verdict, "fails") == 0) fail_msg("%s", process.out);
    }
    char *points = files_bytes(files_path(folder, "run/points.csv"), NULL);
    assert_non_null(points);
    assert_memory_equal(points, "figure,series,x,value,low,high\n", 31);
    free(points);
    json_decref(result);
    process_free(&process);
    files_remove(folder);
}

static void study_of_theorem_2_ends_with_verdicts(void **state) {
    (void)state;
    check_study("theorem2", "5", 5, (const char *const[]){"theorem2_i", "H1", "law", "H2", "H2_asymptote"});
}

static void study_of_theorem_3_ends_with_verdicts(void **state) {
    (void)state;
    check_study("theorem3", "1", 5,
                (const char *const[]){"theorem3_i", "theorem3_ii", "theorem3_iii", "clamp_spike", "one_run"});
}

static void study_of_proposition_4_ends_with_verdicts(void **state) {
    (void)state;
    check_study("proposition4", "2", 3, (const char *const[]){"proposition4", "H3", "H3_rate"});
}

static void study_of_adversaries_ends_with_verdicts(void **state) {
    (void)state;
    check_study("adversarial", "4", 3, (const char *const[]){"walk_is_safe", "vertices_are_not", "closest_is_best"});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intervals_hold_the_mean_as_often_as_they_say),
        cmocka_unit_test(what_walks_share_stays_shared),
        cmocka_unit_test(one_value_has_no_interval),
        cmocka_unit_test(slopes_of_power_laws_are_their_powers),
        cmocka_unit_test(verdicts_follow_from_intervals),
        cmocka_unit_test(shifted_starts_cancel_offsets),
        cmocka_unit_test(instances_know_their_error),
        cmocka_unit_test(study_of_theorem_2_ends_with_verdicts),
        cmocka_unit_test(study_of_theorem_3_ends_with_verdicts),
        cmocka_unit_test(study_of_proposition_4_ends_with_verdicts),
        cmocka_unit_test(study_of_adversaries_ends_with_verdicts),
    };
    threads_set(1);
    return cmocka_run_group_tests_name("walk_study_program", tests, NULL, NULL);
}
