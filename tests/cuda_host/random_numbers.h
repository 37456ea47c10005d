// core/cuda/philox.cuh on the emulated device, for kernels_equal_cpu_test.c.
#ifndef DQ_TESTS_CUDA_HOST_RANDOM_NUMBERS_H
#define DQ_TESTS_CUDA_HOST_RANDOM_NUMBERS_H

#include "core/base/rng.h"
#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

// bits [1, n] I32, uniform [1, n] F32 on the device: those at first, first + 1, …
enum status random_numbers(struct backend *backend, struct rng rng, uint64_t first, struct view bits,
                           struct view uniform);

#ifdef __cplusplus
}
#endif
#endif
