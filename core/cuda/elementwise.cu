// fill and copy: one thread per pack of 16 bytes (of the smaller type); contiguous views count as one long row.
//
// Shared memory: none. Traffic: fill writes y; copy reads a (and y when it accumulates), writes y. A pack per thread keeps 32 KB
// per multiprocessor under way with 2048 threads, as much as the memory of such a device needs.
#include "core/cuda/pack.cuh"
#include "core/cuda/tiling.cuh"

template <typename T, int N> static __global__ void fill(struct tiling tiles, float value, strided<T> y) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    float v[N];
    for (int i = 0; i < N; i++) v[i] = value;
    store_pack(y.row(at.row) + at.pack * N, v);
}

template <typename A, typename B, int N, bool ADD>
static __global__ void copy(struct tiling tiles, strided<const A> a, strided<B> y) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    float v[N];
    load_pack(v, a.row(at.row) + at.pack * N);
    B *to = y.row(at.row) + at.pack * N;
    if (ADD) {
        float old[N];
        load_pack(old, to);
        for (int i = 0; i < N; i++) v[i] = old[i] + v[i];
    }
    store_pack(to, v);
}

extern "C" enum status cuda_fill(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view y = view_is_contiguous(call->out[0]) ? view_flat(call->out[0]) : call->out[0];
    float value = (float)call->params.value;
    WITH_FLOAT(T, y.dtype, WITH_PACK(N, sizeof(T), packs_fit(y, sizeof(T)), {
                   struct tiling tiles = tiling_of(y.rows, y.cols / N);
                   status =
                       LAUNCH((fill<T, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, value, strided_of<T>(y));
               }));
    return status;
}

template <typename A, typename B, bool ADD>
static enum status copy_run(struct backend *backend, struct view a, struct view y) {
    enum status status;
    constexpr int64_t element = sizeof(A) < sizeof(B) ? sizeof(A) : sizeof(B);
    WITH_PACK(N, element, packs_fit(a, element) && packs_fit(y, element), {
        struct tiling tiles = tiling_of(y.rows, y.cols / N);
        status = LAUNCH((copy<A, B, N, ADD>), tiles.blocks, TILE_THREADS, 0, backend, tiles, strided_of<const A>(a),
                        strided_of<B>(y));
    });
    return status;
}

extern "C" enum status cuda_copy(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view a = call->in[0], y = call->out[0];
    if (view_is_contiguous(a) && view_is_contiguous(y)) a = view_flat(a), y = view_flat(y);
    bool add = call->accumulate;
    WITH_FLOAT(A, a.dtype, WITH_FLOAT(B, y.dtype, {
                   status = add ? copy_run<A, B, true>(backend, a, y) : copy_run<A, B, false>(backend, a, y);
               }));
    return status;
}
