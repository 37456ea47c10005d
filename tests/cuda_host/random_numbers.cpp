#include "tests/cuda_host/random_numbers.h"

#include "core/cuda/philox.cuh"

static __global__ void draw(struct rng rng, uint64_t first, int64_t n, uint32_t *bits, float *uniform) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= n) return;
    bits[i] = random_bits(rng, first + (uint64_t)i);
    uniform[i] = random_uniform(rng, first + (uint64_t)i);
}

enum status random_numbers(struct backend *backend, struct rng rng, uint64_t first, struct view bits,
                           struct view uniform) {
    unsigned blocks = (unsigned)((bits.cols + 63) / 64);
    return LAUNCH(draw, blocks, 64, 0, backend, rng, first, bits.cols, (uint32_t *)bits.data, (float *)uniform.data);
}
