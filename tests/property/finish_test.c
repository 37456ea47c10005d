// How an optimization over x ends at a vertex: against closed forms where the data say nothing, and step by step where they do.
#include "tests/check.h"
#include "tests/files.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "discquant/optimizer.h"

enum { BATCH = 2, SEQ_LEN = 12, STEPS = 48, FROM = 12 };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
};

static const struct optimizer_options defaults = {
    .steps = STEPS, .batch = BATCH, .seq_len = SEQ_LEN, .lambda = 200, .clamp = 1, .rate = 0.1, .strength = 1};

static void setting_open(struct setting *s, const struct optimizer_options *options) {
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct grid grid;
    *s = (struct setting){0};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, &llama, DTYPE_F32, random_source(&random), &s->model));
    check_ok(grid_block(3, 7, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    check_ok(rounding_random(s->rounding, 11));
    check_ok(optimizer_new(s->rounding, s->step, options, &s->optimizer));
}

static void setting_close(struct setting *s) {
    optimizer_free(s->optimizer);
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static void take_step(struct setting *s) {
    double kl = 0;
    int32_t tokens[BATCH * SEQ_LEN];
    struct rng rng = {.seed = 2, .stream = RNG_TEST + (uint64_t)s->optimizer->done};
    for (int k = 0; k < BATCH * SEQ_LEN; k++) tokens[k] = (int32_t)(rng_bits(rng, (uint64_t)k) % VOCAB);
    check_ok(optimizer_step(s->optimizer, tokens, &kl));
}

// x, or second moments, of all rounded matrices.
static float *all_of(const struct setting *s, bool moments) {
    float *values = malloc((size_t)s->rounding->weights * sizeof *values), *next = values;
    for (int64_t i = 0; i < s->model->n_weights; i++) {
        const struct weight *w = &s->model->weights[i];
        if (!w->grid) continue;
        memcpy(next, (moments ? s->optimizer->v[i] : w->x).data, (size_t)view_count(w->x) * sizeof *next);
        next += view_count(w->x);
    }
    return values;
}

static double distance(float x) { return x < 0.5f ? (double)x : 1 - (double)x; }

static void terms_are_the_schedule(void **state) {
    (void)state;
    struct finish finish = {.from = 50, .strength = 0.2, .concave = 4};
    for (int kind = 0; kind < FINISHES; kind++) {
        finish.kind = (enum finish_kind)kind;
        struct finish_terms before = finish_terms(&finish, 49, 150, 1), half = finish_terms(&finish, 100, 150, 1);
        assert_true(before.form == WEIGHT_INTERPOLATED && before.strength == 1 && before.concave == 0);
        assert_true(half.form == (kind == FINISH_STRAIGHT_THROUGH ? WEIGHT_ROUNDED : WEIGHT_INTERPOLATED));
        check_near(half.concave, kind == FINISH_ANNEAL ? 2 : 0, 0, 0);
        double want = kind == FINISH_NEAREST ? 1 : kind == FINISH_ANNEAL ? 0.6 : 0.2;
        check_near(half.strength, want, 1e-15, 0);
    }
}

// With data: what has been frozen is at 0 or 1 and stays, and in the end everything is.
static void frozen_coordinates_stay_and_all_end_at_vertices(void **state) {
    (void)state;
    struct setting s;
    struct optimizer_options options = defaults;
    int64_t frozen = 0, moved = 0;
    options.finish = (struct finish){.kind = FINISH_FREEZE, .from = FROM, .strength = 1};
    threads_set(2);
    setting_open(&s, &options);
    for (int step = 1; step <= STEPS; step++) {
        float *x_before = all_of(&s, false), *v_before = all_of(&s, true);
        take_step(&s);
        float *x = all_of(&s, false), *v = all_of(&s, true);
        frozen = 0;
        for (int64_t i = 0; i < s.rounding->weights; i++) {
            if (isinf(v_before[i])) assert_true(isinf(v[i]) && x[i] == x_before[i]);
            if (isinf(v[i])) frozen++, assert_true(x[i] == 0 || x[i] == 1);
            moved += isfinite(v[i]) && x[i] != x_before[i] && step > FROM;
        }
        if (step <= FROM) assert_int_equal(frozen, 0);
        if (step == STEPS / 2) assert_true(frozen > 0 && frozen < s.rounding->weights);
        free(x_before), free(v_before), free(x), free(v);
    }
    assert_int_equal(frozen, s.rounding->weights);
    assert_true(moved > s.rounding->weights); // the others went on
    setting_close(&s);
}

// Without data, linear term or learning rate x stands still, so each turn takes those that are nearest to a vertex, up to a bin
// of 2^-17, and nine tenths are left. 96 steps are 32 turns of 3.
static void what_is_nearest_is_frozen_first(void **state) {
    (void)state;
    struct setting s;
    struct optimizer_options options = defaults;
    options.lambda = options.rate = 0;
    options.steps = 96;
    options.finish = (struct finish){.kind = FINISH_FREEZE};
    setting_open(&s, &options);
    float *x = all_of(&s, false);
    double want = 0;
    for (int64_t i = 0; i < s.rounding->weights; i++) want += x[i] > 0 && x[i] < 1;
    for (int turn = 1; turn <= 32; turn++) {
        for (int k = 0; k < 3; k++) take_step(&s);
        float *now = all_of(&s, false), *v = all_of(&s, true);
        double farthest = 0, nearest = 1;
        int64_t left = 0;
        for (int64_t i = 0; i < s.rounding->weights; i++) {
            if (isinf(v[i]))
                farthest = fmax(farthest, distance(x[i])), assert_true(now[i] == (x[i] > 0.5f));
            else if (x[i] > 0 && x[i] < 1)
                nearest = fmin(nearest, distance(x[i])), left++, assert_true(now[i] == x[i]);
        }
        assert_true(farthest <= nearest + 0x1p-17);
        want = turn < 32 ? 0.9 * want : 0;
        check_near((double)left, want, 0.01, 5);
        free(now), free(v);
    }
    free(x);
    setting_close(&s);
}

// Without data and linear term the concave term alone: each x goes to the vertex on its side of 1/2.
static void annealing_goes_to_the_nearer_vertex(void **state) {
    (void)state;
    struct setting s;
    struct optimizer_options options = defaults;
    options.lambda = options.strength = 0;
    options.finish = (struct finish){.kind = FINISH_ANNEAL, .concave = 4};
    setting_open(&s, &options);
    float *before = all_of(&s, false);
    while (s.optimizer->done < STEPS) take_step(&s);
    float *x = all_of(&s, false);
    for (int64_t i = 0; i < s.rounding->weights; i++)
        if (fabsf(before[i] - 0.5f) > 1e-4f) assert_true(x[i] == (before[i] > 0.5f));
    free(before);
    free(x);
    setting_close(&s);
}

static void every_finish_has_the_same_bits_for_any_number_of_threads(void **state) {
    (void)state;
    for (int kind = 0; kind < FINISHES; kind++) {
        float *x[2];
        size_t bytes = 0;
        for (int k = 0; k < 2; k++) {
            struct setting s;
            struct optimizer_options options = defaults;
            options.finish =
                (struct finish){.kind = (enum finish_kind)kind, .from = FROM, .strength = 0.3, .concave = 4};
            threads_set(1 + 2 * k);
            setting_open(&s, &options);
            while (s.optimizer->done < STEPS) take_step(&s);
            x[k] = all_of(&s, false);
            bytes = (size_t)s.rounding->weights * sizeof(float);
            setting_close(&s);
        }
        assert_memory_equal(x[0], x[1], bytes);
        free(x[0]);
        free(x[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_are_the_schedule),
        cmocka_unit_test(frozen_coordinates_stay_and_all_end_at_vertices),
        cmocka_unit_test(what_is_nearest_is_frozen_first),
        cmocka_unit_test(annealing_goes_to_the_nearer_vertex),
        cmocka_unit_test(every_finish_has_the_same_bits_for_any_number_of_threads),
    };
    return cmocka_run_group_tests_name("finish", tests, NULL, NULL);
}
