// What adamw needs of its parameters for one element, computed in double once per call; the same on every backend.
#ifndef DQ_CORE_OPS_ADAMW_STEP_H
#define DQ_CORE_OPS_ADAMW_STEP_H

#include "core/ops/op.h"

#include <math.h>

struct adamw_step {
    float keep, beta1, beta2, rate, root_bias2, eps, low, high; // keep = 1 - rate decay; rate is bias-corrected
    float gain1, gain2;                                         // 1 - beta1, 1 - beta2
    float factor, limit, strength, concave;
};

static inline struct adamw_step adamw_step_of(const struct adamw_params *p) {
    struct adamw_step s;
    double bias1 = 1 - pow(p->beta1, (double)p->step), bias2 = 1 - pow(p->beta2, (double)p->step);
    s.keep = (float)(1 - p->rate * p->decay);
    s.beta1 = (float)p->beta1, s.beta2 = (float)p->beta2;
    s.gain1 = (float)(1 - p->beta1), s.gain2 = (float)(1 - p->beta2);
    s.rate = (float)(p->rate / bias1);
    s.root_bias2 = (float)(1 / sqrt(bias2));
    s.eps = (float)p->eps;
    s.low = (float)p->low, s.high = (float)p->high;
    s.factor = (float)p->factor;
    s.limit = p->limit > 0 ? (float)p->limit : INFINITY;
    s.strength = (float)p->strength;
    s.concave = (float)p->concave;
    return s;
}

#endif
