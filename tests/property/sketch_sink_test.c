// Per-sample norms, sketches, sums and inner products of whole networks: against gradients of single samples by the training
// sink, whose maps are written out in double (tests/ops); split over batches, tiles, pieces of the head and threads.
#include "tests/check.h"
#include "tests/ops/ops.h"
#include "tests/small_networks.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/random_source.h"
#include "core/nn/transformer.h"

enum {
    BATCH = 5,
    SEQ_LEN = 9,
    ROWS = BATCH * SEQ_LEN,
    WEIGHTS = 40,
    DIM = 50,
    SKETCHES = 3,
    GROUPS = 3,
    DIRECTIONS = 2
};

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int32_t tokens[ROWS], targets[ROWS];
    double loss[ROWS];
    int64_t group[WEIGHTS];
    struct view directions[WEIGHTS];
    struct sketch_options options;
    struct sketch_sink *sink;
};

static double random_entry(int64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 9, .stream = RNG_TEST + (uint64_t)stream}, (uint64_t)i);
}

// Every third weight in one group, weights of the second layer in none.
static void groups_make(struct setting *s) {
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        const struct weight *w = &s->model->weights[k];
        s->group[k] = strstr(w->name, "layers.1.") ? -1 : k % GROUPS;
        if (s->group[k] < 0 || k % 4 == 1) continue; // no direction stands for zeros
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, DIRECTIONS, w->rows * w->cols, "d", &s->directions[k]));
        for (int64_t i = 0; i < view_count(s->directions[k]); i++)
            view_f32(s->directions[k], 0)[i] = (float)random_entry(k, i);
    }
}

static void setting_open(struct setting *s, const struct transformer_config *config, enum sketch_kind kind) {
    *s = (struct setting){0};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < ROWS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    for (int i = 0; i < ROWS; i++) s->targets[i] = (i + 1) % SEQ_LEN ? s->tokens[i + 1] : -1;
    assert_true(s->model->n_weights <= WEIGHTS);
    groups_make(s);
    s->options = (struct sketch_options){.kind = kind,
                                         .dim = DIM,
                                         .sketches = SKETCHES,
                                         .seed = 31,
                                         .n_groups = GROUPS,
                                         .group = s->group,
                                         .shared = config->tied ? s->model->embedding : NULL,
                                         .sum = true,
                                         .n_directions = DIRECTIONS,
                                         .directions = s->directions};
    check_ok(sketch_sink_new(s->backend, s->model->weights, s->model->n_weights, &s->options, BATCH, &s->sink));
    sketch_sink_attach(s->sink);
}

static void setting_close(struct setting *s) {
    sketch_sink_free(s->sink);
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        assert_true(!s->model->weights[k].sink || s->model->weights[k].sink == &accumulate_sink);
        backend_matrix_free(s->backend, &s->directions[k]);
    }
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static void sink_new_again(struct setting *s) {
    sketch_sink_free(s->sink);
    check_ok(sketch_sink_new(s->backend, s->model->weights, s->model->n_weights, &s->options, BATCH, &s->sink));
    sketch_sink_attach(s->sink);
}

// Forward and backward over samples first .. first + n - 1, whose losses are means over a window's predictions.
static void network_pass(struct setting *s, int64_t first, int64_t n, bool recompute) {
    struct value *hidden = NULL;
    step_begin(s->step, (struct step_options){.gradient = true, .recompute = recompute, .seq_len = SEQ_LEN});
    struct view tokens = view_new(s->tokens + first * SEQ_LEN, DTYPE_I32, n * SEQ_LEN, 1);
    check_ok(transformer_forward(s->model, s->step, tokens, &hidden));
    struct transformer_loss loss = {.targets = view_new(s->targets + first * SEQ_LEN, DTYPE_I32, n * SEQ_LEN, 1),
                                    .cross_entropy = view_new(s->loss + first * SEQ_LEN, DTYPE_F64, n * SEQ_LEN, 1),
                                    .gradient_weight = 1.0 / (SEQ_LEN - 1)};
    check_ok(transformer_loss(s->model, s->step, hidden, &loss));
    check_ok(step_backward(s->step));
}

