// Derivatives of whole networks: forward against reverse mode, against differences, kept against recomputed activations,
// accumulated against per-sample gradients.
#include "tests/check.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "core/nn/transformer.h"
#include "core/quant/grid_fit.h"

enum { BATCH = 3, SEQ_LEN = 13, ROWS = BATCH * SEQ_LEN };

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int32_t tokens[ROWS], targets[ROWS];
    struct view tokens_view, targets_view;
};

static void setting_open(struct setting *s, const struct transformer_config *config) {
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < ROWS; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    for (int i = 0; i < ROWS; i++) s->targets[i] = (i + 1) % SEQ_LEN ? s->tokens[i + 1] : -1;
    s->tokens_view = view_new(s->tokens, DTYPE_I32, ROWS, 1);
    s->targets_view = view_new(s->targets, DTYPE_I32, ROWS, 1);
}

static void setting_close(struct setting *s) {
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static double random_entry(uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 9, .stream = RNG_TEST + stream}, (uint64_t)i);
}

// Every weight gets room for a gradient and a direction with entries of the size of its own.
static void weights_prepare(struct setting *s, bool directions) {
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        memset(w->grad.data, 0, (size_t)(w->rows * w->cols) * 4);
        if (!directions) continue;
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "direction", &w->direction));
        double size = w->rows == 1 ? 0.3 : 1 / sqrt((double)w->cols);
        for (int64_t i = 0; i < w->rows * w->cols; i++)
            view_f32(w->direction, 0)[i] = (float)(size * random_entry((uint64_t)k, i));
    }
}

static void set_sink(struct setting *s, struct grad_sink *sink) {
    for (int64_t k = 0; k < s->model->n_weights; k++) s->model->weights[k].sink = sink;
}

struct pass {
    double loss[ROWS], tangent[ROWS];
    bool with_tangent, gradient, recompute;
    struct view teacher;
};

static void pass_run(struct setting *s, struct pass *p) {
    struct value *hidden = NULL;
    step_begin(s->step, (struct step_options){.gradient = p->gradient, .recompute = p->recompute, .seq_len = SEQ_LEN});
    check_ok(transformer_forward(s->model, s->step, s->tokens_view, &hidden));
    struct view loss = view_new(p->loss, DTYPE_F64, ROWS, 1);
    struct transformer_loss about = {
        .targets = s->targets_view, .gradient_weight = p->gradient ? 1.0 / ROWS : 0, .teacher = p->teacher};
    if (p->teacher.rows)
        about.kl = loss;
    else
        about.cross_entropy = loss;
    if (p->with_tangent) about.tangent = view_new(p->tangent, DTYPE_F64, ROWS, 1);
    check_ok(transformer_loss(s->model, s->step, hidden, &about));
    if (p->gradient) check_ok(step_backward(s->step));
}

static double mean(const double *values) {
    double sum = 0;
    for (int i = 0; i < ROWS; i++) sum += values[i];
    return sum / ROWS;
}

static void weights_move(struct setting *s, double t) {
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        for (int64_t i = 0; i < w->rows * w->cols; i++)
            view_f32(w->stored, 0)[i] += (float)t * view_f32(w->direction, 0)[i];
    }
}

static double gradient_along_direction(const struct setting *s) {
    double sum = 0;
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        const struct weight *w = &s->model->weights[k];
        for (int64_t i = 0; i < w->rows * w->cols; i++)
            sum += (double)view_f32(w->grad, 0)[i] * (double)view_f32(w->direction, 0)[i];
    }
    return sum;
}

static void reverse_and_forward_mode_agree(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        weights_prepare(&s, true);
        set_sink(&s, &accumulate_sink);
        struct pass p = {.gradient = true, .with_tangent = true};
        pass_run(&s, &p);
        check_near(gradient_along_direction(&s), mean(p.tangent), 1e-5, 1e-6);
        setting_close(&s);
    }
}

// Mean over rows and both signs of |f(w + t d) - f(w) - t f'd|; third-order terms cancel in the sum over signs.
static double taylor_remainder(struct setting *s, const struct pass *at, double t) {
    double sum = 0;
    for (int sign = -1; sign <= 1; sign += 2) {
        struct pass moved = {0};
        weights_move(s, sign * t);
        pass_run(s, &moved);
        weights_move(s, -sign * t);
        for (int r = 0; r < ROWS; r++) sum += moved.loss[r] - at->loss[r] - sign * t * at->tangent[r];
    }
    return fabs(sum) / (2 * ROWS);
}

