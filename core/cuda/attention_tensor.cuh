// Tiles of heads in shared memory and products of them on tensor cores, for the bf16 attention kernels.
//
// A tile is [rows, D] bf16, rows tile_pitch apart: 16 bytes more than they are long, an odd number of 16-byte chunks, so that the
// eight rows of a load_tiles lie in different banks. D is the head width d rounded up to 32, 64, 96 or 128, with zeros beyond d.
// A warp owns 16 M rows of what it computes and holds them as fragments x[M][columns / 8][4] of mma_16x8x16: with lane = 4 g + t,
// x[m][n][c] is row 16 m + 8 (c / 2) + g, column 8 n + 2 t + c % 2. Two such column tiles are one left operand of the next product,
// so probabilities never leave registers.
#ifndef DQ_CORE_CUDA_ATTENTION_TENSOR_CUH
#define DQ_CORE_CUDA_ATTENTION_TENSOR_CUH

#include "core/cuda/attention.cuh"

template <int D> constexpr int tile_pitch = D + 8;

// threadIdx.x, which the compiler takes for a new number each time: what follows from it is not kept in registers over loops.
__device__ inline int this_thread() {
#ifdef __CUDACC__
    int x;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
    return x;
#else
    return (int)threadIdx.x;
#endif
}

// Which 16 bytes of 8 rows x 32 columns a lane moves: eight lanes take half of rows r and r + 4, which lie in all banks.
__device__ inline int chunk_row() {
    return this_thread() / 32 * 8 + this_thread() % 32 / 8 + this_thread() / 4 % 2 * 4;
}
__device__ inline int chunk_col() { return this_thread() % 4 * 8; }

// tile [ROWS, D] = rows of a head, asynchronously; zeros at rows >= valid and columns >= d.
template <int D, int ROWS, int THREADS>
__device__ inline void copy_tile(bf16 *tile, const bf16 *from, int64_t stride, int valid, int d) {
    int row = chunk_row(), col = chunk_col();
    tile += row * tile_pitch<D> + col;
    from += row * stride + col;
#pragma unroll
    for (int i = 0; i < ROWS; i += THREADS / 4) {
        if (ROWS % (THREADS / 4) != 0 && row + i >= ROWS) break;
#pragma unroll
        for (int e = 0; e < D; e += 32)
            copy_async(tile + i * tile_pitch<D> + e, from + e, row + i < valid && (e + 32 < D || col + e < d));
        from += THREADS / 4 * stride;
    }
}

// Where a lane's address for load_tiles lies in a 16 x 16 tile: for left operands and transposed right ones (left), and for rows
// of a right operand that is transposed in memory (right).
template <int D> __device__ inline int left_offset() {
    int lane = this_thread() % 32;
    return lane % 16 * tile_pitch<D> + lane / 16 * 8;
}
template <int D> __device__ inline int right_offset() {
    int lane = this_thread() % 32;
    return (lane % 8 + lane / 16 * 8) * tile_pitch<D> + lane / 8 % 2 * 8;
}

// x [16 M, N] = a [16 M, D] b [N, D]^T, a and b in shared memory.
template <int M, int N, int D>
__device__ inline void multiply_rows(float (&x)[M][N / 8][4], const bf16 *a, const bf16 *b) {
    a += left_offset<D>(), b += right_offset<D>();
#pragma unroll
    for (int i = 0; i < M * N / 2; i++) x[i / (N / 2)][i / 4 % (N / 8)][i % 4] = 0;
#pragma unroll
    for (int e = 0; e < D; e += 16) {
        uint32_t left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_tiles(left[m], a + m * 16 * tile_pitch<D> + e);
#pragma unroll
        for (int n = 0; n < N; n += 16) {
            uint32_t right[4];
            load_tiles(right, b + n * tile_pitch<D> + e);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_16x8x16(x[m][n / 8], left[m], right);
                mma_16x8x16(x[m][n / 8 + 1], left[m], right + 2);
            }
        }
    }
}

// y [16 M, D] += x [16 M, N] b [N, D], x rounded to bf16, b in shared memory.
template <int M, int N, int D>
__device__ inline void multiply_weights(float (&y)[M][D / 8][4], const float (&x)[M][N / 8][4], const bf16 *b) {
    b += left_offset<D>();
#pragma unroll
    for (int n = 0; n < N; n += 16) {
        uint32_t left[M][4];
#pragma unroll
        for (int i = 0; i < 4 * M; i++) {
            const float *pair = &x[i / 4][n / 8 + i % 4 / 2][i % 2 * 2];
            left[i / 4][i % 4] = bf16_pair(pair[0], pair[1]);
        }
#pragma unroll
        for (int e = 0; e < D; e += 16) {
            uint32_t right[4];
            load_tiles_transposed(right, b + n * tile_pitch<D> + e);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_16x8x16(y[m][e / 8], left[m], right);
                mma_16x8x16(y[m][e / 8 + 1], left[m], right + 2);
            }
        }
    }
}

// Scores outside the mask become -infinity: x [16 M, N] with rows from `row`, columns from `col`; rows are queries and columns keys,
// or the other way round.
template <int M, int N, bool KEYS_DOWN>
__device__ inline void hide_scores(float (&x)[M][N / 8][4], struct attention_shape s, int row, int col) {
    row += this_thread() % 32 / 4, col += this_thread() % 4 * 2;
#pragma unroll
    for (int k = 0; k < M * N / 2; k++) {
        int m = k / (N / 2), n = k / 4 % (N / 8), c = k % 4;
        int i = row + m * 16 + c / 2 * 8, j = col + n * 8 + c % 2;
        if (KEYS_DOWN ? is_hidden(s, j, i) : is_hidden(s, i, j)) x[m][n][c] = -INFINITY;
    }
}

// The warp's rows [16 M, D] of a head = factor[m][c / 2] x, through rows of shared memory (`tile`) that no other warp uses any more.
template <int M, int D>
__device__ inline void store_rows(const float (&x)[M][D / 8][4], const float (&factor)[M][2], bf16 *tile, bf16 *to,
                                  int64_t stride, int valid, int d) {
    int lane = this_thread() % 32, row = chunk_row() % 8, col = chunk_col();
    bf16 *mine = tile + lane / 4 * tile_pitch<D> + lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int k = 0; k < M * D / 4; k++) {
        int m = k / (D / 4), half = k % 2, n = k / 2 % (D / 8);
        const float *pair = &x[m][n][half * 2];
        *reinterpret_cast<uint32_t *>(mine + (m * 16 + half * 8) * tile_pitch<D> + n * 8) =
            bf16_pair(pair[0] * factor[m][half], pair[1] * factor[m][half]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 16 * M; i += 8)
#pragma unroll
        for (int e = 0; e < D; e += 32)
            if (row + i < valid && (e + 32 < D || col + e < d))
                *reinterpret_cast<uint4 *>(to + (row + i) * stride + col + e) =
                    *reinterpret_cast<const uint4 *>(tile + (row + i) * tile_pitch<D> + col + e);
}

// Runs the statement with D the tile width of head width d.
#define WITH_TILE_WIDTH(D, d, ...)                                                                                     \
    do {                                                                                                               \
        if ((d) <= 32) {                                                                                               \
            enum { D = 32 };                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else if ((d) <= 64) {                                                                                        \
            enum { D = 64 };                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else if ((d) <= 96) {                                                                                        \
            enum { D = 96 };                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            enum { D = 128 };                                                                                          \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

#endif
