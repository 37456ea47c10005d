// Methods that go through a network layer by layer, on small random networks.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/incoherence.h"
#include "core/nn/random_source.h"
#include "core/nn/stream.h"
#include "discquant/block_rounding.h"
#include "discquant/layerwise.h"

enum { VOCAB = 37, WINDOWS = 12, SEQ_LEN = 16, TOKENS = WINDOWS * SEQ_LEN };

static const struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                                 .hidden = 32,
                                                 .intermediate = 64,
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
    struct model model;
    struct corpus corpus;
    struct rounding *rounding;
    struct incoherence *incoherence;
    struct run_settings settings;
    struct program_common common;
    struct run run;
    int32_t tokens[TOKENS];
    int64_t ends[1];
};

// A run without files. `rotated`: weights in rotated coordinates.
static void setting_open(struct setting *s, const struct grid_options *grid_options, bool rotated) {
    struct random_source random = {.seed = 6, .gain = 1, .norm_spread = 0.3};
    struct run_folder_options folder = {.program = "test"};
    struct grid grid;
    *s = (struct setting){.ends = {TOKENS}};
    check_ok(backend_open("cpu", &s->model.backend));
    check_ok(step_new(s->model.backend, &s->model.step));
    check_ok(transformer_new(s->model.backend, &config, DTYPE_F32, random_source(&random), &s->model.transformer));
    if (rotated) {
        check_ok(incoherence_new(s->model.transformer, ROTATION_HADAMARD, &s->incoherence));
        check_ok(incoherence_rotate(s->incoherence, 5));
    }
    check_ok(grid_new(grid_options, &grid));
    check_ok(rounding_new(s->model.transformer, &grid, DTYPE_F32, &s->rounding));
    check_ok(rounding_to_nearest(s->rounding));
    for (int i = 0; i < TOKENS; i++)
        s->tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 8, .stream = RNG_TEST}, (uint64_t)i) % VOCAB);
    s->corpus = (struct corpus){.tokens = s->tokens, .n_tokens = TOKENS, .ends = s->ends, .n_files = 1};
    s->settings = (struct run_settings){.optimizer = {.seq_len = SEQ_LEN, .batch = WINDOWS},
                                        .block = {.steps = 40},
                                        .checkpoint_layers = 4,
                                        .feedback = {.damping = 0.01, .ordered = true},
                                        .soft = {.steps = 200, .rate = 0.03, .strength = 30}};
    s->run = (struct run){.common = &s->common,
                          .settings = &s->settings,
                          .model = &s->model,
                          .rounding = s->rounding,
                          .calibration = &s->corpus,
                          .calibration_windows = WINDOWS};
    check_ok(run_folder_open(&folder, &s->run.folder));
}

static void setting_close(struct setting *s) {
    run_folder_free(s->run.folder);
    rounding_free(s->rounding);
    incoherence_free(s->incoherence);
    transformer_free(s->model.transformer);
    step_free(s->model.step);
    backend_close(s->model.backend);
}

static double divergence(struct setting *s, enum weight_form form) {
    struct evaluate_options options = {
        .form = form, .reference = s->model.transformer, .reference_form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    check_ok(evaluate(s->model.transformer, s->model.step, s->tokens, WINDOWS, SEQ_LEN, &options, &e));
    double kl = evaluation_mean(e, e->kl, NULL);
    evaluation_free(e);
    return kl;
}

// ---- what a solver sees ----

// Rounds to nearest, keeps the Gram matrices.
struct keeper {
    struct layerwise_solver solver;
    double *seen[64]; // [n, n] by index of the weight
    int64_t prepared;
};

static enum status keeper_prepare(struct layerwise_solver *solver, const struct hessian *hessian, const char *name) {
    (void)hessian, (void)name;
    ((struct keeper *)solver)->prepared++;
    return STATUS_OK;
}

static enum status keeper_solve(struct layerwise_solver *solver, const struct hessian *hessian,
                                struct layerwise_matrix *matrix, struct record *line) {
    (void)line;
    struct keeper *self = (struct keeper *)solver;
    size_t n = (size_t)(hessian->n * hessian->n);
    self->seen[matrix->weight->index] = mem_new(n, sizeof(double));
    memcpy(self->seen[matrix->weight->index], hessian->sum, n * sizeof(double));
    memcpy(matrix->x, matrix->w, (size_t)(matrix->weight->rows * matrix->weight->cols) * sizeof(float));
    return STATUS_OK;
}

static double distance(const double *a, const double *b, int64_t n) {
    double square = 0, all = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            square += (a[i * n + j] - b[i * n + j]) * (a[i * n + j] - b[i * n + j]);
            all += b[i * n + j] * b[i * n + j];
        }
    return sqrt(square / all);
}

