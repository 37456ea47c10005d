#include "core/cuda/blas.cuh"
#include "core/cuda/device.cuh"
#include "core/cuda/solver.cuh"

#include "core/base/mem.h"

#include <stdlib.h>

extern "C" const struct backend_fns cuda_backend_fns CUDA_SYMBOL(backend_fns);

// Ops without a kernel, one line each: their entry is NULL, and a kernel that is forgotten here and there is a link error.
#define OP_NOT_ON_CUDA(name) extern "C" op_kernel cuda_##name __attribute__((weak));

static op_kernel *const kernels[OP_COUNT] = {
#define OP(name) cuda_##name,
#include "core/ops/op_list.h"
#undef OP
};

static void cuda_close(struct backend *backend) {
    struct cuda_state *state = cuda_state_of(backend);
    solver_close(state->solver);
    blas_close(state->blas);
    if (state->device) device_free(state->device, state->scratch);
    device_close(state->device);
    free(state);
}

static enum status cuda_open(struct backend *backend) {
    enum status status = STATUS_OK;
    struct cuda_state *state = (struct cuda_state *)mem_new(1, sizeof *state);
    backend->state = state;
    TRY(device_open(&state->device));
    TRY(blas_open(state->device, &state->blas));
done:
    if (status != STATUS_OK) cuda_close(backend);
    return status;
}

static enum status cuda_buffer_new(struct backend *backend, int64_t bytes, const char *what, void **out) {
    return device_alloc(cuda_state_of(backend)->device, bytes, what, out);
}

static void cuda_buffer_free(struct backend *backend, void *buffer) {
    device_free(cuda_state_of(backend)->device, buffer);
}

static enum status cuda_write(struct backend *backend, void *to, const void *host, int64_t bytes) {
    return device_write(cuda_state_of(backend)->device, to, host, bytes);
}

static enum status cuda_read(struct backend *backend, void *host, const void *from, int64_t bytes) {
    return device_read(cuda_state_of(backend)->device, host, from, bytes);
}

static int64_t cuda_bytes_peak(const struct backend *backend) {
    return device_bytes_peak(cuda_state_of(backend)->device);
}

static enum status cuda_sync(struct backend *backend) { return device_sync(cuda_state_of(backend)->device); }

static int64_t cuda_bytes_free(const struct backend *backend) {
    return device_bytes_free(cuda_state_of(backend)->device);
}

enum status device_scratch(struct backend *backend, int64_t bytes, void **out) {
    struct cuda_state *state = cuda_state_of(backend);
    device_free(state->device, state->scratch);
    state->scratch = NULL;
    enum status status = device_alloc(state->device, bytes, "scratch of a kernel", &state->scratch);
    if (status == STATUS_OK) *out = state->scratch;
    return status;
}

#ifdef __CUDACC__
#define NAME "cuda"
#else
#define NAME "cuda_host"
#endif

const struct backend_fns cuda_backend_fns = {
    .name = NAME,
    .host_memory = false,
    .bf16 = true,
    .check = device_check,
    .open = cuda_open,
    .close = cuda_close,
    .buffer_new = cuda_buffer_new,
    .buffer_free = cuda_buffer_free,
    .write = cuda_write,
    .read = cuda_read,
    .sync = cuda_sync,
    .bytes_peak = cuda_bytes_peak,
    .bytes_free = cuda_bytes_free,
    .kernels = kernels,
};