static void sketch_pass(struct setting *s, int64_t first, int64_t n, bool recompute) {
    check_ok(sketch_sink_begin(s->sink, view_new(s->tokens + first * SEQ_LEN, DTYPE_I32, n * SEQ_LEN, 1)));
    network_pass(s, first, n, recompute);
    check_ok(sketch_sink_end(s->sink, n));
}

// ---- against gradients of single samples ----

// What the sink must say, from gradients of samples alone by the training sink.
struct truth {
    double norms[BATCH * GROUPS], inner[BATCH * DIRECTIONS], *sketches, *sums[WEIGHTS];
};

// grads [BATCH, n], doubles, of one weight.
static void truth_add(struct truth *truth, const struct setting *s, const struct weight *w, struct matrix grads) {
    int64_t n = grads.cols, width = SKETCHES * DIM;
    struct operands o = {.in = {grads}, .out = {matrix_new(BATCH, 1), matrix_new(BATCH, width)}};
    struct op_call call = {.op = OP_sketch,
                           .params.sketch = {.kind = s->options.kind == SKETCH_NONE ? SKETCH_ROTATION : s->options.kind,
                                             .sketches = SKETCHES,
                                             .stream = w->index,
                                             .seed = s->options.seed}};
    op_reference(&call, &o);
    for (int64_t k = 0; k < BATCH; k++) {
        int64_t place = k * GROUPS + s->group[w->index];
        const double *grad = matrix_row(grads, k);
        truth->norms[place] += o.out[0].x[k];
        for (int64_t b = 0; b < width; b++) truth->sketches[place * width + b] += matrix_row(o.out[1], k)[b];
        for (int64_t i = 0; i < n; i++) truth->sums[w->index][i] += grad[i];
        for (int64_t d = 0; d < DIRECTIONS && s->directions[w->index].rows; d++)
            for (int64_t i = 0; i < n; i++)
                truth->inner[k * DIRECTIONS + d] += grad[i] * (double)view_f32(s->directions[w->index], d)[i];
    }
    operands_free(&o);
}

static struct truth truth_new(struct setting *s) {
    struct truth truth = {.sketches = calloc(BATCH * GROUPS * SKETCHES * DIM, sizeof(double))};
    struct matrix grads[WEIGHTS];
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        w->sink = s->group[k] >= 0 ? &accumulate_sink : NULL;
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        truth.sums[k] = calloc((size_t)(w->rows * w->cols), sizeof(double));
        grads[k] = matrix_new(BATCH, w->rows * w->cols);
    }
    for (int64_t b = 0; b < BATCH; b++) {
        for (int64_t k = 0; k < s->model->n_weights; k++)
            memset(s->model->weights[k].grad.data, 0, (size_t)grads[k].cols * 4);
        network_pass(s, b, 1, false);
        for (int64_t k = 0; k < s->model->n_weights; k++)
            for (int64_t i = 0; i < grads[k].cols; i++)
                matrix_row(grads[k], b)[i] = (double)view_f32(s->model->weights[k].grad, 0)[i];
    }
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        if (s->group[k] < 0)
            matrix_free(&grads[k]);
        else
            truth_add(&truth, s, &s->model->weights[k], grads[k]);
    }
    sketch_sink_attach(s->sink);
    return truth;
}

static void truth_free(struct truth *truth) {
    free(truth->sketches);
    for (int k = 0; k < WEIGHTS; k++) free(truth->sums[k]);
}

