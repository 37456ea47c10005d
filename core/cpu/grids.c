// Ops on quantization grids on the CPU.
//
// Blocks of rows over threads; within a row one loop per group, whose scale and offset are constants. Both kinds of grids vectorize and give
// the numbers of grid_neighbours (division, not a product with the reciprocal; NaN falls to the lowest level): with t = (w - offset) / scale
// uniform grids take the levels clamp(floor(t)) and clamp(ceil(t)), codebooks the last level <= t and the first >= t of a pass over
// all levels. Groups of scale 0 go through grid_neighbours. Traffic: every operand once.
#include "core/cpu/grids.h"

#include "core/cpu/cpu.h"

#include <math.h>

// What is made of one weight and its neighbours. `x` is the second operand of the op; y is read by the accumulating one.
enum use { USE_OFFSET, USE_INTERPOLATE, USE_GRAD, USE_GRAD_ADD, USE_ROUND, USE_NEAREST, USE_MIDDLE };

struct group {
    const float *w, *x;
    float *y;
    int64_t n;
    float scale, offset;
    float low, high; // first and last level
};

static inline __attribute__((always_inline)) float value_of(enum use use, float w, float down, float up, float x,
                                                            float y) {
    float gap = up - down;
    switch (use) {
    case USE_OFFSET: return gap > 0 ? (w - down) / gap : 0;
    case USE_INTERPOLATE: return down * (1 - x) + up * x;
    case USE_GRAD: return x * gap;
    case USE_GRAD_ADD: return y + x * gap;
    case USE_ROUND: return x > 0.5f ? up : down;
    case USE_NEAREST: return fabsf(w - down) <= fabsf(up - w) ? down : up;
    default: return gap > 0 ? (w - down) / gap : 0.5f;
    }
}

static inline __attribute__((always_inline)) void uniform_group(enum use use, const struct group *group) {
    const struct group a = *group;
    bool reads_x = use == USE_INTERPOLATE || use == USE_GRAD || use == USE_GRAD_ADD || use == USE_ROUND;
    const float *restrict w = a.w;
    const float *restrict x = reads_x ? a.x : a.w;
    float *restrict y = a.y;
#pragma omp simd
    for (int64_t i = 0; i < a.n; i++) {
        float t = (w[i] - a.offset) / a.scale;
        float first = floorf(t), second = ceilf(t);
        first = first >= a.low ? first : a.low;
        first = first > a.high ? a.high : first;
        second = second >= a.low ? second : a.low;
        second = second > a.high ? a.high : second;
        first = a.scale * first + a.offset;
        second = a.scale * second + a.offset;
        float down = first <= second ? first : second, up = first <= second ? second : first;
        y[i] = value_of(use, w[i], down, up, x[i], use == USE_GRAD_ADD ? y[i] : 0);
    }
}

enum { STRIP = 64 };

