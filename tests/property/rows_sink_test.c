// Per-sample gradients of whole networks, entry by entry: against backward passes of single samples, against differences
// of the loss, against their norms; split over tiles, batches, pieces of the head and threads.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/random_source.h"
#include "core/nn/transformer.h"

enum { BATCH = 5, SEQ_LEN = 9, ROWS = BATCH * SEQ_LEN, WEIGHTS = 40, STRIDE = 8 };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int32_t tokens[ROWS], targets[ROWS];
    double loss[ROWS];
    int64_t first[WEIGHTS], n; // coordinates of all weights
    double *values;            // [n, STRIDE]
    struct rows_matrix matrix;
    struct rows_sink *sink; // of all weights, into `values`
};

static void set_sink(struct setting *s, struct grad_sink *sink) {
    for (int64_t k = 0; k < s->model->n_weights; k++) s->model->weights[k].sink = sink;
}

static const struct weight *shared_weight(const struct setting *s) {
    return s->model->config.tied ? s->model->embedding : NULL;
}

static void setting_open(struct setting *s, const struct transformer_config *config) {
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
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        s->first[k] = s->n;
        s->n += s->model->weights[k].rows * s->model->weights[k].cols;
    }
    s->values = calloc((size_t)(s->n * STRIDE), sizeof(double));
    s->matrix = (struct rows_matrix){.values = s->values, .stride = STRIDE, .first = s->first};
    s->sink = rows_sink_new(BATCH, shared_weight(s), rows_to_matrix, &s->matrix);
    set_sink(s, &s->sink->sink);
}

