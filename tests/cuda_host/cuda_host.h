// The emulated device as a backend, for tests. After backend_add its name is "cuda_host".
#ifndef DQ_TESTS_CUDA_HOST_CUDA_HOST_H
#define DQ_TESTS_CUDA_HOST_CUDA_HOST_H

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct backend_fns cuda_host_backend_fns;

// Everything that follows runs in an order drawn from this seed, DISCQUANT_EMULATION_SEED added to it.
void emulation_seed(uint64_t seed);

#ifdef __cplusplus
}
#endif
#endif
