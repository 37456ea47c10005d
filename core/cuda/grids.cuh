// Neighbours of weights on a grid in kernels: the numbers that grid_neighbours (core/quant/grid.h) gives, to the bit.
//
//     pack_neighbours(grid, w, map_at(scales, row, col), down, up);     // float w[N], down[N], up[N]
//
// With t = (w - offset) / scale a uniform grid takes floor and ceiling of t, clamped to its levels (NaN falls to the lowest). Its scale has
// 17 bits at most and a level 8, so that scale * level is exact wherever there is an offset: fusing the two changes nothing. A codebook is
// searched in the constant memory that holds the kernel's parameters; it has no offsets, so fusing rounds its products once too.
#ifndef DQ_CORE_CUDA_GRIDS_CUH
#define DQ_CORE_CUDA_GRIDS_CUH

#include "core/cuda/pack.cuh"
#include "core/quant/grid.h"

// Of the weights of one group.
struct group_map {
    float scale, offset;
};

__device__ inline void codebook_levels(const struct grid &grid, float t, float *first, float *second) {
    int low = -1, high = grid.n_levels, last = grid.n_levels - 1; // levels[low] <= t < levels[high]
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (grid.levels[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    int down = low < 0 ? 0 : low, up = low < 0 || low == last || grid.levels[down] == t ? down : low + 1;
    *first = grid.levels[down];
    *second = grid.levels[up];
}

// Of the weights of a pack, which lie in one group.
template <int N>
__device__ inline void pack_neighbours(const struct grid &grid, const float (&w)[N], struct group_map map,
                                       float (&down)[N], float (&up)[N]) {
    if (map.scale == 0) {
        for (int i = 0; i < N; i++) down[i] = up[i] = map.offset;
        return;
    }
    for (int i = 0; i < N; i++) {
        float t = (w[i] - map.offset) / map.scale, first, second;
        if (grid.uniform) {
            float low = grid.levels[0], high = grid.levels[grid.n_levels - 1];
            first = fminf(fmaxf(floorf(t), low), high);
            second = fminf(fmaxf(ceilf(t), low), high);
        } else {
            codebook_levels(grid, t, &first, &second);
        }
        first = map.scale * first + map.offset;
        second = map.scale * second + map.offset;
        down[i] = first <= second ? first : second;
        up[i] = first <= second ? second : first;
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
    uint32_t group_cols;   // at least the width of the matrix: one group per row
    uint32_t first_offset; // column of the first offset, 0 = none
};

inline struct group_scales group_scales_of(const struct grid *grid, struct view w, struct view scale) {
    REQUIRE(w.cols <= INT32_MAX, "a row of a weight matrix has fewer than 2^31 columns");
    return {strided_of<const float>(scale), (uint32_t)grid_group_cols(grid, w.cols),
            grid->has_offset ? (uint32_t)grid_groups(grid, w.cols) : 0};
}

__device__ inline struct group_map map_at(struct group_scales s, int64_t row, int64_t col) {
    const float *at = s.scale.row(row) + (uint32_t)col / s.group_cols;
    return {*at, s.first_offset ? at[s.first_offset] : 0};
}

// Whether packs of 16 / element_bytes elements lie in one group each.
inline bool packs_fit_groups(const struct grid *grid, struct view w, int64_t element_bytes) {
    int64_t group_cols = grid_group_cols(grid, w.cols);
    return group_cols == w.cols || group_cols % (16 / element_bytes) == 0;
}

#endif
