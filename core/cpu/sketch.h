// What the two halves of the op sketch on the CPU share; used by core/cpu/sketch*.c only.
#ifndef DQ_CORE_CPU_SKETCH_H
#define DQ_CORE_CPU_SKETCH_H

#include "core/ops/op.h"

static inline struct rng sketch_rng(const struct sketch_params *p, uint64_t purpose, int64_t j) {
    return (struct rng){.seed = p->seed, .stream = purpose + (uint64_t)(SKETCHES_MOST * p->stream + j)};
}

// sketches += S a for dense S.
enum status sketch_dense(const struct sketch_params *p, struct view a, struct view sketches);

#endif
