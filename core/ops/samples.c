// Shape rules and costs of the ops on gradients of single samples.
#include "core/ops/shape.h"

const char *sample_products_check(const struct op_call *c) {
    struct view dy = c->in[0], x = c->in[1], y = c->out[0];
    WANT(is_float(dy) && is_same_float(x, dy), "sample_products: dy, x have one dtype, F32 or BF16");
    WANT(is_f32(y) && y.cols == x.cols, "sample_products: y is F32 with the columns of x");
    WANT(dy.rows == x.rows, "sample_products: rows of dy and x differ");
    WANT(y.rows % dy.cols == 0 && dy.rows % (y.rows / dy.cols) == 0,
         "sample_products: y [S O, I'], and S divides the rows of dy [N, O]");
    return NULL;
}
double sample_products_flops(const struct op_call *c) {
    int64_t samples = c->out[0].rows / c->in[0].cols;
    return 2 * elements(c->out[0]) * (double)(c->in[0].rows / samples);
}

static bool is_doubles(struct view v, int64_t rows) { return is_matrix(v, DTYPE_F64) && v.rows == rows; }

const char *sketch_check(const struct op_call *c) {
    const struct sketch_params *p = &c->params.sketch;
    struct view a = c->in[0], directions = c->in[1], norms = c->out[0], sketches = c->out[1], inner = c->out[2];
    WANT(is_f32(a), "sketch: a is F32 [S, n]");
    WANT(is_column(norms, DTYPE_F64, a.rows), "sketch: norms is F64 [S, 1]");
    WANT(is_absent(directions) == is_absent(inner), "sketch: directions and inner products come together");
    WANT(is_absent(directions) || (is_f32_shape(directions, directions.rows, a.cols) && is_doubles(inner, a.rows) &&
                                   inner.cols == directions.rows),
         "sketch: directions are F32 [D, n], inner is F64 [S, D]");
    WANT(is_absent(sketches) == (p->kind == SKETCH_NONE), "sketch: sketches have a kind");
    WANT(is_absent(sketches) || (is_f32(sketches) && sketches.rows == a.rows), "sketch: sketches are F32 [S, J k]");
    WANT(is_absent(sketches) || (p->sketches > 0 && p->sketches <= SKETCHES_MOST && sketches.cols % p->sketches == 0),
         "sketch: J divides the columns of the sketches");
    WANT(p->first >= 0 && p->stream >= 0 && p->stream < 1 << 24, "sketch: coordinates and stream in range");
    return NULL;
}
double sketch_flops(const struct op_call *c) {
    bool dense = c->params.sketch.kind == SKETCH_GAUSSIAN || c->params.sketch.kind == SKETCH_RADEMACHER;
    double per_number = 2 + 2 * (double)c->in[1].rows;
    if (c->out[1].rows) per_number += dense ? 2 * (double)c->out[1].cols : (double)c->params.sketch.sketches;
    return per_number * elements(c->in[0]);
}

const char *exact_sum_check(const struct op_call *c) {
    WANT(is_f32(c->in[0]), "exact_sum: a is F32 [S, n]");
    WANT(is_matrix(c->out[0], DTYPE_F64) && is_shape(c->out[0], 1, c->in[0].cols), "exact_sum: y is F64 [1, n]");
    return NULL;
}
double exact_sum_flops(const struct op_call *c) { return 3 * elements(c->in[0]); }
