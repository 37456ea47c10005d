// adamw on the CPU, as torch.optim.AdamW, followed by projection onto [low, high].
//
// Pieces of 4096 elements over threads, one pass. Traffic: p, m, v read and written, g read: 28 bytes per parameter.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

#include <math.h>

struct adamw_step {
    float keep, beta1, beta2, rate, root_bias2, eps, low, high; // keep = 1 - rate decay; rate is bias-corrected
    float gain1, gain2;                                         // 1 - beta1, 1 - beta2
};

static struct adamw_step adamw_step(const struct adamw_params *p) {
    double bias1 = 1 - pow(p->beta1, (double)p->step), bias2 = 1 - pow(p->beta2, (double)p->step);
    struct adamw_step step = {
        .keep = (float)(1 - p->rate * p->decay),
        .beta1 = (float)p->beta1,
        .beta2 = (float)p->beta2,
        .gain1 = (float)(1 - p->beta1),
        .gain2 = (float)(1 - p->beta2),
        .rate = (float)(p->rate / bias1),
        .root_bias2 = (float)(1 / sqrt(bias2)),
        .eps = (float)p->eps,
        .low = (float)p->low,
        .high = (float)p->high,
    };
    return step;
}

enum status cpu_adamw(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view param = call->out[0], first = call->in[1], second = call->in[2], grad = call->in[3];
    const struct adamw_step step = adamw_step(&call->params.adamw);
    struct pieces cut = pieces_of(param, view_is_contiguous(param) && view_is_contiguous(first) &&
                                             view_is_contiguous(second) && view_is_contiguous(grad));
#pragma omp parallel for if (cut.count > ALONE)
    for (int64_t piece = 0; piece < cut.count; piece++) {
        struct piece at = piece_at(cut, piece);
        float *restrict p = view_f32(param, at.row) + at.first, *restrict m = view_f32(first, at.row) + at.first;
        float *restrict v = view_f32(second, at.row) + at.first;
        const float *restrict g = view_f32(grad, at.row) + at.first;
#pragma omp simd
        for (int64_t i = 0; i < at.n; i++) {
            m[i] = step.beta1 * m[i] + step.gain1 * g[i];
            v[i] = step.beta2 * v[i] + step.gain2 * g[i] * g[i];
            float x = p[i] * step.keep - step.rate * m[i] / (sqrtf(v[i]) * step.root_bias2 + step.eps);
            x = x < step.low ? step.low : x;
            p[i] = x > step.high ? step.high : x;
        }
    }
    return STATUS_OK;
}
