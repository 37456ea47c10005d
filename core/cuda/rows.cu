// rows_gather, row_squares, gram, product, triangle_inverse: dense matrices in double. Products are the library's (blas.cuh).
//
// rows_gather: elementwise kernel, one double per thread, neighbours in a row; a and y once. row_squares: a warp per row, ROWS rows per
// block. mirror: a thread per element below the diagonal, blocks of 32 x 32 through shared memory as in a transpose (a column more, so
// that columns lie in different banks), half a matrix read and written. triangle_inverse: the identity solved for, so n^3 operations
// where n^3 / 3 would do; it is small beside the factorization that comes before it.
#include "core/cuda/blas.cuh"
#include "core/cuda/device.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/reduce.cuh"
#include "core/cuda/tiling.cuh"

enum { ROWS = 8, SIDE = 32, SIDE_THREADS = 256 };

static __global__ void rows_gather(struct tiling tiles, strided<const double> a, strided<const int32_t> list,
                                   strided<double> y) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int64_t row = list.data ? *list.row(at.row) : at.row;
    y.row(at.row)[at.pack] = a.row(row)[at.pack];
}

static __global__ void row_squares(int64_t n, int64_t cols, strided<const double> a, strided<double> y) {
    int64_t i = blockIdx.x * (int64_t)ROWS + threadIdx.x / WARP;
    double sum = 0;
    if (i < n)
        for (int64_t j = threadIdx.x % WARP; j < cols; j += WARP) sum += a.row(i)[j] * a.row(i)[j];
    sum = warp_sum(sum);
    if (i < n && threadIdx.x % WARP == 0) *y.row(i) = sum;
}

// The lower triangle to the upper one: block (I, J) of the grid, J <= I, reads tile (I, J) and writes tile (J, I).
static __global__ void mirror(int64_t n, strided<double> y) {
    double *tile = shared_memory<double>();
    int64_t row = (int64_t)blockIdx.x * SIDE, col = (int64_t)blockIdx.y * SIDE;
    int x = (int)threadIdx.x % SIDE, first = (int)threadIdx.x / SIDE;
    if (col > row) return;
    for (int i = first; i < SIDE; i += SIDE_THREADS / SIDE)
        if (row + i < n && col + x < n) tile[i * (SIDE + 1) + x] = y.row(row + i)[col + x];
    __syncthreads();
    for (int i = first; i < SIDE; i += SIDE_THREADS / SIDE)
        if (col + i < row + x && row + x < n) y.row(col + i)[row + x] = tile[x * (SIDE + 1) + i];
}

static __global__ void set_identity(struct tiling tiles, strided<double> y) {
    struct tile_place at = place_in(tiles);
    if (at.inside) y.row(at.row)[at.pack] = at.row == at.pack ? 1 : 0;
}

extern "C" enum status cuda_rows_gather(struct backend *backend, const struct op_call *call) {
    struct view list = call->in[1], y = call->out[0];
    struct tiling tiles = tiling_of(y.rows, y.cols);
    strided<const int32_t> rows = {list.rows ? (const int32_t *)list.data : NULL, list.stride};
    return LAUNCH(rows_gather, tiles.blocks, TILE_THREADS, 0, backend, tiles, strided_of<const double>(call->in[0]),
                  rows, strided_of<double>(y));
}

extern "C" enum status cuda_row_squares(struct backend *backend, const struct op_call *call) {
    struct view a = call->in[0];
    int64_t blocks = (a.rows + ROWS - 1) / ROWS;
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    return LAUNCH(row_squares, (unsigned)blocks, ROWS * WARP, 0, backend, a.rows, a.cols, strided_of<const double>(a),
                  strided_of<double>(call->out[0]));
}

extern "C" enum status cuda_gram(struct backend *backend, const struct op_call *call) {
    struct view y = call->out[0];
    unsigned tiles = (unsigned)((y.rows + SIDE - 1) / SIDE);
    enum status status = STATUS_OK;
    REQUIRE(tiles <= 65535, "more blocks than a launch can have");
    TRY(blas_gram(cuda_state_of(backend)->blas, call->params.scaled.factor, call->in[0], y, call->accumulate));
    TRY(LAUNCH(mirror, dim3(tiles, tiles), SIDE_THREADS, SIDE * (SIDE + 1) * sizeof(double), backend, y.rows,
               strided_of<double>(y)));
done:
    return status;
}

extern "C" enum status cuda_product(struct backend *backend, const struct op_call *call) {
    const struct scaled_params *p = &call->params.scaled;
    return blas_double_product(cuda_state_of(backend)->blas, p->factor, call->in[0], p->transpose_a, call->in[1],
                               p->transpose_b, call->out[0], call->accumulate);
}

// Forward substitution leaves exact zeros above the diagonal: they begin as zeros and get multiples of zeros.
extern "C" enum status cuda_triangle_inverse(struct backend *backend, const struct op_call *call) {
    struct view y = call->out[0];
    struct tiling tiles = tiling_of(y.rows, y.cols);
    enum status status = STATUS_OK;
    TRY(LAUNCH(set_identity, tiles.blocks, TILE_THREADS, 0, backend, tiles, strided_of<double>(y)));
    TRY(blas_triangle_solve(cuda_state_of(backend)->blas, call->in[0], y));
done:
    return status;
}
