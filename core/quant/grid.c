#include "core/quant/grid.h"

#include "core/tensor/dtype.h"

#include <math.h>

enum status grid_block(int bits, int64_t group_size, struct grid *out) {
    if (bits < 2 || bits > 8) return status_set(STATUS_INVALID, "--bits %d: block scaling has 2 to 8 bits", bits);
    if (group_size != -1 && group_size < 1)
        return status_set(STATUS_INVALID, "--group-size %lld: give a positive number of columns, or -1 for whole rows",
                          (long long)group_size);
    struct grid grid = {.bits = bits, .group_size = group_size, .n_levels = 1 << bits, .uniform = true};
    grid.scale_divisor = (double)(grid.n_levels - 1) / 2;
    for (int i = 0; i < grid.n_levels; i++) grid.levels[i] = (float)(i - grid.n_levels / 2);
    *out = grid;
    return STATUS_OK;
}

int64_t grid_group_cols(const struct grid *grid, int64_t cols) {
    return grid->group_size < 0 || grid->group_size > cols ? cols : grid->group_size;
}

int64_t grid_groups(const struct grid *grid, int64_t cols) {
    int64_t group = grid_group_cols(grid, cols);
    return group ? (cols + group - 1) / group : 0;
}

float grid_scale_of(const struct grid *grid, const float *w, int64_t n) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(w[i]));
    return fp16_to_float(fp16_from_float((float)((double)largest / grid->scale_divisor)));
}

// Largest index with levels[index] <= t; -1 when t is below all levels.
static int level_below(const struct grid *grid, float t) {
    int low = -1, high = grid->n_levels;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (grid->levels[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct neighbours grid_neighbours(const struct grid *grid, float w, float scale) {
    if (scale == 0) return (struct neighbours){0, 0};
    float t = w / scale;
    int below = level_below(grid, t), last = grid->n_levels - 1;
    int down = below < 0 ? 0 : below;
    int up = below < 0 ? 0 : below == last || grid->levels[below] == t ? below : below + 1;
    return (struct neighbours){scale * grid->levels[down], scale * grid->levels[up]};
}
