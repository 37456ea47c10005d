// rows_pass and box_step, in double: a pass over listed rows that reads each row once.
//
// rows_pass: the list is cut into parts (at most PARTS, of PART_TILES tiles at least, from its length and the width alone), a block
// of THREADS threads each. A block brings TILE_NUMBERS doubles of rows at a time to shared memory by asynchronous copies, the
// next tile while it works on this one:
//
//     dots   a warp takes two rows: products with c_0, c_1 (kept in shared memory), a butterfly each; d and h go out, the coefficients
//            d + step h - y and g(t + 1) to shared memory
//     sums   a thread owns columns tid, tid + THREADS, …: its sums over the tile's rows stay in registers
//
// so memory sees a row once, shared memory 3.5 times. A part's sums go to scratch; add_parts adds those of all parts, eight
// interleaved chains per column, then the chains in order. Noise is made before, in a kernel of its own (noise_fill, 16 bytes per listed row),
// since logarithm and cosine in double would take the registers of the sums. Rows that do not begin at multiples of 16 bytes are brought
// by plain loads.
//
// Shared memory: 2 tiles of 32 KiB, c (2 m doubles), 2 doubles per row of a tile: 68 KiB for 256 columns, 3 blocks per
// multiprocessor of an H100; 128 KiB for 4096, one. Traffic: 8 m bytes per row, 52 for list, x, y, d, h and noise.
//
// box_step: least of the ratios over blocks (LEAST_ROWS rows each at least, at most BLOCKS), over their results in one block, then an
// elementwise kernel. The least does not depend on the order.
#include "core/cuda/device.cuh"
#include "core/cuda/pack.cuh"
#include "core/cuda/philox.cuh"
#include "core/cuda/reduce.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, TILE_NUMBERS = 4096, TILE_ROWS = 64, PARTS = 1024, PART_TILES = 4 };
enum { CHAINS = 8, BLOCKS = 1024, LEAST_ROWS = 4096 };

// ---- noise

static __device__ inline uint64_t sign_word(struct rng rng, int64_t n, int64_t i, int64_t block) {
    uint64_t word = 2 * ((uint64_t)n * (uint64_t)block + (uint64_t)i);
    uint32_t words[4];
    random_block(rng, word / 4, words);
    return word & 2 ? (uint64_t)words[2] << 32 | words[3] : (uint64_t)words[0] << 32 | words[1];
}

static __device__ inline double sign_at(struct rng rng, int64_t n, int64_t i, int64_t t) {
    if (t < 0) return 0;
    return sign_word(rng, n, i, t / 64) >> (t % 64) & 1 ? 1 : -1;
}

// rng_normal
static __device__ inline double normal_at(struct rng rng, int64_t n, int64_t i, int64_t t) {
    if (t < 0) return 0;
    uint64_t index = (uint64_t)n * (uint64_t)t + (uint64_t)i;
    uint32_t words[4];
    random_block(rng, index / 2, words);
    uint32_t first = index & 1 ? words[2] : words[0], second = index & 1 ? words[3] : words[1];
    double u = ((double)first + 1.0) * 0x1p-32, angle = 6.283185307179586476925 * ((double)second * 0x1p-32);
    return sqrt(-2.0 * log(u)) * cos(angle);
}

// noise [2, k]: g(t), g(t + 1).
static __global__ void noise_fill(int64_t n, int64_t k, struct rows_pass_params p, strided<const int32_t> list,
                                  double *noise) {
    int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (j >= k) return;
    int64_t i = list.data ? *list.row(j) : j;
    noise[j] = p.normal ? normal_at(p.rng, n, i, p.time) : sign_at(p.rng, n, i, p.time);
    noise[k + j] = p.normal ? normal_at(p.rng, n, i, p.time + 1) : sign_at(p.rng, n, i, p.time + 1);
}

// ---- the pass

struct pass {
    int64_t n, k, cols;
    int64_t rows_each, tile_rows; // rows per part, per tile
    int64_t pitch;                // of tiles and c in shared memory
    double step;
    const double *noise; // [2, k]
    strided<const double> a, x, y, c;
    strided<const int32_t> list;
    strided<double> d, h;
    double *sums; // [parts, terms, cols]
};

