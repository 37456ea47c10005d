// attention_grad on the GPU: probabilities are recomputed from lse as powers of two, sums run in a fixed order.
//
//   P = e^(S - lse), S = scale Q K^T      dP = dO V^T        dS = P (dP - delta), delta_i = sum_e do_ie o_ie
//   dQ = scale dS K      dK = scale dS^T Q      dV = P^T dO
//
// Three kernels: attention_rows writes lse in units of log(2) and delta to scratch, one run per head [seq_len up to a multiple of
// ROWS], infinity and 0 beyond the sequence, so that no later tile asks where it ends; then one kernel, twice. Its blocks own ROWS rows
// with two operands A, B and walk over tiles of columns with operands C, E:
//
//   over keys,    rows queries:  A = Q, B = dO, C = K, E = V    first += dS C: dQ
//   over queries, rows keys:     A = K, B = V, C = Q, E = dO    first += dS^T C: dK, second += P^T E: dV
//
// with S = A C^T, dP = B E^T in both (the second time transposed), so that what a block sums stays in its registers and nothing is
// added in device memory. That is seven products where five are the least; one pass with five would add dQ from all blocks of keys
// in the order of a semaphore, or write it once per block of keys: T / 128 times dQ in fp32.
//
// attention_grad_tensor (bf16): 128 rows per block, columns by asynchronous copies, two tiles deep; scores in registers.
//   shared memory: (2 x 128 + 4 x columns) rows of 2 (D + 8) bytes (most: over queries, D = 96: 105 KiB)
// attention_grad_plain (fp32, odd widths): 32 rows, tiles of 32 columns.
//   shared memory: 4 x 32 rows of d floats and a tile of scores
// Bytes: qkv, o, do once and dqkv once; columns once per block of rows, all but the first time from the L2 cache; 8 bytes of
// scratch per row and head.
#include "core/cuda/attention_plain.cuh"
#include "core/cuda/attention_tensor.cuh"
#include "core/cuda/device.cuh"
#include "core/cuda/reduce.cuh"

enum { ROWS = 128, ROWS_THREADS = 256 };

// Scratch of one head: lse [length], then delta [length].
__device__ inline int scratch_length(struct attention_shape s) { return (s.seq_len + ROWS - 1) / ROWS * ROWS; }
__device__ inline const float *scratch_of(struct attention_shape s, const float *scratch, int64_t sequence, int head) {
    return scratch + (sequence * s.heads + head) * 2 * scratch_length(s);
}

// One warp per row and head.
template <typename T>
__global__ void attention_rows(struct attention_shape s, int64_t runs, struct view o, struct view lse, struct view dout,
                               float *scratch) {
    int length = scratch_length(s), lane = (int)threadIdx.x % WARP;
    int64_t warp = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / WARP, run = warp / length;
    int i = (int)(warp % length), head = (int)(run % s.heads);
    int64_t row = run / s.heads * s.seq_len + i;
    if (run >= runs) return;
    float delta = 0;
    if (i < s.seq_len) {
        const T *a = element<const T>(o, row, head * s.d), *b = element<const T>(dout, row, head * s.d);
        for (int e = lane; e < s.d; e += WARP) delta += to_float(a[e]) * to_float(b[e]);
        delta = warp_sum(delta);
    }
    if (lane > 0) return;
    float *to = scratch + run * 2 * length + i;
    to[0] = i < s.seq_len ? (float)((double)*element<float>(lse, row, head) * LOG2_E) : INFINITY;
    to[length] = delta;
}

// to = lse and delta [2, N] of N rows of a head, asynchronously.
template <int N> __device__ inline void copy_scratch(float *to, const float *from, int length) {
    int part = (int)threadIdx.x / (N / 4), at = (int)threadIdx.x % (N / 4) * 4;
    if (part < 2) copy_async(to + part * N + at, from + part * length + at, true);
}

// What a block works on: rows `first` .. of a head, columns from .. to - 1 of each of `group` heads, the first being `head`.
struct grad_task {
    struct attention_task at;
    int first, from, to, group, head;
    int64_t a, b, c, e; // first columns in their views of the operands A, B, of C, E of the first head
};