static void codebook_strip(const struct grid *grid, const float *restrict w, int64_t n, float scale, float offset,
                           float *restrict down, float *restrict up) {
    int last = grid->n_levels - 1;
    float t[STRIP], first[STRIP], second[STRIP];
    for (int64_t i = 0; i < n; i++) {
        t[i] = (w[i] - offset) / scale;
        first[i] = grid->levels[0];
        second[i] = grid->levels[last];
    }
    for (int k = 1; k <= last; k++) {
        float low = grid->levels[k], high = grid->levels[last - k];
        for (int64_t i = 0; i < n; i++) {
            first[i] = t[i] >= low ? low : first[i];
            second[i] = t[i] > high ? second[i] : high;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        float a = scale * first[i] + offset, b = scale * second[i] + offset;
        down[i] = a <= b ? a : b;
        up[i] = a <= b ? b : a;
    }
}

static void codebook_group(enum use use, const struct grid *grid, const struct group *a) {
    float down[STRIP], up[STRIP];
    for (int64_t first = 0; first < a->n; first += STRIP) {
        int64_t n = min_i64(STRIP, a->n - first);
        const float *w = a->w + first, *x = a->x ? a->x + first : w;
        float *y = a->y + first;
        codebook_strip(grid, w, n, a->scale, a->offset, down, up);
        for (int64_t i = 0; i < n; i++)
            y[i] = value_of(use, w[i], down[i], up[i], x[i], use == USE_GRAD_ADD ? y[i] : 0);
    }
}

static void constant_group(enum use use, const struct grid *grid, const struct group *a) {
    for (int64_t i = 0; i < a->n; i++) {
        struct neighbours near = grid_neighbours(grid, a->w[i], a->scale, a->offset);
        a->y[i] = value_of(use, a->w[i], near.down, near.up, a->x ? a->x[i] : 0, use == USE_GRAD_ADD ? a->y[i] : 0);
    }
}

static void one_group(enum use use, const struct grid *grid, struct group *a) {
    a->low = grid->levels[0], a->high = grid->levels[grid->n_levels - 1];
    if (a->scale == 0) {
        constant_group(use, grid, a);
        return;
    }
    if (!grid->uniform) {
        codebook_group(use, grid, a);
        return;
    }
    switch (use) {
    case USE_OFFSET: uniform_group(USE_OFFSET, a); break;
    case USE_INTERPOLATE: uniform_group(USE_INTERPOLATE, a); break;
    case USE_GRAD: uniform_group(USE_GRAD, a); break;
    case USE_GRAD_ADD: uniform_group(USE_GRAD_ADD, a); break;
    case USE_ROUND: uniform_group(USE_ROUND, a); break;
    case USE_NEAREST: uniform_group(USE_NEAREST, a); break;
    case USE_MIDDLE: uniform_group(USE_MIDDLE, a); break;
    }
}

static enum status run(enum use use, const struct op_call *call) {
    const struct grid *grid = call->params.grid;
    struct view w = call->in[0], scale = call->in[1], x = call->in[2], y = call->out[0];
    int64_t group_cols = grid_group_cols(grid, w.cols), groups = grid_groups(grid, w.cols);
    int64_t part = rows_per_part(w.cols), parts = ceil_div(w.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(w.rows, (p + 1) * part); i++)
            for (int64_t k = 0; k < groups; k++) {
                int64_t first = k * group_cols;
                struct group a = {
                    .w = view_f32(w, i) + first,
                    .x = x.rows ? view_f32(x, i) + first : NULL,
                    .y = view_f32(y, i) + first,
                    .n = min_i64(group_cols, w.cols - first),
                    .scale = view_f32(scale, i)[k],
                    .offset = grid->has_offset ? view_f32(scale, i)[groups + k] : 0,
                };
                one_group(use, grid, &a);
            }
    return STATUS_OK;
}

enum status cpu_grid_offset(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return run(USE_OFFSET, call);
}

enum status cpu_grid_interpolate(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return run(USE_INTERPOLATE, call);
}

enum status cpu_grid_interpolate_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return run(call->accumulate ? USE_GRAD_ADD : USE_GRAD, call);
}

enum status cpu_grid_round(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return run(USE_ROUND, call);
}

enum status cpu_grid_nearest(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return run(USE_NEAREST, call);
}

void grid_middle_offsets(const struct grid *grid, struct view w, struct view scale, int64_t first, int64_t n,
                         float *y) {
    int64_t group_cols = grid_group_cols(grid, w.cols), groups = grid_groups(grid, w.cols);
    int64_t row = first / w.cols, col = first % w.cols;
    for (int64_t i = 0; i < n;) {
        int64_t group = col / group_cols, end = min_i64((group + 1) * group_cols, w.cols);
        struct group a = {
            .w = view_f32(w, row) + col,
            .y = y + i,
            .n = min_i64(end - col, n - i),
            .scale = view_f32(scale, row)[group],
            .offset = grid->has_offset ? view_f32(scale, row)[groups + group] : 0,
        };
        one_group(USE_MIDDLE, grid, &a);
        i += a.n, col += a.n;
        if (col == w.cols) col = 0, row++;
    }
}
