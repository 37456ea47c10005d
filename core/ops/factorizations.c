// Shape rules and costs of the factorizations of dense matrices in double.
#include "core/ops/shape.h"

static bool is_f64(struct view v) { return is_matrix(v, DTYPE_F64); }
static bool is_square(struct view v) { return is_f64(v) && v.rows == v.cols; }
static double cube(int64_t n) { return (double)n * (double)n * (double)n; }

const char *eigh_check(const struct op_call *c) {
    WANT(is_square(c->in[0]), "eigh: a is F64 [n, n]");
    WANT(is_column(c->out[0], DTYPE_F64, c->in[0].rows), "eigh: values are F64 [n, 1]");
    return NULL;
}
// Golub and Van Loan, Matrix Computations, 4th ed., section 8.3: with vectors.
double eigh_flops(const struct op_call *c) { return 9 * cube(c->in[0].rows); }

const char *cholesky_check(const struct op_call *c) {
    WANT(is_square(c->in[0]), "cholesky: a is F64 [n, n]");
    WANT(is_square(c->out[0]) && c->out[0].data == c->in[0].data && view_same_shape(c->out[0], c->in[0]),
         "cholesky: a is factored in place");
    return NULL;
}
double cholesky_flops(const struct op_call *c) { return cube(c->in[0].rows) / 3; }

const char *svd_check(const struct op_call *c) {
    struct view a = c->in[0];
    int64_t k = a.rows < a.cols ? a.rows : a.cols;
    WANT(is_f64(a), "svd: a is F64 [m, n]");
    WANT(is_column(c->out[0], DTYPE_F64, k), "svd: s is F64 [k, 1]");
    WANT(is_f64(c->out[1]) && is_shape(c->out[1], a.rows, k), "svd: u is F64 [m, k]");
    WANT(is_f64(c->out[2]) && is_shape(c->out[2], k, a.cols), "svd: vt is F64 [k, n]");
    return NULL;
}
// The same book, section 8.6: s, thin u and vt by way of a QR factorization.
double svd_flops(const struct op_call *c) {
    int64_t m = c->in[0].rows, n = c->in[0].cols, k = m < n ? m : n;
    return 6 * (double)(m < n ? n : m) * (double)k * (double)k + 20 * cube(k);
}