template <bool OVER_QUERIES>
__device__ inline struct grad_task grad_task(struct attention_shape s, int rows, int cols) {
    struct grad_task t;
    int shared = s.heads / s.kv_heads;
    t.at = attention_task(s, OVER_QUERIES ? s.kv_heads : s.heads, rows, !OVER_QUERIES);
    t.first = t.at.tile * rows;
    struct attention_range range = OVER_QUERIES ? queries_seeing(s, t.first, rows) : keys_seen(s, t.first, rows, cols);
    t.from = range.from, t.to = range.to;
    t.group = OVER_QUERIES ? shared : 1, t.head = OVER_QUERIES ? t.at.head * shared : t.at.head;
    int64_t query = (int64_t)t.head * s.d,
            key = (int64_t)(s.heads + (OVER_QUERIES ? t.at.head : t.head / shared)) * s.d;
    int64_t value = key + (int64_t)s.kv_heads * s.d;
    t.a = OVER_QUERIES ? key : query, t.b = OVER_QUERIES ? value : query;
    t.c = OVER_QUERIES ? query : key, t.e = OVER_QUERIES ? query : value;
    return t;
}

// A warp has 16 m rows; columns of a tile and m as many as registers hold.
template <int D, bool OVER_QUERIES> struct grad_tiles {
    static constexpr int m = OVER_QUERIES ? 1 : 2, warps = ROWS / (16 * m), threads = warps * WARP;
    static constexpr int cols = OVER_QUERIES && D <= 96 ? 64 : 32;
    // In units of bf16: C, E, and where columns are queries their lse and delta; the other way round those of the rows.
    static constexpr int stage = 2 * cols * tile_pitch<D> + (OVER_QUERIES ? 4 * cols : 0);
    static constexpr int64_t bytes = 2 * (2 * ROWS * tile_pitch<D> + (OVER_QUERIES ? 0 : 4 * ROWS) + 2 * stage);
};

