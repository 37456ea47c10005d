// hadamard on the CPU: parts of a few rows over threads. A part is copied with its signs, the power of two of the order is
// transformed by butterflies, inside of vectors first and then two stages per pass, and each factor is a product with its matrix
// of +-1 from one buffer to the other. Traffic: x read, y written; buffers of two parts per thread, in cache.
#include "core/cpu/cpu.h"
#include "core/cpu/lanes.h"
#include "core/cpu/parts.h"

#include "core/base/mem.h"
#include "core/quant/hadamard.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { PART = 8192 };

// Lane l of the result is lane l ^ h of v, h a constant power of two below LANES.
#define LANE(h, l) ((l) ^ (h))
#if LANES == 16
#define SWAP(v, h)                                                                                                     \
    __builtin_shufflevector(v, v, LANE(h, 0), LANE(h, 1), LANE(h, 2), LANE(h, 3), LANE(h, 4), LANE(h, 5), LANE(h, 6),  \
                            LANE(h, 7), LANE(h, 8), LANE(h, 9), LANE(h, 10), LANE(h, 11), LANE(h, 12), LANE(h, 13),    \
                            LANE(h, 14), LANE(h, 15))
#elif LANES == 8
#define SWAP(v, h)                                                                                                     \
    __builtin_shufflevector(v, v, LANE(h, 0), LANE(h, 1), LANE(h, 2), LANE(h, 3), LANE(h, 4), LANE(h, 5), LANE(h, 6),  \
                            LANE(h, 7))
#else
#define SWAP(v, h) __builtin_shufflevector(v, v, LANE(h, 0), LANE(h, 1), LANE(h, 2), LANE(h, 3))
#endif

// The factor of lane l's own value: 1 in the lower half of its pair, -1 in the upper.
static lanes own_sign(int h) {
    lanes sign;
    for (int l = 0; l < LANES; l++) sign[l] = l & h ? -1.0f : 1.0f;
    return sign;
}

static void butterflies(float *x, int64_t n, int64_t from, int64_t to) {
    for (int64_t half = from; half < to; half *= 2)
        for (int64_t at = 0; at < n; at += 2 * half)
            for (int64_t i = at; i < at + half; i++) {
                float a = x[i], b = x[i + half];
                x[i] = a + b, x[i + half] = a - b;
            }
}

// Stages 1, 2, ... below min(p, LANES) of all n numbers.
static void stages_in_vectors(float *x, int64_t n, int64_t p) {
    lanes sign1 = own_sign(1), sign2 = own_sign(2), sign4 = own_sign(4), sign8 = own_sign(8);
    int64_t whole = n / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        lanes v = lanes_load(x + i);
        if (p > 1) v = SWAP(v, 1) + v * sign1;
        if (p > 2) v = SWAP(v, 2) + v * sign2;
#if LANES >= 8
        if (p > 4) v = SWAP(v, 4) + v * sign4;
#endif
#if LANES == 16
        if (p > 8) v = SWAP(v, 8) + v * sign8;
#endif
        lanes_store(x + i, v);
    }
    (void)sign4, (void)sign8;
    butterflies(x + whole, n - whole, 1, p); // no rest unless p < LANES
}

// x [n / p, p], each row <- S_p row.
static void sylvester(float *x, int64_t n, int64_t p) {
    stages_in_vectors(x, n, p);
    int64_t half = LANES;
    for (; 4 * half <= p; half *= 4)
        for (int64_t at = 0; at < n; at += 4 * half)
            for (float *a = x + at; a < x + at + half; a += LANES) {
                lanes v0 = lanes_load(a), v1 = lanes_load(a + half), v2 = lanes_load(a + 2 * half);
                lanes v3 = lanes_load(a + 3 * half), s = v0 + v1, d = v0 - v1, t = v2 + v3, e = v2 - v3;
                lanes_store(a, s + t), lanes_store(a + half, d + e);
                lanes_store(a + 2 * half, s - t), lanes_store(a + 3 * half, d - e);
            }
    if (half < p) butterflies(x, n, half, p);
}

