// swiglu, its gradient and its tangent: one thread per pack of gates and the pack of ups a width further on.
//
//   s = 1 / (1 + e^-g), silu(g) = g s, silu'(g) = s + g s (1 - s)
//
// Shared memory: none. Traffic: every operand once. One exponential and one division per element of 6 to 20 bytes: an H100 has
// units for 4e12 of them in a second, and memory for 3.3e12 bytes.
#include "core/cuda/pack.cuh"
#include "core/cuda/tiling.cuh"

static __device__ inline float sigmoid(float g) { return 1.0f / (1.0f + expf(-g)); }
static __device__ inline float silu_slope(float g, float s) { return s + g * s * (1.0f - s); }

template <typename T, int N> static __global__ void swiglu(struct tiling tiles, strided<const T> gu, strided<T> h) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    const T *from = gu.row(at.row) + at.pack * N;
    float g[N], u[N];
    load_pack(g, from);
    load_pack(u, from + tiles.packs * N);
    for (int i = 0; i < N; i++) u[i] *= g[i] * sigmoid(g[i]);
    store_pack(h.row(at.row) + at.pack * N, u);
}

template <typename T, int N>
static __global__ void swiglu_grad(struct tiling tiles, strided<const T> gu, strided<const T> dh, strided<T> dgu) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int64_t col = at.pack * N, width = tiles.packs * N;
    const T *from = gu.row(at.row) + col;
    T *to = dgu.row(at.row) + col;
    float g[N], u[N], d[N];
    load_pack(g, from);
    load_pack(u, from + width);
    load_pack(d, dh.row(at.row) + col);
    for (int i = 0; i < N; i++) {
        float s = sigmoid(g[i]), up = u[i];
        u[i] = d[i] * g[i] * s;
        g[i] = d[i] * up * silu_slope(g[i], s);
    }
    store_pack(to, g);
    store_pack(to + width, u);
}

template <typename T, int N>
static __global__ void swiglu_tangent(struct tiling tiles, strided<const T> gu, strided<const T> gud, strided<T> hd) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int64_t col = at.pack * N, width = tiles.packs * N;
    const T *from = gu.row(at.row) + col, *along = gud.row(at.row) + col;
    float g[N], u[N], gd[N], ud[N];
    load_pack(g, from);
    load_pack(u, from + width);
    load_pack(gd, along);
    load_pack(ud, along + width);
    for (int i = 0; i < N; i++) {
        float s = sigmoid(g[i]);
        u[i] = silu_slope(g[i], s) * gd[i] * u[i] + g[i] * s * ud[i];
    }
    store_pack(hd.row(at.row) + col, u);
}

// Packs fit both halves of gate | up.
static bool halves_fit(struct view gu, int64_t element_bytes) {
    gu.cols /= 2;
    return packs_fit(gu, element_bytes);
}

extern "C" enum status cuda_swiglu(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view gu = call->in[0], h = call->out[0];
    WITH_FLOAT(T, h.dtype, WITH_PACK(N, sizeof(T), halves_fit(gu, sizeof(T)) && packs_fit(h, sizeof(T)), {
                   struct tiling tiles = tiling_of(h.rows, h.cols / N);
                   status = LAUNCH((swiglu<T, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles,
                                   strided_of<const T>(gu), strided_of<T>(h));
               }));
    return status;
}

extern "C" enum status cuda_swiglu_grad(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view gu = call->in[0], dh = call->in[1], dgu = call->out[0];
    WITH_FLOAT(
        T, dh.dtype,
        WITH_PACK(N, sizeof(T), halves_fit(gu, sizeof(T)) && halves_fit(dgu, sizeof(T)) && packs_fit(dh, sizeof(T)), {
            struct tiling tiles = tiling_of(dh.rows, dh.cols / N);
            status = LAUNCH((swiglu_grad<T, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, strided_of<const T>(gu),
                            strided_of<const T>(dh), strided_of<T>(dgu));
        }));
    return status;
}

extern "C" enum status cuda_swiglu_tangent(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view gu = call->in[0], gud = call->in[1], hd = call->out[0];
    WITH_FLOAT(
        T, hd.dtype,
        WITH_PACK(N, sizeof(T), halves_fit(gu, sizeof(T)) && halves_fit(gud, sizeof(T)) && packs_fit(hd, sizeof(T)), {
            struct tiling tiles = tiling_of(hd.rows, hd.cols / N);
            status = LAUNCH((swiglu_tangent<T, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles,
                            strided_of<const T>(gu), strided_of<const T>(gud), strided_of<T>(hd));
        }));
    return status;
}
