// One CUDA device, one stream. Memory comes from the device's pool in the order of the stream; the pool keeps what is freed,
// so that steps of one shape ask the driver for memory once.
#include "core/cuda/device.cuh"

#include "core/base/mem.h"

#include <stdlib.h>

struct device {
    cudaStream_t stream;
    cudaMemPool_t pool;
};

static enum status failed(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return STATUS_OK;
    cudaGetLastError(); // a failed call leaves the error for the next one to find
    return status_set(STATUS_DEVICE, "the GPU failed at %s: %s", what, cudaGetErrorString(error));
}

extern "C" enum status device_check(void) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return STATUS_OK;
    cudaGetLastError();
    return status_set(STATUS_DEVICE, "--device cuda: no CUDA device (%s); use --device cpu",
                      error == cudaSuccess ? "none found" : cudaGetErrorString(error));
}

extern "C" enum status device_open(struct device **out) {
    enum status status = STATUS_OK;
    struct device *device = (struct device *)mem_new(1, sizeof *device);
    uint64_t keep = UINT64_MAX;
    TRY(failed(cudaSetDevice(0), "opening device 0"));
    TRY(failed(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking), "making a stream"));
    TRY(failed(cudaDeviceGetDefaultMemPool(&device->pool, 0), "opening its memory pool"));
    TRY(failed(cudaMemPoolSetAttribute(device->pool, cudaMemPoolAttrReleaseThreshold, &keep), "its memory pool"));
    *out = device;
    device = NULL;
done:
    device_close(device);
    return status;
}

extern "C" void device_close(struct device *device) {
    if (!device) return;
    if (device->stream) {
        cudaStreamSynchronize(device->stream);
        cudaStreamDestroy(device->stream);
    }
    free(device);
}

// Bytes that an allocation could still get: what the driver has, and what the pool keeps unused.
extern "C" int64_t device_bytes_free(const struct device *device) {
    size_t available = 0, total = 0;
    uint64_t reserved = 0, used = 0;
    cudaMemGetInfo(&available, &total);
    cudaMemPoolGetAttribute(device->pool, cudaMemPoolAttrReservedMemCurrent, &reserved);
    cudaMemPoolGetAttribute(device->pool, cudaMemPoolAttrUsedMemCurrent, &used);
    return (int64_t)(available + (reserved - used));
}

extern "C" enum status device_alloc(struct device *device, int64_t bytes, const char *what, void **out) {
    void *memory = NULL;
    size_t size = bytes > 0 ? (size_t)bytes : 1;
    cudaError_t error = cudaMallocAsync(&memory, size, device->stream);
    if (error == cudaErrorMemoryAllocation) {
        // Freed memory of queued work and unused blocks of the pool come back only after a wait.
        cudaGetLastError();
        cudaStreamSynchronize(device->stream);
        cudaMemPoolTrimTo(device->pool, 0);
        error = cudaMallocAsync(&memory, size, device->stream);
    }
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return status_set(STATUS_NO_MEMORY, "out of memory on the GPU: %s needs %lld bytes, %lld are free", what,
                          (long long)bytes, (long long)device_bytes_free(device));
    }
    enum status status = failed(error, what);
    if (status == STATUS_OK) *out = memory;
    return status;
}

extern "C" void device_free(struct device *device, void *memory) {
    if (memory) cudaFreeAsync(memory, device->stream);
}

extern "C" enum status device_write(struct device *device, void *to, const void *host, int64_t bytes) {
    if (!bytes) return STATUS_OK;
    return failed(cudaMemcpyAsync(to, host, (size_t)bytes, cudaMemcpyHostToDevice, device->stream), "a copy to it");
}

extern "C" enum status device_read(struct device *device, void *host, const void *from, int64_t bytes) {
    if (!bytes) return STATUS_OK;
    enum status status =
        failed(cudaMemcpyAsync(host, from, (size_t)bytes, cudaMemcpyDeviceToHost, device->stream), "a copy from it");
    return status == STATUS_OK ? device_sync(device) : status;
}

extern "C" enum status device_sync(struct device *device) {
    return failed(cudaStreamSynchronize(device->stream), "a kernel queued before");
}

extern "C" int64_t device_bytes_peak(const struct device *device) {
    uint64_t most = 0;
    cudaMemPoolGetAttribute(device->pool, cudaMemPoolAttrUsedMemHigh, &most);
    return (int64_t)most;
}

cudaStream_t device_stream(const struct device *device) { return device->stream; }

cudaStream_t cuda_stream(const struct backend *backend) { return cuda_state_of(backend)->device->stream; }

enum status cuda_launched(const char *kernel) { return failed(cudaGetLastError(), kernel); }

void cuda_allow_shared(const void *kernel, int64_t shared_bytes) {
    if (shared_bytes <= 48 * 1024) return;
    // A failure shows at the launch.
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
}
