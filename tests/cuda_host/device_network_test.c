// Networks on the emulated device, whose memory the host cannot touch, against the CPU: the same numbers in F32, near ones in BF16.
//
// BF16 rounds by at most 2^-9. On the way through these networks a number is rounded some 30 times, so that independent roundings
// leave about sqrt(30) 2^-9 = 1 %; what is asked below is 5 times that, for averages over many numbers.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/small_networks.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/nn/evaluate.h"
#include "core/nn/generate.h"
#include "core/nn/random_source.h"
#include "discquant/optimizer.h"

enum { SEQ_LEN = 8, BATCH = 2, ROWS = BATCH * SEQ_LEN };

// Every op that these networks use must be there.
static void check_ready(void) {
    if (!cuda_host_backend_fns.kernels[OP_attention] || !cuda_host_backend_fns.kernels[OP_attention_grad] ||
        !cuda_host_backend_fns.kernels[OP_attention_cached])
        skip();
}

static const double bf16_share = 0.05;

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
};

// Weights that BF16 holds exactly: rounding one could move it to other neighbours on the grid, which no tolerance covers.
static enum status read_exact(void *self, const char *name, int64_t rows, int64_t cols, float *out, enum dtype *dtype) {
    struct tensor_source random = random_source(self);
    enum status status = random.read(random.self, name, rows, cols, out, dtype);
    for (int64_t i = 0; i < rows * cols; i++) out[i] = bf16_to_float(bf16_from_float(out[i]));
    return status;
}

