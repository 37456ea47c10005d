// rmsnorm, its gradients and its tangent.
//
// Rows (all but the gain's gradient): a team of threads per row, a warp or a block (team.cuh); the row stays in registers between
// the sum and the result, PACKS_HELD packs per thread; what a very wide row has beyond that is read again. Shared memory: one number
// per warp. Traffic: x read, y written (grad: x, dy read, dx written; tangent: x, xd read, yd written); the gain comes from cache.
//
// Gain: a block has LANES threads along the columns, a strip of LANES N of them (64 bytes in packs: two whole sectors), and its
// other threads along the rows of one sample, so that even a single sum over all rows has a block per strip: 96 to 128 blocks at
// 3072 to 4096 columns of bf16. Sums in double: within a thread, then over the lanes of a warp, then over warps in order. Shared
// memory: LANES N doubles per warp. Traffic: x and dy read, dgain written.
#include "core/cuda/pack.cuh"
#include "core/cuda/team.cuh"

// Runs body(p, k) for every pack p of the thread: k is its place in the registers, PACKS_HELD where it has none.
template <typename BODY> static __device__ inline void each_pack(struct team team, int64_t packs, BODY body) {
#pragma unroll
    for (int k = 0; k < PACKS_HELD; k++) {
        int64_t p = team.rank + (int64_t)k * team.size;
        if (p < packs) body(p, k);
    }
    for (int64_t p = team.rank + (int64_t)PACKS_HELD * team.size; p < packs; p += team.size) body(p, PACKS_HELD);
}

// A thread's packs of a row, held as they are in memory.
template <typename T, int N> struct held_row {
    const T *row;
    pack<T, N> held[PACKS_HELD];

    __device__ inline void load(struct team team, int64_t packs, const T *from) {
        row = from;
#pragma unroll
        for (int k = 0; k < PACKS_HELD; k++) {
            int64_t p = team.rank + (int64_t)k * team.size;
            held[k] = pack_at<N>(row + (p < packs ? p : 0) * N);
        }
    }
    __device__ inline void get(float (&v)[N], int64_t p, int k) const {
        pack_floats(v, k < PACKS_HELD ? held[k] : pack_at<N>(row + p * N));
    }
};

template <typename T, int N>
static __global__ void rmsnorm(struct teams teams, float eps, strided<const T> x, const float *gain, strided<T> y,
                               strided<float> rstd) {
    struct team team = team_here(teams);
    if (team.row >= teams.rows) return;
    held_row<T, N> row;
    row.load(team, teams.packs, x.row(team.row));
    float sum = 0;
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N];
        row.get(v, p, k);
        for (int i = 0; i < N; i++) sum += v[i] * v[i];
    });
    sum = team_sum(team, sum, shared_memory<float>());
    float r = 1 / sqrtf(sum / (float)(teams.packs * N) + eps);
    if (team.rank == 0) *rstd.row(team.row) = r;
    T *to = y.row(team.row);
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N], g[N];
        row.get(v, p, k);
        load_pack(g, gain + p * N);
        for (int i = 0; i < N; i++) v[i] = v[i] * r * g[i];
        store_pack(to + p * N, v);
    });
}

template <typename T, int N, bool ADD>
static __global__ void rmsnorm_grad(struct teams teams, strided<const T> x, const float *gain,
                                    strided<const float> rstd, strided<const T> dy, strided<T> dx) {
    struct team team = team_here(teams);
    if (team.row >= teams.rows) return;
    held_row<T, N> row, above;
    row.load(team, teams.packs, x.row(team.row));
    above.load(team, teams.packs, dy.row(team.row));
    float sum = 0; // of u x, u = dy gain
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N], d[N], g[N];
        row.get(v, p, k);
        above.get(d, p, k);
        load_pack(g, gain + p * N);
        for (int i = 0; i < N; i++) sum += d[i] * g[i] * v[i];
    });
    sum = team_sum(team, sum, shared_memory<float>());
    float r = *rstd.row(team.row), mean = sum / (float)(teams.packs * N) * r * r;
    T *to = dx.row(team.row);
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N], d[N], g[N], old[N] = {};
        row.get(v, p, k);
        above.get(d, p, k);
        load_pack(g, gain + p * N);
        if (ADD) load_pack(old, to + p * N);
        for (int i = 0; i < N; i++) v[i] = old[i] + r * (d[i] * g[i] - v[i] * mean);
        store_pack(to + p * N, v);
    });
}

