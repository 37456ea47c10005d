// Rotated networks: the same function as before, and all that is said of their matrices is said in rotated coordinates.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/incoherence.h"
#include "core/nn/lora.h"
#include "core/nn/random_source.h"
#include "core/nn/rounding.h"

enum { BATCH = 3, SEQ_LEN = 13, ROWS = BATCH * SEQ_LEN };

// All widths of the small networks have a Hadamard matrix but 22, which needs blocks.
static const struct transformer_config odd = {.architecture = ARCHITECTURE_LLAMA,
                                              .hidden = 24,
                                              .intermediate = 22,
                                              .layers = 2,
                                              .heads = 4,
                                              .kv_heads = 2,
                                              .head_dim = 6,
                                              .vocab = VOCAB,
                                              .max_positions = 64,
                                              .rms_eps = 1e-5,
                                              .rope = {.theta = 100},
                                              .bos = -1};
static enum rotation_kind kind = ROTATION_HADAMARD;
static const struct transformer_config *const networks[] = {&llama, &phi3_tied, &odd};
enum { NETWORKS = sizeof networks / sizeof *networks };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct incoherence *incoherence;
    int32_t tokens[ROWS], targets[ROWS];
};

static void setting_open(struct setting *s, const struct transformer_config *config, bool rotated) {
    *s = (struct setting){0};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    if (rotated) {
        check_ok(incoherence_new(s->model, config == &odd ? ROTATION_HADAMARD_BLOCKS : kind, &s->incoherence));
        check_ok(incoherence_rotate(s->incoherence, 11));
    }
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < ROWS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    for (int i = 0; i < ROWS; i++) s->targets[i] = (i + 1) % SEQ_LEN ? s->tokens[i + 1] : -1;
}

static void setting_close(struct setting *s) {
    incoherence_free(s->incoherence);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static struct weight *next_linear(struct setting *s, int64_t *i) {
    while (*i < s->model->n_weights)
        if (s->model->weights[(*i)++].is_linear) return &s->model->weights[*i - 1];
    return NULL;
}

static void logits_of(struct setting *s, float *out) {
    struct value *hidden = NULL;
    step_begin(s->step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    check_ok(transformer_logits(s->model, s->step, hidden->data, view_new(out, DTYPE_F32, ROWS, VOCAB)));
}

static void rotated_networks_give_the_logits_of_the_unrotated(void **state) {
    (void)state;
    for (int c = 0; c < NETWORKS; c++) {
        struct setting plain, rotated;
        float want[ROWS * VOCAB], got[ROWS * VOCAB];
        setting_open(&plain, networks[c], false);
        setting_open(&rotated, networks[c], true);
        logits_of(&plain, want);
        logits_of(&rotated, got);
        check_all_near(got, want, ROWS * VOCAB, 1e-5, 1e-5);
        int64_t i = 0;
        double moved = 0, sum = 0;
        for (struct weight *w; (w = next_linear(&rotated, &i));)
            for (int64_t k = 0; k < view_count(w->stored); k++) {
                double a = (double)view_f32(w->stored, 0)[k],
                       b = (double)view_f32(plain.model->weights[w->index].stored, 0)[k];
                moved += (a - b) * (a - b), sum += a * a + b * b;
            }
        assert_true(moved > 0.9 * sum); // other numbers altogether
        setting_close(&plain);
        setting_close(&rotated);
    }
}

static void rotation_is_undone_by_going_back(void **state) {
    (void)state;
    for (int c = 0; c < NETWORKS; c++) {
        struct setting plain, rotated;
        setting_open(&plain, networks[c], false);
        setting_open(&rotated, networks[c], true);
        int64_t i = 0;
        for (struct weight *w; (w = next_linear(&rotated, &i));) {
            check_ok(incoherence_apply(rotated.incoherence, w, true, w->stored.data));
            check_all_near(w->stored.data, plain.model->weights[w->index].stored.data, view_count(w->stored), 0, 1e-6);
        }
        setting_close(&plain);
        setting_close(&rotated);
    }
}

// ---- derivatives

static double random_entry(uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 9, .stream = RNG_TEST + stream}, (uint64_t)i);
}

static void derivatives_prepare(struct setting *s) {
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(s, &i));) {
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "direction", &w->direction));
        memset(w->grad.data, 0, (size_t)view_count(w->grad) * 4);
        for (int64_t k = 0; k < view_count(w->stored); k++)
            view_f32(w->direction, 0)[k] = (float)(0.1 * random_entry((uint64_t)w->index, k));
        w->sink = &accumulate_sink;
    }
}

