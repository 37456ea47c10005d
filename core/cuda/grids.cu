// Ops on quantization grids.
//
// grid_offset, grid_interpolate, grid_interpolate_grad, grid_round, grid_nearest: one kernel, a pack of 16 bytes (of the smallest
// type) per thread; a pack lies in one group and loads its scale once. Which op it is, is the same for all threads and
// chosen at run time, so that there is one kernel per choice of types. Shared memory: none. Traffic: w, scale and the second operand
// are read, the result written; grid_interpolate_grad reads the result too when it accumulates.
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
    pack_neighbours(grid, w, map_at(scales, at.row, col), down, up);
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
