// Ops on quantization grids.
//
// grid_offset, grid_interpolate, grid_interpolate_grad, grid_round, grid_nearest: one kernel, a pack of 16 bytes (of the smallest
// type) per thread; a pack lies in one group and loads its scale once. Which op it is, is the same for all threads and
// chosen at run time, so that there is one kernel per choice of types. Shared memory: none. Traffic: w, scale and the second operand
// are read, the result written; grid_interpolate_grad reads the result too when it accumulates.
//
// grid_scale: 1 to 32 lanes per group, a power of two, so that small groups share a warp; a lane goes through its group in packs and the
// lanes take the maximum by shuffles. Shared memory: none. Traffic: w is read, one scale per group written.
#include "core/cuda/grids.cuh"
#include "core/cuda/tiling.cuh"

enum use { USE_OFFSET, USE_INTERPOLATE, USE_GRAD, USE_GRAD_ADD, USE_ROUND, USE_NEAREST };

template <typename W, typename X, typename Y, int N>
static __global__ void grid_map(struct tiling tiles, enum use use, struct grid grid, strided<const W> w_all,
                                struct group_scales scales, strided<const X> x_all, strided<Y> y_all) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int64_t col = at.pack * N;
    Y *to = y_all.row(at.row) + col;
    float w[N], x[N] = {0}, y[N] = {0}, down[N], up[N];
    load_pack(w, w_all.row(at.row) + col);
    if (x_all.data) load_pack(x, x_all.row(at.row) + col);
    if (use == USE_GRAD_ADD) load_pack(y, to);
    pack_neighbours(grid, w, scale_at(scales, at.row, col), down, up);
    switch (use) {
    case USE_OFFSET:
        for (int i = 0; i < N; i++) y[i] = grid_offset_of(w[i], down[i], up[i], 0);
        break;
    case USE_INTERPOLATE:
        for (int i = 0; i < N; i++) y[i] = down[i] * (1 - x[i]) + up[i] * x[i];
        break;
    case USE_ROUND:
        for (int i = 0; i < N; i++) y[i] = x[i] > 0.5f ? up[i] : down[i];
        break;
    case USE_NEAREST:
        for (int i = 0; i < N; i++) y[i] = fabsf(w[i] - down[i]) <= fabsf(up[i] - w[i]) ? down[i] : up[i];
        break;
    case USE_GRAD:
        for (int i = 0; i < N; i++) y[i] = x[i] * (up[i] - down[i]);
        break;
    case USE_GRAD_ADD:
        for (int i = 0; i < N; i++) y[i] += x[i] * (up[i] - down[i]);
        break;
    }
    store_pack(to, y);
}

// As (float)(double) / double and fp16_from_float round it; largest is not NaN.
__device__ static inline float scale_of(float largest, double divisor) {
    float scale = (float)((double)largest / divisor);
    if (scale >= 65520) return INFINITY;
    if (scale < 0x1p-14f) return scale + 0.5f - 0.5f; // subnormal: the sum rounds to a multiple of 2^-24
    uint32_t bits = float_bits(scale);
    return bits_to_float((bits + 0xFFFu + (bits >> 13 & 1u)) & 0xFFFFE000u);
}

// The shape of the scales, and how many lanes share a group.
struct group_tiling {
    int64_t rows, cols; // of w
    uint32_t groups;    // per row
    int lane_bits;
};