// A pass through the network in one form, with a Gram matrix for every weight.
static void pass_with_taps(struct setting *s, enum weight_form form, struct hessian *hessians[64]) {
    struct transformer *model = s->model.transformer;
    struct value *hidden;
    for (int64_t i = 0; i < model->n_weights; i++) {
        if (!model->weights[i].is_linear) continue;
        check_ok(hessian_new(model->weights[i].cols, "test", &hessians[i]));
        model->weights[i].tap = &hessians[i]->tap;
    }
    transformer_set_form(model, form);
    check_ok(transformer_prepare(model, SEQ_LEN));
    step_begin(s->model.step, (struct step_options){.seq_len = SEQ_LEN});
    struct view tokens = view_new(s->tokens, DTYPE_I32, TOKENS, 1);
    check_ok(transformer_forward(model, s->model.step, tokens, &hidden));
    transformer_set_form(model, WEIGHT_STORED);
    for (int64_t i = 0; i < model->n_weights; i++) model->weights[i].tap = NULL;
}

// A matrix has no part in its own inputs, and those behind it neither: with all of them rounded they are what the solver saw.
static void inputs_come_from_the_matrices_rounded_before(void **state) {
    (void)state;
    for (int rotated = 0; rotated < 2; rotated++) {
        struct setting s;
        struct keeper keeper = {.solver = {.form = WEIGHT_STRAIGHT, .prepare = keeper_prepare, .solve = keeper_solve}};
        struct hessian *rounded[64] = {NULL}, *stored[64] = {NULL};
        setting_open(&s, &(struct grid_options){.bits = 3, .group_size = -1}, rotated);
        const struct transformer *model = s.model.transformer;
        check_ok(layerwise_run(&s.run, &keeper.solver));
        assert_int_equal(s.rounding->form, WEIGHT_STRAIGHT);
        assert_int_equal(keeper.prepared, rotated ? 14 : 8); // rotated matrices have inputs of their own
        pass_with_taps(&s, WEIGHT_STRAIGHT, rounded);
        pass_with_taps(&s, WEIGHT_STORED, stored);
        for (int64_t i = 0; i < model->n_weights; i++) {
            if (!model->weights[i].is_linear) continue;
            int64_t n = model->weights[i].cols;
            assert_true(distance(keeper.seen[i], rounded[i]->sum, n) < 1e-6);
            bool first = i <= model->layers[0].qkv[2]->index;
            assert_true(first || distance(keeper.seen[i], stored[i]->sum, n) > 1e-3);
            hessian_free(rounded[i]);
            hessian_free(stored[i]);
            free(keeper.seen[i]);
        }
        setting_close(&s);
    }
}

// ---- the methods ----

static const struct grid_options grids[] = {{.bits = 3, .group_size = -1},
                                            {.bits = 3, .group_size = 8},
                                            {.kind = GRID_ASYMMETRIC, .bits = 3, .group_size = 16},
                                            {.kind = GRID_NF4, .group_size = 32},
                                            {.kind = GRID_Q4_0},
                                            {.kind = GRID_Q4_1}};

static double result_number(struct setting *s, const char *key) {
    return json_number_value(json_object_get(record_json(run_folder_result(s->run.folder)), key));
}

// Codes and scales of the result give back its values, whatever the grid.
static void check_on_grid(struct setting *s, bool between) {
    for (int64_t i = 0; i < s->model.transformer->n_weights; i++) {
        const struct weight *w = &s->model.transformer->weights[i];
        if (!w->is_linear) continue;
        int64_t n = w->rows * w->cols;
        float *values = mem_new((size_t)n, sizeof *values), *x = w->x.data;
        check_ok(rounding_values(s->rounding, w, values));
        for (int64_t k = 0; k < n && s->rounding->form == WEIGHT_STRAIGHT; k++) assert_true(values[k] == x[k]);
        for (int64_t k = 0; k < n && s->rounding->form == WEIGHT_ROUNDED; k++)
            assert_true(between ? x[k] >= 0 && x[k] <= 1 : x[k] == 0 || x[k] == 1);
        free(values);
    }
}

enum { METHODS = 3 };
static const struct method *const all[METHODS] = {&method_gptq, &method_adaround, &method_signround};

