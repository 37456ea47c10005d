// attention_cached on the GPU: few queries against a long cache of keys and values of one sequence.
//
// A block is one query, one head and one of `splits` ranges of keys: 16 streams of 8 lanes, each with every 16th key, its own running
// maximum, and WIDTH / 8 columns of q and of the output per lane, so that a key or value row is read in packs of 16 bytes by
// neighbouring lanes. Streams, then ranges of keys (attention_cached_join), are joined in ascending order; the number of ranges
// follows from the shape: about BLOCKS blocks, and no range shorter than RANGE keys.
//   shared memory: 16 x (d + 2) floats
// Bytes: the keys and values that a query sees once per query head (of a group, all but the first from the L2 cache); q, o once.
#include "core/cuda/attention.cuh"
#include "core/cuda/attention_plain.cuh"
#include "core/cuda/device.cuh"
#include "core/cuda/pack.cuh"

enum { LANES = 8, STREAMS = 16, THREADS = LANES * STREAMS, BLOCKS = 512, RANGE = 256 };

// A part of a softmax: largest score, sum of powers relative to it, weighted sums of d columns.
inline int64_t part_floats(int d) { return d + 2; }

// Column `col` of the n parts at `parts`, joined; top and sum are those of the whole.
__device__ inline float join_parts(const float *parts, int n, int d, int col, float *top, float *sum) {
    float largest = -INFINITY, total = 0, value = 0;
    for (int i = 0; i < n; i++) largest = fmaxf(largest, parts[i * (d + 2)]);
    float shift = largest == -INFINITY ? 0 : largest;
    for (int i = 0; i < n; i++) {
        const float *part = parts + i * (d + 2);
        float weight = exp2f(part[0] - shift);
        total += weight * part[1];
        value += weight * part[2 + col];
    }
    *top = largest, *sum = total;
    return value;
}

template <typename T, int PACK, int WIDTH>
__global__ void attention_cached_keys(struct attention_shape s, int past, int splits, struct view q, struct view k,
                                      struct view v, struct view o, float *scratch) {
    constexpr int PACKS = WIDTH / LANES / PACK;
    int split = (int)(blockIdx.x % splits), head = (int)(blockIdx.x / splits % s.heads);
    int64_t row = blockIdx.x / splits / s.heads;
    int stream = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, last = past + (int)row;
    int first = most(0, last - s.window + 1), count = last + 1 - first;
    int from = first + (int)((int64_t)count * split / splits),
        to = first + (int)((int64_t)count * (split + 1) / splits);
    int64_t at = (int64_t)(head / (s.heads / s.kv_heads)) * s.d;
    float query[PACKS][PACK] = {}, y[PACKS][PACK] = {}, largest = -INFINITY, sum = 0;
    for (int j = 0; j < PACKS; j++)
        if (int col = (lane + j * LANES) * PACK; col < s.d)
            load_pack(query[j], element<const T>(q, row, (int64_t)head * s.d + col));
#pragma unroll 2
    for (int base = from; base < to; base += STREAMS) { // the same number of rounds for all lanes of a warp
        int key = base + stream;
        float keys[PACKS][PACK] = {}, values[PACKS][PACK] = {}, score = 0;
        for (int j = 0; j < PACKS; j++) {
            int col = (lane + j * LANES) * PACK;
            if (col >= s.d || key >= to) continue;
            load_pack(keys[j], element<const T>(k, key, at + col));
            load_pack(values[j], element<const T>(v, key, at + col));
        }
        for (int j = 0; j < PACKS * PACK; j++) score += query[j / PACK][j % PACK] * keys[j / PACK][j % PACK];
        for (int step = LANES / 2; step > 0; step /= 2) score += __shfl_xor_sync(0xFFFFFFFFu, score, step);
        if (key >= to) continue;
        score *= s.scale2;
        float top = fmaxf(largest, score), shrink = exp2f(largest - top), p = exp2f(score - top);
        largest = top, sum = sum * shrink + p;
        for (int j = 0; j < PACKS * PACK; j++)
            y[j / PACK][j % PACK] = y[j / PACK][j % PACK] * shrink + p * values[j / PACK][j % PACK];
    }
    float *parts = shared_memory<float>(), *part = parts + stream * (s.d + 2);
    if (lane == 0) part[0] = largest, part[1] = sum;
    for (int j = 0; j < PACKS * PACK; j++) {
        int col = (lane + j / PACK * LANES) * PACK + j % PACK;
        if (col < s.d) part[2 + col] = y[j / PACK][j % PACK];
    }
    __syncthreads();
    float *joined = scratch + (int64_t)blockIdx.x * (s.d + 2);
    for (int col = (int)threadIdx.x; col < s.d; col += THREADS) {
        float value = join_parts(parts, STREAMS, s.d, col, &largest, &sum);
        if (splits == 1)
            *element<T>(o, row, (int64_t)head * s.d + col) = float_to<T>(value / sum);
        else
            joined[2 + col] = value;
        if (splits > 1 && col == 0) joined[0] = largest, joined[1] = sum;
    }
}

template <typename T>
__global__ void attention_cached_join(struct attention_shape s, int splits, const float *scratch, struct view o) {
    int64_t row = blockIdx.x / s.heads, head = blockIdx.x % s.heads;
    const float *parts = scratch + (int64_t)blockIdx.x * splits * (s.d + 2);
    for (int col = (int)threadIdx.x; col < s.d; col += THREADS) {
        float top, sum, value = join_parts(parts, splits, s.d, col, &top, &sum);
        *element<T>(o, row, head * s.d + col) = float_to<T>(value / sum);
    }
}

static int splits_of(struct attention_shape s, int64_t runs) {
    int64_t by_blocks = (BLOCKS + runs - 1) / runs, by_keys = (s.window + RANGE - 1) / RANGE;
    return (int)(by_blocks < by_keys ? by_blocks : by_keys);
}

extern "C" enum status cuda_attention_cached(struct backend *backend, const struct op_call *call) {
    struct view q = call->in[0], k = call->in[1], v = call->in[2], o = call->out[0];
    const struct attention_params *p = &call->params.attention;
    struct attention_shape s = attention_shape(p, p->past + q.rows);
    enum status status = check_head_width(s);
    if (status != STATUS_OK || q.rows == 0) return status;
    int64_t runs = q.rows * s.heads;
    int splits = splits_of(s, runs);
    float *scratch = NULL;
    if (splits > 1) status = device_scratch(backend, 4 * runs * splits * part_floats(s.d), (void **)&scratch);
    if (status != STATUS_OK) return status;
    int64_t bytes = dtype_bytes(q.dtype);
    bool packs = packs_fit(q, bytes) && packs_fit(k, bytes) && packs_fit(v, bytes) && s.d % (16 / bytes) == 0;
    WITH_PLAIN(T, WIDTH, q.dtype, s.d,
               WITH_PACK(N, sizeof(T), packs,
                         status = LAUNCH((attention_cached_keys<T, N, WIDTH>), (unsigned)(runs * splits), THREADS,
                                         4 * STREAMS * part_floats(s.d), backend, s, (int)p->past, splits, q, k, v, o,
                                         scratch)));
    if (status != STATUS_OK || splits == 1) return status;
    WITH_FLOAT(T, q.dtype,
               status = LAUNCH(attention_cached_join<T>, (unsigned)runs, THREADS, 0, backend, s, splits, scratch, o));
    return status;
}