struct pass {
    bool gradient, recompute, with_tangent;
    double loss[ROWS], tangent[ROWS];
};

static double pass_run(struct setting *s, struct pass *p) {
    struct value *hidden = NULL;
    double sum = 0;
    step_begin(s->step, (struct step_options){.gradient = p->gradient, .recompute = p->recompute, .seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, view_new(s->tokens, DTYPE_I32, ROWS, 1), &hidden));
    struct transformer_loss loss = {.targets = view_new(s->targets, DTYPE_I32, ROWS, 1),
                                    .cross_entropy = view_new(p->loss, DTYPE_F64, ROWS, 1),
                                    .gradient_weight = p->gradient ? 1.0 / ROWS : 0};
    if (p->with_tangent) loss.tangent = view_new(p->tangent, DTYPE_F64, ROWS, 1);
    check_ok(transformer_loss(s->model, s->step, hidden, &loss));
    if (p->gradient) check_ok(step_backward(s->step));
    for (int i = 0; i < ROWS; i++) sum += p->loss[i] / ROWS;
    return sum;
}

static double gradient_along(struct setting *s) {
    double sum = 0;
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(s, &i));)
        for (int64_t k = 0; k < view_count(w->grad); k++)
            sum += (double)view_f32(w->grad, 0)[k] * (double)view_f32(w->direction, 0)[k];
    return sum;
}

static void weights_move(struct setting *s, double t) {
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(s, &i));)
        for (int64_t k = 0; k < view_count(w->stored); k++)
            view_f32(w->stored, 0)[k] += (float)t * view_f32(w->direction, 0)[k];
}

static void gradients_are_those_of_differences_and_of_forward_mode(void **state) {
    (void)state;
    for (int c = 0; c < NETWORKS; c++) {
        struct setting s;
        struct pass at = {.gradient = true, .with_tangent = true, .recompute = c == 1}, moved = {0};
        const double t = 0x1p-8;
        double tangent = 0;
        setting_open(&s, networks[c], true);
        derivatives_prepare(&s);
        pass_run(&s, &at);
        for (int i = 0; i < ROWS; i++) tangent += at.tangent[i] / ROWS;
        double along = gradient_along(&s);
        assert_true(fabs(along) > 1e-3);
        check_near(tangent, along, 1e-5, 1e-6);
        weights_move(&s, t);
        double above = pass_run(&s, &moved);
        weights_move(&s, -2 * t);
        double below = pass_run(&s, &moved);
        // Central differences: error O(t^2) of the third derivative, and 1e-7 / t of fp32.
        check_near(along, (above - below) / (2 * t), 1e-3, 6e-5);
        setting_close(&s);
    }
}

// ---- what sinks and taps see

struct rows_seen {
    double *grad; // [BATCH, cols of all weights]
    const int64_t *first;
    int64_t total;
};

static enum status rows_see(void *context, const struct rows_tile *tile) {
    struct rows_seen *seen = context;
    int64_t n = tile->rows * tile->weight->cols;
    for (int64_t b = 0; b < tile->samples; b++)
        for (int64_t k = 0; k < n; k++)
            seen->grad[(tile->first + b) * seen->total + seen->first[tile->weight->index] +
                       tile->row * tile->weight->cols + k] += (double)tile->grad[b * n + k];
    return STATUS_OK;
}

static double *sample_gradients(struct setting *s, int64_t *first, int64_t *total) {
    *total = 0;
    for (int64_t i = 0; i < s->model->n_weights; i++) {
        first[i] = *total;
        if (s->model->weights[i].is_linear) *total += s->model->weights[i].rows * s->model->weights[i].cols;
    }
    struct rows_seen seen = {calloc((size_t)(BATCH * *total), sizeof(double)), first, *total};
    struct rows_sink *rows = rows_sink_new(BATCH, NULL, rows_see, &seen);
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(s, &i));) w->sink = &rows->sink;
    rows_sink_begin(rows);
    struct pass p = {.gradient = true};
    pass_run(s, &p);
    rows_sink_free(rows);
    return seen.grad;
}

