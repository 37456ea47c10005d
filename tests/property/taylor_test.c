// First orders and loss changes of tokens on the bundled model, against reverse mode, evaluation and differences.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "spectra/agreement.h"
#include "spectra/taylor_pass.h"

enum { WINDOWS = 3, LENGTH = 40, SIZE = LENGTH - 1 };

struct setting {
    struct model *model;
    struct groups *groups;
    struct directions *directions;
    struct taylor_passes *passes;
    int32_t tokens[WINDOWS * LENGTH];
};

static void setting_open(struct setting *s, int64_t batch) {
    char path[4096];
    threads_set(2);
    memset(s, 0, sizeof *s);
    check_ok(model_open(check_source("data/story-model", path, sizeof path), "cpu", DTYPE_F32, NULL, &s->model));
    for (int i = 0; i < WINDOWS * LENGTH; i++)
        s->tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 5, .stream = RNG_TEST}, (uint64_t)i) % 600);
    s->groups = groups_new(s->model->transformer, PARAMETERS_ALL, NULL, false);
    check_ok(directions_new(s->model, s->groups, &s->directions));
    check_ok(directions_add_nearest(s->directions, 4, 32));
    check_ok(taylor_passes_new(s->model, s->directions, s->tokens, WINDOWS, LENGTH, batch, &s->passes));
}

static void setting_close(struct setting *s) {
    taylor_passes_free(s->passes);
    directions_free(s->directions);
    groups_free(s->groups);
    model_free(s->model);
}

static double mean_of(const double *values, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i];
    return sum / (double)n;
}

// <gradient of a window's mean loss, w_hat - w> by the backward pass.
static double reverse_mode(struct setting *s, int64_t window) {
    struct transformer *model = s->model->transformer;
    struct step *step = s->model->step;
    struct value *hidden = NULL;
    double losses[LENGTH], sum = 0;
    int32_t targets[LENGTH], *tokens = s->tokens + window * LENGTH;
    for (int i = 0; i < LENGTH; i++) targets[i] = i + 1 < LENGTH ? tokens[i + 1] : -1;
    for (int64_t k = 0; k < model->n_weights; k++) {
        struct weight *w = &model->weights[k];
        w->sink = &accumulate_sink;
        check_ok(backend_matrix_new(model->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        memset(w->grad.data, 0, (size_t)(w->rows * w->cols) * 4);
    }
    step_begin(step, (struct step_options){.gradient = true, .seq_len = LENGTH, .dtype = DTYPE_F32});
    check_ok(transformer_forward(model, step, view_new(tokens, DTYPE_I32, LENGTH, 1), &hidden));
    struct transformer_loss loss = {.targets = view_new(targets, DTYPE_I32, LENGTH, 1),
                                    .cross_entropy = view_new(losses, DTYPE_F64, LENGTH, 1),
                                    .gradient_weight = 1.0 / SIZE};
    check_ok(transformer_loss(model, step, hidden, &loss));
    check_ok(step_backward(step));
    for (int64_t k = 0; k < model->n_weights; k++) {
        struct weight *w = &model->weights[k];
        const float *d = s->directions->views[k].data;
        for (int64_t i = 0; i < w->rows * w->cols; i++) sum += (double)view_f32(w->grad, 0)[i] * (double)d[i];
        backend_matrix_free(model->backend, &w->grad);
        w->sink = NULL;
    }
    return sum;
}

static void first_order_is_the_inner_product_with_the_gradient(void **state) {
    (void)state;
    struct setting s;
    double losses[WINDOWS * SIZE], tangents[WINDOWS * SIZE];
    setting_open(&s, 0);
    taylor_passes_aim(s.passes, 0);
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, losses, tangents));
    taylor_passes_aim(s.passes, -1);
    for (int64_t w = 0; w < WINDOWS; w++)
        check_near(mean_of(tangents + w * SIZE, SIZE), reverse_mode(&s, w), 1e-4, 1e-6);
    setting_close(&s);
}

