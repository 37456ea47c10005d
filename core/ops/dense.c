// Shape rules and costs of the dense ops: elementwise, products, reductions.
#include "core/ops/shape.h"

const char *fill_check(const struct op_call *c) {
    WANT(is_float(c->out[0]), "fill: y is F32 or BF16 [N, C]");
    return NULL;
}
double fill_flops(const struct op_call *c) {
    (void)c;
    return 0;
}

const char *copy_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && is_float(c->out[0]) && view_same_shape(c->in[0], c->out[0]),
         "copy: a, y are F32 or BF16 [N, C]");
    return NULL;
}
double copy_flops(const struct op_call *c) { return c->accumulate ? elements(c->out[0]) : 0; }

static int64_t matmul_inner(const struct op_call *c) {
    return c->params.matmul.transpose_a ? c->in[0].rows : c->in[0].cols;
}

const char *matmul_check(const struct op_call *c) {
    const struct matmul_params *p = &c->params.matmul;
    struct view a = c->in[0], b = c->in[1], y = c->out[0];
    WANT(is_float(a) && is_same_float(b, a), "matmul: a, b have one dtype, F32 or BF16");
    WANT(is_same_float(y, a) || is_f32(y), "matmul: y is F32 or as a and b");
    WANT(!(p->transpose_a && p->transpose_b), "matmul: at most one operand is transposed");
    WANT((p->transpose_a ? a.cols : a.rows) == y.rows, "matmul: rows of op(a) and y differ");
    WANT((p->transpose_b ? b.rows : b.cols) == y.cols, "matmul: columns of op(b) and y differ");
    WANT((p->transpose_b ? b.cols : b.rows) == matmul_inner(c), "matmul: inner dimensions differ");
    return NULL;
}
double matmul_flops(const struct op_call *c) { return 2 * elements(c->out[0]) * (double)matmul_inner(c); }

const char *row_dot_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && is_like(c->in[1], c->in[0]), "row_dot: a, b [N, C] of one dtype");
    WANT(is_column(c->out[0], DTYPE_F64, c->in[0].rows), "row_dot: y is F64 [N, 1]");
    return NULL;
}
double row_dot_flops(const struct op_call *c) { return 2 * elements(c->in[0]); }

const char *sum_squares_check(const struct op_call *c) {
    WANT(is_float(c->in[0]), "sum_squares: a is F32 or BF16 [N, C]");
    WANT(is_column(c->out[0], DTYPE_F64, c->out[0].rows), "sum_squares: y is F64 [S, 1]");
    WANT(c->in[0].rows % c->out[0].rows == 0, "sum_squares: S divides N");
    return NULL;
}
double sum_squares_flops(const struct op_call *c) { return 2 * elements(c->in[0]); }

const char *output_error_check(const struct op_call *c) {
    struct view y = c->in[0], squares = c->in[2];
    WANT(is_float(y) && is_like(c->in[1], y) && is_like(c->out[0], y), "output_error: y, t, dy [N, C] of one dtype");
    WANT(is_column(squares, DTYPE_F64, squares.rows) && y.rows % squares.rows == 0,
         "output_error: squares is F64 [S, 1], S divides N");
    WANT(is_column(c->out[1], DTYPE_F64, y.rows), "output_error: error is F64 [N, 1]");
    return NULL;
}
double output_error_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }
