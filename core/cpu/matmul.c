// matmul on the CPU.
//
// The output is cut into tiles that depend on its shape only; each tile is one single-threaded product over the whole
// inner dimension, tiles over threads.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

#include <cblas.h>

enum { TILE_ROWS = 256, TILE_COLS = 512 };

static void tile(const struct op_call *call, int64_t i, int64_t j) {
    struct view a = call->in[0], b = call->in[1], y = call->out[0];
    bool ta = call->params.matmul.transpose_a, tb = call->params.matmul.transpose_b;
    int64_t inner = ta ? a.rows : a.cols;
    int64_t m = min_i64(TILE_ROWS, y.rows - i), n = min_i64(TILE_COLS, y.cols - j);
    const float *a_tile = ta ? view_f32(a, 0) + i : view_f32(a, i);
    const float *b_tile = tb ? view_f32(b, j) : view_f32(b, 0) + j;
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)inner, 1, a_tile, (int)a.stride, b_tile, (int)b.stride, call->accumulate ? 1 : 0,
                view_f32(y, i) + j, (int)y.stride);
}

enum status cpu_matmul(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view y = call->out[0];
    int64_t tall = ceil_div(y.rows, TILE_ROWS), wide = ceil_div(y.cols, TILE_COLS);
#pragma omp parallel for collapse(2) schedule(dynamic) if (tall * wide > 1)
    for (int64_t i = 0; i < tall; i++)
        for (int64_t j = 0; j < wide; j++) tile(call, i * TILE_ROWS, j * TILE_COLS);
    return STATUS_OK;
}
