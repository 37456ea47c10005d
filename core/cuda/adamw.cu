// adamw: clamp and pull of the gradient, AdamW and projection in one pass, a pack of 16 bytes (of the smallest type) per thread.
//
// Shared memory: none. Traffic per parameter: p, m, v read and written, g and w read; 18 bytes in bf16 (20 with fp32 gradients), 32 in
// fp32, and a scale per group. bf16 results are rounded at random (op.h), one Philox block per parameter in registers. That is a
// third of the arithmetic, which a bf16 update has more of than its traffic leaves time for; both stay below a twentieth of a
// training step. Whether there is a pull is the same for all threads and chosen at run time.
#include "core/cuda/grids.cuh"
#include "core/cuda/philox.cuh"
#include "core/cuda/tiling.cuh"
#include "core/ops/adamw_step.h"

// What one element needs besides its numbers.
struct update {
    struct adamw_step step;
    struct rng rng;
    uint64_t first; // Philox block of element 0
    int64_t cols;
    bool random;
    struct rng pull;
};

struct moments {
    float p, m, v;
};

__device__ static inline struct moments element_update(const struct adamw_step &s, struct moments x, float g,
                                                       float pull) {
    float d = s.factor * g;
    d = d < -s.limit ? -s.limit : d;
    d = (d > s.limit ? s.limit : d) + pull + s.concave * (1 - 2 * x.p);
    x.m = s.beta1 * x.m + s.gain1 * d;
    x.v = s.beta2 * x.v + s.gain2 * d * d;
    float to = x.p * s.keep - s.rate * x.m / (sqrtf(x.v) * s.root_bias2 + s.eps);
    to = to < s.low ? s.low : to;
    x.p = to > s.high ? s.high : to;
    return x;
}

template <typename W, int N>
__device__ static inline void pulls(const struct grid &grid, struct group_scales scales, strided<const W> w_all,
                                    int64_t row, int64_t col, float strength, float (&pull)[N]) {
    float w[N], down[N], up[N];
    load_pack(w, w_all.row(row) + col);
    pack_neighbours(grid, w, map_at(scales, row, col), down, up);
    for (int i = 0; i < N; i++) pull[i] = strength * (1 - 2 * grid_offset_of(w[i], down[i], up[i], 0.5f));
}

template <int N> __device__ static inline void random_pulls(const struct update &u, int64_t first, float (&pull)[N]) {
    for (int i = 0; i < N; i++) pull[i] = u.step.strength * (2 * random_uniform(u.pull, (uint64_t)(first + i)) - 1);
}

template <typename W, typename X, typename G, int N>
static __global__ void adamw(struct tiling tiles, struct update u, struct grid grid, strided<X> p_all, strided<X> m_all,
                             strided<X> v_all, strided<const G> g_all, strided<const W> w_all,
                             struct group_scales scales) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int64_t col = at.pack * N;
    X *to_p = p_all.row(at.row) + col, *to_m = m_all.row(at.row) + col, *to_v = v_all.row(at.row) + col;
    pack<X, N> p = pack_at<N>(to_p), m = pack_at<N>(to_m), v = pack_at<N>(to_v);
    pack<G, N> g = pack_at<N>(g_all.row(at.row) + col);
    float pull[N] = {0};
    if (w_all.data) pulls(grid, scales, w_all, at.row, col, u.step.strength, pull);
    if (u.random) random_pulls(u, at.row * u.cols + col, pull);
    for (int i = 0; i < N; i++) {
        struct moments x = {to_float(p.at[i]), to_float(m.at[i]), to_float(v.at[i])};
        x = element_update(u.step, x, to_float(g.at[i]), pull[i]);
        if constexpr (sizeof(X) == 2) {
            uint32_t words[4];
            random_block(u.rng, u.first + (uint64_t)(at.row * u.cols + col + i), words);
            p.at[i] = bf16_randomly(x.p, words[0]);
            m.at[i] = bf16_randomly(x.m, words[1]);
            v.at[i] = bf16_randomly(x.v, words[2]);
        } else {
            p.at[i] = x.p, m.at[i] = x.m, v.at[i] = x.v;
        }
    }
    *(pack<X, N> *)to_p = p;
    *(pack<X, N> *)to_m = m;
    *(pack<X, N> *)to_v = v;
}

template <typename W, typename X, typename G>
static enum status adamw_run(struct backend *backend, const struct op_call *call) {
    enum status status;
    const struct adamw_params *params = &call->params.adamw;
    struct view p = call->out[0], m = call->in[1], v = call->in[2], g = call->in[3], w = {}, scale = {};
    struct grid grid = {};
    struct update u = {adamw_step_of(params), params->rng, (uint64_t)params->step * (uint64_t)view_count(p), p.cols,
                       params->random,        params->pull};
    constexpr int64_t element = sizeof(W) == 2 || sizeof(X) == 2 || sizeof(G) == 2 ? 2 : 4;
    bool fits = packs_fit(p, element) && packs_fit(m, element) && packs_fit(v, element) && packs_fit(g, element);
    struct group_scales scales = {};
    if (call->in[4].rows && params->strength != 0) {
        w = call->in[4], scale = call->in[5], grid = *params->grid;
        scales = group_scales_of(&grid, w, scale);
        fits = fits && packs_fit(w, element) && packs_fit_groups(&grid, w, element);
    }
    WITH_PACK(N, element, fits, {
        struct tiling tiles = tiling_of(p.rows, p.cols / N);
        status = LAUNCH((adamw<W, X, G, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, u, grid, strided_of<X>(p),
                        strided_of<X>(m), strided_of<X>(v), strided_of<const G>(g), strided_of<const W>(w), scales);
    });
    return status;
}

extern "C" enum status cuda_adamw(struct backend *backend, const struct op_call *call) {
    enum status status;
    WITH_FLOAT(
        W, call->in[4].dtype,
        WITH_FLOAT(X, call->in[0].dtype, WITH_FLOAT(G, call->in[3].dtype, status = adamw_run<W, X, G>(backend, call))));
    return status;
}
