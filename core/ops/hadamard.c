// Shape rule and cost of hadamard.
#include "core/ops/shape.h"

#include "core/quant/hadamard.h"

const char *hadamard_check(const struct op_call *c) {
    const struct hadamard *h = c->params.hadamard.matrix;
    struct view x = c->in[0], signs = c->in[1], tables = c->in[2];
    WANT(h && is_float(x) && x.cols == h->n, "hadamard: x [N, C] of the matrix's width");
    WANT(is_absent(signs) || is_f32_shape(signs, 1, x.cols), "hadamard: signs are F32 [1, C] or none");
    WANT(h->n_factors ? is_matrix(tables, DTYPE_I32) && is_shape(tables, h->table_rows, h->words) : is_absent(tables),
         "hadamard: tables are the matrix's");
    WANT(is_like(c->out[0], x), "hadamard: y is like x");
    return NULL;
}

double hadamard_flops(const struct op_call *c) {
    const struct hadamard *h = c->params.hadamard.matrix;
    int64_t work = 1;
    for (int64_t p = h->sylvester; p > 1; p /= 2) work++;
    for (int f = 0; f < h->n_factors; f++) work += h->factors[f];
    return (double)work * elements(c->in[0]);
}