// Gradients agree to 1e-6 of their norm; what is linear in them is held against that norm, dense maps' entries reach 5 / sqrt(k).
static void check_truth(struct setting *s, const struct truth *truth, double allowed) {
    double largest = 0;
    for (int64_t i = 0; i < BATCH * GROUPS; i++) {
        check_near(s->sink->norms[i], truth->norms[i], allowed, 0);
        largest = fmax(largest, sqrt(truth->norms[i]));
    }
    for (int64_t i = 0; i < BATCH * DIRECTIONS; i++)
        check_near(s->sink->inner[i], truth->inner[i], 0, 50 * allowed * largest);
    for (int64_t i = 0; i < BATCH * GROUPS * SKETCHES * DIM && s->sink->sketches; i++)
        check_near((double)s->sink->sketches[i], truth->sketches[i], 0, allowed * largest);
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        const struct weight *w = &s->model->weights[k];
        double *sum = malloc((size_t)(w->rows * w->cols) * sizeof *sum);
        if (s->group[k] >= 0) check_ok(sketch_sink_sum(s->sink, w, sum));
        for (int64_t i = 0; i < w->rows * w->cols && s->group[k] >= 0; i++)
            check_near(sum[i], truth->sums[k][i], 0, allowed * largest);
        free(sum);
    }
}

static void results_equal_those_of_explicit_gradients(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++)
        for (int kind = SKETCH_NONE; kind <= SKETCH_RADEMACHER; kind++) {
            struct setting s;
            setting_open(&s, configs[c], (enum sketch_kind)kind);
            struct truth truth = truth_new(&s);
            assert_true(!s.sink->sketches == (kind == SKETCH_NONE));
            sketch_pass(&s, 0, BATCH, false);
            check_truth(&s, &truth, 1e-5);
            truth_free(&truth);
            setting_close(&s);
        }
}

// Passes of two, two and one samples; the head's rows in pieces; recomputed layers.
static void any_way_of_cutting_gives_the_same_results(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c], SKETCH_ROTATION);
        struct truth truth = truth_new(&s);
        for (int64_t rows = 4; rows <= 3 * SEQ_LEN; rows += SEQ_LEN - 4) { // parts of samples become whole ones
            sink_new_again(&s);
            s.model->head_rows = rows;
            sketch_pass(&s, 0, BATCH, true);
            check_truth(&s, &truth, 1e-5);
        }
        s.model->head_rows = 0;
        sink_new_again(&s);
        size_t width = GROUPS * SKETCHES * DIM;
        double norms[BATCH * GROUPS], inner[BATCH * DIRECTIONS];
        float *sketches = malloc(BATCH * width * sizeof *sketches);
        for (int64_t b = 0; b < BATCH; b += 2) {
            int64_t n = b + 2 <= BATCH ? 2 : 1;
            sketch_pass(&s, b, n, false);
            memcpy(norms + b * GROUPS, s.sink->norms, (size_t)(n * GROUPS) * sizeof *norms);
            memcpy(inner + b * DIRECTIONS, s.sink->inner, (size_t)(n * DIRECTIONS) * sizeof *inner);
            memcpy(sketches + (size_t)b * width, s.sink->sketches, (size_t)n * width * sizeof *sketches);
        }
        memcpy(s.sink->norms, norms, sizeof norms);
        memcpy(s.sink->inner, inner, sizeof inner);
        memcpy(s.sink->sketches, sketches, BATCH * width * sizeof *sketches);
        check_truth(&s, &truth, 1e-5);
        free(sketches);
        truth_free(&truth);
        setting_close(&s);
    }
}

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    for (int kind = SKETCH_ROTATION; kind <= SKETCH_RADEMACHER; kind++) {
        struct setting s;
        setting_open(&s, &phi3_tied, (enum sketch_kind)kind);
        size_t n = BATCH * GROUPS * SKETCHES * DIM;
        double norms[BATCH * GROUPS], inner[BATCH * DIRECTIONS];
        float *sketches = malloc(n * sizeof *sketches);
        for (int threads = 1; threads <= 3; threads++) {
            threads_set(threads);
            sketch_pass(&s, 0, BATCH, false);
            if (threads > 1) {
                assert_memory_equal(norms, s.sink->norms, sizeof norms);
                assert_memory_equal(inner, s.sink->inner, sizeof inner);
                assert_memory_equal(sketches, s.sink->sketches, n * sizeof *sketches);
            }
            memcpy(norms, s.sink->norms, sizeof norms);
            memcpy(inner, s.sink->inner, sizeof inner);
            memcpy(sketches, s.sink->sketches, n * sizeof *sketches);
        }
        free(sketches);
        setting_close(&s);
    }
}

// ---- given factors ----