static void setting_open(struct setting *s, const char *device, const struct transformer_config *config,
                         enum dtype dtype) {
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    *s = (struct setting){0};
    check_ok(backend_open(device, &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct tensor_source source = {.self = &random, .read = read_exact};
    check_ok(transformer_new(s->backend, config, dtype, source, &s->model));
}

static void setting_close(struct setting *s) {
    optimizer_free(s->optimizer);
    rounding_free(s->rounding);
    for (int64_t i = 0; i < s->model->n_weights; i++) s->model->weights[i].sink = NULL;
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static void draw_tokens(int32_t *tokens, int64_t n, uint64_t stream) {
    struct rng rng = {.seed = 3, .stream = RNG_TEST + stream};
    for (int64_t i = 0; i < n; i++) tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
}

static float *floats_of(struct backend *backend, struct view view) {
    float *host = malloc((size_t)view_count(view) * sizeof *host);
    check_ok(backend_floats_read(backend, view, host));
    return host;
}

// Distance of two arrays as a share of the length of the second.
static double distance(const float *a, const float *b, int64_t n) {
    double square = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        square += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(square / size);
}

// Losses of one pass and the gradients of all weights, left in weight.grad.
static void pass(struct setting *s, bool recompute, double *loss) {
    int32_t tokens[ROWS], targets[ROWS];
    struct view tokens_view = {0}, targets_view = {0}, loss_view = {0};
    struct value *hidden;
    draw_tokens(tokens, ROWS, 0);
    for (int i = 0; i < ROWS; i++) targets[i] = (i + 1) % SEQ_LEN ? tokens[i + 1] : -1;
    check_ok(backend_matrix_new(s->backend, DTYPE_I32, ROWS, 1, "tokens", &tokens_view));
    check_ok(backend_matrix_new(s->backend, DTYPE_I32, ROWS, 1, "targets", &targets_view));
    check_ok(backend_matrix_new(s->backend, DTYPE_F64, ROWS, 1, "losses", &loss_view));
    check_ok(backend_write(s->backend, tokens_view, tokens));
    check_ok(backend_write(s->backend, targets_view, targets));
    for (int64_t i = 0; i < s->model->n_weights; i++) {
        struct weight *w = &s->model->weights[i];
        backend_matrix_free(s->backend, &w->grad);
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        check_ok(backend_run(s->backend, &(struct op_call){.op = OP_fill, .out = {w->grad}}));
        w->sink = &accumulate_sink;
    }
    step_begin(s->step, (struct step_options){
                            .gradient = true, .recompute = recompute, .seq_len = SEQ_LEN, .dtype = s->model->dtype});
    check_ok(transformer_forward(s->model, s->step, tokens_view, &hidden));
    struct transformer_loss what = {.targets = targets_view, .cross_entropy = loss_view, .gradient_weight = 1.0 / ROWS};
    check_ok(transformer_loss(s->model, s->step, hidden, &what));
    check_ok(step_backward(s->step));
    check_ok(backend_read(s->backend, loss_view, loss));
    check_ok(backend_sync(s->backend));
    backend_matrix_free(s->backend, &tokens_view);
    backend_matrix_free(s->backend, &targets_view);
    backend_matrix_free(s->backend, &loss_view);
}

static void check_pass(const struct transformer_config *config, enum dtype dtype, double share) {
    struct setting cpu, device;
    double want[ROWS], got[ROWS], mean_want = 0, mean_got = 0;
    setting_open(&cpu, "cpu", config, DTYPE_F32);
    setting_open(&device, "cuda_host", config, dtype);
    pass(&cpu, false, want);
    pass(&device, true, got);
    for (int i = 0; i < ROWS; i++) {
        mean_want += want[i] / ROWS;
        mean_got += got[i] / ROWS;
        if (dtype == DTYPE_F32) check_near(got[i], want[i], 1e-5, 1e-6);
    }
    check_near(mean_got, mean_want, share, 0);
    for (int64_t i = 0; i < cpu.model->n_weights; i++) {
        struct view g = cpu.model->weights[i].grad;
        float *a = floats_of(device.backend, device.model->weights[i].grad), *b = floats_of(cpu.backend, g);
        if (!(distance(a, b, view_count(g)) <= share))
            fail_msg("%s: %g", cpu.model->weights[i].name, distance(a, b, view_count(g)));
        free(a);
        free(b);
    }
    setting_close(&cpu);
    setting_close(&device);
}

static void a_pass_in_fp32_gives_what_the_cpu_gives(void **state) {
    (void)state;
    check_ready();
    for (int i = 0; i < 2; i++) check_pass(configs[i], DTYPE_F32, 1e-5);
}

static void a_pass_in_bf16_is_near_the_one_in_fp32(void **state) {
    (void)state;
    check_ready();
    for (int i = 0; i < 2; i++) check_pass(configs[i], DTYPE_BF16, bf16_share);
}

static void evaluation_is_that_of_the_cpu(void **state) {
    (void)state;
    check_ready();
    enum { WINDOWS = 3 };
    struct setting cpu, device;
    int32_t tokens[WINDOWS * SEQ_LEN];
    draw_tokens(tokens, WINDOWS * SEQ_LEN, 1);
    setting_open(&cpu, "cpu", &llama, DTYPE_F32);
    setting_open(&device, "cuda_host", &llama, DTYPE_F32);
    struct setting *both[] = {&cpu, &device};
    struct evaluation *e[2];
    for (int k = 0; k < 2; k++) {
        struct grid grid;
        struct evaluate_options options = {
            .form = WEIGHT_ROUNDED, .reference = both[k]->model, .reference_form = WEIGHT_STORED, .batch = 2};
        check_ok(grid_block(3, 8, &grid));
        check_ok(rounding_new(both[k]->model, &grid, DTYPE_F32, &both[k]->rounding));
        check_ok(rounding_to_nearest(both[k]->rounding));
        check_ok(evaluate(both[k]->model, both[k]->step, tokens, WINDOWS, SEQ_LEN, &options, &e[k]));
    }
    check_near(device.rounding->step2, cpu.rounding->step2, 1e-12, 0);
    assert_int_equal(device.rounding->fixed, cpu.rounding->fixed);
    for (int i = 0; i < WINDOWS; i++) {
        check_near(e[1]->loss[i], e[0]->loss[i], 1e-5, 0);
        check_near(e[1]->kl[i], e[0]->kl[i], 1e-4, 0);
    }
    evaluation_free(e[0]);
    evaluation_free(e[1]);
    setting_close(&cpu);
    setting_close(&device);
}

static enum status never_ends(void *context, int64_t i, bool *ends) {
    (void)context, (void)i;
    *ends = false;
    return STATUS_OK;
}

// Five texts in two places, of which two begin alike.
static void continued_texts_are_those_of_the_cpu(void **state) {
    (void)state;
    check_ready();
    enum { TEXTS = 5, NEW = 6, MOST = 12 };
    struct continuation texts[2][TEXTS];
    for (int k = 0; k < 2; k++) {
        struct setting s;
        setting_open(&s, k ? "cuda_host" : "cpu", &llama, DTYPE_F32);
        for (int i = 0; i < TEXTS; i++) {
            texts[k][i] = (struct continuation){.n_prompt = 3 + 2 * i, .most = NEW - i % 2};
            texts[k][i].tokens = mem_new(MOST + NEW, sizeof(int32_t));
            draw_tokens(texts[k][i].tokens, texts[k][i].n_prompt, (uint64_t)(i % 4));
        }
        check_ok(generate_texts(s.model, s.step, texts[k], TEXTS,
                                &(struct generate_options){.slots = 2, .check = never_ends}));
        setting_close(&s);
    }
    for (int i = 0; i < TEXTS; i++) {
        const struct continuation *want = &texts[0][i], *got = &texts[1][i];
        assert_int_equal(want->made, want->most);
        assert_int_equal(got->made, want->made);
        assert_memory_equal(got->tokens, want->tokens, (size_t)(want->n_prompt + want->made) * sizeof(int32_t));
        free(want->tokens);
        free(got->tokens);
    }
}

// Texts in one pass with one cache, each from where it leaves the one before.
static void spans_of_one_cache_are_those_of_the_cpu(void **state) {
    (void)state;
    check_ready();
    enum { TOKENS = 22, CAPACITY = 16 };
    int32_t tokens[TOKENS];
    float *hidden[2];
    draw_tokens(tokens, TOKENS, 7);
    for (int k = 0; k < 2; k++) {
        struct setting s;
        struct kv_cache *cache = NULL;
        struct view device_tokens;
        struct value *x = NULL;
        setting_open(&s, k ? "cuda_host" : "cpu", &llama, DTYPE_F32);
        check_ok(kv_cache_new(s.model, CAPACITY, &cache));
        const struct kv_span spans[] = {{cache, 0, 5, 5}, {cache, 3, 12, 15}, {cache, 9, 1, 10}, {cache, 0, 4, 4}};
        step_begin(s.step, (struct step_options){.seq_len = TOKENS});
        check_ok(step_take(s.step, DTYPE_I32, TOKENS, 1, &device_tokens));
        check_ok(backend_write(s.backend, device_tokens, tokens));
        check_ok(transformer_extend(s.model, s.step, device_tokens, spans, 4, &x));
        assert_int_equal(cache->length, 4);
        hidden[k] = floats_of(s.backend, x->data);
        kv_cache_free(cache);
        setting_close(&s);
    }
    assert_true(distance(hidden[1], hidden[0], TOKENS * llama.hidden) < 1e-5);
    free(hidden[0]);
    free(hidden[1]);
}

static void open_optimizer(struct setting *s, enum dtype x, bool two_passes, double clamp) {
    struct grid grid;
    struct optimizer_options options = {.steps = 8,
                                        .finish.from = 2,
                                        .batch = BATCH,
                                        .micro_batch = two_passes ? 1 : 0,
                                        .seq_len = SEQ_LEN,
                                        .lambda = 200,
                                        .clamp = clamp,
                                        .rate = 0.1,
                                        .strength = 1,
                                        .finish.strength = 0.2,
                                        .recompute = true,
                                        .seed = 4};
    check_ok(grid_block(3, 8, &grid));
    check_ok(rounding_new(s->model, &grid, x, &s->rounding));
    check_ok(rounding_random(s->rounding, 11));
    check_ok(optimizer_new(s->rounding, s->step, &options, &s->optimizer));
}

static double steps(struct setting *s, int n) {
    double kl = 0;
    for (int i = 0; i < n; i++) {
        int32_t tokens[ROWS];
        draw_tokens(tokens, ROWS, (uint64_t)s->optimizer->done);
        check_ok(optimizer_step(s->optimizer, tokens, &kl));
    }
    return kl;
}

// After one step the first moment is a tenth of the gradient: no sign-like step of Adam has made differences larger. Neither has the
// clamp in BF16, where there is none: what it leaves of most entries is their sign.
static void check_step(enum dtype dtype, enum dtype x, bool two_passes, double share) {
    struct setting cpu, device;
    setting_open(&cpu, "cpu", &llama, DTYPE_F32);
    setting_open(&device, "cuda_host", &llama, dtype);
    double clamp = dtype == DTYPE_F32 ? 1 : 0;
    open_optimizer(&cpu, DTYPE_F32, two_passes, clamp);
    open_optimizer(&device, x, two_passes, clamp);
    double want = steps(&cpu, 1), got = steps(&device, 1);
    check_near(got, want, share, 0);
    for (int64_t i = 0; i < cpu.model->n_weights; i++) {
        struct view m = cpu.optimizer->m[i];
        if (!m.rows) continue;
        float *a = floats_of(device.backend, device.optimizer->m[i]), *b = floats_of(cpu.backend, m);
        float *moved = floats_of(device.backend, device.model->weights[i].x);
        if (!(distance(a, b, view_count(m)) <= share))
            fail_msg("moment of %s: %g", cpu.model->weights[i].name, distance(a, b, view_count(m)));
        for (int64_t k = 0; k < view_count(m); k++) assert_true(moved[k] >= 0 && moved[k] <= 1);
        free(moved);
        free(a);
        free(b);
    }
    setting_close(&cpu);
    setting_close(&device);
}

static void a_step_of_discquant_is_that_of_the_cpu(void **state) {
    (void)state;
    check_ready();
    check_step(DTYPE_F32, DTYPE_F32, false, 1e-5);
    check_step(DTYPE_F32, DTYPE_F32, true, 1e-5);
}

static void a_step_in_bf16_is_near_the_one_in_fp32(void **state) {
    (void)state;
    check_ready();
    check_step(DTYPE_BF16, DTYPE_F32, false, 2 * bf16_share); // a KL between two networks, each with its roundings
    check_step(DTYPE_BF16, DTYPE_BF16, false, 2 * bf16_share);
    check_step(DTYPE_BF16, DTYPE_BF16, true, 2 * bf16_share);
}

static void a_run_in_bf16_has_the_same_bits_in_any_order_of_threads(void **state) {
    (void)state;
    check_ready();
    struct setting runs[2];
    for (int k = 0; k < 2; k++) {
        emulation_seed(7 + (uint64_t)k);
        setting_open(&runs[k], "cuda_host", &llama, DTYPE_BF16);
        open_optimizer(&runs[k], DTYPE_BF16, false, 1);
        assert_true(isfinite(steps(&runs[k], 3)));
    }
    for (int64_t i = 0; i < llama.layers; i++) {
        struct weight *w = runs[0].model->layers[i].down;
        float *a = floats_of(runs[0].backend, w->x), *b = floats_of(runs[1].backend, runs[1].model->layers[i].down->x);
        assert_memory_equal(a, b, (size_t)view_count(w->x) * sizeof *a);
        free(a);
        free(b);
    }
    setting_close(&runs[0]);
    setting_close(&runs[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pass_in_fp32_gives_what_the_cpu_gives),
        cmocka_unit_test(a_pass_in_bf16_is_near_the_one_in_fp32),
        cmocka_unit_test(evaluation_is_that_of_the_cpu),
        cmocka_unit_test(continued_texts_are_those_of_the_cpu),
        cmocka_unit_test(spans_of_one_cache_are_those_of_the_cpu),
        cmocka_unit_test(a_step_of_discquant_is_that_of_the_cpu),
        cmocka_unit_test(a_step_in_bf16_is_near_the_one_in_fp32),
        cmocka_unit_test(a_run_in_bf16_has_the_same_bits_in_any_order_of_threads),
    };
    backend_add(&cuda_host_backend_fns);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
