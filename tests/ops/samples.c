// The ops on gradients of single samples: definitions in double and cases. Words of random streams are drawn one at a time and
// the maps written out entry by entry, as core/ops/op.h says.
#include "tests/ops/ops.h"

#include "core/base/rng.h"

#include <math.h>

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define AT(m, i, j) matrix_row(m, i)[j]

bool op_is_of_samples(enum op op) { return op == OP_sample_products || op == OP_sketch || op == OP_exact_sum; }

static double put(const struct op_call *call, double old, double value) {
    return call->accumulate ? old + value : value;
}

// ---- definitions ----

static bool bit_at(struct rng rng, int64_t i) { return rng_bits(rng, (uint64_t)(i / 32)) >> (i % 32) & 1; }

static double normal_at(struct rng rng, int64_t i) {
    double u = ((double)(rng_bits(rng, (uint64_t)(i / 2 * 2)) / 512) + 0.5) * 0x1p-23;
    double t = 2 * M_PI * (double)rng_bits(rng, (uint64_t)(i / 2 * 2 + 1)) * 0x1p-32;
    return sqrt(-2 * log(u)) * (i % 2 ? sin(t) : cos(t));
}

// Column of coordinate c of the map: what it adds to bucket b.
static void map_column(const struct sketch_params *p, int64_t j, int64_t k, int64_t c, double *column) {
    uint64_t stream = (uint64_t)(SKETCHES_MOST * p->stream + j);
    struct rng entry = {p->seed, RNG_SKETCH_ENTRY + stream}, rotation = {p->seed, RNG_SKETCH_ROTATION + stream};
    int64_t wide = (k + 127) / 128 * 128;
    EACH(b, k) {
        int64_t i = c * wide + b;
        if (p->kind == SKETCH_ROTATION) column[b] = 0;
        if (p->kind == SKETCH_RADEMACHER) column[b] = (bit_at(entry, i) ? -1 : 1) / sqrt((double)k);
        if (p->kind == SKETCH_GAUSSIAN) column[b] = normal_at(entry, i) / sqrt((double)k);
    }
    if (p->kind != SKETCH_ROTATION) return;
    double shift = floor((double)k * (double)rng_bits(rotation, (uint64_t)(c / k)) * 0x1p-32);
    column[(c + (int64_t)shift) % k] = bit_at(entry, c) ? -1 : 1;
}

static void sketch(const struct op_call *c, struct operands *o) {
    const struct sketch_params *p = &c->params.sketch;
    struct matrix a = o->in[0], directions = o->in[1], norms = o->out[0], sketches = o->out[1], inner = o->out[2];
    EACH(s, a.rows) {
        double square = 0;
        EACH(i, a.cols) square += AT(a, s, i) * AT(a, s, i);
        AT(norms, s, 0) = put(c, AT(norms, s, 0), square);
        EACH(d, directions.rows) {
            double dot = 0;
            EACH(i, a.cols) dot += AT(a, s, i) * AT(directions, d, i);
            AT(inner, s, d) = put(c, AT(inner, s, d), dot);
        }
        EACH(b, c->accumulate ? 0 : sketches.cols) AT(sketches, s, b) = 0;
    }
    if (!sketches.rows) return;
    int64_t k = sketches.cols / p->sketches;
    struct matrix column = matrix_new(1, k);
    EACH(j, p->sketches) EACH(i, a.cols) {
        map_column(p, j, k, p->first + i, column.x);
        EACH(s, a.rows) EACH(b, k) AT(sketches, s, j * k + b) += column.x[b] * AT(a, s, i);
    }
    matrix_free(&column);
}

void sample_reference(const struct op_call *c, struct operands *o) {
    struct matrix a = o->in[0], b = o->in[1], y = o->out[0];
    if (c->op == OP_sketch) sketch(c, o);
    if (c->op == OP_sample_products) {
        int64_t samples = y.rows / a.cols, depth = a.rows / samples;
        EACH(s, samples) EACH(i, a.cols) EACH(j, b.cols) {
            double sum = 0;
            EACH(t, depth) sum += AT(a, s * depth + t, i) * AT(b, s * depth + t, j);
            AT(y, s * a.cols + i, j) = put(c, AT(y, s * a.cols + i, j), sum);
        }
    }
    if (c->op == OP_exact_sum) EACH(j, a.cols) {
            double sum = c->accumulate ? AT(y, 0, j) : 0;
            EACH(s, a.rows) {
                sum += nearbyint(AT(a, s, j) * 0x1p40) * 0x1p-40;
                if (!(fabs(sum) < 4096)) sum = NAN;
            }
            AT(y, 0, j) = sum;
        }
}

// ---- cases ----

static struct matrix normal(struct rng *rng, int64_t rows, int64_t cols) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    EACH(i, rows * cols) m.x[i] = (double)(float)rng_normal(*rng, (uint64_t)i);
    return m;
}

void sample_build(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    int64_t samples = t->heads;
    if (t->op == OP_sample_products) {
        o->in[0] = normal(rng, samples * t->seq, t->n), o->in[1] = normal(rng, samples * t->seq, t->c);
        o->out[0] = matrix_new(samples * t->n, t->c);
        return;
    }
    o->in[0] = normal(rng, samples, t->c);
    if (t->op == OP_exact_sum) { // numbers of many sizes; some sums leave the range
        EACH(i, samples * t->c)
        o->in[0].x[i] = (double)(float)ldexp(o->in[0].x[i], (int)(rng_bits(*rng, (uint64_t)i) % 50) - 45);
        EACH(i, t->option ? samples * t->c : 0) o->in[0].x[i] *= i % 7 ? 1 : 8192;
        o->out[0] = matrix_new(1, t->c);
        return;
    }
    int64_t sketches = t->kv ? t->kv : 3;
    call->params.sketch = (struct sketch_params){
        .kind = (enum sketch_kind)t->bits, .sketches = sketches, .first = t->past, .stream = 5, .seed = 77};
    o->out[0] = matrix_new(samples, 1);
    if (t->bits != SKETCH_NONE) o->out[1] = matrix_new(samples, sketches * t->k);
    if (t->d) o->in[1] = normal(rng, t->d, t->c), o->out[2] = matrix_new(samples, t->d);
}