enum { FACTORS = 4, SAMPLES = 7, TOKENS = 12, OUT_MOST = 300, IN_MOST = 700 };

// A weight of several tiles, one of stories260K's, a gain and a table, with factors of their gradients. Each sample's are 1/64 of
// the one's before, so that sums of seven would be rounded if their terms were not.
struct factors {
    struct weight weights[FACTORS];
    int64_t group[FACTORS];
    float *dy[FACTORS], *x[FACTORS], rstd[SAMPLES * TOKENS];
    int32_t tokens[SAMPLES * TOKENS];
};

static void factors_new(struct factors *f) {
    static const int64_t sizes[FACTORS][2] = {{OUT_MOST, IN_MOST}, {172, 64}, {1, 64}, {90, 33}};
    static char names[FACTORS][2] = {"a", "b", "c", "d"};
    *f = (struct factors){.group = {0, 1, 0, 1}};
    for (int k = 0; k < FACTORS; k++) {
        f->weights[k] = (struct weight){.name = names[k], .rows = sizes[k][0], .cols = sizes[k][1], .index = k};
        int64_t out = k < 2 ? sizes[k][0] : sizes[k][1], n = SAMPLES * TOKENS;
        f->dy[k] = malloc((size_t)(n * out) * sizeof(float)),
        f->x[k] = malloc((size_t)(n * sizes[k][1]) * sizeof(float));
        for (int64_t i = 0; i < n * out; i++)
            f->dy[k][i] = (float)ldexp(random_entry(2 * k, i), (int)(-6 * (i / (TOKENS * out))));
        for (int64_t i = 0; i < n * sizes[k][1]; i++) f->x[k][i] = (float)random_entry(2 * k + 1, i);
    }
    for (int64_t i = 0; i < SAMPLES * TOKENS; i++) {
        f->rstd[i] = (float)fabs(random_entry(77, i));
        f->tokens[i] = (int32_t)(rng_bits((struct rng){3, RNG_TEST}, (uint64_t)i) % 90);
    }
}

static void factors_free(struct factors *f) {
    for (int k = 0; k < FACTORS; k++) free(f->dy[k]), free(f->x[k]);
}

// Hands the factors of samples first .. first + n - 1 to the sink, as the way back does.
static void factors_pass(struct factors *f, struct step *step, struct sketch_sink *self, int64_t first, int64_t n) {
    struct grad_sink *sink = &self->sink;
    int64_t at = first * TOKENS, rows = n * TOKENS;
    struct weight *w = f->weights;
    step_begin(step, (struct step_options){.gradient = true, .seq_len = TOKENS});
    check_ok(sketch_sink_begin(self, (struct view){0}));
    for (int k = 0; k < 2; k++)
        check_ok(sink->product(sink, step, &w[k], view_new(f->dy[k] + at * w[k].rows, DTYPE_F32, rows, w[k].rows),
                               view_new(f->x[k] + at * w[k].cols, DTYPE_F32, rows, w[k].cols), 0));
    check_ok(sink->gain(sink, step, &w[2], view_new(f->dy[2] + at * 64, DTYPE_F32, rows, 64),
                        view_new(f->x[2] + at * 64, DTYPE_F32, rows, 64), view_new(f->rstd + at, DTYPE_F32, rows, 1)));
    check_ok(sink->table(sink, step, &w[3], view_new(f->dy[3] + at * 33, DTYPE_F32, rows, 33),
                         view_new(f->tokens + at, DTYPE_I32, rows, 1)));
    check_ok(sketch_sink_end(self, n));
}

