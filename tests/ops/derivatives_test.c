// The derivative ops of the definition (ops_reference.c) against central differences of its forward ops, in double, over
// all cases of the table. ops_test compares the kernels with the same definition.
#include "tests/check.h"
#include "tests/ops/ops.h"

#include "core/base/rng.h"

// Error of a central difference in double: step^2 third derivatives + 1e-16 / step. Saved operands (rstd, lse, o) of the cases
// are floats, which costs 1e-7.
static const double step = 1e-4, allowed = 2e-5;

static struct matrix random_like(struct matrix m, uint64_t stream) {
    struct matrix r = matrix_new(m.rows, m.cols);
    struct rng rng = {.seed = 11, .stream = RNG_TEST + stream};
    for (int64_t i = 0; i < m.rows * m.cols; i++) r.x[i] = rng_normal(rng, (uint64_t)i);
    return r;
}

static struct matrix moved(struct matrix m, struct matrix along, double by) {
    struct matrix r = matrix_copy(m);
    for (int64_t i = 0; i < m.rows * m.cols; i++) r.x[i] += by * along.x[i];
    return r;
}

static double inner(struct matrix a, struct matrix b) {
    double sum = 0;
    for (int64_t i = 0; i < a.rows * a.cols; i++) sum += a.x[i] * b.x[i];
    return sum;
}

// Output of `op` for these inputs, which are copied first.
static struct matrix output_of(struct op_call call, enum op op, const struct matrix in[OP_INPUTS], int64_t rows,
                               int64_t cols, int64_t cols2) {
    struct operands o = {.out = {matrix_new(rows, cols), matrix_new(rows, cols2)}};
    for (int i = 0; i < OP_INPUTS; i++)
        if (in[i].rows) o.in[i] = matrix_copy(in[i]);
    call.op = op;
    op_reference(&call, &o);
    struct matrix y = o.out[0];
    o.out[0] = (struct matrix){0};
    operands_free(&o);
    return y;
}

// d/dt of output(in + t along) at 0.
static struct matrix difference(struct op_call call, enum op op, const struct matrix in[OP_INPUTS],
                                const struct matrix along[OP_INPUTS], int64_t rows, int64_t cols, int64_t cols2) {
    struct matrix y[2];
    for (int side = 0; side < 2; side++) {
        struct matrix at[OP_INPUTS] = {{0}};
        for (int i = 0; i < OP_INPUTS; i++) {
            if (in[i].rows && along[i].rows)
                at[i] = moved(in[i], along[i], side ? step : -step);
            else if (in[i].rows)
                at[i] = matrix_copy(in[i]);
        }
        y[side] = output_of(call, op, at, rows, cols, cols2);
        for (int i = 0; i < OP_INPUTS; i++) matrix_free(&at[i]);
    }
    for (int64_t i = 0; i < rows * cols; i++) y[1].x[i] = (y[1].x[i] - y[0].x[i]) / (2 * step);
    matrix_free(&y[0]);
    return y[1];
}

// <gradient, direction> = <dy, dy/dt along direction> for three random directions of input `which`.
static void check_gradient(struct op_call call, enum op op, const struct matrix in[OP_INPUTS], int which,
                           struct matrix gradient, struct matrix dy, int64_t cols2) {
    for (uint64_t trial = 0; trial < 3; trial++) {
        struct matrix along[OP_INPUTS] = {{0}};
        along[which] = random_like(in[which], trial);
        struct matrix slope = difference(call, op, in, along, dy.rows, dy.cols, cols2);
        double size = sqrt(inner(gradient, gradient) * inner(along[which], along[which])) + 1e-2;
        check_near(inner(gradient, along[which]), inner(dy, slope), 0, allowed * size);
        matrix_free(&slope);
        matrix_free(&along[which]);
    }
}

static void check_tangent(struct matrix tangent, struct matrix slope) {
    double size = sqrt(inner(slope, slope) / (double)(slope.rows * slope.cols)) + 1e-2;
    for (int64_t i = 0; i < slope.rows * slope.cols; i++) check_near(tangent.x[i], slope.x[i], allowed, allowed * size);
    matrix_free(&slope);
}

typedef void check_fn(const struct op_call *call, struct operands *o);

// Runs the definition of every case of `op`, then the check.
static void each_case(enum op op, check_fn *check) {
    int cases = 0;
    for (int i = 0; i < op_case_count; i++) {
        const struct op_case *c = &op_cases[i];
        if (c->op != op || c->n * c->c > 20000 || c->seq > 260) continue;
        struct op_call call;
        struct operands o;
        struct grid grid;
        op_case_build(c, false, 3, &call, &o, &grid);
        for (int k = 0; k < OP_OUTPUTS; k++) // outputs that are added to start from nothing
            for (int64_t j = 0; j < o.out[k].rows * o.out[k].cols; j++) o.out[k].x[j] = 0;
        check(&call, &o);
        operands_free(&o);
        cases++;
    }
    assert_true(cases >= 3);
}

static void rmsnorm_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0], o->in[1]};
    check_gradient(*call, OP_rmsnorm, in, 0, o->out[0], o->in[3], 1);
}

