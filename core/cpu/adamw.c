// adamw on the CPU, as torch.optim.AdamW, followed by projection onto [low, high].
//
// Pieces of 4096 elements over threads, one pass: the offsets of a piece of w, or its random numbers, go to 16 KiB on the stack, then
// one loop does the rest. 1 - 2 y with y = 1 - u is the random pull.
// Traffic: p, m, v read and written, g and w read: 32 bytes per parameter, 28 without w.
#include "core/cpu/cpu.h"
#include "core/cpu/grids.h"
#include "core/ops/adamw_step.h"

#include <math.h>

struct run {
    float *p, *m, *v;
    const float *g, *y; // y: when pulled
    int64_t n;
};

static inline __attribute__((always_inline)) void update(bool pulled, const struct run *run, struct adamw_step step) {
    float *restrict p = run->p, *restrict m = run->m, *restrict v = run->v;
    const float *restrict g = run->g, *restrict y = run->y;
#pragma omp simd
    for (int64_t i = 0; i < run->n; i++) {
        float d = step.factor * g[i];
        d = d < -step.limit ? -step.limit : d;
        d = d > step.limit ? step.limit : d;
        if (pulled) d += step.strength * (1 - 2 * y[i]);
        d += step.concave * (1 - 2 * p[i]);
        m[i] = step.beta1 * m[i] + step.gain1 * d;
        v[i] = step.beta2 * v[i] + step.gain2 * d * d;
        float x = p[i] * step.keep - step.rate * m[i] / (sqrtf(v[i]) * step.root_bias2 + step.eps);
        x = x < step.low ? step.low : x;
        p[i] = x > step.high ? step.high : x;
    }
}

static void random_offsets(struct rng rng, int64_t first, int64_t n, float *y) {
    rng_uniform_fill(rng, (uint64_t)first, y, n);
    for (int64_t i = 0; i < n; i++) y[i] = 1 - y[i];
}

enum status cpu_adamw(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view param = call->out[0], first = call->in[1], second = call->in[2], grad = call->in[3], w = call->in[4];
    const struct adamw_params *params = &call->params.adamw;
    const struct adamw_step step = adamw_step_of(params);
    const bool pulled = (w.rows || params->random) && params->strength != 0;
    struct pieces cut = pieces_of(param, view_is_contiguous(param) && view_is_contiguous(first) &&
                                             view_is_contiguous(second) && view_is_contiguous(grad));
#pragma omp parallel for if (cut.count > ALONE)
    for (int64_t piece = 0; piece < cut.count; piece++) {
        struct piece at = piece_at(cut, piece);
        float y[PIECE];
        struct run run = {
            .p = view_f32(param, at.row) + at.first,
            .m = view_f32(first, at.row) + at.first,
            .v = view_f32(second, at.row) + at.first,
            .g = view_f32(grad, at.row) + at.first,
            .y = y,
            .n = at.n,
        };
        int64_t place = at.row * param.cols + at.first;
        if (pulled) {
            if (params->random)
                random_offsets(params->pull, place, at.n, y);
            else
                grid_middle_offsets(params->grid, w, call->in[5], place, at.n, y);
            update(true, &run, step);
        } else {
            update(false, &run, step);
        }
    }
    return STATUS_OK;
}
