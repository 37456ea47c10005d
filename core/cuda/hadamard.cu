// hadamard: a block keeps whole rows in shared memory, as many as have about 4096 numbers, one of wider ones.
//
// The power of two of the order is transformed there in stages of two, a barrier after each. A factor of order m is multiplied by its
// bits: a thread makes four neighbouring outputs of one column in registers, so that a number read from shared memory is used four
// times, and writes them when all have read. Shared memory: 4 bytes per number of the rows, at most 160 KiB. Traffic: x read, y
// written (and read when it accumulates); tables and signs come from cache.
#include "core/cuda/pack.cuh"

#include "core/quant/hadamard.h"

enum { HADAMARD_THREADS = 1024, EACH = 4, UNITS = 4, NUMBERS_FEW = HADAMARD_THREADS * EACH, NUMBERS_MOST = 40960 };

struct hadamard_shape {
    int64_t rows;
    int n, rows_each, order, sylvester, n_factors;
    int words; // from one row of the tables to the next
    int factors[HADAMARD_FACTORS];
    float scale;
    bool transposed, accumulate;
};

// x [numbers / p, p] <- x S_p
__device__ static inline void sylvester_stages(float *x, int numbers, int p) {
    int half = 1;
    for (; 4 * half <= p; half *= 4) {
        for (int q = (int)threadIdx.x; q < numbers / 4; q += (int)blockDim.x) {
            float *at = x + q / half * 4 * half + q % half;
            float a = at[0], b = at[half], c = at[2 * half], d = at[3 * half];
            float s = a + b, t = a - b, u = c + d, v = c - d;
            at[0] = s + u, at[half] = t + v, at[2 * half] = s - u, at[3 * half] = t - v;
        }
        __syncthreads();
    }
    if (half == p) return;
    for (int q = (int)threadIdx.x; q < numbers / 2; q += (int)blockDim.x) {
        float *at = x + q / half * 2 * half + q % half;
        float a = at[0], b = at[half];
        at[0] = a + b, at[half] = a - b;
    }
    __syncthreads();
}

// Outputs i .. i + 3 of the column that begins at x: sums over j of F[i][j] x[j inner].
__device__ static inline void four_outputs(const int32_t *table, int words, int m, int inner, const float *x,
                                           float (&sum)[EACH]) {
    for (int k = 0; k < EACH; k++) sum[k] = 0;
    for (int word = 0; word * 32 < m; word++) {
        uint32_t minus[EACH];
        for (int k = 0; k < EACH; k++) minus[k] = (uint32_t)table[k * words + word];
        int end = m - word * 32 < 32 ? m - word * 32 : 32;
        for (int j = 0; j < end; j++, x += inner) {
            uint32_t bits = float_bits(*x);
            for (int k = 0; k < EACH; k++) {
                sum[k] += bits_to_float(bits ^ (minus[k] << 31));
                minus[k] >>= 1;
            }
        }
    }
}

// x [outer, m, inner] <- F x for each of outer: whole columns at a time, as many as all threads make in UNITS rounds.
__device__ static inline void factor_stage(float *x, int numbers, int m, int inner, const int32_t *table, int words) {
    int columns = numbers / m, most = (int)blockDim.x * UNITS / (m / EACH);
    for (int first = 0; first < columns; first += most) {
        int some = columns - first < most ? columns - first : most;
        float sum[UNITS][EACH];
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            int unit = u * (int)blockDim.x + (int)threadIdx.x, column = first + unit % some, i = unit / some * EACH;
            if (i < m)
                four_outputs(table + i * words, words, m, inner, x + column / inner * m * inner + column % inner,
                             sum[u]);
        }
        __syncthreads();
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            int unit = u * (int)blockDim.x + (int)threadIdx.x, column = first + unit % some, i = unit / some * EACH;
            float *to = x + column / inner * m * inner + column % inner + i * inner;
            for (int k = 0; k < EACH && i < m; k++) to[k * inner] = sum[u][k];
        }
        __syncthreads();
    }
}

