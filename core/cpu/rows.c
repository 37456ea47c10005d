// Matrices in double and lists of their rows on the CPU: rows_gather, row_squares, gram, product, triangle_inverse, rows_pass,
// box_step.
//
// rows_pass cuts the list into PARTS parts, a thread each, which read a row for its products and, from cache, for the sums; the
// parts' sums are added in order. gram and product: tiles over threads, one call of BLAS per tile and SLAB rows.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

#undef I // of <complex.h>

enum { PARTS = 64, TILE = 256, SLAB = 1 << 20, LITTLE = 32768 };

static int64_t row_at(struct view list, int64_t j) { return list.rows ? *view_i32(list, j) : j; }

enum status cpu_rows_gather(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0], list = call->in[1], y = call->out[0];
#pragma omp parallel for schedule(static) if (view_count(y) > LITTLE)
    for (int64_t j = 0; j < y.rows; j++)
        memcpy(view_f64(y, j), view_f64(a, row_at(list, j)), (size_t)y.cols * sizeof(double));
    return STATUS_OK;
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

enum status cpu_row_squares(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0];
#pragma omp parallel for schedule(static) if (view_count(a) > LITTLE)
    for (int64_t i = 0; i < a.rows; i++) *view_f64(call->out[0], i) = dot(view_f64(a, i), view_f64(a, i), a.cols);
    return STATUS_OK;
}

// y (+)= factor op(a) op(b), rows first .. first + rows - 1 and columns column .. column + cols - 1 of y, slab after slab of the inner
// dimension.
static void product_tile(const struct op_call *call, struct view a, struct view b, bool ta, bool tb, int64_t first,
                         int64_t column) {
    struct view y = call->out[0];
    int64_t rows = min_i64(TILE, y.rows - first), cols = min_i64(TILE, y.cols - column), inner = ta ? a.rows : a.cols;
    for (int64_t k = 0; k < inner; k += SLAB) {
        const double *a_part = ta ? view_f64(a, k) + first : view_f64(a, first) + k;
        const double *b_part = tb ? view_f64(b, column) + k : view_f64(b, k) + column;
        cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)rows, (int)cols,
                    (int)min_i64(SLAB, inner - k), call->params.scaled.factor, a_part, (int)a.stride, b_part,
                    (int)b.stride, k || call->accumulate ? 1 : 0, view_f64(y, first) + column, (int)y.stride);
    }
}

static enum status products(const struct op_call *call, struct view b, bool ta, bool tb, bool symmetric) {
    struct view a = call->in[0], y = call->out[0];
    int64_t tall = ceil_div(y.rows, TILE), wide = ceil_div(y.cols, TILE);
    if (a.stride > INT32_MAX || b.stride > INT32_MAX || y.stride > INT32_MAX)
        return status_set(STATUS_UNSUPPORTED, "a product of doubles: rows are too long for BLAS's 32-bit integers");
#pragma omp parallel for collapse(2) schedule(dynamic) if (tall * wide > 1)
    for (int64_t i = 0; i < tall; i++)
        for (int64_t j = 0; j < wide; j++)
            if (!symmetric || j <= i) product_tile(call, a, b, ta, tb, i * TILE, j * TILE);
    return STATUS_OK;
}

enum status cpu_product(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return products(call, call->in[1], call->params.scaled.transpose_a, call->params.scaled.transpose_b, false);
}

enum status cpu_gram(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view y = call->out[0];
    enum status status = products(call, call->in[0], true, false, true);
    if (status != STATUS_OK) return status;
    for (int64_t i = 0; i < y.rows; i++)
        for (int64_t j = 0; j < i; j++) view_f64(y, j)[i] = view_f64(y, i)[j];
    return STATUS_OK;
}

enum status cpu_triangle_inverse(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0], y = call->out[0];
    if (a.rows > INT32_MAX || y.stride > INT32_MAX)
        return status_set(STATUS_UNSUPPORTED, "triangle_inverse: too large for LAPACK's 32-bit integers");
    for (int64_t i = 0; i < a.rows; i++) {
        memcpy(view_f64(y, i), view_f64(a, i), (size_t)(i + 1) * sizeof(double));
        memset(view_f64(y, i) + i + 1, 0, (size_t)(a.rows - i - 1) * sizeof(double));
    }
    // Row-major lower is column-major upper.
    int info = LAPACKE_dtrtri_work(LAPACK_COL_MAJOR, 'U', 'N', (lapack_int)a.rows, y.data, (lapack_int)y.stride);
    if (info != 0) return status_set(STATUS_INVALID, "triangle_inverse: number %d of the diagonal is 0", info);
    return STATUS_OK;
}