template <typename T, int N, bool GAIN> // GAIN: the gain moves too
static __global__ void rmsnorm_tangent(struct teams teams, strided<const T> x, const float *gain,
                                       strided<const float> rstd, strided<const T> xd, const float *gaind,
                                       strided<T> yd) {
    struct team team = team_here(teams);
    if (team.row >= teams.rows) return;
    held_row<T, N> row, along;
    row.load(team, teams.packs, x.row(team.row));
    along.load(team, teams.packs, xd.row(team.row));
    float sum = 0; // of xd x
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N], d[N];
        row.get(v, p, k);
        along.get(d, p, k);
        for (int i = 0; i < N; i++) sum += d[i] * v[i];
    });
    sum = team_sum(team, sum, shared_memory<float>());
    float r = *rstd.row(team.row), mean = sum / (float)(teams.packs * N) * r * r;
    T *to = yd.row(team.row);
    each_pack(team, teams.packs, [&](int64_t p, int k) {
        float v[N], d[N], g[N], gd[N] = {};
        row.get(v, p, k);
        along.get(d, p, k);
        load_pack(g, gain + p * N);
        if (GAIN) load_pack(gd, gaind + p * N);
        for (int i = 0; i < N; i++) v[i] = r * ((d[i] - v[i] * mean) * g[i] + v[i] * gd[i]);
        store_pack(to + p * N, v);
    });
}

template <typename T, int N, int LANES, bool ADD>
static __global__ void rmsnorm_gain_grad(int64_t rows_each, int64_t cols, uint32_t strips, strided<const T> x,
                                         strided<const float> rstd, strided<const T> dy, strided<float> dgain) {
    double *partial = shared_memory<double>(); // [warps, LANES N]
    int64_t sample = blockIdx.x / strips, first = (int64_t)(blockIdx.x % strips) * LANES * N;
    int lane = (int)threadIdx.x % LANES, warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP;
    int64_t col = first + lane * N;
    double sum[N] = {};
    for (int64_t i = threadIdx.x / LANES; i < rows_each && col < cols; i += blockDim.x / LANES) {
        int64_t row = sample * rows_each + i;
        float v[N], d[N], r = *rstd.row(row);
        load_pack(v, x.row(row) + col);
        load_pack(d, dy.row(row) + col);
        for (int k = 0; k < N; k++) sum[k] += (double)(d[k] * v[k] * r);
    }
    for (int k = 0; k < N; k++)
        for (int offset = WARP / 2; offset >= LANES; offset /= 2)
            sum[k] += __shfl_xor_sync(0xFFFFFFFFu, sum[k], offset);
    if (threadIdx.x % WARP < LANES)
        for (int k = 0; k < N; k++) partial[(warp * LANES + lane) * N + k] = sum[k];
    __syncthreads();
    int place = (int)threadIdx.x;
    if (place >= LANES * N || first + place >= cols) return;
    float *to = dgain.row(sample) + first + place;
    double total = ADD ? (double)*to : 0;
    for (int w = 0; w < warps; w++) total += partial[w * LANES * N + place];
    *to = (float)total;
}

static bool gain_fits(struct view gain, int64_t element_bytes) { return !gain.rows || packs_fit(gain, element_bytes); }