// Batches of all, of one, and of one in reverse order: the same bits of everything, sums too.
static void the_batch_does_not_change_a_bit(void **state) {
    (void)state;
    struct backend *backend = NULL;
    struct step *step = NULL;
    struct factors f;
    factors_new(&f);
    check_ok(backend_open("cpu", &backend));
    check_ok(step_new(backend, &step));
    for (int kind = SKETCH_ROTATION; kind <= SKETCH_RADEMACHER; kind++) {
        enum { WIDTH = 2 * 2 * 40 };
        struct sketch_options options = {
            .kind = (enum sketch_kind)kind, .dim = 40, .sketches = 2, .n_groups = 2, .group = f.group, .sum = true};
        struct sketch_sink *all = NULL, *one = NULL, *back = NULL;
        check_ok(sketch_sink_new(backend, f.weights, FACTORS, &options, SAMPLES, &all));
        check_ok(sketch_sink_new(backend, f.weights, FACTORS, &options, 1, &one));
        check_ok(sketch_sink_new(backend, f.weights, FACTORS, &options, 1, &back));
        factors_pass(&f, step, all, 0, SAMPLES);
        for (int64_t b = 0; b < SAMPLES; b++) {
            factors_pass(&f, step, one, b, 1);
            factors_pass(&f, step, back, SAMPLES - 1 - b, 1);
            assert_memory_equal(one->norms, all->norms + 2 * b, 2 * sizeof *one->norms);
            assert_memory_equal(one->sketches, all->sketches + WIDTH * b, WIDTH * sizeof *one->sketches);
        }
        for (int k = 0; k < FACTORS; k++) {
            size_t n = (size_t)(f.weights[k].rows * f.weights[k].cols);
            double *sums[3] = {malloc(n * sizeof(double)), malloc(n * sizeof(double)), malloc(n * sizeof(double))};
            check_ok(sketch_sink_sum(all, &f.weights[k], sums[0]));
            check_ok(sketch_sink_sum(one, &f.weights[k], sums[1]));
            check_ok(sketch_sink_sum(back, &f.weights[k], sums[2]));
            assert_memory_equal(sums[0], sums[1], n * sizeof(double));
            assert_memory_equal(sums[0], sums[2], n * sizeof(double));
            for (int i = 0; i < 3; i++) free(sums[i]);
        }
        sketch_sink_free(all), sketch_sink_free(one), sketch_sink_free(back);
    }
    step_free(step);
    backend_close(backend);
    factors_free(&f);
}

static void sums_that_are_not_exact_are_refused(void **state) {
    (void)state;
    struct backend *backend = NULL;
    struct step *step = NULL;
    struct factors f;
    double sum[64];
    factors_new(&f);
    check_ok(backend_open("cpu", &backend));
    check_ok(step_new(backend, &step));
    struct sketch_options options = {.n_groups = 2, .group = f.group, .sum = true};
    for (int what = 0; what < 3; what++) { // fine, too large, not a number
        struct sketch_sink *sink = NULL;
        check_ok(sketch_sink_new(backend, f.weights, FACTORS, &options, SAMPLES, &sink));
        float kept = f.dy[2][5];
        if (what == 1) f.dy[2][5] = 1e9f;
        if (what == 2) f.dy[2][5] = NAN;
        factors_pass(&f, step, sink, 0, SAMPLES);
        f.dy[2][5] = kept;
        assert_true(!isfinite(sink->norms[0]) == (what == 2) && isfinite(sink->norms[1]) && isfinite(sink->norms[2]));
        if (what == 0)
            check_ok(sketch_sink_sum(sink, &f.weights[2], sum));
        else
            check_fails(sketch_sink_sum(sink, &f.weights[2], sum), STATUS_INVALID);
        sketch_sink_free(sink);
    }
    step_free(step);
    backend_close(backend);
    factors_free(&f);
}

static void want_of_memory_is_an_error(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &phi3_tied, SKETCH_ROTATION);
    for (int k = 0;; k++) {
        struct sketch_sink *sink = NULL;
        mem_fail_at(k);
        enum status status = sketch_sink_new(s.backend, s.model->weights, s.model->n_weights, &s.options, BATCH, &sink);
        mem_fail_at(-1);
        assert_true(!sink == (status != STATUS_OK));
        sketch_sink_free(sink);
        if (status == STATUS_OK) break;
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_true(k < 1000);
    }
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_equal_those_of_explicit_gradients),
        cmocka_unit_test(any_way_of_cutting_gives_the_same_results),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(the_batch_does_not_change_a_bit),
        cmocka_unit_test(sums_that_are_not_exact_are_refused),
        cmocka_unit_test(want_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