// A factor as floats: [m, m] after the one before it.
static void factors_fill(struct view tables, const struct hadamard *h, bool transposed, float *to) {
    int64_t row = 0;
    for (int f = 0; f < h->n_factors; row += 2 * h->factors[f++])
        for (int64_t i = 0, m = h->factors[f]; i < m; i++)
            for (int64_t j = 0; j < m; j++) {
                uint32_t word = (uint32_t)view_i32(tables, row + i + (transposed ? m : 0))[j / 32];
                *to++ = word >> j % 32 & 1 ? -1.0f : 1.0f;
            }
}

// to [outer, m, inner] = F from, for each of outer.
static void factor_apply(const float *factor, int64_t m, int64_t inner, int64_t outer, const float *from, float *to) {
    if (inner == 1) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)outer, (int)m, (int)m, 1, from, (int)m, factor,
                    (int)m, 0, to, (int)m);
        return;
    }
    for (int64_t o = 0; o < outer; o++, from += m * inner, to += m * inner)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)inner, (int)m, 1, factor, (int)m, from,
                    (int)inner, 0, to, (int)inner);
}

static void part_load(const struct op_call *call, int64_t first, int64_t rows, float *to) {
    const struct hadamard *h = call->params.hadamard.matrix;
    const float *signs = call->in[1].rows && !call->params.hadamard.transposed ? view_f32(call->in[1], 0) : NULL;
    float factor = (float)(1 / sqrt((double)h->order));
    for (int64_t i = 0; i < rows; i++, to += h->n) {
        const float *x = view_f32(call->in[0], first + i);
        for (int64_t c = 0; c < h->n; c++) to[c] = factor * x[c];
        for (int64_t c = 0; c < h->n && signs; c++) to[c] *= signs[c];
    }
}

static void part_store(const struct op_call *call, int64_t first, int64_t rows, float *from) {
    int64_t n = call->params.hadamard.matrix->n;
    const float *signs = call->in[1].rows && call->params.hadamard.transposed ? view_f32(call->in[1], 0) : NULL;
    for (int64_t i = 0; i < rows; i++, from += n) {
        float *y = view_f32(call->out[0], first + i);
        for (int64_t c = 0; c < n && signs; c++) from[c] *= signs[c];
        if (call->accumulate)
            for (int64_t c = 0; c < n; c++) y[c] += from[c];
        else
            memcpy(y, from, (size_t)n * sizeof *y);
    }
}

static void part_run(const struct op_call *call, const float *factors, int64_t first, int64_t rows, float *a,
                     float *b) {
    const struct hadamard *h = call->params.hadamard.matrix;
    int64_t inner = h->order;
    part_load(call, first, rows, a);
    sylvester(a, rows * h->n, h->sylvester);
    for (int f = 0; f < h->n_factors; f++) {
        int64_t m = h->factors[f];
        inner /= m;
        factor_apply(factors, m, inner, rows * h->n / (m * inner), a, b);
        factors += m * m;
        float *other = a;
        a = b, b = other;
    }
    part_store(call, first, rows, a);
}

enum status cpu_hadamard(struct backend *backend, const struct op_call *call) {
    (void)backend;
    const struct hadamard *h = call->params.hadamard.matrix;
    int64_t N = call->in[0].rows, size = 0, part = min_i64(N, max_i64(1, PART / h->n)), parts = ceil_div(N, part);
    for (int f = 0; f < h->n_factors; f++) size += h->factors[f] * h->factors[f];
    void *factors = NULL, *buffers = NULL;
    enum status status = STATUS_OK;
    TRY(mem_buffer_new(size * (int64_t)sizeof(float), "factors of a Hadamard matrix", &factors));
    TRY(mem_buffer_new(2 * omp_get_max_threads() * part * h->n * (int64_t)sizeof(float), "rows of a Hadamard transform",
                       &buffers));
    factors_fill(call->in[2], h, call->params.hadamard.transposed, factors);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++) {
        float *a = (float *)buffers + 2 * omp_get_thread_num() * part * h->n;
        part_run(call, factors, p * part, min_i64(part, N - p * part), a, a + part * h->n);
    }
done:
    mem_buffer_free(factors);
    mem_buffer_free(buffers);
    return status;
}
