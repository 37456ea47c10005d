// The rounding state and the DiscQuant optimizer on random networks.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "discquant/optimizer.h"

enum { BATCH = 4, SEQ_LEN = 16, VOCAB = 40, STEPS = 12 };

static const struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                                 .hidden = 32,
                                                 .intermediate = 44,
                                                 .layers = 2,
                                                 .heads = 4,
                                                 .kv_heads = 2,
                                                 .head_dim = 8,
                                                 .vocab = VOCAB,
                                                 .max_positions = 64,
                                                 .rms_eps = 1e-5,
                                                 .rope = {.theta = 100},
                                                 .bos = -1};

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
};

static const struct optimizer_options defaults = {.steps = STEPS,
                                                  .warmup = 3,
                                                  .batch = BATCH,
                                                  .seq_len = SEQ_LEN,
                                                  .lambda = 200,
                                                  .clamp = 1,
                                                  .rate = 0.1,
                                                  .strength = 1,
                                                  .finish.from = 8};

static void setting_open(struct setting *s, int64_t group_size, const struct optimizer_options *options) {
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct grid grid;
    *s = (struct setting){0};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, &config, DTYPE_F32, random_source(&random), &s->model));
    check_ok(grid_block(3, group_size, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    check_ok(rounding_random(s->rounding, 11));
    if (options) check_ok(optimizer_new(s->rounding, s->step, options, &s->optimizer));
}

static void setting_close(struct setting *s) {
    optimizer_free(s->optimizer);
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static double run_steps(struct setting *s, int n) {
    double kl = 0;
    int32_t tokens[BATCH * SEQ_LEN];
    for (int i = 0; i < n; i++) {
        struct rng rng = {.seed = 2, .stream = RNG_TEST + (uint64_t)s->optimizer->done};
        for (int k = 0; k < BATCH * SEQ_LEN; k++) tokens[k] = (int32_t)(rng_bits(rng, (uint64_t)k) % VOCAB);
        check_ok(optimizer_step(s->optimizer, tokens, &kl));
    }
    return kl;
}

static float *all_x(const struct setting *s) {
    float *x = malloc((size_t)s->rounding->weights * sizeof *x), *next = x;
    for (int64_t i = 0; i < s->model->n_weights; i++) {
        const struct weight *w = &s->model->weights[i];
        if (!w->grid) continue;
        memcpy(next, w->x.data, (size_t)view_count(w->x) * sizeof *x);
        next += view_count(w->x);
    }
    return x;
}

static void a_run_has_the_same_bits_for_any_number_of_threads(void **state) {
    (void)state;
    float *first = NULL;
    size_t bytes = 0;
    const int threads[] = {1, 2, 3, 8};
    for (int k = 0; k < 4; k++) {
        struct setting s;
        threads_set(threads[k]);
        setting_open(&s, 9, &defaults);
        run_steps(&s, STEPS);
        float *x = all_x(&s);
        bytes = (size_t)s.rounding->weights * sizeof *x;
        if (first) assert_memory_equal(x, first, bytes);
        if (first)
            free(x);
        else
            first = x;
        setting_close(&s);
    }
    free(first);
}

static void recomputation_does_not_change_a_run(void **state) {
    (void)state;
    struct setting kept, again;
    struct optimizer_options options = defaults;
    threads_set(2);
    setting_open(&kept, -1, &options);
    options.recompute = true;
    setting_open(&again, -1, &options);
    assert_true(again.optimizer->activation_bytes < kept.optimizer->activation_bytes);
    run_steps(&kept, STEPS);
    run_steps(&again, STEPS);
    float *a = all_x(&kept), *b = all_x(&again);
    assert_memory_equal(a, b, (size_t)kept.rounding->weights * sizeof *a);
    free(a);
    free(b);
    setting_close(&kept);
    setting_close(&again);
}

// Sums in another order: rounding only. Two steps, before rounding can grow through the sign-like steps of Adam.
static void passes_of_a_step_add_up(void **state) {
    (void)state;
    struct setting whole, parts;
    struct optimizer_options options = defaults;
    setting_open(&whole, -1, &options);
    options.micro_batch = 3;
    setting_open(&parts, -1, &options);
    double a = run_steps(&whole, 1), b = run_steps(&parts, 1);
    check_near(a, b, 1e-6, 0);
    for (int64_t i = 0; i < whole.model->n_weights; i++) {
        if (!whole.model->weights[i].grid) continue;
        struct view g = whole.optimizer->m[i];
        check_all_near(view_f32(g, 0), view_f32(parts.optimizer->m[i], 0), view_count(g), 1e-3, 1e-5);
    }
    setting_close(&whole);
    setting_close(&parts);
}

static void x_stays_in_the_cube_and_fixed_weights_do_not_move(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, 8, &defaults);
    assert_true(s.rounding->fixed > 0);
    run_steps(&s, STEPS);
    int64_t fixed = 0;
    for (int64_t i = 0; i < s.model->n_weights; i++) {
        const struct weight *w = &s.model->weights[i];
        if (!w->grid) continue;
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t c = 0; c < w->cols; c++) {
                float x = view_f32(w->x, r)[c], scale = view_f32(w->scale, r)[c / 8];
                struct neighbours near = grid_neighbours(w->grid, view_f32(w->stored, r)[c], scale, 0);
                assert_true(x >= 0 && x <= 1);
                if (near.down == near.up) fixed++, assert_true(x == 0);
            }
    }
    assert_int_equal(fixed, s.rounding->fixed);
    setting_close(&s);
}