static __device__ inline int64_t row_of_list(const struct pass &p, int64_t j) {
    return p.list.data ? *p.list.row(j) : j;
}

// Rows first .. first + rows - 1 of the list to `tile`, a warp per row.
template <bool ALIGNED>
static __device__ inline void bring_tile(const struct pass &p, double *tile, int64_t first, int rows) {
    int lane = (int)threadIdx.x % WARP;
    for (int r = (int)threadIdx.x / WARP; r < rows; r += WARPS) {
        const double *from = p.a.row(row_of_list(p, first + r));
        double *to = tile + r * p.pitch;
        if (ALIGNED) {
            for (int64_t j = 2 * lane; j < p.cols; j += 2 * WARP) copy_async(to + j, from + j, true);
        } else {
            for (int64_t j = lane; j < p.cols; j += WARP) to[j] = from[j];
        }
    }
    copy_async_commit();
}

// d, h and the coefficients [2, tile_rows] of a tile's rows.
template <bool NOISY>
static __device__ inline void tile_dots(const struct pass &p, const double *tile, const double *c, double *weights,
                                        int64_t first, int rows) {
    int lane = (int)threadIdx.x % WARP;
    for (int r = 2 * ((int)threadIdx.x / WARP); r < rows; r += 2 * WARPS) {
        const double *one = tile + r * p.pitch, *two = r + 1 < rows ? one + p.pitch : one;
        double one_t = 0, two_t = 0, one_z = 0, two_z = 0;
        for (int64_t j = lane; j < p.cols; j += WARP) {
            double u = one[j], v = two[j], t = c[j];
            one_t += u * t, two_t += v * t;
            if (NOISY) {
                double z = c[p.pitch + j];
                one_z += u * z, two_z += v * z;
            }
        }
        one_t = warp_sum(one_t), two_t = warp_sum(two_t);
        if (NOISY) one_z = warp_sum(one_z), two_z = warp_sum(two_z);
        int64_t at = first + r + lane;
        if (lane > 1 || r + lane >= rows) continue;
        int64_t i = row_of_list(p, at);
        double d = *p.x.row(i) - (lane ? two_t : one_t), h = 0;
        if (NOISY) {
            h = p.noise[at] - (lane ? two_z : one_z);
            *p.h.row(at) = h;
            weights[p.tile_rows + r + lane] = p.noise[p.k + at];
        }
        *p.d.row(at) = d;
        weights[r + lane] = d + p.step * h - *p.y.row(i);
    }
}

template <int COLS, bool NOISY, bool ALIGNED> static __global__ void rows_pass(struct pass p) {
    constexpr int TERMS = NOISY ? 2 : 1;
    double *tiles = shared_memory<double>(), *c = tiles + 2 * p.tile_rows * p.pitch, *weights = c + TERMS * p.pitch;
    int64_t first = blockIdx.x * p.rows_each, end = first + p.rows_each < p.k ? first + p.rows_each : p.k;
    double sums[TERMS][COLS] = {};
    for (int r = 0; r < TERMS; r++)
        for (int64_t j = threadIdx.x; j < p.cols; j += THREADS) c[r * p.pitch + j] = p.c.row(r)[j];
    int side = 0, rows = (int)(end - first < p.tile_rows ? end - first : p.tile_rows);
    bring_tile<ALIGNED>(p, tiles, first, rows);
    for (; first < end; first += p.tile_rows, side ^= 1) {
        const double *tile = tiles + side * p.tile_rows * p.pitch;
        int64_t left = end - first - rows;
        int next = (int)(left < p.tile_rows ? left : p.tile_rows);
        bring_tile<ALIGNED>(p, tiles + (side ^ 1) * p.tile_rows * p.pitch, first + rows, next);
        copy_async_wait<1>();
        __syncthreads();
        tile_dots<NOISY>(p, tile, c, weights, first, rows);
        __syncthreads();
        for (int r = 0; r < rows; r++) {
            double t = weights[r], z = NOISY ? weights[p.tile_rows + r] : 0;
#pragma unroll
            for (int q = 0; q < COLS; q++) {
                int64_t j = threadIdx.x + (int64_t)q * THREADS;
                if (j >= p.cols) continue;
                double value = tile[r * p.pitch + j];
                sums[0][q] += t * value;
                if (NOISY) sums[TERMS - 1][q] += z * value;
            }
        }
        __syncthreads(); // this tile and the coefficients are written over
        rows = next;
    }
#pragma unroll
    for (int r = 0; r < TERMS; r++)
#pragma unroll
        for (int q = 0; q < COLS; q++) {
            int64_t j = threadIdx.x + (int64_t)q * THREADS;
            if (j < p.cols) p.sums[(blockIdx.x * (int64_t)TERMS + r) * p.cols + j] = sums[r][q];
        }
}

