// Products of samples: y_s = dy_s^T x_s, a gradient per sample.
//
// A task is a block of rows of one sample's product, so that one thread makes a sample's numbers right before the same thread
// reads them (sketch.c shares out samples in the same way). Small products are made eight rows by 32 columns in registers,
// straight from dy, whose eight columns are gathered first (they lie a row of dy apart), and x; large ones by BLAS. Which one
// follows from the shape of one sample alone, and so do the bits.
#include "core/cpu/cpu.h"
#include "core/cpu/eight_rows.h"
#include "core/cpu/parts.h"

#include <cblas.h>

enum { DEPTH = 128, WIDE = 32, BLOCK_ROWS = 64, BLAS_ROWS = 256, SMALL_COLS = 256, SMALL_DEPTH = 512 };

struct factors {
    const float *dy, *x; // of one sample
    int64_t dy_stride, x_stride, depth, cols;
};

// y [8, n] (+)= a b, n <= WIDE, of which only `rows` rows exist: a multiple of eight columns in place, the rest in a copy.
static void add_block(const float *a, const float *b, int64_t b_stride, int64_t depth, float *y, int64_t stride,
                      int64_t rows, int64_t n, bool add) {
    if (rows == 8 && n % 8 == 0) {
        eight_rows(a, 1, 8, b, b_stride, y, stride, n, depth, add);
        return;
    }
    float block[8 * WIDE] = {0}, last[DEPTH * 8];
    int64_t whole = n / 8 * 8;
    for (int64_t i = 0; add && i < rows; i++) memcpy(block + i * WIDE, y + i * stride, (size_t)n * sizeof *y);
    if (whole > 0) eight_rows(a, 1, 8, b, b_stride, block, WIDE, whole, depth, true);
    for (int64_t e = 0; whole < n && e < depth; e++)
        for (int64_t l = 0; l < 8; l++) last[e * 8 + l] = whole + l < n ? b[e * b_stride + whole + l] : 0;
    if (whole < n) eight_rows(a, 1, 8, last, 8, block + whole, WIDE, 8, depth, true);
    for (int64_t i = 0; i < rows; i++) memcpy(y + i * stride, block + i * WIDE, (size_t)n * sizeof *y);
}

// Rows first .. first + rows - 1 of the product.
static void small_rows(const struct factors *f, int64_t first, int64_t rows, float *y, int64_t stride, bool add) {
    float a[DEPTH * 8];
    for (int64_t done = 0; done < f->depth; done += DEPTH) {
        int64_t depth = min_i64(DEPTH, f->depth - done);
        const float *x = f->x + done * f->x_stride;
        for (int64_t i = 0; i < rows; i += 8) {
            const float *dy = f->dy + done * f->dy_stride + first + i;
            int64_t n = min_i64(8, rows - i);
            for (int64_t e = 0; e < depth; e++, dy += f->dy_stride) {
                if (n == 8)
                    memcpy(a + e * 8, dy, 8 * sizeof *a);
                else
                    for (int64_t l = 0; l < 8; l++) a[e * 8 + l] = l < n ? dy[l] : 0;
            }
            for (int64_t j = 0; j < f->cols; j += WIDE)
                add_block(a, x + j, f->x_stride, depth, y + i * stride + j, stride, n, min_i64(WIDE, f->cols - j),
                          add || done > 0);
        }
    }
}

enum status cpu_sample_products(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view dy = call->in[0], x = call->in[1], y = call->out[0];
    int64_t rows = dy.cols, samples = y.rows / rows, depth = dy.rows / samples;
    bool small = x.cols <= SMALL_COLS && depth <= SMALL_DEPTH, add = call->accumulate;
    int64_t block = small ? BLOCK_ROWS : BLAS_ROWS, blocks = ceil_div(rows, block);
#pragma omp parallel for collapse(2) schedule(static) if (samples * blocks > 1)
    for (int64_t s = 0; s < samples; s++)
        for (int64_t k = 0; k < blocks; k++) {
            struct factors f = {view_f32(dy, s * depth), view_f32(x, s * depth), dy.stride, x.stride, depth, x.cols};
            int64_t first = k * block, n = min_i64(block, rows - first);
            float *to = view_f32(y, s * rows + first);
            if (small)
                small_rows(&f, first, n, to, y.stride, add);
            else
                cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n, (int)f.cols, (int)depth, 1, f.dy + first,
                            (int)f.dy_stride, f.x, (int)f.x_stride, add ? 1 : 0, to, (int)y.stride);
        }
    return STATUS_OK;
}
