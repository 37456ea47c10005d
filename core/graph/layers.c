#include "core/graph/layers.h"

static enum status run(struct step *step, struct op_call call) { return backend_run(step_backend(step), &call); }

static bool weight_asks(const struct weight *weight) { return weight->sink != NULL; }
static bool has_direction(const struct weight *weight) { return weight->direction.rows > 0; }

// ---- embedding ----

static enum status embedding_reverse(struct step *step, struct node *node) {
    struct weight *table = node->weight;
    return weight_asks(table) ? table->sink->table(table->sink, step, table, node->out->grad, node->saved[0])
                              : STATUS_OK;
}

enum status record_embedding(struct step *step, struct weight *table, struct view tokens, struct value **y) {
    enum status status = STATUS_OK;
    TRY(step_value(step, tokens.rows, table->cols, weight_asks(table), y));
    TRY(run(step, (struct op_call){.op = OP_embedding, .in = {table->stored, tokens}, .out = {(*y)->data}}));
    if (has_direction(table)) {
        TRY(step_tangent(step, *y));
        TRY(run(step, (struct op_call){.op = OP_embedding, .in = {table->direction, tokens}, .out = {(*y)->tangent}}));
    }
    step_append(step, (struct node){.reverse = embedding_reverse, .out = *y, .weight = table, .saved = {tokens}});
done:
    return status;
}

// ---- rmsnorm ----

static enum status rmsnorm_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct value *x = node->in[0];
    struct weight *gain = node->weight;
    struct view rstd = node->saved[0], dy = node->out->grad;
    if (weight_asks(gain)) TRY(gain->sink->gain(gain->sink, step, gain, dy, x->data, rstd));
    if (x->needs_grad) {
        struct view dx;
        bool accumulate;
        TRY(step_grad(step, x, &dx, &accumulate));
        TRY(run(step, (struct op_call){.op = OP_rmsnorm_grad,
                                       .accumulate = accumulate,
                                       .in = {x->data, gain->stored, rstd, dy},
                                       .out = {dx}}));
    }
done:
    return status;
}

enum status record_rmsnorm(struct step *step, struct value *x, struct weight *gain, double eps, struct value **y) {
    enum status status = STATUS_OK;
    struct view rstd;
    TRY(step_value(step, x->data.rows, x->data.cols, x->needs_grad || weight_asks(gain), y));
    TRY(step_take(step, DTYPE_F32, x->data.rows, 1, &rstd));
    TRY(run(step, (struct op_call){
                      .op = OP_rmsnorm, .in = {x->data, gain->stored}, .out = {(*y)->data, rstd}, .params.eps = eps}));
    if (x->has_tangent) {
        TRY(step_tangent(step, *y));
        TRY(run(step, (struct op_call){.op = OP_rmsnorm_tangent,
                                       .in = {x->data, gain->stored, rstd, x->tangent, gain->direction},
                                       .out = {(*y)->tangent}}));
    }
    if ((*y)->needs_grad)
        step_append(step,
                    (struct node){.reverse = rmsnorm_reverse, .in = {x}, .out = *y, .weight = gain, .saved = {rstd}});
done:
    return status;
}

// ---- linear ----

static enum status product(struct step *step, struct view x, struct view w, struct view y, bool accumulate) {
    return run(
        step,
        (struct op_call){
            .op = OP_matmul, .accumulate = accumulate, .in = {x, w}, .out = {y}, .params.matmul.transpose_b = true});
}

static enum status tap(struct step *step, struct view x, const struct weight *weight) {
    return weight->tap ? weight->tap->take(weight->tap, step, weight, x) : STATUS_OK;
}

static enum status rotate_new(struct step *step, const struct rotation_side *side, struct view x, struct view *out) {
    enum status status = step_take(step, x.dtype, x.rows, x.cols, out);
    return status == STATUS_OK ? rotation_run(step, side, false, x, *out, false) : status;
}

enum status linear_tap(struct step *step, struct value *x, const struct weight *weight) {
    if (!weight->rotation || !weight->tap) return tap(step, x->data, weight);
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view turned;
    TRY(rotate_new(step, &weight->rotation->in, x->data, &turned));
    TRY(tap(step, turned, weight));
    step_release(step, mark);
done:
    return status;
}

