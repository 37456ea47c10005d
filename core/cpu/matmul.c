// matmul on the CPU: single-threaded BLAS products of tiles, tiles over threads.
//
// How a product is cut follows from its shape alone. Tiles are at most TILE_ROWS x TILE_COLS, fewer rows where that gives
// less than TILES tiles. A small output with a long inner dimension (a weight gradient: inner = tokens) is cut along the
// inner dimension instead, since small tiles cost more packing than arithmetic; the partial products go to scratch and
// are added in order; with AVX-512 they are made by add_outer_products, which packs nothing. One row is a matrix-vector
// product. Traffic: a once per column of tiles, b once per row of tiles.
//
// Many rows times a small matrix: with AVX-512 OpenBLAS has kernels without packing for products of up to 10^6
// multiplications, a fifth faster than the packed ones where neither operand is transposed. So the tiles of such products are
// strips of at most STRIP_ROWS rows, and a transposed small matrix is turned once (NOTES.md).
#include "core/cpu/cpu.h"
#include "core/cpu/eight_rows.h"
#include "core/cpu/parts.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <string.h>

enum { TILE_ROWS = 512, TILE_COLS = 512, TILE_ROWS_LEAST = 256, INNER_LEAST = 256, TILES = 6, PARTS = 8 };

#ifdef __AVX512F__
enum { HAS_SMALL_KERNELS = 1 };
#else
enum { HAS_SMALL_KERNELS = 0 };
#endif
enum { SMALL_PRODUCT = 1000000, STRIP_ROWS = 64, STRIP_ROWS_LEAST = 16 };

// Rows of a strip, 0 for products that are not cut into strips.
static int64_t strip_rows(int64_t rows, int64_t cols, int64_t inner) {
    int64_t strip = min_i64(SMALL_PRODUCT / (cols * inner), STRIP_ROWS) / STRIP_ROWS_LEAST * STRIP_ROWS_LEAST;
    return HAS_SMALL_KERNELS && rows >= TILE_ROWS_LEAST && strip >= STRIP_ROWS_LEAST ? strip : 0;
}

struct cut {
    int64_t rows, cols, inner; // sizes of a part
    int64_t tall, wide, deep;  // numbers of parts
};

static struct cut cut_of(int64_t rows, int64_t cols, int64_t inner) {
    struct cut cut = {.rows = TILE_ROWS, .cols = TILE_COLS, .inner = inner, .deep = 1};
    cut.wide = ceil_div(cols, cut.cols);
    while (cut.rows > TILE_ROWS_LEAST && ceil_div(rows, cut.rows) * cut.wide < TILES) cut.rows /= 2;
    cut.tall = ceil_div(rows, cut.rows);
    int64_t whole = ceil_div(rows, TILE_ROWS) * cut.wide, deep = min_i64(PARTS / whole, inner / INNER_LEAST);
    if (rows > TILE_ROWS || deep < 2 || deep < cut.tall) return cut;
    cut.rows = TILE_ROWS;
    cut.tall = 1;
    cut.inner = ceil_div(inner, deep);
    cut.deep = ceil_div(inner, cut.inner);
    return cut;
}

// Part (i, j, k) of the product into c, whose first element is element (i, j) of the part's output.
static void part(const struct op_call *call, const struct cut *cut, int64_t i, int64_t j, int64_t k, float *c,
                 int64_t stride, bool accumulate) {
    struct view a = call->in[0], b = call->in[1], y = call->out[0];
    bool ta = call->params.matmul.transpose_a, tb = call->params.matmul.transpose_b;
    i *= cut->rows, j *= cut->cols, k *= cut->inner;
    int64_t m = min_i64(cut->rows, y.rows - i), n = min_i64(cut->cols, y.cols - j);
    int64_t inner = min_i64(cut->inner, (ta ? a.rows : a.cols) - k);
    const float *a_part = ta ? view_f32(a, k) + i : view_f32(a, i) + k;
    const float *b_part = tb ? view_f32(b, j) + k : view_f32(b, k) + j;
    float beta = accumulate ? 1 : 0;
    if (m == 1)
        cblas_sgemv(CblasRowMajor, tb ? CblasNoTrans : CblasTrans, (int)(tb ? n : inner), (int)(tb ? inner : n), 1,
                    b_part, (int)b.stride, a_part, ta ? (int)a.stride : 1, beta, c, 1);
    else
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                    (int)inner, 1, a_part, (int)a.stride, b_part, (int)b.stride, beta, c, (int)stride);
}