// evaluate() of the original and of the rounded model, by the forms of weights that rounding methods use.
static void losses_are_those_of_the_two_models(void **state) {
    (void)state;
    struct setting s;
    double before[WINDOWS * SIZE], after[WINDOWS * SIZE], again[WINDOWS * SIZE];
    setting_open(&s, 0);
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, before, NULL));
    check_ok(taylor_passes_move(s.passes, 0, 1));
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, after, NULL));
    check_ok(taylor_passes_move(s.passes, 0, 0));
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, again, NULL));
    assert_memory_equal(before, again, sizeof before);
    struct grid grid;
    struct rounding *rounding = NULL;
    struct evaluation *rounded = NULL;
    check_ok(grid_block(4, 32, &grid));
    check_ok(rounding_new(s.model->transformer, &grid, DTYPE_F32, &rounding));
    check_ok(rounding_to_nearest(rounding));
    struct evaluate_options options = {
        .form = WEIGHT_ROUNDED, .reference = s.model->transformer, .reference_form = WEIGHT_STORED};
    check_ok(evaluate(s.model->transformer, s.model->step, s.tokens, WINDOWS, LENGTH, &options, &rounded));
    for (int64_t w = 0; w < WINDOWS; w++) {
        check_near(mean_of(before + w * SIZE, SIZE), rounded->reference_loss[w], 1e-6, 0);
        check_near(mean_of(after + w * SIZE, SIZE), rounded->loss[w], 1e-5, 0);
        assert_true(fabs(rounded->loss[w] - rounded->reference_loss[w]) > 1e-3);
    }
    evaluation_free(rounded);
    rounding_free(rounding);
    setting_close(&s);
}

static void batches_of_one_give_the_same(void **state) {
    (void)state;
    struct setting s, one;
    double losses[WINDOWS * SIZE], tangents[WINDOWS * SIZE], loss[WINDOWS * SIZE], tangent[WINDOWS * SIZE];
    setting_open(&s, 0);
    setting_open(&one, 1);
    taylor_passes_aim(s.passes, 0);
    taylor_passes_aim(one.passes, 0);
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, losses, tangents));
    for (int64_t w = 0; w < WINDOWS; w++)
        check_ok(taylor_passes_run(one.passes, w, 1, loss + w * SIZE, tangent + w * SIZE));
    for (int i = 0; i < WINDOWS * SIZE; i++) {
        check_near(loss[i], losses[i], 1e-5, 1e-6);
        check_near(tangent[i], tangents[i], 1e-3, 1e-5);
    }
    setting_close(&s);
    setting_close(&one);
}

// The central difference over a small step, per token.
static void tokens_derivatives_are_those_of_differences(void **state) {
    (void)state;
    struct setting s;
    double at[WINDOWS * SIZE], first[WINDOWS * SIZE], up[WINDOWS * SIZE], down[WINDOWS * SIZE], error = 0, size = 0;
    setting_open(&s, 0);
    taylor_passes_aim(s.passes, 0);
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, at, first));
    taylor_passes_aim(s.passes, -1);
    check_ok(taylor_passes_move(s.passes, 0, 0x1p-6));
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, up, NULL));
    check_ok(taylor_passes_move(s.passes, 0, -0x1p-6));
    check_ok(taylor_passes_run(s.passes, 0, WINDOWS, down, NULL));
    for (int i = 0; i < WINDOWS * SIZE; i++) {
        double central = (up[i] - down[i]) / (2 * 0x1p-6);
        error += (central - first[i]) * (central - first[i]);
        size += first[i] * first[i];
    }
    print_message("central difference off by %.2g\n", sqrt(error / size));
    assert_true(sqrt(error / size) < 2e-3);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_order_is_the_inner_product_with_the_gradient),
        cmocka_unit_test(losses_are_those_of_the_two_models),
        cmocka_unit_test(batches_of_one_give_the_same),
        cmocka_unit_test(tokens_derivatives_are_those_of_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