// to [terms, cols] = the sum over parts of from [parts, terms, cols]: a block has WARP columns and CHAINS chains.
static __global__ void add_parts(int64_t parts, int64_t terms, int64_t cols, const double *from, strided<double> to) {
    double *partial = shared_memory<double>();
    int lane = (int)threadIdx.x % WARP, chain = (int)threadIdx.x / WARP;
    int64_t at = blockIdx.x * (int64_t)WARP + lane;
    double sum = 0;
    if (at < terms * cols)
        for (int64_t q = chain; q < parts; q += CHAINS) sum += from[q * terms * cols + at];
    partial[threadIdx.x] = sum;
    __syncthreads();
    if (chain > 0 || at >= terms * cols) return;
    for (int i = 1; i < CHAINS; i++) sum += partial[i * WARP + lane];
    to.row(at / cols)[at % cols] = sum;
}

// ---- box_step

struct reduce_least {
    static __device__ inline double of(double a, double b) { return a < b ? a : b; }
};

static __device__ inline double block_least(double value) {
    return block_reduce<reduce_least>(value, (double)INFINITY, shared_memory<double>());
}

static __global__ void least_ratio(int64_t k, strided<const double> d, strided<const double> h, double *to) {
    double least = INFINITY;
    for (int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x; j < k; j += (int64_t)gridDim.x * THREADS) {
        double at = *d.row(j), room = at < 0.5 ? at : 1 - at;
        if (room >= 0) least = reduce_least::of(least, room / (fabs(*h.row(j)) + 1e-300));
    }
    least = block_least(least);
    if (threadIdx.x == 0) to[blockIdx.x] = least;
}

// s = the least of step and from [n].
static __global__ void take_least(int n, const double *from, double step, double *s) {
    double least = step;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) least = reduce_least::of(least, from[i]);
    least = block_least(least);
    if (threadIdx.x == 0) *s = least;
}

static __global__ void take_step(int64_t k, strided<const double> d, strided<const double> h,
                                 strided<const int32_t> list, const double *s, strided<double> x, strided<double> z) {
    int64_t j = blockIdx.x * (int64_t)THREADS + threadIdx.x;
    if (j >= k) return;
    double to = *d.row(j) + (h.data ? *s * *h.row(j) : 0);
    *z.row(j) = to;
    *x.row(list.data ? *list.row(j) : j) = to;
}

// ---- launchers

static strided<const int32_t> list_of(struct view list) {
    return {list.rows ? (const int32_t *)list.data : NULL, list.stride};
}

static unsigned blocks_of(int64_t n, int64_t each) {
    int64_t blocks = (n + each - 1) / each;
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    return (unsigned)blocks;
}

template <int COLS, bool NOISY>
static enum status pass_run(struct backend *backend, const struct pass &p, unsigned parts, bool aligned) {
    int64_t terms = NOISY ? 2 : 1, shared = (2 * p.tile_rows * p.pitch + terms * p.pitch + 2 * p.tile_rows) * 8;
    if (aligned) return LAUNCH((rows_pass<COLS, NOISY, true>), parts, THREADS, shared, backend, p);
    return LAUNCH((rows_pass<COLS, NOISY, false>), parts, THREADS, shared, backend, p);
}

