// Shape rules and costs of the ops on dense matrices in double and lists of their rows.
#include "core/ops/shape.h"

static bool is_f64(struct view v) { return is_matrix(v, DTYPE_F64); }
static bool is_f64_shape(struct view v, int64_t rows, int64_t cols) { return is_f64(v) && is_shape(v, rows, cols); }

// A list of k rows of a matrix of n, or none.
static bool is_list(struct view list, int64_t n, int64_t k) {
    if (is_absent(list)) return k == n;
    return is_column(list, DTYPE_I32, k) && k <= n && n <= INT32_MAX;
}

const char *rows_gather_check(const struct op_call *c) {
    struct view a = c->in[0], y = c->out[0];
    WANT(is_f64(a) && is_f64(y) && a.cols == y.cols, "rows_gather: a, y are F64 of as many columns");
    WANT(is_list(c->in[1], a.rows, y.rows), "rows_gather: rows are I32 [k, 1] or none");
    return NULL;
}
double rows_gather_flops(const struct op_call *c) {
    (void)c;
    return 0;
}

const char *row_squares_check(const struct op_call *c) {
    WANT(is_f64(c->in[0]), "row_squares: a is F64 [n, C]");
    WANT(is_column(c->out[0], DTYPE_F64, c->in[0].rows), "row_squares: y is F64 [n, 1]");
    return NULL;
}
double row_squares_flops(const struct op_call *c) { return 2 * elements(c->in[0]); }

const char *gram_check(const struct op_call *c) {
    WANT(is_f64(c->in[0]), "gram: a is F64 [n, C]");
    WANT(is_f64_shape(c->out[0], c->in[0].cols, c->in[0].cols), "gram: y is F64 [C, C]");
    return NULL;
}
double gram_flops(const struct op_call *c) { return elements(c->in[0]) * (double)(c->in[0].cols + 1); }

static int64_t product_inner(const struct op_call *c) {
    return c->params.scaled.transpose_a ? c->in[0].rows : c->in[0].cols;
}

const char *product_check(const struct op_call *c) {
    const struct scaled_params *p = &c->params.scaled;
    struct view a = c->in[0], b = c->in[1], y = c->out[0];
    WANT(is_f64(a) && is_f64(b) && is_f64(y), "product: a, b, y are F64");
    WANT(!(p->transpose_a && p->transpose_b), "product: at most one operand is transposed");
    WANT((p->transpose_a ? a.cols : a.rows) == y.rows, "product: rows of op(a) and y differ");
    WANT((p->transpose_b ? b.rows : b.cols) == y.cols, "product: columns of op(b) and y differ");
    WANT((p->transpose_b ? b.cols : b.rows) == product_inner(c), "product: inner dimensions differ");
    return NULL;
}
double product_flops(const struct op_call *c) { return 2 * elements(c->out[0]) * (double)product_inner(c); }

const char *triangle_inverse_check(const struct op_call *c) {
    struct view a = c->in[0];
    WANT(is_f64(a) && a.rows == a.cols, "triangle_inverse: a is F64 [n, n]");
    WANT(is_f64_shape(c->out[0], a.rows, a.rows), "triangle_inverse: y is F64 [n, n]");
    return NULL;
}
double triangle_inverse_flops(const struct op_call *c) {
    double n = (double)c->in[0].rows;
    return n * n * n / 3;
}

const char *rows_pass_check(const struct op_call *c) {
    struct view a = c->in[0], d = c->out[0], h = c->out[1];
    int64_t terms = c->in[4].rows;
    WANT(is_f64(a) && a.cols <= ROWS_PASS_COLS, "rows_pass: a is F64 [n, m], m at most ROWS_PASS_COLS");
    WANT(is_list(c->in[1], a.rows, d.rows), "rows_pass: rows are I32 [k, 1] or none");
    WANT(is_f64_shape(c->in[2], a.rows, 1) && is_f64_shape(c->in[3], a.rows, 1), "rows_pass: x, y are F64 [n, 1]");
    WANT(terms >= 1 && terms <= 2 && is_f64_shape(c->in[4], terms, a.cols), "rows_pass: c is F64 [1 or 2, m]");
    WANT(is_f64_shape(d, d.rows, 1), "rows_pass: d is F64 [k, 1]");
    WANT(terms == 2 ? is_f64_shape(h, d.rows, 1) : is_absent(h), "rows_pass: h is F64 [k, 1], with c [1, m] none");
    WANT(is_f64_shape(c->out[2], terms, a.cols), "rows_pass: sums are F64 like c");
    WANT(c->params.rows_pass.time >= -1, "rows_pass: time is at least -1");
    return NULL;
}
double rows_pass_flops(const struct op_call *c) {
    return 4 * (double)c->in[4].rows * (double)c->out[0].rows * (double)c->in[0].cols;
}

const char *box_step_check(const struct op_call *c) {
    struct view d = c->in[0], h = c->in[1], x = c->in[3];
    WANT(is_f64_shape(d, d.rows, 1) && (is_absent(h) || is_f64_shape(h, d.rows, 1)), "box_step: d, h are F64 [k, 1]");
    WANT(is_f64_shape(x, x.rows, 1) && is_list(c->in[2], x.rows, d.rows), "box_step: x is F64 [n, 1], rows I32 [k, 1]");
    WANT(is_f64_shape(c->out[0], d.rows, 1), "box_step: z is F64 [k, 1]");
    WANT(is_f64_shape(c->out[1], 1, 1), "box_step: s is F64 [1, 1]");
    return NULL;
}
double box_step_flops(const struct op_call *c) { return 4 * (double)c->in[0].rows; }
