// attention on the GPU: softmax over tiles of keys with a running maximum, in powers of two.
//
// attention_tensor (bf16): a block is 128 queries of one head, four warps of 32 rows; queries stay in shared memory, tiles of
// tile_keys keys and values arrive by asynchronous copies, two tiles deep. Scores and probabilities live in registers: 32 rows per
// warp make every fragment of keys and values serve two products, which is what keeps shared memory from being the limit.
//   shared memory: (128 + 2 x 2 x tile_keys) rows of 2 (D + 8) bytes (D = 96: 78 KiB, D = 128: 68 KiB)
// attention_plain (fp32, odd widths): a block is 32 queries of one head, tiles of 32 keys.
//   shared memory: 3 x 32 rows of d floats and a tile of scores
// Bytes: q and o once; k and v once per tile of queries and query head, all but the first time from the L2 cache; lse once.
// Tiles that the mask hides are skipped, and blocks with most tiles start first.
#include "core/cuda/attention_plain.cuh"
#include "core/cuda/attention_tensor.cuh"

enum { QUERIES = 128, M = 2, THREADS = QUERIES / (16 * M) * WARP };

// Keys per tile: as many as registers hold scores of.
template <int D> constexpr int tile_keys = D > 96 ? 32 : 64;

// Scores x become probabilities relative to the largest score so far, in units of log(2) times scale2; sum and y follow.
template <int D, int KEYS>
__device__ inline void soften(float (&x)[M][KEYS / 8][4], float (&y)[M][D / 8][4], float (&largest)[M][2],
                              float (&sum)[M][2], float scale2) {
#pragma unroll
    for (int r = 0; r < 2 * M; r++) {
        int m = r / 2, half = r % 2 * 2;
        float top = largest[m][r % 2];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(x[m][n][half], x[m][n][half + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, 2));
        float shift = top == -INFINITY ? 0 : top * scale2; // a row may see nothing of a tile
        float shrink = power_of_two(largest[m][r % 2] * scale2 - shift), total = 0;
        largest[m][r % 2] = top;
#pragma unroll
        for (int n = 0; n < D / 8; n++) y[m][n][half] *= shrink, y[m][n][half + 1] *= shrink;
#pragma unroll
        for (int n = 0; n < KEYS / 4; n++) {
            float p = power_of_two(x[m][n / 2][half + n % 2] * scale2 - shift);
            x[m][n / 2][half + n % 2] = p;
            total += p;
        }
        sum[m][r % 2] = sum[m][r % 2] * shrink + total;
    }
}

template <int D>
__global__ void __launch_bounds__(THREADS)
    attention_tensor(struct attention_shape s, struct view qkv, struct view o, struct view lse) {
    constexpr int KEYS = tile_keys<D>, tile = KEYS * tile_pitch<D>;
    bf16 *q = shared_memory<bf16>(), *stages = q + QUERIES * tile_pitch<D>;
    struct attention_task task = attention_task(s, s.heads, QUERIES, true);
    int first = task.tile * QUERIES, kv = s.heads + task.head / (s.heads / s.kv_heads);
    struct attention_range range = keys_seen(s, first, QUERIES, KEYS);
    const bf16 *keys = element<const bf16>(qkv, task.row, kv * s.d);
    auto copy_stage = [&](int base, bf16 *stage) {
        const bf16 *from = keys + base * qkv.stride;
        copy_tile<D, KEYS, THREADS>(stage, from, qkv.stride, s.seq_len - base, s.d);
        copy_tile<D, KEYS, THREADS>(stage + tile, from + s.kv_heads * s.d, qkv.stride, s.seq_len - base, s.d);
        copy_async_commit();
    };
    copy_tile<D, QUERIES, THREADS>(q, element<const bf16>(qkv, task.row + first, task.head * s.d), qkv.stride,
                                   s.seq_len - first, s.d);
    copy_stage(range.from, stages);
    int mine = (int)threadIdx.x / WARP * 16 * M; // this warp's rows
    bf16 *rows = q + mine * tile_pitch<D>;
    mine += first;
    float y[M][D / 8][4] = {}, sum[M][2] = {}, largest[M][2];
    for (int r = 0; r < 2 * M; r++) largest[r / 2][r % 2] = -INFINITY;
    for (int base = range.from, stage = 0; base < range.to; base += KEYS, stage ^= 2 * tile) {
        copy_async_wait<0>();
        __syncthreads(); // this tile is there, and nobody reads the other one any more
        if (base + KEYS < range.to) copy_stage(base + KEYS, stages + (stage ^ 2 * tile));
        if (all_hidden(s, mine, 16 * M, base, KEYS)) continue;
        const bf16 *k = stages + stage;
        float x[M][KEYS / 8][4];
        multiply_rows<M, KEYS, D>(x, rows, k);
        if (!all_seen(s, mine, 16 * M, base, KEYS)) hide_scores<M, KEYS, false>(x, s, mine, base);
        soften<D, KEYS>(x, y, largest, sum, s.scale2);
        multiply_weights<M, KEYS, D>(y, x, k + tile);
    }
    for (int r = 0; r < 2 * M; r++) {
        float total = sum[r / 2][r % 2];
        total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
        total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
        int i = mine + (int)threadIdx.x % WARP / 4 + r * 8;
        if (threadIdx.x % 4 == 0 && i < s.seq_len)
            *element<float>(lse, task.row + i, task.head) = largest[r / 2][r % 2] * s.scale + logf(total);
        sum[r / 2][r % 2] = 1 / total;
    }
    store_rows<M, D>(y, sum, rows, element<bf16>(o, task.row + mine, task.head * s.d), o.stride, s.seq_len - mine, s.d);
}