template <typename W, int N>
static __global__ void group_max(struct group_tiling tiles, double divisor, strided<const W> w_all,
                                 struct group_scales scales, strided<float> to) {
    uint32_t id = (uint32_t)(((uint64_t)blockIdx.x * TILE_THREADS + threadIdx.x) >> tiles.lane_bits);
    int64_t row = id / tiles.groups, group = id % tiles.groups, lanes = (int64_t)1 << tiles.lane_bits;
    int64_t first = group * scales.group_cols, last = first + scales.group_cols, rank = threadIdx.x & (lanes - 1);
    int64_t end = row >= tiles.rows ? 0 : last < tiles.cols ? last : tiles.cols;
    float largest = 0;
    for (int64_t col = first + rank * N; col < end; col += lanes * N) {
        float w[N];
        load_pack(w, w_all.row(row) + col);
        for (int i = 0; i < N; i++) largest = fmaxf(largest, fabsf(w[i]));
    }
    for (int offset = (int)lanes / 2; offset > 0; offset /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, offset));
    if (row < tiles.rows && rank == 0) to.row(row)[group] = scale_of(largest, divisor);
}

template <typename W, typename X, typename Y>
static enum status map_run(struct backend *backend, enum use use, const struct op_call *call) {
    enum status status;
    const struct grid *grid = call->params.grid;
    struct view w = call->in[0], x = call->in[2], y = call->out[0];
    constexpr int64_t element = sizeof(W) == 2 || sizeof(X) == 2 || sizeof(Y) == 2 ? 2 : 4;
    bool fits = packs_fit(w, element) && packs_fit(y, element) && (!x.rows || packs_fit(x, element)) &&
                packs_fit_groups(grid, w, element);
    WITH_PACK(N, element, fits, {
        struct tiling tiles = tiling_of(w.rows, w.cols / N);
        status = LAUNCH((grid_map<W, X, Y, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, use, *grid,
                        strided_of<const W>(w), group_scales_of(grid, w, call->in[1]), strided_of<const X>(x),
                        strided_of<Y>(y));
    });
    return status;
}

static enum status map(struct backend *backend, enum use use, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(W, call->in[0].dtype,
               WITH_FLOAT(X, call->in[2].dtype,
                          WITH_FLOAT(Y, call->out[0].dtype, status = map_run<W, X, Y>(backend, use, call))));
    return status;
}

extern "C" enum status cuda_grid_offset(struct backend *backend, const struct op_call *call) {
    return map(backend, USE_OFFSET, call);
}

extern "C" enum status cuda_grid_interpolate(struct backend *backend, const struct op_call *call) {
    return map(backend, USE_INTERPOLATE, call);
}

extern "C" enum status cuda_grid_interpolate_grad(struct backend *backend, const struct op_call *call) {
    return map(backend, call->accumulate ? USE_GRAD_ADD : USE_GRAD, call);
}

extern "C" enum status cuda_grid_round(struct backend *backend, const struct op_call *call) {
    return map(backend, USE_ROUND, call);
}

extern "C" enum status cuda_grid_nearest(struct backend *backend, const struct op_call *call) {
    return map(backend, USE_NEAREST, call);
}

extern "C" enum status cuda_grid_scale(struct backend *backend, const struct op_call *call) {
    enum status status;
    const struct grid *grid = call->params.grid;
    struct view w = call->in[0], scale = call->out[0];
    struct group_scales scales = group_scales_of(grid, w, scale);
    REQUIRE(view_count(scale) <= INT32_MAX, "a weight matrix has fewer than 2^31 groups");
    WITH_FLOAT(W, w.dtype, {
        bool fits = packs_fit(w, sizeof(W)) && packs_fit_groups(grid, w, sizeof(W));
        WITH_PACK(N, sizeof(W), fits, {
            struct group_tiling tiles = {w.rows, w.cols, (uint32_t)scale.cols, 0};
            while (1 << tiles.lane_bits < WARP && ((int64_t)N << tiles.lane_bits) < scales.group_cols)
                tiles.lane_bits++;
            int64_t threads = view_count(scale) << tiles.lane_bits,
                    blocks = (threads + TILE_THREADS - 1) / TILE_THREADS;
            status = LAUNCH((group_max<W, N>), (unsigned)blocks, TILE_THREADS, 0, backend, tiles, grid->scale_divisor,
                            strided_of<const W>(w), scales, strided_of<float>(scale));
        });
    });
    return status;
}