// ---- passes

static double noise(const struct rows_pass_params *p, int64_t n, int64_t i, int64_t t) {
    if (t < 0) return 0;
    if (p->normal) return rng_normal(p->rng, (uint64_t)n * (uint64_t)t + (uint64_t)i);
    uint64_t word = 2 * ((uint64_t)n * (uint64_t)(t / 64) + (uint64_t)i), bit = (uint64_t)(t % 64);
    return rng_bits(p->rng, bit < 32 ? word + 1 : word) >> (bit % 32) & 1 ? 1 : -1;
}

static void add_row(double *to, double c, const double *a, int64_t n) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) to[k] += c * a[k];
}

static void pass_part(const struct op_call *call, int64_t first, int64_t end, double *sums) {
    const struct rows_pass_params *p = &call->params.rows_pass;
    struct view a = call->in[0], list = call->in[1], c = call->in[4];
    for (int64_t j = first; j < end; j++) {
        int64_t i = row_at(list, j);
        const double *row = view_f64(a, i);
        double d = *view_f64(call->in[2], i) - dot(row, view_f64(c, 0), a.cols), h = 0;
        if (c.rows > 1) {
            h = noise(p, a.rows, i, p->time) - dot(row, view_f64(c, 1), a.cols);
            *view_f64(call->out[1], j) = h;
            add_row(sums + a.cols, noise(p, a.rows, i, p->time + 1), row, a.cols);
        }
        *view_f64(call->out[0], j) = d;
        add_row(sums, d + p->step * h - *view_f64(call->in[3], i), row, a.cols);
    }
}

enum status cpu_rows_pass(struct backend *backend, const struct op_call *call) {
    (void)backend;
    int64_t k = call->out[0].rows, per_part = ceil_div(k, PARTS), cols = call->in[0].cols, terms = call->in[4].rows;
    struct view sums = call->out[2];
    void *parts = NULL;
    enum status status = mem_buffer_new(PARTS * terms * cols * 8, "sums of parts", &parts);
    if (status != STATUS_OK) return status;
    memset(parts, 0, (size_t)(PARTS * terms * cols) * 8);
#pragma omp parallel for schedule(dynamic) if (k * cols > LITTLE)
    for (int64_t part = 0; part < PARTS; part++)
        if (part * per_part < k)
            pass_part(call, part * per_part, min_i64(k, (part + 1) * per_part), (double *)parts + part * terms * cols);
    for (int64_t r = 0; r < terms; r++) {
        memset(view_f64(sums, r), 0, (size_t)cols * sizeof(double));
        for (int64_t part = 0; part < PARTS; part++)
            add_row(view_f64(sums, r), 1, (double *)parts + (part * terms + r) * cols, cols);
    }
    mem_buffer_free(parts);
    return STATUS_OK;
}

enum status cpu_box_step(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view d = call->in[0], h = call->in[1], list = call->in[2], x = call->in[3], z = call->out[0];
    double step = h.rows ? call->params.box_step.step : 0;
    if (h.rows && call->params.box_step.limit) {
#pragma omp parallel for schedule(static) reduction(min : step) if (d.rows > LITTLE)
        for (int64_t j = 0; j < d.rows; j++) {
            double at = *view_f64(d, j), room = at < 0.5 ? at : 1 - at;
            if (room >= 0) step = fmin(step, room / (fabs(*view_f64(h, j)) + 1e-300));
        }
    }
#pragma omp parallel for schedule(static) if (d.rows > LITTLE)
    for (int64_t j = 0; j < d.rows; j++) {
        double to = *view_f64(d, j) + (h.rows ? step * *view_f64(h, j) : 0);
        *view_f64(z, j) = to;
        *view_f64(x, row_at(list, j)) = to;
    }
    *view_f64(call->out[1], 0) = step;
    return STATUS_OK;
}