// G~ = H_out S_out G S_in H_in^T for each sample.
static void gradients_of_samples_are_the_rotated_ones(void **state) {
    (void)state;
    for (int c = 0; c < NETWORKS; c++) {
        struct setting plain, rotated;
        int64_t first[64], total, i = 0;
        setting_open(&plain, networks[c], false);
        setting_open(&rotated, networks[c], true);
        double *want = sample_gradients(&plain, first, &total), *got = sample_gradients(&rotated, first, &total);
        float *a = malloc((size_t)total * sizeof *a), *b = malloc((size_t)total * sizeof *b);
        for (struct weight *w; (w = next_linear(&rotated, &i));)
            for (int64_t sample = 0; sample < BATCH; sample++) {
                int64_t n = w->rows * w->cols, at = sample * total + first[w->index];
                for (int64_t k = 0; k < n; k++) a[k] = (float)want[at + k], b[k] = (float)got[at + k];
                check_ok(incoherence_apply(rotated.incoherence, w, false, a));
                check_all_near(b, a, n, 1e-4, 2e-6);
            }
        free(a), free(b), free(want), free(got);
        setting_close(&plain);
        setting_close(&rotated);
    }
}

struct tapped {
    struct input_tap tap;
    float x[ROWS * 64];
    int calls;
};

static enum status tap_take(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x) {
    (void)step, (void)weight;
    struct tapped *t = (struct tapped *)(void *)tap;
    for (int64_t i = 0; i < x.rows; i++) memcpy(t->x + i * x.cols, view_f32(x, i), (size_t)x.cols * sizeof *t->x);
    t->calls++;
    return STATUS_OK;
}

static void taps_see_the_rotated_input(void **state) {
    (void)state;
    struct setting plain, rotated;
    float logits[ROWS * VOCAB];
    setting_open(&plain, &llama, false);
    setting_open(&rotated, &llama, true);
    struct tapped seen[2] = {{.tap = {tap_take}}, {.tap = {tap_take}}};
    struct weight *down = rotated.model->layers[1].down;
    plain.model->layers[1].down->tap = &seen[0].tap;
    down->tap = &seen[1].tap;
    logits_of(&plain, logits);
    logits_of(&rotated, logits);
    assert_true(seen[0].calls == 1 && seen[1].calls == 1);
    for (int r = 0; r < ROWS; r++) {
        double x[64];
        for (int64_t k = 0; k < down->cols; k++) x[k] = (double)seen[0].x[r * down->cols + k];
        hadamard_apply(down->rotation->in.matrix, false, down->rotation->in.signs.data, x);
        for (int64_t k = 0; k < down->cols; k++) check_near((double)seen[1].x[r * down->cols + k], x[k], 1e-4, 1e-5);
    }
    setting_close(&plain);
    setting_close(&rotated);
}

