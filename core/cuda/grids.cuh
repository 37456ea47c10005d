// Neighbours of weights on a grid in kernels: the numbers that grid_neighbours (core/quant/grid.h) gives, to the bit.
//
//     pack_neighbours(grid, w, scale_at(scales, row, col), down, up);      // float w[N], down[N], up[N]
//
// A uniform grid takes floor and ceiling of w / scale, clamped to its levels (NaN falls to the lowest). The scale has 11 bits and a level
// of such a grid at most 8, so scale * level is exact and may be fused with an addition. A codebook is searched in the constant
// memory that holds the kernel's parameters; its products are rounded before they are used.
#ifndef DQ_CORE_CUDA_GRIDS_CUH
#define DQ_CORE_CUDA_GRIDS_CUH

#include "core/cuda/pack.cuh"
#include "core/quant/grid.h"

__device__ inline float rounded_product(float a, float b) {
#ifdef __CUDACC__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

__device__ inline struct neighbours codebook_neighbours(const struct grid &grid, float w, float scale) {
    float t = w / scale;
    int low = -1, high = grid.n_levels, last = grid.n_levels - 1; // levels[low] <= t < levels[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (grid.levels[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    int down = low < 0 ? 0 : low, up = low < 0 || low == last || grid.levels[down] == t ? down : low + 1;
    return {rounded_product(scale, grid.levels[down]), rounded_product(scale, grid.levels[up])};
}

// Of the weights of a pack, which lie in one group.
template <int N>
__device__ inline void pack_neighbours(const struct grid &grid, const float (&w)[N], float scale, float (&down)[N],
                                       float (&up)[N]) {
    if (scale == 0) {
        for (int i = 0; i < N; i++) down[i] = up[i] = 0;
    } else if (grid.uniform) {
        float low = grid.levels[0], high = grid.levels[grid.n_levels - 1];
        for (int i = 0; i < N; i++) {
            float t = w[i] / scale;
            down[i] = scale * fminf(fmaxf(floorf(t), low), high);
            up[i] = scale * fminf(fmaxf(ceilf(t), low), high);
        }
    } else {
        for (int i = 0; i < N; i++) {
            struct neighbours near = codebook_neighbours(grid, w[i], scale);
            down[i] = near.down, up[i] = near.up;
        }
    }
}

// Where w lies between its neighbours; `none` where they are equal.
__device__ inline float grid_offset_of(float w, float down, float up, float none) {
    float gap = up - down;
    return gap > 0 ? (w - down) / gap : none;
}

// The scales of a matrix of weights.
struct group_scales {
    struct strided<const float> scale;
    uint32_t group_cols; // at least the width of the matrix: one group per row
};

inline struct group_scales group_scales_of(const struct grid *grid, struct view w, struct view scale) {
    REQUIRE(w.cols <= INT32_MAX, "a row of a weight matrix has fewer than 2^31 columns");
    return {strided_of<const float>(scale), (uint32_t)grid_group_cols(grid, w.cols)};
}

__device__ inline float scale_at(struct group_scales s, int64_t row, int64_t col) {
    return s.scale.row(row)[(uint32_t)col / s.group_cols];
}

// Whether packs of 16 / element_bytes elements lie in one group each.
inline bool packs_fit_groups(const struct grid *grid, struct view w, int64_t element_bytes) {
    int64_t group_cols = grid_group_cols(grid, w.cols);
    return group_cols == w.cols || group_cols % (16 / element_bytes) == 0;
}

#endif
