// How elementwise kernels cover a matrix: a block of TILE_THREADS threads takes a rectangle of packs, one pack per thread. Narrow
// rows share a block, wide rows are cut into strips.
//
//     struct tiling tiles = tiling_of(y.rows, y.cols / N);
//     LAUNCH((scale<T, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, …);
//
//     struct tile_place at = place_in(tiles);         // in the kernel
//     if (!at.inside) return;
//     T *to = y.row(at.row) + at.pack * N;
#ifndef DQ_CORE_CUDA_TILING_CUH
#define DQ_CORE_CUDA_TILING_CUH

#include "core/cuda/kernel.cuh"

enum { TILE_THREADS = 256 };

struct tiling {
    int64_t rows, packs; // packs per row
    uint32_t blocks, strips;
    int width_bits; // 2^width_bits packs of a row, TILE_THREADS >> width_bits rows per block
};

inline struct tiling tiling_of(int64_t rows, int64_t packs) {
    struct tiling t = {rows, packs, 0, 0, 0};
    while ((1 << t.width_bits) < TILE_THREADS && (int64_t)1 << t.width_bits < packs) t.width_bits++;
    int64_t width = (int64_t)1 << t.width_bits, height = TILE_THREADS / width;
    int64_t strips = (packs + width - 1) / width, blocks = strips * ((rows + height - 1) / height);
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    t.strips = (uint32_t)strips, t.blocks = (uint32_t)blocks;
    return t;
}

// Contiguous views as a single row, which has no narrow strips at its end.
inline struct view view_flat(struct view v) {
    int64_t count = view_count(v);
    return (struct view){v.data, 1, count, count, v.dtype};
}

struct tile_place {
    int64_t row, pack;
    bool inside;
};

__device__ inline struct tile_place place_in(struct tiling t) {
    uint32_t band = blockIdx.x / t.strips, strip = blockIdx.x % t.strips;
    int64_t height = TILE_THREADS >> t.width_bits, width = (int64_t)1 << t.width_bits;
    int64_t row = band * height + (threadIdx.x >> t.width_bits), pack = strip * width + (threadIdx.x & (width - 1));
    return {row, pack, row < t.rows && pack < t.packs};
}

#endif
