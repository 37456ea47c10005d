// What the halves of the op sketch share; used by core/cuda/sketch*.cu only.
#ifndef DQ_CORE_CUDA_SKETCH_CUH
#define DQ_CORE_CUDA_SKETCH_CUH

#include "core/cuda/philox.cuh"

inline struct rng sketch_rng(const struct sketch_params *p, uint64_t purpose) {
    return {p->seed, purpose + (uint64_t)(SKETCHES_MOST * p->stream)}; // + j for sketch j
}

extern "C" {
// sketches (+)= S a for dense S.
enum status sketch_dense_cuda(struct backend *backend, const struct op_call *call) CUDA_SYMBOL(sketch_dense_cuda);
}

#endif
