// Cases and definitions of the ops on matrices in double and lists of their rows.
#include "tests/ops/ops.h"

#include "core/base/rng.h"

#include <math.h>

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define AT(m, i, j) matrix_row(m, i)[j]

bool op_is_double(enum op op) {
    switch (op) {
    case OP_rows_gather:
    case OP_row_squares:
    case OP_gram:
    case OP_product:
    case OP_triangle_inverse:
    case OP_rows_pass:
    case OP_box_step: return true;
    default: return false;
    }
}

// ---- cases

static struct matrix normal(struct rng *rng, int64_t rows, int64_t cols) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    EACH(i, rows * cols) m.x[i] = rng_normal(*rng, (uint64_t)i);
    return m;
}

static struct matrix uniform(struct rng *rng, int64_t rows, int64_t cols) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    EACH(i, rows * cols) m.x[i] = (double)rng_uniform(*rng, (uint64_t)i);
    return m;
}

// k of the rows 0 .. n - 1, each set as likely as any other, rising for even k and falling for odd; none for k = 0.
static struct matrix list_of(struct rng *rng, int64_t n, int64_t k) {
    if (!k) return (struct matrix){0};
    struct matrix list = matrix_new(k, 1);
    rng->stream++;
    for (int64_t i = 0, taken = 0; i < n; i++)
        if (rng_bits(*rng, (uint64_t)i) % (uint64_t)(n - i) < (uint64_t)(k - taken)) {
            list.x[k % 2 ? k - 1 - taken : taken] = (double)i;
            taken++;
        }
    return list;
}

static void build_pass(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    int64_t k = t->k ? t->k : t->n, terms = t->option ? 1 : 2;
    call->params.rows_pass =
        (struct rows_pass_params){.step = 0.25, .time = t->past - 1, .normal = t->gradient, .rng = *rng};
    o->in[0] = normal(rng, t->n, t->c), o->in[1] = list_of(rng, t->n, t->k);
    o->in[2] = uniform(rng, t->n, 1), o->in[3] = uniform(rng, t->n, 1), o->in[4] = normal(rng, terms, t->c);
    o->out[0] = matrix_new(k, 1), o->out[2] = matrix_new(terms, t->c);
    if (terms == 2) o->out[1] = matrix_new(k, 1);
}

// Some d outside the box; the least ratio below the step where the case is limited by it (more than a few rows).
static void build_box(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    int64_t k = t->k ? t->k : t->n;
    call->params.box_step = (struct box_step_params){.step = 0.125, .limit = !t->inverse};
    o->in[0] = uniform(rng, k, 1), o->in[2] = list_of(rng, t->n, t->k), o->in[3] = uniform(rng, t->n, 1);
    EACH(j, k) if (j % 7 == 3) o->in[0].x[j] = o->in[0].x[j] < 0.5 ? -0.25 : 1.25;
    if (!t->option) o->in[1] = normal(rng, k, 1);
    o->out[0] = matrix_new(k, 1), o->out[1] = matrix_new(1, 1);
}

// A triangle that is not nearly singular; what lies above the diagonal must not matter: NaN.
static struct matrix triangle(struct rng *rng, int64_t n) {
    struct matrix a = normal(rng, n, n);
    EACH(i, n) EACH(j, n) {
        if (j < i) AT(a, i, j) /= 2 * sqrt((double)n);
        if (j == i) AT(a, i, j) = (i % 3 ? 1 : -1) * (1 + fabs(AT(a, i, j)));
        if (j > i) AT(a, i, j) = NAN;
    }
    return a;
}

void rows_case_build(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    int64_t n = t->n, c = t->c;
    call->params.scaled = (struct scaled_params){.factor = -0.75, .transpose_a = t->ta, .transpose_b = t->tb};
    switch (t->op) {
    case OP_rows_gather:
        o->in[0] = normal(rng, n, c), o->in[1] = list_of(rng, n, t->k);
        o->out[0] = matrix_new(t->k ? t->k : n, c);
        break;
    case OP_row_squares: o->in[0] = normal(rng, n, c), o->out[0] = matrix_new(n, 1); break;
    case OP_gram: o->in[0] = normal(rng, n, c), o->out[0] = matrix_new(c, c); break;
    case OP_product:
        o->in[0] = t->ta ? normal(rng, t->k, n) : normal(rng, n, t->k);
        o->in[1] = t->tb ? normal(rng, c, t->k) : normal(rng, t->k, c);
        o->out[0] = matrix_new(n, c);
        break;
    case OP_triangle_inverse: o->in[0] = triangle(rng, n), o->out[0] = matrix_new(n, n); break;
    case OP_rows_pass: build_pass(t, rng, call, o); break;
    default: build_box(t, rng, call, o); break;
    }
}