template <typename T, int N>
static __global__ void __launch_bounds__(HADAMARD_THREADS)
    hadamard_rows(struct hadamard_shape s, strided<const T> x, const float *signs, const int32_t *table, strided<T> y) {
    float *room = shared_memory<float>();
    int numbers = s.rows_each * s.n, packs = numbers / N;
    int64_t first = (int64_t)blockIdx.x * s.rows_each;
    for (int p = (int)threadIdx.x; p < packs; p += (int)blockDim.x) {
        int row = p * N / s.n, col = p * N % s.n;
        float v[N] = {0};
        if (first + row < s.rows) load_pack(v, x.row(first + row) + col);
        for (int i = 0; i < N; i++) room[p * N + i] = v[i] * s.scale * (signs && !s.transposed ? signs[col + i] : 1);
    }
    __syncthreads();
    sylvester_stages(room, numbers, s.sylvester);
    int inner = s.order;
#ifdef __CUDACC__ // clang, which compiles this for the emulation, does not follow and warns
#pragma unroll
#endif
    for (int f = 0; f < HADAMARD_FACTORS; f++) {
        if (f >= s.n_factors) break;
        int m = s.factors[f];
        inner /= m;
        factor_stage(room, numbers, m, inner, table + (s.transposed ? m * s.words : 0), s.words);
        table += 2 * m * s.words;
    }
    for (int p = (int)threadIdx.x; p < packs; p += (int)blockDim.x) {
        int row = p * N / s.n, col = p * N % s.n;
        if (first + row >= s.rows) continue;
        T *to = y.row(first + row) + col;
        float v[N] = {0};
        if (s.accumulate) load_pack(v, to);
        for (int i = 0; i < N; i++) v[i] += room[p * N + i] * (signs && s.transposed ? signs[col + i] : 1);
        store_pack(to, v);
    }
}

static struct hadamard_shape hadamard_shape_of(const struct op_call *call) {
    const struct hadamard *h = call->params.hadamard.matrix;
    struct hadamard_shape s = {};
    s.rows = call->in[0].rows, s.n = (int)h->n, s.order = (int)h->order, s.sylvester = (int)h->sylvester;
    s.rows_each = s.n < NUMBERS_FEW ? NUMBERS_FEW / s.n : 1;
    s.n_factors = h->n_factors, s.words = (int)call->in[2].stride;
    for (int f = 0; f < h->n_factors; f++) s.factors[f] = (int)h->factors[f];
    s.scale = (float)(1 / sqrt((double)h->order));
    s.transposed = call->params.hadamard.transposed, s.accumulate = call->accumulate;
    return s;
}

template <typename T, int N>
static enum status hadamard_launch(struct backend *backend, const struct op_call *call,
                                   const struct hadamard_shape &s) {
    int numbers = s.rows_each * s.n;
    int64_t blocks = (s.rows + s.rows_each - 1) / s.rows_each;
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    unsigned threads = (unsigned)((numbers + EACH * WARP - 1) / (EACH * WARP) * WARP);
    if (threads > HADAMARD_THREADS) threads = HADAMARD_THREADS;
    return LAUNCH((hadamard_rows<T, N>), (unsigned)blocks, threads, numbers * (int)sizeof(float), backend, s,
                  strided_of<const T>(call->in[0]), (const float *)call->in[1].data, (const int32_t *)call->in[2].data,
                  strided_of<T>(call->out[0]));
}

extern "C" enum status cuda_hadamard(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->in[0], y = call->out[0];
    if (x.cols > NUMBERS_MOST)
        return status_set(STATUS_UNSUPPORTED, "hadamard: rows of %lld numbers do not fit on the device; at most %d",
                          (long long)x.cols, NUMBERS_MOST);
    struct hadamard_shape s = hadamard_shape_of(call);
    WITH_FLOAT(T, x.dtype,
               WITH_PACK(N, sizeof(T), packs_fit(x, sizeof(T)) && packs_fit(y, sizeof(T)),
                         status = hadamard_launch<T, N>(backend, call, s)));
    return status;
}