// Transformers' cosine schedule with warmup: 0 at first, the full rate after the warmup, half of it halfway down, 0 at the end.
static void the_learning_rate_is_the_cosine_schedule(void **state) {
    (void)state;
    struct optimizer_options o = {.steps = 1024, .warmup = 128, .rate = 0.1};
    check_near(optimizer_rate(&o, 0), 0, 0, 0);
    check_near(optimizer_rate(&o, 32), 0.025, 1e-12, 0);
    check_near(optimizer_rate(&o, 128), 0.1, 1e-12, 0);
    check_near(optimizer_rate(&o, 576), 0.05, 1e-12, 0);
    check_near(optimizer_rate(&o, 352), 0.1 * (1 + sqrt(0.5)) / 2, 1e-12, 0);
    check_near(optimizer_rate(&o, 1024), 0, 0, 1e-15);
}

// One step by hand: the gradient of the mean KL taken from a step without clamp and linear term (whose first moment is
// a tenth of it), then clamp(lambda / delta^2 g) + strength (1 - 2y), and AdamW's first update, rate * sign.
static void a_step_is_the_formula(void **state) {
    (void)state;
    for (int finishing = 0; finishing < 2; finishing++) {
        struct setting s, bare;
        struct optimizer_options options = defaults, plain = defaults;
        options.warmup = plain.warmup = 0;
        options.finish.from = plain.finish.from = finishing ? 0 : STEPS;
        options.finish.strength = 0.25;
        options.clamp = 0.3;
        setting_open(&bare, -1, NULL);
        plain.clamp = plain.strength = plain.finish.strength = 0;
        plain.lambda = bare.rounding->step2; // lambda / delta^2 = 1
        check_ok(optimizer_new(bare.rounding, bare.step, &plain, &bare.optimizer));
        setting_open(&s, -1, &options);
        float *before = all_x(&s);
        run_steps(&bare, 1);
        run_steps(&s, 1);
        float *after = all_x(&s);
        int64_t at = 0, moved = 0;
        for (int64_t i = 0; i < s.model->n_weights; i++) {
            const struct weight *w = &s.model->weights[i];
            for (int64_t k = 0; w->grid && k < view_count(w->x); k++, at++) {
                float scale = view_f32(w->scale, 0)[k / w->cols], value = view_f32(w->stored, 0)[k];
                struct neighbours near = grid_neighbours(w->grid, value, scale, 0);
                double y = near.up > near.down ? ((double)value - near.down) / ((double)near.up - near.down) : 0.5;
                double g = 10 * (double)view_f32(bare.optimizer->m[i], 0)[k] * options.lambda / s.rounding->step2;
                double d = fmax(-0.3, fmin(0.3, g)) + (finishing ? 0.25 : 1) * (1 - 2 * y);
                if (fabs(d) < 1e-4) continue;
                double want = fmax(0, fmin(1, (double)before[at] - 0.1 * (d > 0 ? 1 : -1)));
                check_near(after[at], want, 0, 1e-5);
                check_near(view_f32(s.optimizer->m[i], 0)[k], 0.1 * d, 2e-3, 1e-5);
                moved++;
            }
        }
        assert_true(moved > s.rounding->weights * 9 / 10);
        free(before);
        free(after);
        setting_close(&s);
        setting_close(&bare);
    }
}