// y += u B^T with u = x A^T [N, r], which the way back needs; yd += ud B^T + u Bd^T, ud = xd A^T + x Ad^T.
static enum status adapter_forward(struct step *step, struct value *x, struct weight *const adapter[2], struct view y,
                                   struct view yd, struct view *u) {
    enum status status = STATUS_OK;
    const struct weight *a = adapter[0], *b = adapter[1];
    struct view a_value, b_value, ud;
    TRY(step_take(step, x->data.dtype, x->data.rows, a->rows, u));
    struct step_mark mark = step_mark(step);
    TRY(weight_value(step, a, &a_value));
    TRY(weight_value(step, b, &b_value));
    TRY(product(step, x->data, a_value, *u, false));
    TRY(product(step, *u, b_value, y, true));
    if (yd.rows && (x->has_tangent || has_direction(a))) {
        TRY(step_take(step, x->data.dtype, x->data.rows, a->rows, &ud));
        if (x->has_tangent) TRY(product(step, x->tangent, a_value, ud, false));
        if (has_direction(a)) TRY(product(step, x->data, a->direction, ud, x->has_tangent));
        TRY(product(step, ud, b_value, yd, true));
    }
    if (yd.rows && has_direction(b)) TRY(product(step, *u, b->direction, yd, true));
    step_release(step, mark);
done:
    return status;
}

// y (+)= x W^T and yd (+)= xd W^T + x Wd^T.
static enum status plain_forward(struct step *step, struct value *x, struct weight *weight, struct view y,
                                 struct view yd, bool accumulate) {
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view w;
    TRY(tap(step, x->data, weight));
    TRY(weight_value(step, weight, &w));
    TRY(product(step, x->data, w, y, accumulate));
    if (yd.rows) {
        if (x->has_tangent)
            TRY(product(step, x->tangent, w, yd, accumulate));
        else if (!accumulate)
            TRY(run(step, (struct op_call){.op = OP_fill, .out = {yd}, .params.value = 0}));
        if (has_direction(weight)) TRY(product(step, x->data, weight->direction, yd, true));
    }
    step_release(step, mark);
done:
    return status;
}

// The same in rotated coordinates, between a rotation of x and one of y.
static enum status rotated_forward(struct step *step, struct value *x, struct weight *weight, struct view y,
                                   struct view yd, bool accumulate) {
    const struct rotation *rotation = weight->rotation;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct value turned = {.has_tangent = x->has_tangent};
    struct view y_turned, yd_turned = {0};
    TRY(rotate_new(step, &rotation->in, x->data, &turned.data));
    if (x->has_tangent) TRY(rotate_new(step, &rotation->in, x->tangent, &turned.tangent));
    TRY(step_take(step, y.dtype, y.rows, y.cols, &y_turned));
    if (yd.rows) TRY(step_take(step, yd.dtype, yd.rows, yd.cols, &yd_turned));
    TRY(plain_forward(step, &turned, weight, y_turned, yd_turned, false));
    TRY(rotation_run(step, &rotation->out, true, y_turned, y, accumulate));
    if (yd.rows) TRY(rotation_run(step, &rotation->out, true, yd_turned, yd, accumulate));
    step_release(step, mark);
done:
    return status;
}

static enum status linear_forward(struct step *step, struct value *x, struct weight *weight, struct view y,
                                  struct view yd, bool accumulate, struct view *u) {
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    *u = (struct view){0};
    TRY((weight->rotation ? rotated_forward : plain_forward)(step, x, weight, y, yd, accumulate));
    if (weight_adapter(weight)) TRY(adapter_forward(step, x, weight->adapter, y, yd, u));
    if (!step_options(step)->gradient) step_release(step, mark);
done:
    return status;
}

// du = dy B; dx += du A; then the sinks get the factors (dy, u) of B's gradient and (du, x) of A's.
static enum status adapter_reverse(struct step *step, struct value *x, struct weight *const adapter[2], struct view dy,
                                   struct view u) {
    enum status status = STATUS_OK;
    struct weight *a = adapter[0], *b = adapter[1];
    struct step_mark mark = step_mark(step);
    struct view value, du;
    TRY(step_take(step, u.dtype, u.rows, u.cols, &du));
    TRY(weight_value(step, b, &value));
    TRY(run(step, (struct op_call){.op = OP_matmul, .in = {dy, value}, .out = {du}}));
    if (x->needs_grad) {
        TRY(weight_value(step, a, &value));
        TRY(run(step, (struct op_call){.op = OP_matmul, .accumulate = true, .in = {du, value}, .out = {x->grad}}));
    }
    if (weight_asks(b)) TRY(b->sink->product(b->sink, step, b, dy, u, 0));
    if (weight_asks(a)) TRY(a->sink->product(a->sink, step, a, du, x->data, 0));
    step_release(step, mark);
done:
    return status;
}

