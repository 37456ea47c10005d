// Training of low-rank adapters on a rounded random network.
#include "tests/files.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "core/nn/rounding.h"
#include "discquant/adapter_trainer.h"

enum { BATCH = 4, SEQ_LEN = 16, VOCAB = 40, STEPS = 24, RANK = 3 };

static const struct transformer_config config = {.architecture = ARCHITECTURE_PHI3,
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
    struct lora *lora;
    struct adapter_trainer *trainer;
};

static const struct adapter_trainer_options defaults = {
    .steps = STEPS, .warmup = 2, .batch = BATCH, .seq_len = SEQ_LEN, .rate = 0.01, .form = WEIGHT_ROUNDED};

static void setting_open(struct setting *s, double alpha, const struct adapter_trainer_options *options) {
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct grid grid;
    *s = (struct setting){0};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, &config, DTYPE_F32, random_source(&random), &s->model));
    check_ok(grid_block(2, -1, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    check_ok(rounding_to_nearest(s->rounding));
    check_ok(lora_new(s->model, RANK, alpha, &s->lora));
    check_ok(lora_add_named(s->lora, NULL));
    check_ok(lora_start(s->lora, 4));
    check_ok(adapter_trainer_new(s->lora, s->step, options, &s->trainer));
}

static void setting_close(struct setting *s) {
    adapter_trainer_free(s->trainer);
    lora_free(s->lora);
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

// The same few windows over and over, so that there is something to learn.
static double run_steps(struct setting *s, int n) {
    double kl = 0;
    int32_t tokens[BATCH * SEQ_LEN];
    for (int i = 0; i < n; i++) {
        struct rng rng = {.seed = 2, .stream = RNG_TEST + (uint64_t)(s->trainer->done % 3)};
        for (int k = 0; k < BATCH * SEQ_LEN; k++) tokens[k] = (int32_t)(rng_bits(rng, (uint64_t)k) % VOCAB);
        check_ok(adapter_trainer_step(s->trainer, tokens, &kl));
    }
    return kl;
}

static float *all_adapters(const struct setting *s) {
    float *all = malloc((size_t)s->lora->parameters * sizeof *all), *next = all;
    for (int64_t i = 0; i < s->lora->n_weights; i++) {
        struct view v = s->lora->weights[i].stored;
        memcpy(next, v.data, (size_t)view_count(v) * sizeof *all);
        next += view_count(v);
    }
    return all;
}

static void training_lowers_the_kl_and_leaves_the_matrices(void **state) {
    (void)state;
    struct setting s;
    threads_set(2);
    setting_open(&s, 2 * RANK, &defaults);
    struct weight *w = s.model->layers[1].down;
    float *x = malloc((size_t)view_count(w->x) * 4), *stored = malloc((size_t)view_count(w->stored) * 4);
    memcpy(x, w->x.data, (size_t)view_count(w->x) * 4);
    memcpy(stored, w->stored.data, (size_t)view_count(w->stored) * 4);
    double first = run_steps(&s, 1), last = run_steps(&s, STEPS - 1);
    print_message("KL %.4f, then %.4f\n", first, last);
    assert_true(last < 0.7 * first);
    assert_memory_equal(x, w->x.data, (size_t)view_count(w->x) * 4);
    assert_memory_equal(stored, w->stored.data, (size_t)view_count(w->stored) * 4);
    free(x);
    free(stored);
    setting_close(&s);
}

// AdamW in double on A and on B itself, whose gradient is alpha / r times that of alpha / r B, with decay.
static void a_step_is_adamw_on_a_and_b(void **state) {
    (void)state;
    struct setting s;
    struct adapter_trainer_options options = defaults;
    const double scaling = 5, b1 = 0.9, b2 = 0.999;
    threads_set(2);
    options.warmup = 0;
    options.decay = 0.5;
    setting_open(&s, scaling * RANK, &options);
    int64_t n = s.lora->parameters;
    double *p = calloc((size_t)n, sizeof *p), *m = calloc((size_t)n, sizeof *m), *v = calloc((size_t)n, sizeof *v);
    float *start = all_adapters(&s);
    for (int64_t i = 0; i < n; i++) p[i] = (double)start[i];
    for (int t = 1; t <= 3; t++) {
        run_steps(&s, 1);
        double rate = options.rate * 0.5 * (1 + cos(3.14159265358979323846 * (t - 1) / STEPS));
        int64_t at = 0;
        for (int64_t k = 0; k < s.lora->n_weights; k++) {
            const struct weight *w = &s.lora->weights[k];
            double factor = k % 2 ? scaling : 1;
            for (int64_t i = 0; i < view_count(w->stored); i++, at++) {
                double g = factor * (double)view_f32(w->grad, 0)[i];
                m[at] = b1 * m[at] + (1 - b1) * g;
                v[at] = b2 * v[at] + (1 - b2) * g * g;
                double step = m[at] / (1 - pow(b1, t)) / (sqrt(v[at] / (1 - pow(b2, t))) + 1e-8);
                p[at] -= rate * (step + options.decay * p[at]);
                check_near((double)view_f32(w->stored, 0)[i] / factor, p[at], 1e-4, 1e-6);
            }
        }
    }
    free(p);
    free(m);
    free(v);
    free(start);
    setting_close(&s);
}

static void a_run_has_the_same_bits_for_any_number_of_threads(void **state) {
    (void)state;
    float *first = NULL;
    const int threads[] = {1, 3, 8};
    for (int k = 0; k < 3; k++) {
        struct setting s;
        struct adapter_trainer_options options = defaults;
        options.recompute = k == 2;
        threads_set(threads[k]);
        setting_open(&s, RANK, &options);
        run_steps(&s, STEPS);
        float *all = all_adapters(&s);
        if (first) assert_memory_equal(all, first, (size_t)s.lora->parameters * 4);
        if (first)
            free(all);
        else
            first = all;
        setting_close(&s);
    }
    free(first);
}

// Sums in another order: rounding only. Before it can grow through the sign-like steps of Adam.
static void passes_of_a_step_add_up(void **state) {
    (void)state;
    struct setting whole, parts;
    struct adapter_trainer_options options = defaults;
    threads_set(2);
    setting_open(&whole, RANK, &options);
    options.micro_batch = 3;
    setting_open(&parts, RANK, &options);
    check_near(run_steps(&whole, 1), run_steps(&parts, 1), 1e-6, 0);
    for (int64_t i = 0; i < whole.lora->n_weights; i++) {
        struct view g = whole.lora->weights[i].grad;
        check_all_near(view_f32(g, 0), view_f32(parts.lora->weights[i].grad, 0), view_count(g), 1e-3, 1e-7);
    }
    setting_close(&whole);
    setting_close(&parts);
}

static void a_state_goes_on_to_the_same_bits(void **state) {
    (void)state;
    struct setting whole, before, after;
    struct checkpoint *made = checkpoint_new(), *kept = NULL;
    char *folder = files_folder();
    threads_set(2);
    setting_open(&whole, RANK, &defaults);
    setting_open(&before, RANK, &defaults);
    setting_open(&after, RANK, &defaults);
    run_steps(&whole, STEPS);
    run_steps(&before, 7);
    check_ok(adapter_trainer_save(before.trainer, made));
    check_ok(checkpoint_write(made, files_path(folder, "state")));
    check_ok(checkpoint_read(files_path(folder, "state"), &kept));
    check_ok(adapter_trainer_load(after.trainer, kept));
    run_steps(&after, STEPS - 7);
    float *a = all_adapters(&whole), *b = all_adapters(&after);
    assert_memory_equal(a, b, (size_t)whole.lora->parameters * 4);
    free(a);
    free(b);
    checkpoint_free(made);
    checkpoint_free(kept);
    setting_close(&whole);
    setting_close(&before);
    setting_close(&after);
    files_remove(folder);
}

static void the_plan_is_what_a_step_takes(void **state) {
    (void)state;
    struct setting s;
    threads_set(2);
    setting_open(&s, RANK, &defaults);
    int64_t before = mem_buffer_bytes();
    step_peak_reset(s.step);
    run_steps(&s, 2);
    assert_int_equal(step_peak_bytes(s.step), s.trainer->activation_bytes);
    assert_int_equal(mem_buffer_bytes(), before);
    setting_close(&s);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t k = 0;
    for (bool failed = true; failed; k++) {
        struct random_source random = {.seed = 5, .gain = 1};
        struct setting s = {0};
        enum status status = STATUS_OK;
        int64_t before = mem_buffer_bytes();
        int32_t tokens[BATCH * SEQ_LEN] = {0};
        double kl;
        check_ok(backend_open("cpu", &s.backend));
        check_ok(step_new(s.backend, &s.step));
        check_ok(transformer_new(s.backend, &config, DTYPE_F32, random_source(&random), &s.model));
        mem_fail_at(k);
        TRY(lora_new(s.model, RANK, 1, &s.lora));
        TRY(lora_add_named(s.lora, NULL));
        TRY(lora_start(s.lora, 1));
        TRY(adapter_trainer_new(s.lora, s.step, &defaults, &s.trainer));
        TRY(adapter_trainer_step(s.trainer, tokens, &kl));
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
        cmocka_unit_test(training_lowers_the_kl_and_leaves_the_matrices),
        cmocka_unit_test(a_step_is_adamw_on_a_and_b),
        cmocka_unit_test(a_run_has_the_same_bits_for_any_number_of_threads),
        cmocka_unit_test(passes_of_a_step_add_up),
        cmocka_unit_test(a_state_goes_on_to_the_same_bits),
        cmocka_unit_test(the_plan_is_what_a_step_takes),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
