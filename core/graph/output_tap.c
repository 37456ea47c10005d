#include "core/graph/output_tap.h"

static enum status run(struct step *step, struct op_call call) { return backend_run(step_backend(step), &call); }

static enum status output_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct value *y = node->out;
    struct view dy;
    bool accumulate;
    TRY(step_grad(step, y, &dy, &accumulate));
    if (!accumulate) TRY(run(step, (struct op_call){.op = OP_fill, .out = {dy}, .params.value = 0}));
    TRY(node->output->pull(node->output, step, view_cols(y->data, node->column, node->cols),
                           view_cols(dy, node->column, node->cols)));
done:
    return status;
}

enum status record_output(struct step *step, struct output_tap *tap, struct value *y, int64_t column, int64_t cols) {
    if (!tap) return STATUS_OK;
    REQUIRE(!y->has_tangent, "taps on outputs and directions do not meet");
    enum status status = tap->take(tap, step, view_cols(y->data, column, cols));
    if (status == STATUS_OK && y->needs_grad)
        step_append(step,
                    (struct node){.reverse = output_reverse, .out = y, .output = tap, .column = column, .cols = cols});
    return status;
}

static enum status sum_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct value *x = node->in[0];
    if (x->needs_grad) {
        struct view dx;
        bool accumulate;
        TRY(step_grad(step, x, &dx, &accumulate));
        TRY(run(step, (struct op_call){.op = OP_copy, .accumulate = accumulate, .in = {node->out->grad}, .out = {dx}}));
    }
    TRY(step_grad_pass(step, node->out, node->in[1]));
done:
    return status;
}

enum status record_sum(struct step *step, struct value *x, struct value *residual, struct value **out) {
    enum status status = STATUS_OK;
    struct value *y = NULL;
    REQUIRE(!x->has_tangent && !residual->has_tangent, "sums carry no directions");
    if (step_may_overwrite(step))
        y = step_input(step, residual->data);
    else {
        TRY(step_value(step, residual->data.rows, residual->data.cols, x->needs_grad || residual->needs_grad, &y));
        TRY(run(step, (struct op_call){.op = OP_copy, .in = {residual->data}, .out = {y->data}}));
    }
    TRY(run(step, (struct op_call){.op = OP_copy, .accumulate = true, .in = {x->data}, .out = {y->data}}));
    if (y->needs_grad) step_append(step, (struct node){.reverse = sum_reverse, .in = {x, residual}, .out = y});
    *out = y;
done:
    return status;
}
