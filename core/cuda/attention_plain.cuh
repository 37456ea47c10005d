// Tiles of heads in shared memory and products of them in plain fp32, for the attention kernels of fp32, of head widths
// that tensor cores do not take, and of unaligned views.
//
// A block of 256 threads is 16 x 16: a thread (y, x) has rows y and y + 16 of a tile of 32 rows, columns x and x + 16 of a tile of
// scores [32, 32], and columns 4 x .. 4 x + 3 of every 64 of an output row. The 16 threads of a row are half a warp, so that sums
// along rows are shuffles and scores pass from one product to the next without a barrier of the block.
#ifndef DQ_CORE_CUDA_ATTENTION_PLAIN_CUH
#define DQ_CORE_CUDA_ATTENTION_PLAIN_CUH

#include "core/cuda/attention.cuh"

enum { PLAIN_ROWS = 32, PLAIN_THREADS = 256, PLAIN_SCORES = PLAIN_ROWS + 4, PLAIN_WIDEST = 256 };

struct alignas(16) four {
    float x[4];
};

inline int64_t plain_bytes(struct attention_shape s, int tiles, int score_tiles) {
    return 4 * PLAIN_ROWS * ((int64_t)tiles * s.pitch + (int64_t)score_tiles * PLAIN_SCORES);
}

__device__ inline int plain_y() { return (int)threadIdx.x / 16; }
__device__ inline int plain_x() { return (int)threadIdx.x % 16; }
__device__ inline int plain_col(int part) { return part / 4 * 64 + 4 * plain_x() + part % 4; } // of output y[..][part]

// tile [32, pitch] = rows of a head, zeros at rows >= valid and columns >= d.
template <typename T>
__device__ inline void load_plain(float *tile, struct attention_shape s, const T *from, int64_t stride, int valid) {
    for (int i = (int)threadIdx.x / WARP; i < PLAIN_ROWS; i += PLAIN_THREADS / WARP)
        for (int e = (int)threadIdx.x % WARP; e < s.pitch; e += WARP)
            tile[i * s.pitch + e] = i < valid && e < s.d ? to_float(from[i * stride + e]) : 0;
}

// x += a b^T, tiles of 32 rows.
__device__ inline void multiply_plain_rows(float (&x)[2][2], struct attention_shape s, const float *a, const float *b) {
    a += plain_y() * s.pitch, b += plain_x() * s.pitch;
    for (int e = 0; e < s.d; e += 4) {
        four left[2], right[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            left[i] = *reinterpret_cast<const four *>(a + i * 16 * s.pitch + e);
            right[i] = *reinterpret_cast<const four *>(b + i * 16 * s.pitch + e);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int k = 0; k < 4; k++) x[i / 2][i % 2] += left[i / 2].x[k] * right[i % 2].x[k];
    }
}

// y [32, d] += x b with b [32, d]; x goes through `scores` [32, PLAIN_SCORES], of which a half-warp uses its own rows only.
// WIDTH: d rounded up to 64, 128 or 256.
template <int WIDTH>
__device__ inline void multiply_plain_weights(float (&y)[2][WIDTH / 16], struct attention_shape s,
                                              const float (&x)[2][2], float *scores, const float *b) {
    scores += plain_y() * PLAIN_SCORES, b += 4 * plain_x();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) scores[i / 2 * 16 * PLAIN_SCORES + i % 2 * 16 + plain_x()] = x[i / 2][i % 2];
    __syncwarp();
    for (int j = 0; j < PLAIN_ROWS; j++) {
        float left[2] = {scores[j], scores[16 * PLAIN_SCORES + j]};
#pragma unroll
        for (int e = 0; e < WIDTH; e += 64) {
            if (4 * plain_x() + e >= s.d) continue;
            four right = *reinterpret_cast<const four *>(b + j * s.pitch + e);
#pragma unroll
            for (int k = 0; k < 8; k++) y[k / 4][e / 16 + k % 4] += left[k / 4] * right.x[k % 4];
        }
    }
}

// Rows of a head = factor y, except rows >= valid.
template <typename T, int WIDTH>
__device__ inline void store_plain(struct attention_shape s, const float (&y)[2][WIDTH / 16], const float (&factor)[2],
                                   T *to, int64_t stride, int valid) {
#pragma unroll
    for (int k = 0; k < WIDTH / 8; k++) {
        int i = k / (WIDTH / 16), part = k % (WIDTH / 16), row = plain_y() + 16 * i, col = plain_col(part);
        if (row < valid && col < s.d) to[row * stride + col] = float_to<T>(factor[i] * y[i][part]);
    }
}

// Largest, and sum, over the 16 threads of a row.
__device__ inline float row_largest(float value) {
    for (int step = 8; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, step));
    return value;
}
__device__ inline float row_sum(float value) {
    for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
    return value;
}

// Scores outside the mask become -infinity; the tile starts at (row, col), queries and keys or the other way round.
template <bool KEYS_DOWN>
__device__ inline void hide_plain(float (&x)[2][2], struct attention_shape s, int row, int col) {
    row += plain_y(), col += plain_x();
#pragma unroll
    for (int k = 0; k < 4; k++) {
        int i = row + k / 2 * 16, j = col + k % 2 * 16;
        if (KEYS_DOWN ? is_hidden(s, j, i) : is_hidden(s, i, j)) x[k / 2][k % 2] = -INFINITY;
    }
}

// Runs the statement with T the type of the numbers and WIDTH the width of output rows.
#define WITH_PLAIN(T, WIDTH, dtype, d, ...)                                                                            \
    do {                                                                                                               \
        if ((d) <= 64) {                                                                                               \
            enum { WIDTH = 64 };                                                                                       \
            WITH_FLOAT(T, dtype, __VA_ARGS__);                                                                         \
        } else if ((d) <= 128) {                                                                                       \
            enum { WIDTH = 128 };                                                                                      \
            WITH_FLOAT(T, dtype, __VA_ARGS__);                                                                         \
        } else {                                                                                                       \
            enum { WIDTH = 256 };                                                                                      \
            WITH_FLOAT(T, dtype, __VA_ARGS__);                                                                         \
        }                                                                                                              \
    } while (0)

// STATUS_UNSUPPORTED for heads wider than the kernels of this folder take.
inline enum status check_head_width(struct attention_shape s) {
    if (s.d <= PLAIN_WIDEST) return STATUS_OK;
    return status_set(STATUS_UNSUPPORTED, "device cuda takes attention heads of at most %d columns, not %d",
                      PLAIN_WIDEST, s.d);
}

#endif