// The remainder is O(t^2): its order from t = 2^-6 to 2^-9, where it is still far above the rounding of fp32.
static void taylor_remainder_has_order_two(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        weights_prepare(&s, true);
        struct pass at = {.with_tangent = true};
        pass_run(&s, &at);
        double large = taylor_remainder(&s, &at, 0x1p-6), small = taylor_remainder(&s, &at, 0x1p-9);
        double order = log(large / small) / log(8);
        print_message("order %.4f (remainders %.3g, %.3g)\n", order, large, small);
        check_near(order, 2.0, 0, 0.05);
        setting_close(&s);
    }
}

static void recomputation_gives_the_same_bits(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        setting_open(&s, configs[c]);
        weights_prepare(&s, false);
        set_sink(&s, &accumulate_sink);
        struct pass kept = {.gradient = true}, again = {.gradient = true, .recompute = true};
        pass_run(&s, &kept);
        int64_t peak_kept = step_peak_bytes(s.step);
        float *grads[64];
        for (int64_t k = 0; k < s.model->n_weights; k++) {
            struct weight *w = &s.model->weights[k];
            size_t bytes = (size_t)(w->rows * w->cols) * 4;
            grads[k] = memcpy(malloc(bytes), w->grad.data, bytes);
            memset(w->grad.data, 0, bytes);
        }
        step_peak_reset(s.step);
        pass_run(&s, &again);
        assert_true(step_peak_bytes(s.step) < peak_kept);
        assert_memory_equal(kept.loss, again.loss, sizeof kept.loss);
        for (int64_t k = 0; k < s.model->n_weights; k++) {
            struct weight *w = &s.model->weights[k];
            assert_memory_equal(grads[k], w->grad.data, (size_t)(w->rows * w->cols) * 4);
            free(grads[k]);
        }
        setting_close(&s);
    }
}

static void zero_gradients(struct setting *s) {
    for (int64_t k = 0; k < s->model->n_weights; k++)
        memset(s->model->weights[k].grad.data, 0, (size_t)view_count(s->model->weights[k].grad) * 4);
}

// Puts the linear weights on a grid with x drawn at random.
static void weights_quantize(struct setting *s, const struct grid *grid) {
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        if (!w->is_linear) continue;
        w->grid = grid;
        w->sink = &accumulate_sink;
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, grid_groups(grid, w->cols), "scale", &w->scale));
        check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "x", &w->x));
        check_ok(grid_fit(grid, w->name, w->stored.data, w->rows, w->cols, w->scale.data));
        rng_uniform_fill((struct rng){.seed = 3, .stream = RNG_INIT + (uint64_t)k}, 0, w->x.data, w->rows * w->cols);
    }
}

static void gradients_copy(const struct setting *s, float *out[64]) {
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        size_t bytes = (size_t)view_count(s->model->weights[k].grad) * 4;
        out[k] = memcpy(malloc(bytes), s->model->weights[k].grad.data, bytes);
    }
}

// Straight through: the gradient of the rounded network is that of the interpolated one at the rounded x, and the
// gradient of latent weights is that of stored weights with their rounded values.
static void gradients_pass_straight_through_rounding(void **state) {
    (void)state;
    struct setting s;
    struct grid grid;
    float *want[64];
    setting_open(&s, &llama);
    weights_prepare(&s, false);
    check_ok(grid_block(3, 7, &grid));
    weights_quantize(&s, &grid);
    struct pass p = {.gradient = true};
    transformer_set_form(s.model, WEIGHT_ROUNDED);
    pass_run(&s, &p);
    gradients_copy(&s, want);
    double rounded_loss = mean(p.loss);
    for (int64_t k = 0; k < s.model->n_weights; k++)
        for (int64_t i = 0; s.model->weights[k].grid && i < view_count(s.model->weights[k].x); i++) {
            float *x = &view_f32(s.model->weights[k].x, 0)[i];
            *x = *x > 0.5f;
        }
    zero_gradients(&s);
    transformer_set_form(s.model, WEIGHT_INTERPOLATED);
    pass_run(&s, &p);
    check_near(mean(p.loss), rounded_loss, 1e-6, 0);
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        struct view g = s.model->weights[k].grad;
        if (s.model->weights[k].grid) check_all_near(view_f32(g, 0), want[k], view_count(g), 1e-4, 1e-6);
        free(want[k]);
    }
    // Latent weights: x holds weights now, and the stored ones become their rounding.
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        struct weight *w = &s.model->weights[k];
        if (w->grid) memcpy(w->x.data, w->stored.data, (size_t)view_count(w->x) * 4);
    }
    zero_gradients(&s);
    transformer_set_form(s.model, WEIGHT_STRAIGHT);
    pass_run(&s, &p);
    gradients_copy(&s, want);
    rounded_loss = mean(p.loss);
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        struct weight *w = &s.model->weights[k];
        if (w->grid)
            check_ok(backend_run(s.backend, &(struct op_call){.op = OP_grid_nearest,
                                                              .in = {w->x, w->scale},
                                                              .out = {w->stored},
                                                              .params.grid = &grid}));
    }
    zero_gradients(&s);
    transformer_set_form(s.model, WEIGHT_STORED);
    pass_run(&s, &p);
    assert_true(mean(p.loss) == rounded_loss);
    for (int64_t k = 0; k < s.model->n_weights; k++) {
        if (s.model->weights[k].grid)
            assert_memory_equal(want[k], s.model->weights[k].grad.data,
                                (size_t)view_count(s.model->weights[k].grad) * 4);
        free(want[k]);
    }
    setting_close(&s);
}