// c [m, n] += a^T b, a [k, m], b [k, n]; c has room for multiples of eight. Columns beyond a multiple of eight go
// through copies with zeros.
static void add_outer_products(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t m, int64_t n,
                               int64_t k, float *c, int64_t stride) {
    enum { K = 128, WIDE = 32 };
    float last_a[K * 8], last_b[K * 8];
    int64_t m8 = m / 8 * 8, n8 = n / 8 * 8;
    for (int64_t done = 0; done < k; done += K, a += K * a_stride, b += K * b_stride) {
        int64_t depth = min_i64(K, k - done);
        for (int64_t e = 0; e < depth && (m8 < m || n8 < n); e++)
            for (int64_t l = 0; l < 8; l++) {
                last_a[e * 8 + l] = m8 + l < m ? a[e * a_stride + m8 + l] : 0;
                last_b[e * 8 + l] = n8 + l < n ? b[e * b_stride + n8 + l] : 0;
            }
        for (int64_t j = 0; j < n; j += WIDE) {
            int64_t wide = min_i64(WIDE, n8 - j);
            for (int64_t i = 0; i < m; i += 8) {
                const float *rows = i < m8 ? a + i : last_a;
                int64_t next = i < m8 ? a_stride : 8;
                float *to = c + i * stride;
                eight_rows(rows, 1, next, b + j, b_stride, to + j, stride, wide, depth, true);
                if (j + WIDE > n8 && n8 < n) eight_rows(rows, 1, next, last_b, 8, to + n8, stride, 8, depth, true);
            }
        }
    }
}

static int64_t round_up_8(int64_t n) { return ceil_div(n, 8) * 8; }

static void add_parts(struct view y, const float *partial, int64_t stride, int64_t part_size, int64_t parts,
                      bool accumulate) {
    for (int64_t i = 0; i < y.rows; i++) {
        float *to = view_f32(y, i);
        const float *from = partial + i * stride;
        for (int64_t p = 0; p < parts; p++)
            for (int64_t j = 0; j < y.cols; j++) to[j] = (p > 0 || accumulate ? to[j] : 0) + from[p * part_size + j];
    }
}

static void deep_part(const struct op_call *call, const struct cut *cut, int64_t j, int64_t k, float *c,
                      int64_t stride) {
    struct view a = call->in[0], b = call->in[1], y = call->out[0];
    if (!HAS_SMALL_KERNELS || !call->params.matmul.transpose_a || call->params.matmul.transpose_b) {
        part(call, cut, 0, j, k, c + j * cut->cols, stride, false);
        return;
    }
    int64_t first = k * cut->inner, n = min_i64(cut->cols, y.cols - j * cut->cols);
    c += j * cut->cols;
    for (int64_t i = 0; i < round_up_8(y.rows); i++) memset(c + i * stride, 0, (size_t)round_up_8(n) * sizeof *c);
    add_outer_products(view_f32(a, first), a.stride, view_f32(b, first) + j * cut->cols, b.stride, y.rows, n,
                       min_i64(cut->inner, a.rows - first), c, stride);
}

static enum status deep_product(const struct op_call *call, const struct cut *cut) {
    struct view y = call->out[0];
    int64_t stride = round_up_8(y.cols), size = round_up_8(y.rows) * stride;
    void *partial = NULL;
    enum status status = mem_buffer_new(cut->deep * size * (int64_t)sizeof(float), "partial products", &partial);
    if (status != STATUS_OK) return status;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t k = 0; k < cut->deep; k++)
        for (int64_t j = 0; j < cut->wide; j++) deep_part(call, cut, j, k, (float *)partial + k * size, stride);
    add_parts(y, partial, stride, size, cut->deep, call->accumulate);
    mem_buffer_free(partial);
    return STATUS_OK;
}

static void tile_product(const struct op_call *call, const struct cut *cut) {
    struct view y = call->out[0];
#pragma omp parallel for collapse(2) schedule(dynamic) if (cut->tall * cut->wide > 1)
    for (int64_t i = 0; i < cut->tall; i++)
        for (int64_t j = 0; j < cut->wide; j++)
            part(call, cut, i, j, 0, view_f32(y, i * cut->rows) + j * cut->cols, y.stride, call->accumulate);
}

// y = a b^T with b turned first.
static enum status turned_product(const struct op_call *call, const struct cut *cut) {
    struct view b = call->in[1];
    void *turned = NULL;
    enum status status = mem_buffer_new(view_count(b) * (int64_t)sizeof(float), "a turned matrix", &turned);
    if (status != STATUS_OK) return status;
    struct op_call straight = *call;
    straight.in[1] = view_new(turned, DTYPE_F32, b.cols, b.rows);
    straight.params.matmul.transpose_b = false;
    for (int64_t i = 0; i < b.cols; i++)
        for (int64_t j = 0; j < b.rows; j++) view_f32(straight.in[1], i)[j] = view_f32(b, j)[i];
    tile_product(&straight, cut);
    mem_buffer_free(turned);
    return STATUS_OK;
}

enum status cpu_matmul(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view y = call->out[0];
    const struct matmul_params *p = &call->params.matmul;
    int64_t inner = p->transpose_a ? call->in[0].rows : call->in[0].cols;
    struct cut cut = cut_of(y.rows, y.cols, inner);
    if (cut.deep > 1) return deep_product(call, &cut);
    int64_t strip = p->transpose_a ? 0 : strip_rows(y.rows, min_i64(cut.cols, y.cols), inner);
    if (strip > 0) cut.rows = strip, cut.tall = ceil_div(y.rows, strip);
    if (strip > 0 && p->transpose_b) return turned_product(call, &cut);
    tile_product(call, &cut);
    return STATUS_OK;
}