extern "C" enum status cuda_rmsnorm(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->in[0], gain = call->in[1], y = call->out[0], rstd = call->out[1];
    float eps = (float)call->params.eps;
    WITH_FLOAT(
        T, x.dtype,
        WITH_PACK(N, sizeof(T), packs_fit(x, sizeof(T)) && packs_fit(y, sizeof(T)) && gain_fits(gain, sizeof(T)), {
            struct teams teams = teams_of(x.rows, x.cols / N);
            status =
                LAUNCH((rmsnorm<T, N>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams, eps,
                       strided_of<const T>(x), (const float *)gain.data, strided_of<T>(y), strided_of<float>(rstd));
        }));
    return status;
}

template <typename T, bool ADD> static enum status grad_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->in[0], gain = call->in[1], rstd = call->in[2], dy = call->in[3], dx = call->out[0];
    bool fits = packs_fit(x, sizeof(T)) && packs_fit(dy, sizeof(T)) && packs_fit(dx, sizeof(T));
    WITH_PACK(N, sizeof(T), fits && gain_fits(gain, sizeof(T)), {
        struct teams teams = teams_of(x.rows, x.cols / N);
        status = LAUNCH((rmsnorm_grad<T, N, ADD>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams,
                        strided_of<const T>(x), (const float *)gain.data, strided_of<const float>(rstd),
                        strided_of<const T>(dy), strided_of<T>(dx));
    });
    return status;
}

extern "C" enum status cuda_rmsnorm_grad(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(T, call->in[0].dtype,
               { status = call->accumulate ? grad_run<T, true>(backend, call) : grad_run<T, false>(backend, call); });
    return status;
}

template <typename T, bool GAIN> static enum status tangent_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->in[0], gain = call->in[1], rstd = call->in[2], xd = call->in[3], gaind = call->in[4];
    struct view yd = call->out[0];
    bool fits = packs_fit(x, sizeof(T)) && packs_fit(xd, sizeof(T)) && packs_fit(yd, sizeof(T));
    WITH_PACK(N, sizeof(T), fits && gain_fits(gain, sizeof(T)) && gain_fits(gaind, sizeof(T)), {
        struct teams teams = teams_of(x.rows, x.cols / N);
        status = LAUNCH((rmsnorm_tangent<T, N, GAIN>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams,
                        strided_of<const T>(x), (const float *)gain.data, strided_of<const float>(rstd),
                        strided_of<const T>(xd), (const float *)gaind.data, strided_of<T>(yd));
    });
    return status;
}

extern "C" enum status cuda_rmsnorm_tangent(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(T, call->in[0].dtype, {
        status = call->in[4].rows ? tangent_run<T, true>(backend, call) : tangent_run<T, false>(backend, call);
    });
    return status;
}

// Threads along the rows: as many as there are rows, 8 to 128, so that a thread has whole warps for company.
static int64_t gain_threads(int64_t rows_each, int lanes) {
    int64_t along = 8;
    while (along < rows_each && along * lanes < 512) along *= 2;
    return along * lanes;
}

template <typename T, bool ADD> static enum status gain_grad_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view x = call->in[0], rstd = call->in[1], dy = call->in[2], dgain = call->out[0];
    int64_t rows_each = x.rows / dgain.rows;
    WITH_PACK(N, sizeof(T), packs_fit(x, sizeof(T)) && packs_fit(dy, sizeof(T)), {
        constexpr int LANES = N > 1 ? 4 : WARP;
        int64_t strips = (x.cols + LANES * N - 1) / (LANES * N), threads = gain_threads(rows_each, LANES);
        REQUIRE(strips * dgain.rows <= INT32_MAX, "more blocks than a launch can have");
        status = LAUNCH((rmsnorm_gain_grad<T, N, LANES, ADD>), (unsigned)(strips * dgain.rows), (unsigned)threads,
                        threads / WARP * LANES * N * (int64_t)sizeof(double), backend, rows_each, x.cols,
                        (uint32_t)strips, strided_of<const T>(x), strided_of<const float>(rstd),
                        strided_of<const T>(dy), strided_of<float>(dgain));
    });
    return status;
}

extern "C" enum status cuda_rmsnorm_gain_grad(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(T, call->in[0].dtype, {
        status = call->accumulate ? gain_grad_run<T, true>(backend, call) : gain_grad_run<T, false>(backend, call);
    });
    return status;
}