// ---- definitions

static int64_t row_at(struct matrix list, int64_t j) { return list.rows ? (int64_t)list.x[j] : j; }

static double noise(const struct rows_pass_params *p, int64_t n, int64_t i, int64_t t) {
    if (t < 0) return 0;
    if (p->normal) return rng_normal(p->rng, (uint64_t)(n * t + i));
    uint64_t w = 2 * (uint64_t)(n * (t / 64) + i);
    uint64_t word = (uint64_t)rng_bits(p->rng, w) << 32 | rng_bits(p->rng, w + 1);
    return word >> (t % 64) & 1 ? 1 : -1;
}

static void rows_pass(const struct rows_pass_params *p, struct operands *o) {
    struct matrix a = o->in[0], x = o->in[2], y = o->in[3], c = o->in[4], d = o->out[0], h = o->out[1], s = o->out[2];
    EACH(j, d.rows) {
        int64_t i = row_at(o->in[1], j);
        double along = 0;
        d.x[j] = x.x[i];
        EACH(q, a.cols) d.x[j] -= AT(a, i, q) * AT(c, 0, q);
        if (c.rows == 2) {
            along = noise(p, a.rows, i, p->time);
            EACH(q, a.cols) along -= AT(a, i, q) * AT(c, 1, q);
            h.x[j] = along;
            EACH(q, a.cols) AT(s, 1, q) += noise(p, a.rows, i, p->time + 1) * AT(a, i, q);
        }
        EACH(q, a.cols) AT(s, 0, q) += (d.x[j] + p->step * along - y.x[i]) * AT(a, i, q);
    }
}

static void box_step(const struct box_step_params *p, struct operands *o) {
    struct matrix d = o->in[0], h = o->in[1], x = o->in[3];
    double s = h.rows ? p->step : 0;
    for (int64_t j = 0; j < h.rows && p->limit; j++) {
        double room = fmin(d.x[j], 1 - d.x[j]);
        if (room >= 0) s = fmin(s, room / fabs(h.x[j]));
    }
    EACH(j, d.rows) o->out[0].x[j] = x.x[row_at(o->in[2], j)] = d.x[j] + (h.rows ? s * h.x[j] : 0);
    o->out[1].x[0] = s;
}

// Column after column by forward substitution.
static void triangle_inverse(struct matrix a, struct matrix y) {
    EACH(j, a.rows) for (int64_t i = j; i < a.rows; i++) {
        double sum = i == j;
        for (int64_t k = j; k < i; k++) sum -= AT(a, i, k) * AT(y, k, j);
        AT(y, i, j) = sum / AT(a, i, i);
    }
}

static void products(const struct op_call *c, struct operands *o) {
    struct matrix a = o->in[0], b = c->op == OP_gram ? a : o->in[1], y = o->out[0];
    bool ta = c->op == OP_gram || c->params.scaled.transpose_a, tb = c->op != OP_gram && c->params.scaled.transpose_b;
    EACH(i, y.rows) EACH(j, y.cols) {
        double sum = 0;
        EACH(k, ta ? a.rows : a.cols) sum += (ta ? AT(a, k, i) : AT(a, i, k)) * (tb ? AT(b, j, k) : AT(b, k, j));
        AT(y, i, j) = (c->accumulate ? AT(y, i, j) : 0) + c->params.scaled.factor * sum;
    }
}

void rows_reference(const struct op_call *c, struct operands *o) {
    struct matrix a = o->in[0], y = o->out[0];
    switch (c->op) {
    case OP_rows_gather: EACH(j, y.rows) EACH(q, y.cols) AT(y, j, q) = AT(a, row_at(o->in[1], j), q); break;
    case OP_row_squares: EACH(i, y.rows) EACH(q, a.cols) y.x[i] += AT(a, i, q) * AT(a, i, q); break;
    case OP_rows_pass: rows_pass(&c->params.rows_pass, o); break;
    case OP_box_step: box_step(&c->params.box_step, o); break;
    case OP_triangle_inverse: triangle_inverse(a, y); break;
    default: products(c, o);
    }
}