static void setting_close(struct setting *s) {
    rows_sink_free(s->sink);
    free(s->values);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

// A pass over samples first .. first + n - 1, whose losses are means over a window's predictions.
static void pass(struct setting *s, int64_t first, int64_t n, bool gradient, bool recompute) {
    struct value *hidden = NULL;
    step_begin(s->step, (struct step_options){.gradient = gradient, .recompute = recompute, .seq_len = SEQ_LEN});
    struct view tokens = view_new(s->tokens + first * SEQ_LEN, DTYPE_I32, n * SEQ_LEN, 1);
    check_ok(transformer_forward(s->model, s->step, tokens, &hidden));
    struct transformer_loss loss = {.targets = view_new(s->targets + first * SEQ_LEN, DTYPE_I32, n * SEQ_LEN, 1),
                                    .cross_entropy = view_new(s->loss + first * SEQ_LEN, DTYPE_F64, n * SEQ_LEN, 1),
                                    .gradient_weight = gradient ? 1.0 / (SEQ_LEN - 1) : 0};
    check_ok(transformer_loss(s->model, s->step, hidden, &loss));
    if (gradient) check_ok(step_backward(s->step));
}

// Fills column k of `values` with the gradient of sample k, `batch` samples per pass.
static void rows_make(struct setting *s, int64_t batch) {
    for (int64_t i = 0; i < s->n * STRIDE; i++) s->values[i] = -7;
    for (int64_t k = 0; k < BATCH; k += batch) {
        s->matrix.column = k;
        rows_sink_begin(s->sink);
        pass(s, k, BATCH - k < batch ? BATCH - k : batch, true, false);
    }
}

static double sample_loss(const struct setting *s, int64_t sample) {
    double sum = 0;
    for (int64_t i = 0; i < SEQ_LEN; i++) sum += s->loss[sample * SEQ_LEN + i];
    return sum / (SEQ_LEN - 1);
}

static double random_entry(int64_t i) {
    return rng_normal((struct rng){.seed = 9, .stream = RNG_TEST + 1}, (uint64_t)i);
}

// fp32 sums of at most 40 terms on the way back through at most 3 layers.
static void check_values(const struct setting *s, const double *want, double allowed) {
    for (int64_t k = 0; k < BATCH; k++) {
        double squares = 0, error = 0;
        for (int64_t i = 0; i < s->n; i++) {
            squares += want[i * STRIDE + k] * want[i * STRIDE + k];
            error = fmax(error, fabs(s->values[i * STRIDE + k] - want[i * STRIDE + k]));
        }
        check_near(error, 0, 0, allowed * sqrt(squares));
    }
}

static double *copy_of_values(const struct setting *s) {
    size_t bytes = (size_t)(s->n * STRIDE) * sizeof(double);
    return memcpy(malloc(bytes), s->values, bytes);
}

static void rows_equal_gradients_of_single_samples(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        rows_make(&s, BATCH);
        for (int64_t i = 0; i < s.n; i++)
            for (int64_t k = BATCH; k < STRIDE; k++) assert_true(s.values[i * STRIDE + k] == -7);
        double *want = calloc((size_t)(s.n * STRIDE), sizeof *want);
        set_sink(&s, &accumulate_sink);
        for (int64_t k = 0; k < s.model->n_weights; k++) {
            struct weight *w = &s.model->weights[k];
            check_ok(backend_matrix_new(s.backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        }
        for (int64_t b = 0; b < BATCH; b++) {
            for (int64_t k = 0; k < s.model->n_weights; k++)
                memset(s.model->weights[k].grad.data, 0, (size_t)view_count(s.model->weights[k].grad) * 4);
            pass(&s, b, 1, true, false);
            for (int64_t k = 0; k < s.model->n_weights; k++)
                for (int64_t i = 0; i < view_count(s.model->weights[k].grad); i++)
                    want[(s.first[k] + i) * STRIDE + b] = (double)view_f32(s.model->weights[k].grad, 0)[i];
        }
        check_values(&s, want, 1e-6);
        free(want);
        setting_close(&s);
    }
}

// Differences of one sample's loss along a random direction of one weight at a time. Truncation falls by 4 for half of t; at
// this t it is 6e-4 of the row's norm, and the losses' rounding of 1e-7 to 1e-6 gives 5e-4.
static void rows_are_derivatives_of_their_own_loss(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        rows_make(&s, BATCH);
        for (int64_t k = 0; k < s.model->n_weights; k++) {
            const struct weight *w = &s.model->weights[k];
            double t = 0x1p-9 / sqrt((double)(w->rows == 1 ? 1 : w->cols)), differences[BATCH] = {0};
            float *stored = view_f32(w->stored, 0), *kept = malloc((size_t)view_count(w->stored) * 4);
            memcpy(kept, stored, (size_t)view_count(w->stored) * 4);
            for (int sign = -1; sign <= 1; sign += 2) {
                for (int64_t i = 0; i < view_count(w->stored); i++)
                    stored[i] = kept[i] + (float)(sign * t * random_entry(s.first[k] + i));
                pass(&s, 0, BATCH, false, false);
                for (int64_t b = 0; b < BATCH; b++) differences[b] += sign * sample_loss(&s, b) / (2 * t);
            }
            memcpy(stored, kept, (size_t)view_count(w->stored) * 4);
            free(kept);
            for (int64_t b = 0; b < BATCH; b++) {
                double along = 0, squares = 0;
                for (int64_t i = 0; i < view_count(w->stored); i++) {
                    double g = s.values[(s.first[k] + i) * STRIDE + b];
                    along += g * random_entry(s.first[k] + i);
                    squares += g * g;
                }
                check_near(differences[b], along, 0, 2e-3 * sqrt(squares) + 1e-3);
            }
        }
        setting_close(&s);
    }
}

static void norms_of_rows_are_those_of_the_sketch_sink(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        struct sketch_sink *norms = NULL;
        int64_t group[WEIGHTS] = {0};
        setting_open(&s, configs[c]);
        rows_make(&s, BATCH);
        struct sketch_options options = {.n_groups = 1, .group = group, .shared = shared_weight(&s)};
        check_ok(sketch_sink_new(s.backend, s.model->weights, s.model->n_weights, &options, BATCH, &norms));
        sketch_sink_attach(norms);
        check_ok(sketch_sink_begin(norms, view_new(s.tokens, DTYPE_I32, ROWS, 1)));
        pass(&s, 0, BATCH, true, false);
        check_ok(sketch_sink_end(norms, BATCH));
        for (int64_t b = 0; b < BATCH; b++) {
            double squares = 0;
            for (int64_t i = 0; i < s.n; i++) squares += s.values[i * STRIDE + b] * s.values[i * STRIDE + b];
            check_near(norms->norms[b], squares, 1e-6, 0);
        }
        sketch_sink_free(norms);
        setting_close(&s);
    }
}

// Sums in double over entries that are the same floats: only their order differs.
static void inner_products_are_those_of_the_rows(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        rows_make(&s, BATCH);
        double *direction = malloc((size_t)s.n * sizeof *direction), sums[BATCH] = {0};
        for (int64_t i = 0; i < s.n; i++) direction[i] = random_entry(i);
        struct rows_inner to = {.sums = sums, .first = s.first, .direction = direction};
        struct rows_sink *sink = rows_sink_new(BATCH, shared_weight(&s), rows_to_inner, &to);
        set_sink(&s, &sink->sink);
        rows_sink_begin(sink);
        pass(&s, 0, BATCH, true, false);
        for (int64_t b = 0; b < BATCH; b++) {
            double want = 0, size = 0;
            for (int64_t i = 0; i < s.n; i++) {
                want += s.values[i * STRIDE + b] * direction[i];
                size += fabs(s.values[i * STRIDE + b] * direction[i]);
            }
            check_near(sums[b], want, 0, 1e-14 * size);
        }
        rows_sink_free(sink);
        free(direction);
        setting_close(&s);
    }
}