// Logits a few rows at a time: the same losses, gradients to rounding.
static void pieces_of_the_head_add_up(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        float *want[64];
        setting_open(&s, configs[c]);
        weights_prepare(&s, true);
        for (int pieces = 0; pieces < 3; pieces++) {
            struct pass p = {.gradient = true, .with_tangent = true};
            s.model->head_rows =
                pieces == 2 ? 4 : pieces * SEQ_LEN; // 4 rows become whole samples where the head has a sink
            zero_gradients(&s);
            set_sink(&s, &accumulate_sink);
            pass_run(&s, &p);
            check_near(gradient_along_direction(&s), mean(p.tangent), 1e-5, 1e-6);
            if (pieces == 0) gradients_copy(&s, want);
            for (int64_t k = 0; k < s.model->n_weights; k++) {
                struct view g = s.model->weights[k].grad;
                check_all_near(view_f32(g, 0), want[k], view_count(g), 1e-4, 1e-7);
            }
        }
        for (int64_t k = 0; k < s.model->n_weights; k++) free(want[k]);
        setting_close(&s);
    }
}

// KL to a perturbed copy: gradient through the interpolated weights against differences along a direction of x.
static void interpolated_weights_have_the_right_gradient(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &llama);
    weights_prepare(&s, false);
    struct grid grid;
    check_ok(grid_block(3, 7, &grid));
    struct pass p = {0};
    float *teacher = malloc(ROWS * (size_t)llama.hidden * 4);
    struct value *hidden = NULL;
    step_begin(s.step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(s.model, s.step, s.tokens_view, &hidden));
    memcpy(teacher, hidden->data.data, ROWS * (size_t)llama.hidden * 4);
    p.teacher = view_new(teacher, DTYPE_F32, ROWS, llama.hidden);
    weights_quantize(&s, &grid);
    transformer_set_form(s.model, WEIGHT_INTERPOLATED);
    p.gradient = true;
    pass_run(&s, &p);
    double along = 0, differences = 0;
    const double t = 0x1p-7;
    for (int64_t k = 0; k < s.model->n_weights; k++)
        for (int64_t i = 0; s.model->weights[k].grid && i < view_count(s.model->weights[k].x); i++)
            along += (double)view_f32(s.model->weights[k].grad, 0)[i] * random_entry((uint64_t)k, i);
    p.gradient = false;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t k = 0; k < s.model->n_weights; k++)
                for (int64_t i = 0; s.model->weights[k].grid && i < view_count(s.model->weights[k].x); i++)
                    view_f32(s.model->weights[k].x, 0)[i] +=
                        (float)((pass ? -sign : sign) * t * random_entry((uint64_t)k, i));
            if (pass == 0) pass_run(&s, &p), differences += sign * mean(p.loss) / (2 * t);
        }
    }
    check_near(along, differences, 2e-3, 1e-5);
    free(teacher);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reverse_and_forward_mode_agree),
        cmocka_unit_test(taylor_remainder_has_order_two),
        cmocka_unit_test(recomputation_gives_the_same_bits),
        cmocka_unit_test(gradients_pass_straight_through_rounding),
        cmocka_unit_test(pieces_of_the_head_add_up),
        cmocka_unit_test(interpolated_weights_have_the_right_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