// Without a KL term only <1 - 2y, x> is left, whose minimum over the cube is round-to-nearest.
static void without_data_the_optimizer_rounds_to_nearest(void **state) {
    (void)state;
    struct setting s, nearest;
    struct optimizer_options options = defaults;
    options.lambda = 0;
    options.steps = options.finish.from = 60;
    setting_open(&s, -1, &options);
    setting_open(&nearest, -1, NULL);
    check_ok(rounding_to_nearest(nearest.rounding));
    run_steps(&s, 60);
    float *x = all_x(&s), *y = all_x(&nearest);
    for (int64_t i = 0; i < s.rounding->weights; i++)
        if (fabsf(y[i] - 0.5f) > 1e-3f) assert_true((x[i] > 0.5f) == (y[i] > 0.5f));
    free(x);
    free(y);
    setting_close(&s);
    setting_close(&nearest);
}

static void the_plan_is_what_a_step_takes(void **state) {
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        struct setting s;
        struct optimizer_options options = defaults;
        options.recompute = recompute;
        setting_open(&s, -1, &options);
        int64_t before = mem_buffer_bytes();
        step_peak_reset(s.step);
        run_steps(&s, 2);
        assert_int_equal(step_peak_bytes(s.step), s.optimizer->activation_bytes);
        assert_int_equal(mem_buffer_bytes(), before);
        setting_close(&s);
    }
}

static void every_allocation_of_a_run_may_fail(void **state) {
    (void)state;
    int64_t k = 0;
    for (bool failed = true; failed; k++) {
        struct random_source random = {.seed = 5, .gain = 1};
        struct grid grid;
        struct setting s = {0};
        enum status status = STATUS_OK;
        int64_t before = mem_buffer_bytes();
        int32_t tokens[BATCH * SEQ_LEN] = {0};
        double kl;
        check_ok(backend_open("cpu", &s.backend));
        check_ok(step_new(s.backend, &s.step));
        check_ok(grid_block(3, -1, &grid));
        mem_fail_at(k);
        TRY(transformer_new(s.backend, &config, DTYPE_F32, random_source(&random), &s.model));
        TRY(rounding_new(s.model, &grid, DTYPE_F32, &s.rounding));
        TRY(rounding_random(s.rounding, 1));
        TRY(optimizer_new(s.rounding, s.step, &defaults, &s.optimizer));
        TRY(optimizer_step(s.optimizer, tokens, &kl));
    done:
        mem_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
        setting_close(&s);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(k > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_has_the_same_bits_for_any_number_of_threads),
        cmocka_unit_test(recomputation_does_not_change_a_run),
        cmocka_unit_test(passes_of_a_step_add_up),
        cmocka_unit_test(x_stays_in_the_cube_and_fixed_weights_do_not_move),
        cmocka_unit_test(the_learning_rate_is_the_cosine_schedule),
        cmocka_unit_test(a_step_is_the_formula),
        cmocka_unit_test(without_data_the_optimizer_rounds_to_nearest),
        cmocka_unit_test(the_plan_is_what_a_step_takes),
        cmocka_unit_test(every_allocation_of_a_run_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