static void all_methods_are_nearer_than_nearest_on_every_grid(void **state) {
    (void)state;
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++)
        for (int m = 0; m < METHODS; m++) {
            struct setting s;
            setting_open(&s, &grids[g], false);
            double nearest = divergence(&s, WEIGHT_ROUNDED);
            check_ok(all[m]->work(&s.run));
            assert_int_equal(s.rounding->form, m > 0 ? WEIGHT_ROUNDED : WEIGHT_STRAIGHT);
            check_on_grid(&s, m == 2);
            assert_true(divergence(&s, s.rounding->form) < 0.85 * nearest);
            assert_true(result_number(&s, "output_error") > 0);
            assert_true(m == 2 || result_number(&s, "fallbacks") == 0);
            setting_close(&s);
        }
}

static void any_number_of_threads_leaves_the_same_bits(void **state) {
    (void)state;
    const int threads[] = {1, 3};
    for (int m = 0; m < METHODS; m++) {
        struct setting s[2];
        for (int k = 0; k < 2; k++) {
            threads_set(threads[k]);
            setting_open(&s[k], &grids[1], false);
            check_ok(all[m]->work(&s[k].run));
        }
        for (int64_t i = 0; i < s[0].model.transformer->n_weights; i++) {
            struct view a = s[0].model.transformer->weights[i].x, b = s[1].model.transformer->weights[i].x;
            if (a.rows) assert_memory_equal(a.data, b.data, (size_t)view_count(a) * sizeof(float));
        }
        setting_close(&s[0]);
        setting_close(&s[1]);
    }
    threads_set(2);
}

// Four tokens give a Gram matrix of rank four: without damping it is singular, and the result says what was done.
static void damping_that_had_to_grow_is_in_the_result(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &grids[0], false);
    s.settings.feedback.damping = 0;
    s.settings.optimizer.seq_len = 4;
    s.run.calibration_windows = 1;
    check_ok(method_gptq.work(&s.run));
    const json_t *result = record_json(run_folder_result(s.run.folder));
    assert_int_equal(json_integer_value(json_object_get(result, "fallbacks")), 8);
    const char *layers = json_string_value(json_object_get(result, "fallback_layers"));
    assert_non_null(strstr(layers, "model.layers.0.self_attn.q_proj.weight: damping raised from 0 to 1e-0"));
    assert_non_null(strstr(layers, "; model.layers.1.mlp.down_proj.weight: damping raised"));
    setting_close(&s);
}

static void inputs_that_are_not_finite_name_their_layer(void **state) {
    (void)state;
    for (int m = 0; m < METHODS; m++) {
        struct setting s;
        setting_open(&s, &grids[0], false);
        const struct layer *layer = &s.model.transformer->layers[1];
        for (int64_t c = 0; c < config.hidden; c++) view_f32(layer->mlp_norm->stored, 0)[c] = 1e30f;
        check_fails(all[m]->work(&s.run), STATUS_INVALID);
        assert_non_null(strstr(status_message(), m < 2 ? "model.layers.1.mlp.gate_proj.weight" : "layer 1:"));
        for (int64_t i = 0; i < s.model.transformer->n_weights; i++) {
            assert_null(s.model.transformer->weights[i].tap);
            assert_int_equal(s.model.transformer->weights[i].form, WEIGHT_STORED);
        }
        setting_close(&s);
    }
}

// ---- signed gradients ----

struct block {
    struct setting s;
    struct stream *inputs, *targets;
};

static void block_open(struct block *b) {
    struct stream_options options = {.windows = WINDOWS, .seq_len = SEQ_LEN, .batch = WINDOWS};
    setting_open(&b->s, &grids[0], false);
    struct transformer *model = b->s.model.transformer;
    check_ok(stream_new(model, b->s.model.step, &options, &b->inputs));
    check_ok(stream_new(model, b->s.model.step, &options, &b->targets));
    check_ok(stream_start(b->inputs, b->s.tokens));
    check_ok(stream_start(b->targets, b->s.tokens));
    check_ok(stream_layer(b->targets));
}

static void block_close(struct block *b) {
    stream_free(b->inputs);
    stream_free(b->targets);
    setting_close(&b->s);
}

static enum status copy_take(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x) {
    (void)step;
    struct copy_tap {
        struct input_tap tap;
        float *to;
    } *self = (struct copy_tap *)tap;
    memcpy(self->to, x.data, (size_t)(x.rows * weight->cols) * sizeof(float));
    return STATUS_OK;
}

