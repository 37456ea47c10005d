#include "core/graph/weight.h"

static enum op weight_op(enum weight_form form) {
    switch (form) {
    case WEIGHT_INTERPOLATED: return OP_grid_interpolate;
    case WEIGHT_ROUNDED: return OP_grid_round;
    case WEIGHT_STRAIGHT: return OP_grid_nearest;
    case WEIGHT_STORED: break;
    }
    REQUIRE(0, "no op for this form");
    return OP_COUNT;
}

struct weight *const *weight_adapter(const struct weight *weight) {
    bool is_original = weight->grid && weight->form == WEIGHT_STORED;
    return weight->adapter[0] && !is_original ? weight->adapter : NULL;
}

bool weight_needs_grad(const struct weight *weight) {
    struct weight *const *adapter = weight_adapter(weight);
    return weight->sink || (adapter && (adapter[0]->sink || adapter[1]->sink));
}

bool weight_has_direction(const struct weight *weight) {
    struct weight *const *adapter = weight_adapter(weight);
    return weight->direction.rows > 0 ||
           (adapter && (adapter[0]->direction.rows > 0 || adapter[1]->direction.rows > 0));
}

enum status weight_value(struct step *step, const struct weight *weight, struct view *out) {
    enum dtype dtype = step_options(step)->dtype;
    bool is_stored = weight->form == WEIGHT_STORED;
    if (is_stored && weight->stored.dtype == dtype) {
        *out = weight->stored;
        return STATUS_OK;
    }
    enum status status = step_take(step, dtype, weight->rows, weight->cols, out);
    if (status != STATUS_OK) return status;
    if (is_stored)
        return backend_run(step_backend(step), &(struct op_call){.op = OP_copy, .in = {weight->stored}, .out = {*out}});
    struct view base = weight->form == WEIGHT_STRAIGHT ? weight->x : weight->stored;
    struct op_call call = {
        .op = weight_op(weight->form),
        .in = {base, weight->scale, weight->x},
        .out = {*out},
        .params.grid = weight->grid,
    };
    if (weight->form == WEIGHT_STRAIGHT) call.in[2] = (struct view){0};
    return backend_run(step_backend(step), &call);
}

static enum status product_grad(struct step *step, struct view dy, struct view x, struct view grad, bool accumulate) {
    return backend_run(step_backend(step), &(struct op_call){.op = OP_matmul,
                                                             .accumulate = accumulate,
                                                             .in = {dy, x},
                                                             .out = {grad},
                                                             .params.matmul.transpose_a = true});
}

enum status weight_pull_back(struct step *step, const struct weight *weight, struct view dy, struct view x,
                             struct view grad, bool accumulate) {
    bool is_itself = weight->form == WEIGHT_STORED || weight->form == WEIGHT_STRAIGHT;
    if (is_itself && (grad.dtype == DTYPE_F32 || grad.dtype == dy.dtype))
        return product_grad(step, dy, x, grad, accumulate);
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view value_grad;
    TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &value_grad));
    TRY(product_grad(step, dy, x, value_grad, false));
    if (is_itself)
        TRY(backend_run(step_backend(step),
                        &(struct op_call){.op = OP_copy, .accumulate = accumulate, .in = {value_grad}, .out = {grad}}));
    else
        TRY(backend_run(step_backend(step), &(struct op_call){.op = OP_grid_interpolate_grad,
                                                              .accumulate = accumulate,
                                                              .in = {weight->stored, weight->scale, value_grad},
                                                              .out = {grad},
                                                              .params.grid = weight->grid}));
    step_release(step, mark);
done:
    return status;
}

static enum status accumulate_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                      struct view x, int64_t first) {
    (void)sink, (void)first;
    return weight_pull_back(step, weight, dy, x, weight->grad, true);
}

static enum status accumulate_gain(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                   struct view x, struct view rstd) {
    (void)sink;
    return backend_run(
        step_backend(step),
        &(struct op_call){.op = OP_rmsnorm_gain_grad, .accumulate = true, .in = {x, rstd, dy}, .out = {weight->grad}});
}

static enum status accumulate_table(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                    struct view tokens) {
    (void)sink;
    return backend_run(step_backend(step),
                       &(struct op_call){.op = OP_embedding_grad, .in = {dy, tokens}, .out = {weight->grad}});
}

struct grad_sink accumulate_sink = {accumulate_product, accumulate_gain, accumulate_table};