template <int D, bool OVER_QUERIES>
__global__ void __launch_bounds__(grad_tiles<D, OVER_QUERIES>::threads)
    attention_grad_tensor(struct attention_shape s, struct view qkv, struct view dout, const float *scratch,
                          struct view dqkv) {
    typedef grad_tiles<D, OVER_QUERIES> tiles;
    constexpr int M = tiles::m, N = tiles::cols, tile = N * tile_pitch<D>;
    bf16 *a = shared_memory<bf16>(), *b = a + ROWS * tile_pitch<D>, *stages = b + ROWS * tile_pitch<D>;
    float *own = (float *)stages; // lse and delta of the rows
    if (!OVER_QUERIES) stages += 4 * ROWS;
    struct grad_task t = grad_task<OVER_QUERIES>(s, ROWS, N);
    struct view e_view = OVER_QUERIES ? dout : qkv, b_view = OVER_QUERIES ? qkv : dout;
    int steps = (t.to - t.from + N - 1) / N, length = scratch_length(s), lane = (int)threadIdx.x % WARP;
    auto copy_stage = [&](int step, bf16 *to) {
        int head = step / steps, base = t.from + step % steps * N;
        const bf16 *c = element<const bf16>(qkv, t.at.row + base, t.c + head * s.d);
        const bf16 *e = element<const bf16>(e_view, t.at.row + base, t.e + head * s.d);
        copy_tile<D, N, tiles::threads>(to, c, qkv.stride, s.seq_len - base, s.d);
        copy_tile<D, N, tiles::threads>(to + tile, e, e_view.stride, s.seq_len - base, s.d);
        if (OVER_QUERIES)
            copy_scratch<N>((float *)(to + 2 * tile), scratch_of(s, scratch, t.at.sequence, t.head + head) + base,
                            length);
        copy_async_commit();
    };
    copy_tile<D, ROWS, tiles::threads>(a, element<const bf16>(qkv, t.at.row + t.first, t.a), qkv.stride,
                                       s.seq_len - t.first, s.d);
    copy_tile<D, ROWS, tiles::threads>(b, element<const bf16>(b_view, t.at.row + t.first, t.b), b_view.stride,
                                       s.seq_len - t.first, s.d);
    if (!OVER_QUERIES) copy_scratch<ROWS>(own, scratch_of(s, scratch, t.at.sequence, t.head) + t.first, length);
    copy_stage(0, stages);
    int mine = (int)threadIdx.x / WARP * 16 * M; // this warp's rows
    a += mine * tile_pitch<D>, b += mine * tile_pitch<D>, mine += t.first;
    own += mine - t.first + lane / 4;
    float first[M][D / 8][4] = {}, second[OVER_QUERIES ? M : 1][D / 8][4] = {};
    for (int step = 0, stage = 0; step < t.group * steps; step++, stage ^= tiles::stage) {
        copy_async_wait<0>();
        __syncthreads(); // this tile is there, and nobody reads the other one any more
        if (step + 1 < t.group * steps) copy_stage(step + 1, stages + (stage ^ tiles::stage));
        int base = t.from + step % steps * N;
        int query = OVER_QUERIES ? base : mine, queries = OVER_QUERIES ? N : 16 * M;
        int key = OVER_QUERIES ? mine : base, keys = OVER_QUERIES ? 16 * M : N;
        if (all_hidden(s, query, queries, key, keys)) continue;
        const bf16 *c = stages + stage, *e = c + tile;
        const float *col = (const float *)(e + tile) + lane % 4 * 2;
        float p[M][N / 8][4], dp[M][N / 8][4];
        multiply_rows<M, N, D>(p, a, c);
        if (!all_seen(s, query, queries, key, keys)) hide_scores<M, N, OVER_QUERIES>(p, s, mine, base);
#pragma unroll
        for (int k = 0; k < M * N / 2; k++) {
            int m = k / (N / 2), n = k / 4 % (N / 8), i = k % 4;
            float below = OVER_QUERIES ? col[n * 8 + i % 2] : own[m * 16 + i / 2 * 8];
            p[m][n][i] = power_of_two(p[m][n][i] * s.scale2 - below);
        }
        if constexpr (OVER_QUERIES) multiply_weights<M, N, D>(second, p, e);
        multiply_rows<M, N, D>(dp, b, e);
#pragma unroll
        for (int k = 0; k < M * N / 2; k++) {
            int m = k / (N / 2), n = k / 4 % (N / 8), i = k % 4;
            float delta = OVER_QUERIES ? col[N + n * 8 + i % 2] : own[ROWS + m * 16 + i / 2 * 8];
            dp[m][n][i] = p[m][n][i] * (dp[m][n][i] - delta);
        }
        multiply_weights<M, N, D>(first, dp, c);
    }
    float factor[M][2];
    bf16 *to = element<bf16>(dqkv, t.at.row + mine, t.a);
    for (int r = 0; r < 2 * M; r++) factor[r / 2][r % 2] = s.scale;
    store_rows<M, D>(first, factor, a, to, dqkv.stride, s.seq_len - mine, s.d);
    if constexpr (OVER_QUERIES) {
        for (int r = 0; r < 2 * M; r++) factor[r / 2][r % 2] = 1;
        store_rows<M, D>(second, factor, b, to + (t.b - t.a), dqkv.stride, s.seq_len - mine, s.d);
    }
}

template <typename T, int WIDTH, bool OVER_QUERIES>
__global__ void attention_grad_plain(struct attention_shape s, struct view qkv, struct view dout, const float *scratch,
                                     struct view dqkv) {
    int tile = PLAIN_ROWS * s.pitch, length = scratch_length(s);
    float *a = shared_memory<float>(), *b = a + tile, *c = b + tile, *e = c + tile, *scores = e + tile;
    struct grad_task t = grad_task<OVER_QUERIES>(s, PLAIN_ROWS, PLAIN_ROWS);
    struct view e_view = OVER_QUERIES ? dout : qkv, b_view = OVER_QUERIES ? qkv : dout;
    int valid = s.seq_len - t.first, row = t.first + plain_y();
    load_plain(a, s, element<const T>(qkv, t.at.row + t.first, t.a), qkv.stride, valid);
    load_plain(b, s, element<const T>(b_view, t.at.row + t.first, t.b), b_view.stride, valid);
    float first[2][WIDTH / 16] = {}, second[OVER_QUERIES ? 2 : 1][WIDTH / 16] = {};
    for (int head = 0; head < t.group; head++) {
        const float *from = scratch_of(s, scratch, t.at.sequence, t.head + head);
        for (int base = t.from; base < t.to; base += PLAIN_ROWS) {
            const T *c_from = element<const T>(qkv, t.at.row + base, t.c + head * s.d);
            const T *e_from = element<const T>(e_view, t.at.row + base, t.e + head * s.d);
            __syncthreads();
            load_plain(c, s, c_from, qkv.stride, s.seq_len - base);
            load_plain(e, s, e_from, e_view.stride, s.seq_len - base);
            __syncthreads();
            float p[2][2] = {}, dp[2][2] = {};
            multiply_plain_rows(p, s, a, c);
            multiply_plain_rows(dp, s, b, e);
            hide_plain<OVER_QUERIES>(p, s, t.first, base);
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const float *at = from + (OVER_QUERIES ? base + plain_x() + k % 2 * 16 : row + k / 2 * 16);
                p[k / 2][k % 2] = exp2f(p[k / 2][k % 2] * s.scale2 - at[0]);
                dp[k / 2][k % 2] = p[k / 2][k % 2] * (dp[k / 2][k % 2] - at[length]);
            }
            if constexpr (OVER_QUERIES) multiply_plain_weights<WIDTH>(second, s, p, scores, e);
            multiply_plain_weights<WIDTH>(first, s, dp, scores, c);
        }
    }
    float factor[2] = {s.scale, s.scale};
    T *to = element<T>(dqkv, t.at.row + t.first, t.a);
    store_plain<T, WIDTH>(s, first, factor, to, dqkv.stride, valid);
    if constexpr (OVER_QUERIES) {
        factor[0] = factor[1] = 1;
        store_plain<T, WIDTH>(s, second, factor, to + (t.b - t.a), dqkv.stride, valid);
    }
}