static void scales_multiply_each_coordinate_exactly(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &phi3_tied);
    double *scale = malloc((size_t)s.n * sizeof *scale);
    for (int64_t i = 0; i < s.n; i++) scale[i] = i % 5 ? (double)(float)random_entry(i) : 0;
    rows_make(&s, BATCH);
    double *plain = copy_of_values(&s);
    s.matrix.scale = scale;
    rows_make(&s, BATCH);
    for (int64_t i = 0; i < s.n; i++) {
        // The tied weight is the sum of two scaled parts.
        double allowed = s.first[1] > i ? 1e-15 * fabs(scale[i]) : 0;
        for (int64_t b = 0; b < BATCH; b++)
            check_near(s.values[i * STRIDE + b], scale[i] * plain[i * STRIDE + b], 0, allowed);
    }
    free(scale);
    free(plain);
    setting_close(&s);
}

// Blocks of rows, recomputed layers and threads: the same bits. Passes of other sizes and pieces of the head: rounding.
static void any_way_of_cutting_gives_the_same_rows(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        rows_make(&s, BATCH);
        size_t bytes = (size_t)(s.n * STRIDE) * sizeof(double);
        double *want = copy_of_values(&s);
        threads_set(1);
        rows_make(&s, BATCH);
        assert_memory_equal(s.values, want, bytes);
        threads_set(3);
        rows_make(&s, BATCH);
        assert_memory_equal(s.values, want, bytes);
        rows_sink_begin(s.sink);
        s.matrix.column = 0;
        pass(&s, 0, BATCH, true, true);
        assert_memory_equal(s.values, want, bytes);
        for (int64_t batch = 1; batch < BATCH; batch++) {
            rows_make(&s, batch);
            check_values(&s, want, 1e-6);
        }
        s.model->head_rows = SEQ_LEN;
        rows_make(&s, BATCH);
        check_values(&s, want, 1e-6);
        s.model->head_rows = 0;
        s.sink->tile_rows = 7; // products of fewer rows may sum in another order
        rows_make(&s, BATCH);
        check_values(&s, want, 1e-6);
        free(want);
        setting_close(&s);
    }
}

static enum status take_no_more(void *context, const struct rows_tile *tile) {
    (void)tile;
    int *left = context;
    return (*left)-- > 0 ? STATUS_OK : status_set(STATUS_IO, "no room for a row");
}

static void an_error_of_the_taker_ends_the_pass(void **state) {
    (void)state;
    struct setting s;
    int left = 3;
    setting_open(&s, &llama);
    struct rows_sink *sink = rows_sink_new(BATCH, NULL, take_no_more, &left);
    for (int64_t k = 1; k < s.model->n_weights - 1; k++) s.model->weights[k].sink = &sink->sink;
    s.model->embedding->sink = s.model->head->sink = NULL;
    struct value *hidden = NULL;
    step_begin(s.step, (struct step_options){.gradient = true, .seq_len = SEQ_LEN});
    check_ok(transformer_forward(s.model, s.step, view_new(s.tokens, DTYPE_I32, ROWS, 1), &hidden));
    struct transformer_loss loss = {.targets = view_new(s.targets, DTYPE_I32, ROWS, 1),
                                    .cross_entropy = view_new(s.loss, DTYPE_F64, ROWS, 1),
                                    .gradient_weight = 1};
    check_ok(transformer_loss(s.model, s.step, hidden, &loss));
    check_fails(step_backward(s.step), STATUS_IO);
    rows_sink_free(sink);
    setting_close(&s);
}

static enum status plan_body(struct step *step, void *context) {
    struct setting *s = context;
    enum status status = STATUS_OK;
    struct value *hidden = NULL;
    step_begin(step, (struct step_options){.gradient = true, .seq_len = SEQ_LEN});
    TRY(transformer_forward(s->model, step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    struct view grad;
    TRY(step_seed(step, hidden, &grad));
    TRY(step_backward(step));
done:
    return status;
}

static void a_plan_hands_over_nothing(void **state) {
    (void)state;
    struct setting s;
    int64_t bytes = 0;
    int left = 0;
    setting_open(&s, &llama);
    check_ok(transformer_prepare(s.model, SEQ_LEN));
    struct rows_sink *sink = rows_sink_new(BATCH, NULL, take_no_more, &left);
    set_sink(&s, &sink->sink);
    check_ok(step_plan(s.backend, plan_body, &s, &bytes));
    assert_true(bytes > 0 && left == 0);
    rows_sink_free(sink);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_equal_gradients_of_single_samples),
        cmocka_unit_test(rows_are_derivatives_of_their_own_loss),
        cmocka_unit_test(norms_of_rows_are_those_of_the_sketch_sink),
        cmocka_unit_test(inner_products_are_those_of_the_rows),
        cmocka_unit_test(scales_multiply_each_coordinate_exactly),
        cmocka_unit_test(any_way_of_cutting_gives_the_same_rows),
        cmocka_unit_test(an_error_of_the_taker_ends_the_pass),
        cmocka_unit_test(a_plan_hands_over_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
