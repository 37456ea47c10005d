// What the attention kernels share: the shape of a call, which keys a query sees, how blocks of rows are dealt out.
// Positions within a sequence are int; offsets into memory are 64-bit.
#ifndef DQ_CORE_CUDA_ATTENTION_CUH
#define DQ_CORE_CUDA_ATTENTION_CUH

#include "core/cuda/kernel.cuh"

#define LOG2_E 1.4426950408889634
#define LOG_2 0.6931471805599453

struct attention_shape {
    int seq_len, window; // query i sees the keys i - window + 1 .. i; window >= 1
    int heads, kv_heads, d;
    int pitch; // of rows of fp32 tiles: d in whole fours, an odd number of them against bank conflicts
    float scale,
        scale2; // of the products of queries and keys; the same times log2(e), so that softmax is a power of two
};

inline struct attention_shape attention_shape(const struct attention_params *p, int64_t length) {
    int64_t window = p->window > 0 && p->window < length ? p->window : length;
    struct attention_shape s = {(int)length, (int)window, (int)p->heads, (int)p->kv_heads, (int)p->head_dim};
    s.pitch = (((s.d + 3) / 4) | 1) * 4;
    s.scale = (float)p->scale, s.scale2 = (float)(p->scale * LOG2_E);
    return s;
}

template <typename T> __device__ inline T *element(struct view v, int64_t row, int64_t col) {
    return static_cast<T *>(v.data) + row * v.stride + col;
}

__device__ inline int least(int a, int b) { return a < b ? a : b; }
__device__ inline int most(int a, int b) { return a > b ? a : b; }
__device__ inline float power_of_two(float x) {
#ifdef __CUDACC__
    float y; // 2 ulp; numbers below 2^-126 become 0
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// Queries i .. i + n_i - 1 and keys j .. j + n_j - 1: no pair is seen; every pair is seen.
__device__ inline bool all_hidden(struct attention_shape s, int i, int n_i, int j, int n_j) {
    return j > i + n_i - 1 || j + n_j - 1 <= i - s.window;
}
__device__ inline bool all_seen(struct attention_shape s, int i, int n_i, int j, int n_j) {
    return j + n_j - 1 <= i && j > i + n_i - 1 - s.window;
}
__device__ inline bool is_hidden(struct attention_shape s, int i, int j) { return j > i || j <= i - s.window; }

// What a block of threads works on: `tile` of the rows of one head (of `heads`) of one sequence, which starts at `row`.
struct attention_task {
    int tile, head;
    int64_t sequence, row;
};

// Tiles with most work first: it is the last ones that the device waits for.
__device__ inline struct attention_task attention_task(struct attention_shape s, int heads, int tile_rows,
                                                       bool last_first) {
    int tiles = (s.seq_len + tile_rows - 1) / tile_rows, tile = (int)(blockIdx.x % tiles);
    int64_t rest = blockIdx.x / tiles, sequence = rest / heads;
    return {last_first ? tiles - 1 - tile : tile, (int)(rest % heads), sequence, sequence * s.seq_len};
}
inline unsigned attention_blocks(struct attention_shape s, int64_t rows, int heads, int tile_rows) {
    return (unsigned)(rows / s.seq_len * heads * ((s.seq_len + tile_rows - 1) / tile_rows));
}

// The keys that queries first .. first + n - 1 see, and the queries that see keys first .. first + n - 1: from, to.
struct attention_range {
    int from, to;
};
__device__ inline struct attention_range keys_seen(struct attention_shape s, int first, int n, int tile) {
    return {most(0, first - s.window + 1) / tile * tile, least(first + n, s.seq_len)};
}
__device__ inline struct attention_range queries_seeing(struct attention_shape s, int first, int n) {
    return {first, least(first + n - 1 + s.window, s.seq_len)};
}

// Whether the tensor-core kernels take a call: their copies are 16 bytes wide.
inline bool is_wide(struct view v) { return (uintptr_t)v.data % 16 == 0 && v.stride % 8 == 0; }
inline bool suits_tensor_cores(struct attention_shape s, struct view qkv) {
    return qkv.dtype == DTYPE_BF16 && is_wide(qkv) && s.d % 16 == 0 && s.d <= 128 && s.scale > 0;
}

#endif