static enum status plain_reverse(struct step *step, struct value *x, struct weight *weight, struct view dy) {
    enum status status = STATUS_OK;
    if (x->needs_grad) {
        struct view dx, w;
        bool accumulate;
        TRY(step_grad(step, x, &dx, &accumulate));
        struct step_mark mark = step_mark(step);
        TRY(weight_value(step, weight, &w));
        TRY(run(step, (struct op_call){.op = OP_matmul, .accumulate = accumulate, .in = {dy, w}, .out = {dx}}));
        step_release(step, mark);
    }
    // Last, for the sink may change the weight.
    if (weight_asks(weight)) TRY(weight->sink->product(weight->sink, step, weight, dy, x->data, 0));
done:
    return status;
}

static enum status rotated_reverse(struct step *step, struct value *x, struct weight *weight, struct view dy) {
    const struct rotation *rotation = weight->rotation;
    enum status status = STATUS_OK;
    struct value turned = {.data = x->data, .needs_grad = x->needs_grad};
    struct view dx, dy_turned;
    bool accumulate;
    if (x->needs_grad) TRY(step_grad(step, x, &dx, &accumulate));
    struct step_mark mark = step_mark(step);
    TRY(rotate_new(step, &rotation->out, dy, &dy_turned));
    if (weight_asks(weight)) TRY(rotate_new(step, &rotation->in, x->data, &turned.data));
    TRY(plain_reverse(step, &turned, weight, dy_turned));
    if (x->needs_grad) TRY(rotation_run(step, &rotation->in, true, turned.grad, dx, accumulate));
    step_release(step, mark);
done:
    return status;
}

static enum status linear_reverse_part(struct step *step, struct value *x, struct weight *weight, struct view dy,
                                       struct view u) {
    enum status status = STATUS_OK;
    TRY((weight->rotation ? rotated_reverse : plain_reverse)(step, x, weight, dy));
    if (weight_adapter(weight)) TRY(adapter_reverse(step, x, weight->adapter, dy, u));
done:
    return status;
}

static enum status linear_reverse(struct step *step, struct node *node) {
    struct view dy = view_cols(node->out->grad, node->column, node->weight->rows);
    return linear_reverse_part(step, node->in[0], node->weight, dy, node->saved[0]);
}

enum status record_linear(struct step *step, struct value *x, struct weight *weight, struct value *y, int64_t column) {
    enum status status = STATUS_OK;
    struct view part = view_cols(y->data, column, weight->rows), tangent = {0}, u;
    if (x->has_tangent || weight_has_direction(weight)) {
        REQUIRE(column == 0 || y->has_tangent, "the first columns decide whether the value has a tangent");
        TRY(step_tangent(step, y));
    }
    if (y->has_tangent) tangent = view_cols(y->tangent, column, weight->rows);
    TRY(linear_forward(step, x, weight, part, tangent, false, &u));
    if (x->needs_grad || weight_needs_grad(weight))
        step_append(
            step,
            (struct node){
                .reverse = linear_reverse, .in = {x}, .out = y, .weight = weight, .saved = {u}, .column = column});
done:
    return status;
}

static enum status linear_residual_reverse(struct step *step, struct node *node) {
    enum status status = linear_reverse_part(step, node->in[0], node->weight, node->out->grad, node->saved[0]);
    if (status == STATUS_OK) status = step_grad_pass(step, node->out, node->in[1]);
    return status;
}

// The tangent of a residual sum starts as the residual's, zero where it has none.
static enum status residual_tangent(struct step *step, struct value *residual, struct value *y) {
    enum status status = STATUS_OK;
    if (step_may_overwrite(step) && residual->has_tangent) {
        y->tangent = residual->tangent;
        y->has_tangent = true;
        return STATUS_OK;
    }
    TRY(step_tangent(step, y));
    if (residual->has_tangent)
        TRY(run(step, (struct op_call){.op = OP_copy, .in = {residual->tangent}, .out = {y->tangent}}));
    else
        TRY(run(step, (struct op_call){.op = OP_fill, .out = {y->tangent}, .params.value = 0}));
done:
    return status;
}