template <int D>
static enum status run_tensor(struct backend *backend, struct attention_shape s, const struct op_call *call,
                              const float *scratch) {
    struct view qkv = call->in[0], dout = call->in[3], dqkv = call->out[0];
    enum status status =
        LAUNCH((attention_grad_tensor<D, true>), attention_blocks(s, qkv.rows, s.kv_heads, ROWS),
               (grad_tiles<D, true>::threads), (grad_tiles<D, true>::bytes), backend, s, qkv, dout, scratch, dqkv);
    if (status != STATUS_OK) return status;
    return LAUNCH((attention_grad_tensor<D, false>), attention_blocks(s, qkv.rows, s.heads, ROWS),
                  (grad_tiles<D, false>::threads), (grad_tiles<D, false>::bytes), backend, s, qkv, dout, scratch, dqkv);
}

template <typename T, int WIDTH>
static enum status run_plain(struct backend *backend, struct attention_shape s, const struct op_call *call,
                             const float *scratch) {
    struct view qkv = call->in[0], dout = call->in[3], dqkv = call->out[0];
    enum status status =
        LAUNCH((attention_grad_plain<T, WIDTH, true>), attention_blocks(s, qkv.rows, s.kv_heads, PLAIN_ROWS),
               PLAIN_THREADS, plain_bytes(s, 4, 1), backend, s, qkv, dout, scratch, dqkv);
    if (status != STATUS_OK) return status;
    return LAUNCH((attention_grad_plain<T, WIDTH, false>), attention_blocks(s, qkv.rows, s.heads, PLAIN_ROWS),
                  PLAIN_THREADS, plain_bytes(s, 4, 1), backend, s, qkv, dout, scratch, dqkv);
}

extern "C" enum status cuda_attention_grad(struct backend *backend, const struct op_call *call) {
    struct attention_shape s = attention_shape(&call->params.attention, call->params.attention.seq_len);
    struct view qkv = call->in[0], o = call->in[1], lse = call->in[2], dout = call->in[3];
    enum status status = check_head_width(s);
    if (status != STATUS_OK || qkv.rows == 0) return status;
    int64_t runs = qkv.rows / s.seq_len * s.heads, floats = runs * 2 * ((s.seq_len + ROWS - 1) / ROWS * ROWS);
    float *scratch = NULL;
    status = device_scratch(backend, 4 * floats, (void **)&scratch);
    if (status != STATUS_OK) return status;
    WITH_FLOAT(T, qkv.dtype,
               status = LAUNCH(attention_rows<T>, (unsigned)(floats / 2 / (ROWS_THREADS / WARP)), ROWS_THREADS, 0,
                               backend, s, runs, o, lse, dout, scratch));
    if (status != STATUS_OK) return status;
    if (suits_tensor_cores(s, qkv) && is_wide(dout) && is_wide(call->out[0]))
        WITH_TILE_WIDTH(D, s.d, status = run_tensor<D>(backend, s, call, scratch));
    else
        WITH_PLAIN(T, WIDTH, qkv.dtype, s.d, status = (run_plain<T, WIDTH>(backend, s, call, scratch)));
    return status;
}
