// A network layer by layer against the network as a whole, on small random networks.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "core/nn/stream.h"

enum { WINDOWS = 7, SEQ_LEN = 10, ROWS = WINDOWS * SEQ_LEN };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int32_t tokens[ROWS];
};

static void setting_open(struct setting *s, const struct transformer_config *config) {
    struct random_source random = {.seed = 3, .gain = 1, .norm_spread = 0.3};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    for (int i = 0; i < ROWS; i++)
        s->tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 1, .stream = RNG_TEST}, (uint64_t)i) % VOCAB);
}

static void setting_close(struct setting *s) {
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

// Keeps what it sees: rows one behind the other.
struct recorder {
    struct input_tap tap;
    float *x;
    int64_t rows, cols, calls;
};

static enum status record(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x) {
    (void)step;
    struct recorder *self = (struct recorder *)tap;
    assert_int_equal(x.cols, weight->cols);
    self->cols = x.cols;
    self->calls++;
    for (int64_t i = 0; i < x.rows; i++)
        memcpy(self->x + (self->rows++) * x.cols, view_f32(x, i), (size_t)x.cols * sizeof(float));
    return STATUS_OK;
}

static struct recorder *recorders_new(struct transformer *model) {
    struct recorder *all = mem_new((size_t)model->n_weights, sizeof *all);
    for (int64_t i = 0; i < model->n_weights; i++) {
        all[i] = (struct recorder){.tap.take = record, .x = mem_new((size_t)(ROWS * model->weights[i].cols), 4)};
        if (model->weights[i].is_linear) model->weights[i].tap = &all[i].tap;
    }
    return all;
}

static void recorders_free(struct recorder *all, int64_t n) {
    for (int64_t i = 0; i < n; i++) free(all[i].x);
    free(all);
}

static void taps_off(struct weight *const *weights, int n) {
    for (int i = 0; i < n && weights[i]; i++) weights[i]->tap = NULL;
}

static void stream_parts(struct stream *stream) {
    struct layer *layer = &stream->model->layers[stream->layer];
    check_ok(stream_enter(stream, LAYER_ATTENTION));
    taps_off(layer->qkv, 3);
    check_ok(stream_inner(stream, LAYER_ATTENTION));
    taps_off(&layer->o, 1);
    check_ok(stream_leave(stream, LAYER_ATTENTION));
    check_ok(stream_enter(stream, LAYER_MLP));
    taps_off(layer->gate_up, 2);
    check_ok(stream_inner(stream, LAYER_MLP));
    taps_off(&layer->down, 1);
    check_ok(stream_leave(stream, LAYER_MLP));
}

// Passes of all windows at once have the same shapes on both sides, so the bits are the same; other passes change rounding only.
static void layers_by_parts_are_the_network(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++)
        for (int batch = 3; batch <= WINDOWS; batch += WINDOWS - 3) {
            struct setting s;
            struct stream *stream = NULL;
            struct value *hidden;
            setting_open(&s, configs[c]);
            struct recorder *whole = recorders_new(s.model);
            check_ok(transformer_prepare(s.model, SEQ_LEN));
            step_begin(s.step, (struct step_options){.seq_len = SEQ_LEN});
            struct view tokens = view_new(s.tokens, DTYPE_I32, ROWS, 1);
            check_ok(transformer_forward(s.model, s.step, tokens, &hidden));
            float *want = mem_new((size_t)view_count(hidden->data), sizeof *want);
            memcpy(want, hidden->data.data, (size_t)view_count(hidden->data) * sizeof *want);
            struct recorder *parts = recorders_new(s.model);
            struct stream_options options = {.windows = WINDOWS, .seq_len = SEQ_LEN, .batch = batch};
            check_ok(stream_new(s.model, s.step, &options, &stream));
            check_ok(stream_start(stream, s.tokens));
            while (stream->layer < configs[c]->layers) stream_parts(stream);
            step_begin(s.step, (struct step_options){.seq_len = SEQ_LEN});
            check_ok(record_rmsnorm(s.step, step_input(s.step, stream_windows(stream, 0, WINDOWS)), s.model->final_norm,
                                    configs[c]->rms_eps, &hidden));
            double tolerance = batch == WINDOWS ? 0 : 2e-5;
            check_all_near((float *)hidden->data.data, want, view_count(hidden->data), tolerance, tolerance);
            for (int64_t i = 0; i < s.model->n_weights; i++) {
                if (!s.model->weights[i].is_linear) continue;
                assert_int_equal(whole[i].rows, ROWS);
                assert_int_equal(parts[i].rows, ROWS);
                assert_int_equal(parts[i].calls, (WINDOWS + batch - 1) / batch);
                check_all_near(parts[i].x, whole[i].x, ROWS * parts[i].cols, tolerance, tolerance);
            }
            recorders_free(whole, s.model->n_weights);
            recorders_free(parts, s.model->n_weights);
            free(want);
            stream_free(stream);
            setting_close(&s);
        }
}

static void a_layer_is_its_parts_to_the_bit(void **state) {
    (void)state;
    for (int c = 0; c < 2; c++) {
        struct setting s;
        struct stream *parts = NULL, *whole = NULL;
        struct stream_options options = {.windows = WINDOWS, .seq_len = SEQ_LEN, .batch = 2};
        setting_open(&s, configs[c]);
        check_ok(stream_new(s.model, s.step, &options, &parts));
        check_ok(stream_new(s.model, s.step, &options, &whole));
        check_ok(stream_start(parts, s.tokens));
        check_ok(stream_start(whole, s.tokens));
        stream_parts(parts);
        check_ok(stream_layer(whole));
        assert_int_equal(whole->layer, 1);
        assert_int_equal(parts->layer, 1);
        assert_memory_equal(whole->hidden.data, parts->hidden.data, (size_t)view_count(whole->hidden) * 4);
        stream_free(parts);
        stream_free(whole);
        setting_close(&s);
    }
}

static void too_many_positions_are_refused(void **state) {
    (void)state;
    struct setting s;
    struct stream *stream = NULL;
    setting_open(&s, &llama);
    struct stream_options options = {.windows = 1, .seq_len = 65};
    check_fails(stream_new(s.model, s.step, &options, &stream), STATUS_INVALID);
    assert_null(stream);
    setting_close(&s);
}

static void every_allocation_of_a_stream_may_fail(void **state) {
    (void)state;
    int64_t k = 0;
    for (bool failed = true; failed; k++) {
        enum status status = STATUS_OK;
        struct setting s;
        struct stream *stream = NULL;
        struct stream_options options = {.windows = WINDOWS, .seq_len = SEQ_LEN, .batch = 2};
        setting_open(&s, &llama);
        mem_fail_at(k);
        TRY(stream_new(s.model, s.step, &options, &stream));
        TRY(stream_start(stream, s.tokens));
        TRY(stream_inner(stream, LAYER_ATTENTION));
        TRY(stream_leave(stream, LAYER_ATTENTION));
    done:
        mem_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
        stream_free(stream);
        setting_close(&s);
        assert_int_equal(mem_buffer_bytes(), 0);
    }
    assert_true(k > 4);
}

int main(void) {
    threads_set(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_by_parts_are_the_network),
        cmocka_unit_test(a_layer_is_its_parts_to_the_bit),
        cmocka_unit_test(too_many_positions_are_refused),
        cmocka_unit_test(every_allocation_of_a_stream_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
