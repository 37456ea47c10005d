// The part of CUDA that kernels of this folder may use, so that the same file runs on a GPU and, compiled by the host compiler,
// on the emulation of tests/cuda_host.
//
//     template <typename T> __global__ void scale(int64_t n, T *y, float factor) {
//         float *partial = shared_memory<float>();                       // dynamic, size given at the launch
//         int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
//         if (i < n) y[i] = float_to<T>(factor * to_float(y[i]));
//     }
//     return LAUNCH(scale<T>, grid, block, shared_bytes, backend, n, y, factor); // enum status
//
// Besides what is declared here: threadIdx, blockIdx, blockDim, gridDim, dim3, float2, float4, uint2, uint4, int4, __global__,
// __device__, __launch_bounds__, __forceinline__, __syncthreads, __syncwarp, __shfl_sync, __shfl_up_sync, __shfl_down_sync,
// __shfl_xor_sync, rsqrtf, plain C mathematics. Not: static __shared__, atomics on floating point, anything else of CUDA.
// Reductions go in an order that the shape alone decides. A block has one __syncthreads that all its threads reach, those
// without work as well; a mask names lanes that all arrive.
//
// Scratch memory of a launcher: device_scratch (core/cuda/device.cuh).
#ifndef DQ_CORE_CUDA_KERNEL_CUH
#define DQ_CORE_CUDA_KERNEL_CUH

#include "core/backend/backend.h"
#include "core/tensor/dtype.h"

#include <math.h>
#include <stdint.h>

enum { WARP = 32 };

// A bfloat16 in memory.
struct bf16 {
    uint16_t bits;
};

// Names of functions with C linkage differ between the two builds, so that one program can hold both.
#ifdef __CUDACC__
#define CUDA_SYMBOL(name)
#else
#define CUDA_SYMBOL(name) __asm__("cuda_host_" #name)
#endif

// The kernels of this folder: one launcher per op, calls already checked (backend_run).
#define OP(name) extern "C" op_kernel cuda_##name CUDA_SYMBOL(name);
#include "core/ops/op_list.h"
#undef OP

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_runtime.h>

cudaStream_t cuda_stream(const struct backend *backend);
// STATUS_DEVICE naming the kernel when the launch failed.
enum status cuda_launched(const char *kernel);
// Lets a kernel use more than 48 KiB of dynamic shared memory; up to 163 KiB are had on every device from sm_80 on.
void cuda_allow_shared(const void *kernel, int64_t shared_bytes);

// clang-format takes <<< apart.
// clang-format off
#define LAUNCH(kernel, grid, block, shared_bytes, backend, ...)                                                        \
    (cuda_allow_shared((const void *)(kernel), (int64_t)(shared_bytes)),                                               \
     (kernel)<<<(grid), (block), (size_t)(shared_bytes), cuda_stream(backend)>>>(__VA_ARGS__), cuda_launched(#kernel))
// clang-format on

template <typename T> __device__ inline T *shared_memory() {
    extern __shared__ __align__(128) unsigned char shared_bytes[];
    return reinterpret_cast<T *>(shared_bytes);
}

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(bf16 value) { return __uint_as_float((uint32_t)value.bits << 16); }
__device__ inline float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline uint32_t float_bits(float value) { return __float_as_uint(value); }
__device__ inline bf16 bf16_of(float value) { return {__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }

// Two values as the halves of a word, `low` in the lower 16 bits: how tensor cores take them.
__device__ inline uint32_t bf16_pair(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}

// d += a b on tensor cores, one warp: a [16, 16] row-major, b [16, 8], d [16, 8] fp32, fragments as the PTX ISA lays them out
// for mma.m16n8k16 with .bf16: with g = lane / 4, t = lane % 4 a holds rows g, g + 8, g, g + 8 at columns 2t, 2t, 2t + 8, 2t + 8;
// b rows 2t, 2t + 8 of column g; d rows g, g, g + 8, g + 8 at columns 2t, 2t + 1, 2t, 2t + 1.
__device__ inline void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 tiles of 16-bit numbers from shared memory, one warp: lane l gives the address of row l % 8 of tile l / 8 (16 bytes,
// 16-byte aligned); out[i] is tile i's row lane / 4, columns 2 (lane % 4) and the next; transposed: that of the tile's transpose.
__device__ inline void load_tiles(uint32_t out[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
__device__ inline void load_tiles_transposed(uint32_t out[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

// 16 bytes from global to shared memory without registers; zeros instead where `valid` is false. They are there after the
// copy_async_wait that covers their commit, for this thread, and after a barrier for the block.
__device__ inline void copy_async(void *shared, const void *global, bool valid) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(bytes) : "memory");
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most PENDING of the newest commits are under way.
template <int PENDING> __device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

#include <cuda_emulation.cuh> // of the build that compiles kernels for the host: tests/cuda_host

#endif

template <typename T> __device__ inline T float_to(float value);
template <> __device__ inline float float_to<float>(float value) { return value; }
template <> __device__ inline bf16 float_to<bf16>(float value) { return bf16_of(value); }

// Row i of a view on the device.
template <typename T> inline T *row_of(struct view v, int64_t i) { return (T *)v.data + i * v.stride; }

// Runs the statement with `T` the type of a view's elements: WITH_FLOAT(T, y.dtype, status = LAUNCH(fill<T>, …));
#define WITH_FLOAT(T, dtype_, ...)                                                                                     \
    do {                                                                                                               \
        if ((dtype_) == DTYPE_BF16) {                                                                                  \
            typedef bf16 T;                                                                                            \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            typedef float T;                                                                                           \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

#endif