// An adapter adds B A to the matrix as it was before the rotation.
static void adapters_live_in_the_layer_s_coordinates(void **state) {
    (void)state;
    struct setting s;
    struct lora *lora = NULL;
    int64_t at = 0;
    float unmerged[ROWS * VOCAB], merged[ROWS * VOCAB];
    setting_open(&s, &llama, true);
    check_ok(lora_new(s.model, 2, 2, &lora));
    check_ok(lora_add_named(lora, NULL));
    check_ok(lora_start(lora, 7));
    for (int64_t k = 1; k < lora->n_weights; k += 2)
        for (int64_t i = 0; i < view_count(lora->weights[k].stored); i++)
            view_f32(lora->weights[k].stored, 0)[i] = (float)(0.3 * random_entry(100 + (uint64_t)k, i));
    for (int64_t k = 0; k < lora->n_weights; k++) {
        struct weight *w = &lora->weights[k];
        check_ok(backend_matrix_new(s.backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        check_ok(backend_matrix_new(s.backend, DTYPE_F32, w->rows, w->cols, "direction", &w->direction));
        memset(w->grad.data, 0, (size_t)view_count(w->grad) * 4);
        for (int64_t i = 0; i < view_count(w->stored); i++)
            view_f32(w->direction, 0)[i] = (float)(0.3 * random_entry((uint64_t)k, i));
        w->sink = &accumulate_sink;
    }
    struct pass p = {.gradient = true, .with_tangent = true};
    double along = 0, tangent = 0;
    pass_run(&s, &p);
    for (int i = 0; i < ROWS; i++) tangent += p.tangent[i] / ROWS;
    for (int64_t k = 0; k < lora->n_weights; k++)
        for (int64_t i = 0; i < view_count(lora->weights[k].grad); i++)
            along += (double)view_f32(lora->weights[k].grad, 0)[i] * (double)view_f32(lora->weights[k].direction, 0)[i];
    assert_true(fabs(along) > 1e-3);
    check_near(along, tangent, 1e-5, 1e-6);
    logits_of(&s, unmerged);
    for (struct weight *w; (w = next_linear(&s, &at));) {
        float *product = calloc((size_t)view_count(w->stored), sizeof *product);
        check_ok(lora_merge(lora, w, product));
        check_ok(incoherence_apply(s.incoherence, w, false, product));
        for (int64_t k = 0; k < view_count(w->stored); k++) view_f32(w->stored, 0)[k] += product[k];
        free(product);
    }
    lora_free(lora);
    logits_of(&s, merged);
    check_all_near(merged, unmerged, ROWS * VOCAB, 1e-4, 1e-4);
    setting_close(&s);
}

// ---- signs and refusals

// Of 500 fair signs the sum is within 6 standard deviations; a false alarm has a probability of 2e-9.
static void signs_are_fair_and_each_matrix_has_its_own(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &llama, true);
    double sum = 0, n = 0;
    int64_t i = 0;
    float last[64] = {0};
    for (struct weight *w; (w = next_linear(&s, &i));) {
        float in[64], out[64];
        check_ok(incoherence_signs_get(s.incoherence, w, in, out));
        for (int64_t k = 0; k < w->cols; k++) assert_true(fabsf(in[k]) == 1), sum += (double)in[k], n++;
        for (int64_t k = 0; k < w->rows; k++) assert_true(fabsf(out[k]) == 1), sum += (double)out[k], n++;
        assert_true(memcmp(in, last, 24 * sizeof *in) != 0);
        assert_true(w->cols != w->rows || memcmp(in, out, (size_t)w->cols * sizeof *in) != 0);
        memcpy(last, in, 24 * sizeof *in);
    }
    assert_true(n > 500);
    check_near(sum, 0, 0, 6 * sqrt(n));
    setting_close(&s);
}

static void widths_without_a_matrix_are_refused_by_name(void **state) {
    (void)state;
    struct setting s;
    struct incoherence *incoherence = NULL;
    setting_open(&s, &odd, false);
    check_fails(incoherence_new(s.model, ROTATION_HADAMARD, &incoherence), STATUS_UNSUPPORTED);
    assert_non_null(strstr(status_message(), "22"));
    assert_null(incoherence);
    for (int64_t i = 0; i < s.model->n_weights; i++) assert_null(s.model->weights[i].rotation);
    setting_close(&s);
}

// The same with the inputs' side alone, where each output row is rotated in itself.
static void rotations_of_the_inputs_alone_are_rotations_too(void **state) {
    kind = ROTATION_HADAMARD_IN;
    rotated_networks_give_the_logits_of_the_unrotated(state);
    gradients_are_those_of_differences_and_of_forward_mode(state);
    gradients_of_samples_are_the_rotated_ones(state);
    struct setting plain, rotated;
    setting_open(&plain, &llama, false);
    setting_open(&rotated, &llama, true);
    const struct weight *a = plain.model->layers[0].down, *b = rotated.model->layers[0].down;
    for (int64_t i = 0; i < a->rows; i++) {
        double squares[2] = {0};
        for (int64_t j = 0; j < a->cols; j++) {
            squares[0] += pow((double)view_f32(a->stored, i)[j], 2);
            squares[1] += pow((double)view_f32(b->stored, i)[j], 2);
        }
        check_near(squares[1], squares[0], 1e-5, 0);
    }
    setting_close(&plain);
    setting_close(&rotated);
    kind = ROTATION_HADAMARD;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotated_networks_give_the_logits_of_the_unrotated),
        cmocka_unit_test(rotations_of_the_inputs_alone_are_rotations_too),
        cmocka_unit_test(rotation_is_undone_by_going_back),
        cmocka_unit_test(gradients_are_those_of_differences_and_of_forward_mode),
        cmocka_unit_test(gradients_of_samples_are_the_rotated_ones),
        cmocka_unit_test(taps_see_the_rotated_input),
        cmocka_unit_test(adapters_live_in_the_layer_s_coordinates),
        cmocka_unit_test(signs_are_fair_and_each_matrix_has_its_own),
        cmocka_unit_test(widths_without_a_matrix_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