// For the last matrix, y = middle + h W^T, the gradient is (y - target)^T h times the gap.
static void a_step_goes_against_the_sign_of_the_gradient(void **state) {
    (void)state;
    struct block b;
    struct block_rounding_result result;
    block_open(&b);
    struct transformer *model = b.s.model.transformer;
    struct weight *down = model->layers[0].down;
    int64_t n = down->rows * down->cols, moved = 0;
    float *h = mem_new((size_t)(TOKENS * down->cols), sizeof *h), *start = mem_new((size_t)n, sizeof *start);
    memcpy(start, down->x.data, (size_t)n * sizeof *start);
    struct {
        struct input_tap tap;
        float *to;
    } tap = {.tap.take = copy_take, .to = h};
    down->tap = &tap.tap;
    transformer_set_form(model, WEIGHT_ROUNDED);
    step_begin(b.s.model.step, (struct step_options){.seq_len = SEQ_LEN});
    struct value *y;
    float *x = mem_new((size_t)(TOKENS * config.hidden), sizeof *x);
    memcpy(x, b.inputs->hidden.data, (size_t)(TOKENS * config.hidden) * sizeof *x);
    struct view input = view_new(x, DTYPE_F32, TOKENS, config.hidden);
    check_ok(transformer_layer(model, b.s.model.step, 0, step_input(b.s.model.step, input), &y));
    down->tap = NULL;
    float *miss = mem_new((size_t)(TOKENS * config.hidden), sizeof *miss);
    double square = 0, all_squares = 0;
    for (int64_t i = 0; i < TOKENS * config.hidden; i++) {
        float target = ((float *)b.targets->hidden.data)[i];
        miss[i] = ((float *)y->data.data)[i] - target;
        square += (double)miss[i] * miss[i], all_squares += (double)target * target;
    }
    struct block_rounding_options options = {.steps = 2, .batch = WINDOWS, .rate = 0.02};
    check_ok(block_rounding(b.s.rounding, b.s.model.step, b.inputs, b.targets, &options, &result));
    check_near(result.error_first, square / all_squares, 1e-4, 0);
    assert_true(result.step == 1 && result.error < result.error_first);
    for (int64_t r = 0; r < down->rows; r++)
        for (int64_t c = 0; c < down->cols; c++) {
            double gradient = 0, scale = 0;
            for (int64_t t = 0; t < TOKENS; t++) {
                double part = (double)miss[t * config.hidden + r] * h[t * down->cols + c];
                gradient += part, scale += fabs(part);
            }
            struct neighbours near =
                grid_neighbours(down->grid, view_f32(down->stored, r)[c], view_f32(down->scale, r)[0], 0);
            if (fabs(gradient) < 1e-4 * scale) continue;
            double y0 = start[r * down->cols + c], want = y0 + (near.up == near.down ? 0 : gradient > 0 ? -0.02 : 0.02);
            check_near(view_f32(down->x, r)[c], fmax(0, fmin(1, want)), 0, 1e-5);
            moved++;
        }
    assert_true(moved > n * 9 / 10);
    free(h);
    free(x);
    free(miss);
    free(start);
    block_close(&b);
}

// The x that is kept is the one before the only step.
static void one_step_leaves_round_to_nearest(void **state) {
    (void)state;
    struct block b;
    struct block_rounding_result result;
    block_open(&b);
    struct weight *o = b.s.model.transformer->layers[0].o;
    size_t bytes = (size_t)view_count(o->x) * sizeof(float);
    float *start = mem_new(bytes, 1);
    memcpy(start, o->x.data, bytes);
    struct block_rounding_options options = {.steps = 1, .batch = 3};
    check_ok(block_rounding(b.s.rounding, b.s.model.step, b.inputs, b.targets, &options, &result));
    assert_memory_equal(o->x.data, start, bytes);
    assert_true(result.step == 0 && result.error == result.error_first);
    assert_null(o->sink);
    free(start);
    block_close(&b);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    for (int m = 0; m < METHODS; m++) {
        int64_t k = 0, n = 0;
        for (bool failed = true; failed; k += 1 + k / 8, n++) {
            struct setting s;
            setting_open(&s, &grids[0], false);
            s.settings.soft.steps = s.settings.block.steps = 1;
            mem_fail_at(k);
            enum status status = all[m]->work(&s.run);
            mem_fail_at(-1);
            failed = status != STATUS_OK;
            if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
            setting_close(&s);
            assert_int_equal(mem_buffer_bytes(), 0);
        }
        assert_true(n > 20);
    }
}

int main(void) {
    threads_set(2);
    progress_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inputs_come_from_the_matrices_rounded_before),
        cmocka_unit_test(all_methods_are_nearer_than_nearest_on_every_grid),
        cmocka_unit_test(any_number_of_threads_leaves_the_same_bits),
        cmocka_unit_test(damping_that_had_to_grow_is_in_the_result),
        cmocka_unit_test(inputs_that_are_not_finite_name_their_layer),
        cmocka_unit_test(a_step_goes_against_the_sign_of_the_gradient),
        cmocka_unit_test(one_step_leaves_round_to_nearest),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
