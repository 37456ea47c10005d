// Random numbers in kernels: the bits of core/base/rng.h.
//
//     float u = random_uniform(rng, index);       // rng_uniform
//     uint32_t words[4];
//     random_block(rng, i, words);                // rng_bits at 4 i .. 4 i + 3
//     y[i] = bf16_randomly(value, words[0]);
#ifndef DQ_CORE_CUDA_PHILOX_CUH
#define DQ_CORE_CUDA_PHILOX_CUH

#include "core/base/philox.h"
#include "core/base/rng.h"
#include "core/cuda/kernel.cuh"

__device__ inline void random_block(struct rng rng, uint64_t block, uint32_t (&words)[4]) {
    philox_block(rng.seed, rng.stream, block, words);
}

__device__ inline uint32_t random_bits(struct rng rng, uint64_t index) {
    uint32_t words[4];
    random_block(rng, index / 4, words);
    uint32_t low = index & 1 ? words[1] : words[0], high = index & 1 ? words[3] : words[2];
    return index & 2 ? high : low;
}

__device__ inline float random_uniform(struct rng rng, uint64_t index) {
    return philox_uniform(random_bits(rng, index));
}

// One of the two bf16 numbers around `value`, on average `value`: the low 16 bits of `random` are added to its bits, which are
// then cut. A bf16 number, infinity or NaN stays what it is.
__device__ inline bf16 bf16_randomly(float value, uint32_t random) {
    uint32_t bits = float_bits(value);
    if ((bits & 0x7F800000u) == 0x7F800000u) return bf16_of(value);
    return {(uint16_t)((bits + (random & 0xFFFFu)) >> 16)};
}

#endif