template <int COLS>
static enum status pass_of(struct backend *backend, const struct pass &p, unsigned parts, bool noisy, bool aligned) {
    return noisy ? pass_run<COLS, true>(backend, p, parts, aligned) : pass_run<COLS, false>(backend, p, parts, aligned);
}

static int64_t at_least(int64_t a, int64_t b) { return a < b ? b : a; }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

static struct pass pass_new(const struct op_call *call) {
    struct view a = call->in[0];
    struct pass p = {};
    p.n = a.rows, p.k = call->out[0].rows, p.cols = a.cols;
    p.pitch = (a.cols + 1) / 2 * 2;
    p.tile_rows = at_most(at_least(TILE_NUMBERS / p.pitch, 1), TILE_ROWS);
    int64_t tiles = (p.k + p.tile_rows - 1) / p.tile_rows;
    p.rows_each = at_least((tiles + PARTS - 1) / PARTS, PART_TILES) * p.tile_rows;
    p.step = call->params.rows_pass.step;
    p.a = strided_of<const double>(a), p.x = strided_of<const double>(call->in[2]);
    p.y = strided_of<const double>(call->in[3]), p.c = strided_of<const double>(call->in[4]);
    p.list = list_of(call->in[1]);
    p.d = strided_of<double>(call->out[0]), p.h = strided_of<double>(call->out[1]);
    return p;
}

extern "C" enum status cuda_rows_pass(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    struct view a = call->in[0], sums = call->out[2];
    struct pass p = pass_new(call);
    int64_t terms = sums.rows;
    unsigned parts = blocks_of(p.k, p.rows_each);
    bool noisy = terms == 2, aligned = packs_fit(a, sizeof(double));
    void *scratch = NULL;
    TRY(device_scratch(backend, (parts * terms * p.cols + (noisy ? 2 * p.k : 0)) * 8, &scratch));
    p.sums = (double *)scratch;
    p.noise = p.sums + parts * terms * p.cols;
    if (noisy)
        TRY(LAUNCH(noise_fill, blocks_of(p.k, THREADS), THREADS, 0, backend, p.n, p.k, call->params.rows_pass, p.list,
                   p.sums + parts * terms * p.cols));
    if (p.cols <= THREADS)
        TRY(pass_of<1>(backend, p, parts, noisy, aligned));
    else if (p.cols <= 4 * THREADS)
        TRY(pass_of<4>(backend, p, parts, noisy, aligned));
    else
        TRY(pass_of<ROWS_PASS_COLS / THREADS>(backend, p, parts, noisy, aligned));
    TRY(LAUNCH(add_parts, blocks_of(terms * p.cols, WARP), CHAINS * WARP, CHAINS * WARP * sizeof(double), backend,
               parts, terms, p.cols, (const double *)p.sums, strided_of<double>(sums)));
done:
    return status;
}

extern "C" enum status cuda_box_step(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    struct view d = call->in[0], h = call->in[1];
    bool moves = h.rows > 0, limited = moves && call->params.box_step.limit;
    unsigned blocks = limited ? (unsigned)at_most((d.rows + LEAST_ROWS - 1) / LEAST_ROWS, BLOCKS) : 0;
    void *scratch = NULL;
    double *s = (double *)call->out[1].data;
    strided<const double> from = strided_of<const double>(d), along = {moves ? (const double *)h.data : NULL, h.stride};
    if (limited) TRY(device_scratch(backend, blocks * (int64_t)sizeof(double), &scratch));
    if (limited)
        TRY(LAUNCH(least_ratio, blocks, THREADS, REDUCE_BYTES, backend, d.rows, from, along, (double *)scratch));
    TRY(LAUNCH(take_least, 1, THREADS, REDUCE_BYTES, backend, (int)blocks, (const double *)scratch,
               moves ? call->params.box_step.step : 0.0, s));
    TRY(LAUNCH(take_step, blocks_of(d.rows, THREADS), THREADS, 0, backend, d.rows, from, along, list_of(call->in[2]),
               (const double *)s, strided_of<double>(call->in[3]), strided_of<double>(call->out[0])));
done:
    return status;
}
