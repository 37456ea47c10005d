// The device behind the backend: memory, copies, waiting. device.cu is the GPU; tests/cuda_host has the same functions for the
// emulated one.
//
//     struct device *device = NULL;
//     TRY(device_open(&device));
//     TRY(device_alloc(device, bytes, "weights", &p));
//     device_free(device, p);      // in the order of the stream: kernels already queued may still use it
//     device_close(device);
//
// Everything is queued on one stream; device_read and device_sync wait for it, and report what failed in kernels queued before.
#ifndef DQ_CORE_CUDA_DEVICE_CUH
#define DQ_CORE_CUDA_DEVICE_CUH

#include "core/cuda/kernel.cuh"

struct device;
struct blas;
struct solver;

// What backend->state points to.
struct cuda_state {
    struct device *device;
    struct blas *blas;     // core/cuda/blas.cuh
    struct solver *solver; // core/cuda/solver.cuh; NULL until a factorization needs it
    void *scratch;         // of device_scratch
};

inline struct cuda_state *cuda_state_of(const struct backend *backend) { return (struct cuda_state *)backend->state; }

extern "C" {

// STATUS_DEVICE where there is none.
enum status device_check(void) CUDA_SYMBOL(device_check);

enum status device_open(struct device **out) CUDA_SYMBOL(device_open);
void device_close(struct device *device) CUDA_SYMBOL(device_close); // accepts NULL

// Aligned to at least 64 bytes, not zeroed; STATUS_NO_MEMORY with the bytes wanted and free.
enum status device_alloc(struct device *device, int64_t bytes, const char *what, void **out) CUDA_SYMBOL(device_alloc);
void device_free(struct device *device, void *memory) CUDA_SYMBOL(device_free); // accepts NULL
// What allocations could still get; -1 where the device has no limit of its own.
int64_t device_bytes_free(const struct device *device) CUDA_SYMBOL(device_bytes_free);

enum status device_write(struct device *device, void *to, const void *host, int64_t bytes) CUDA_SYMBOL(device_write);
enum status device_read(struct device *device, void *host, const void *from, int64_t bytes) CUDA_SYMBOL(device_read);
enum status device_sync(struct device *device) CUDA_SYMBOL(device_sync);

// The most bytes that allocations have held at once.
int64_t device_bytes_peak(const struct device *device) CUDA_SYMBOL(device_bytes_peak);

// Memory for the launches until the next call of device_scratch: ordered with the stream, aligned and not zeroed, as above.
enum status device_scratch(struct backend *backend, int64_t bytes, void **out) CUDA_SYMBOL(device_scratch);
}

#ifdef __CUDACC__
cudaStream_t device_stream(const struct device *device);
#endif

#endif