template <typename T, int WIDTH>
__global__ void attention_plain(struct attention_shape s, struct view qkv, struct view o, struct view lse) {
    int tile = PLAIN_ROWS * s.pitch;
    float *q = shared_memory<float>(), *keys = q + tile, *values = keys + tile, *scores = values + tile;
    struct attention_task task = attention_task(s, s.heads, PLAIN_ROWS, true);
    int first = task.tile * PLAIN_ROWS, kv = s.heads + task.head / (s.heads / s.kv_heads);
    struct attention_range range = keys_seen(s, first, PLAIN_ROWS, PLAIN_ROWS);
    load_plain(q, s, element<const T>(qkv, task.row + first, task.head * s.d), qkv.stride, s.seq_len - first);
    float y[2][WIDTH / 16] = {}, sum[2] = {}, largest[2] = {-INFINITY, -INFINITY};
    for (int base = range.from; base < range.to; base += PLAIN_ROWS) {
        const T *k = element<const T>(qkv, task.row + base, kv * s.d), *v = k + s.kv_heads * s.d;
        __syncthreads();
        load_plain(keys, s, k, qkv.stride, s.seq_len - base);
        load_plain(values, s, v, qkv.stride, s.seq_len - base);
        __syncthreads();
        float x[2][2] = {};
        multiply_plain_rows(x, s, q, keys);
        hide_plain<false>(x, s, first, base);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float top = fmaxf(largest[i], s.scale2 * row_largest(fmaxf(x[i][0], x[i][1])));
            float shift = top == -INFINITY ? 0 : top, shrink = exp2f(largest[i] - shift);
            largest[i] = top;
#pragma unroll
            for (int e = 0; e < WIDTH / 16; e++) y[i][e] *= shrink;
            sum[i] *= shrink;
#pragma unroll
            for (int j = 0; j < 2; j++) x[i][j] = exp2f(s.scale2 * x[i][j] - shift), sum[i] += x[i][j];
        }
        multiply_plain_weights<WIDTH>(y, s, x, scores, values);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float total = row_sum(sum[i]);
        int row = first + plain_y() + 16 * i;
        if (plain_x() == 0 && row < s.seq_len)
            *element<float>(lse, task.row + row, task.head) = (float)(largest[i] * LOG_2) + logf(total);
        sum[i] = 1 / total;
    }
    store_plain<T, WIDTH>(s, y, sum, element<T>(o, task.row + first, task.head * s.d), o.stride, s.seq_len - first);
}

extern "C" enum status cuda_attention(struct backend *backend, const struct op_call *call) {
    struct attention_shape s = attention_shape(&call->params.attention, call->params.attention.seq_len);
    struct view qkv = call->in[0], o = call->out[0], lse = call->out[1];
    enum status status = check_head_width(s);
    if (status != STATUS_OK || qkv.rows == 0) return status;
    if (suits_tensor_cores(s, qkv) && is_wide(o)) {
        unsigned blocks = attention_blocks(s, qkv.rows, s.heads, QUERIES);
        WITH_TILE_WIDTH(D, s.d,
                        status = LAUNCH(attention_tensor<D>, blocks, THREADS,
                                        2 * (QUERIES + 4 * tile_keys<D>)*tile_pitch<D>, backend, s, qkv, o, lse));
        return status;
    }
    unsigned blocks = attention_blocks(s, qkv.rows, s.heads, PLAIN_ROWS);
    WITH_PLAIN(T, WIDTH, qkv.dtype, s.d,
               status = LAUNCH((attention_plain<T, WIDTH>), blocks, PLAIN_THREADS, plain_bytes(s, 3, 1), backend, s,
                               qkv, o, lse));
    return status;
}