static void rmsnorm_gain_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix gain = matrix_new(1, o->in[0].cols), total = matrix_new(1, o->in[0].cols);
    for (int64_t j = 0; j < gain.cols; j++) gain.x[j] = 1;
    for (int64_t s = 0; s < o->out[0].rows; s++)
        for (int64_t j = 0; j < gain.cols; j++) total.x[j] += matrix_row(o->out[0], s)[j];
    struct matrix in[OP_INPUTS] = {o->in[0], gain};
    check_gradient(*call, OP_rmsnorm, in, 1, total, o->in[2], 1);
    matrix_free(&gain);
    matrix_free(&total);
}

static void rmsnorm_tangent_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0], o->in[1]}, along[OP_INPUTS] = {o->in[3], o->in[4]};
    check_tangent(o->out[0], difference(*call, OP_rmsnorm, in, along, o->out[0].rows, o->out[0].cols, 1));
}

static void embedding_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix table = random_like(o->out[0], 9), in[OP_INPUTS] = {table, o->in[1]};
    check_gradient(*call, OP_embedding, in, 0, o->out[0], o->in[0], 1);
    matrix_free(&table);
}

// The inverse rotation is the transpose: <rope x, y> = <x, inverse y>.
static void rope_case(const struct op_call *call, struct operands *o) {
    struct op_call inverse = *call;
    inverse.params.rope.inverse = !inverse.params.rope.inverse;
    struct matrix x = matrix_copy(o->in[0]), y = random_like(x, 5);
    op_reference(call, o);
    double left = inner(o->in[0], y);
    memcpy(o->in[0].x, y.x, (size_t)(y.rows * y.cols) * sizeof(double));
    op_reference(&inverse, o);
    check_near(inner(o->in[0], x), left, 1e-12, 1e-10);
    matrix_free(&x);
    matrix_free(&y);
}

static void attention_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0]};
    check_gradient(*call, OP_attention, in, 0, o->out[0], o->in[3], call->params.attention.heads);
}

static void attention_tangent_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0]}, along[OP_INPUTS] = {o->in[3]};
    check_tangent(o->out[0], difference(*call, OP_attention, in, along, o->out[0].rows, o->out[0].cols,
                                        call->params.attention.heads));
}

static void swiglu_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0]};
    check_gradient(*call, OP_swiglu, in, 0, o->out[0], o->in[1], 1);
}

static void swiglu_tangent_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix in[OP_INPUTS] = {o->in[0]}, along[OP_INPUTS] = {o->in[1]};
    check_tangent(o->out[0], difference(*call, OP_swiglu, in, along, o->out[0].rows, o->out[0].cols, 1));
}

// The gradient is written over the logits, `which` says where they are.
static void loss_case(const struct op_call *call, struct operands *o, int which) {
    if (!call->params.loss.gradient) return;
    struct matrix in[OP_INPUTS] = {matrix_copy(o->in[0]), matrix_copy(o->in[1])};
    op_reference(call, o);
    struct matrix weight = matrix_new(o->in[0].rows, 1);
    for (int64_t i = 0; i < weight.rows; i++) weight.x[i] = call->params.loss.weight;
    struct op_call forward = *call;
    forward.params.loss.gradient = false;
    check_gradient(forward, call->op, in, which, o->in[which], weight, 1);
    matrix_free(&weight);
    for (int i = 0; i < 2; i++) matrix_free(&in[i]);
}

static void cross_entropy_case(const struct op_call *call, struct operands *o) { loss_case(call, o, 0); }
static void kl_divergence_case(const struct op_call *call, struct operands *o) { loss_case(call, o, 1); }

static void grid_interpolate_grad_case(const struct op_call *call, struct operands *o) {
    op_reference(call, o);
    struct matrix x = random_like(o->in[0], 8), in[OP_INPUTS] = {o->in[0], o->in[1], x};
    check_gradient(*call, OP_grid_interpolate, in, 2, o->out[0], o->in[2], 1);
    matrix_free(&x);
}

#define DERIVATIVE(op)                                                                                                 \
    static void op##_agrees_with_central_differences(void **state) {                                                   \
        (void)state;                                                                                                   \
        each_case(OP_##op, op##_case);                                                                                 \
    }
DERIVATIVE(rmsnorm_grad)
DERIVATIVE(rmsnorm_gain_grad)
DERIVATIVE(rmsnorm_tangent)
DERIVATIVE(embedding_grad)
DERIVATIVE(attention_grad)
DERIVATIVE(attention_tangent)
DERIVATIVE(swiglu_grad)
DERIVATIVE(swiglu_tangent)
DERIVATIVE(cross_entropy)
DERIVATIVE(kl_divergence)
DERIVATIVE(grid_interpolate_grad)

static void rope_inverse_is_its_transpose(void **state) {
    (void)state;
    each_case(OP_rope, rope_case);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_grad_agrees_with_central_differences),
        cmocka_unit_test(rmsnorm_gain_grad_agrees_with_central_differences),
        cmocka_unit_test(rmsnorm_tangent_agrees_with_central_differences),
        cmocka_unit_test(embedding_grad_agrees_with_central_differences),
        cmocka_unit_test(rope_inverse_is_its_transpose),
        cmocka_unit_test(attention_grad_agrees_with_central_differences),
        cmocka_unit_test(attention_tangent_agrees_with_central_differences),
        cmocka_unit_test(swiglu_grad_agrees_with_central_differences),
        cmocka_unit_test(swiglu_tangent_agrees_with_central_differences),
        cmocka_unit_test(cross_entropy_agrees_with_central_differences),
        cmocka_unit_test(kl_divergence_agrees_with_central_differences),
        cmocka_unit_test(grid_interpolate_grad_agrees_with_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