enum status record_linear_residual(struct step *step, struct value *x, struct weight *weight, struct value *residual,
                                   struct value **out) {
    enum status status = STATUS_OK;
    struct value *y = NULL;
    struct view u;
    bool needs_grad = x->needs_grad || residual->needs_grad || weight_needs_grad(weight);
    if (step_may_overwrite(step))
        y = step_input(step, residual->data);
    else {
        TRY(step_value(step, residual->data.rows, residual->data.cols, needs_grad, &y));
        TRY(run(step, (struct op_call){.op = OP_copy, .in = {residual->data}, .out = {y->data}}));
    }
    if (x->has_tangent || residual->has_tangent || weight_has_direction(weight))
        TRY(residual_tangent(step, residual, y));
    TRY(linear_forward(step, x, weight, y->data, y->tangent, true, &u));
    if (y->needs_grad)
        step_append(
            step,
            (struct node){
                .reverse = linear_residual_reverse, .in = {x, residual}, .out = y, .weight = weight, .saved = {u}});
    *out = y;
done:
    return status;
}

// ---- rope ----

static enum status rotate(struct step *step, struct view x, struct view cos, struct view sin,
                          struct rope_params params) {
    x = view_cols(x, 0, params.heads * params.head_dim);
    return run(step, (struct op_call){.op = OP_rope, .in = {x, cos, sin}, .out = {x}, .params.rope = params});
}

static enum status rope_reverse(struct step *step, struct node *node) {
    struct rope_params params = node->params.rope;
    params.inverse = !params.inverse;
    return rotate(step, node->out->grad, node->saved[0], node->saved[1], params);
}

enum status record_rope(struct step *step, struct value *x, struct view cos, struct view sin,
                        struct rope_params params) {
    enum status status = STATUS_OK;
    TRY(rotate(step, x->data, cos, sin, params));
    if (x->has_tangent) TRY(rotate(step, x->tangent, cos, sin, params));
    if (x->needs_grad)
        step_append(step, (struct node){.reverse = rope_reverse, .out = x, .saved = {cos, sin}, .params.rope = params});
done:
    return status;
}

// ---- attention ----

static enum status attention_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct view dqkv;
    TRY(step_seed(step, node->in[0], &dqkv));
    TRY(run(step, (struct op_call){.op = OP_attention_grad,
                                   .in = {node->in[0]->data, node->out->data, node->saved[0], node->out->grad},
                                   .out = {dqkv},
                                   .params.attention = node->params.attention}));
done:
    return status;
}

enum status record_attention(struct step *step, struct value *qkv, struct attention_params params, struct value **o) {
    enum status status = STATUS_OK;
    struct view lse;
    TRY(step_value(step, qkv->data.rows, params.heads * params.head_dim, qkv->needs_grad, o));
    TRY(step_take(step, DTYPE_F32, qkv->data.rows, params.heads, &lse));
    TRY(run(step, (struct op_call){
                      .op = OP_attention, .in = {qkv->data}, .out = {(*o)->data, lse}, .params.attention = params}));
    if (qkv->has_tangent) {
        TRY(step_tangent(step, *o));
        TRY(run(step, (struct op_call){.op = OP_attention_tangent,
                                       .in = {qkv->data, (*o)->data, lse, qkv->tangent},
                                       .out = {(*o)->tangent},
                                       .params.attention = params}));
    }
    if (qkv->needs_grad)
        step_append(
            step,
            (struct node){
                .reverse = attention_reverse, .in = {qkv}, .out = *o, .saved = {lse}, .params.attention = params});
done:
    return status;
}

// ---- swiglu ----

static enum status swiglu_reverse(struct step *step, struct node *node) {
    enum status status = STATUS_OK;
    struct view dgu;
    TRY(step_seed(step, node->in[0], &dgu));
    TRY(run(step, (struct op_call){.op = OP_swiglu_grad, .in = {node->in[0]->data, node->out->grad}, .out = {dgu}}));
done:
    return status;
}

enum status record_swiglu(struct step *step, struct value *gu, struct value **h) {
    enum status status = STATUS_OK;
    TRY(step_value(step, gu->data.rows, gu->data.cols / 2, gu->needs_grad, h));
    TRY(run(step, (struct op_call){.op = OP_swiglu, .in = {gu->data}, .out = {(*h)->data}}));
    if (gu->has_tangent) {
        TRY(step_tangent(step, *h));
        TRY(run(step,
                (struct op_call){.op = OP_swiglu_tangent, .in = {gu->data, gu->tangent}, .out = {(*h)->tangent}}));
    }
    if (gu->needs_grad) step_append(step, (struct node){.reverse = swiglu_reverse, .in = {gu}, .out = *h});
done:
    return status;
}
