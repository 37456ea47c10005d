// Reductions over a warp and over a block, in an order that the number of threads alone decides; every thread gets the result.
//
//     double *partial = shared_memory<double>();  // REDUCE_BYTES at the launch
//     float top = block_max(value, (float *)partial);
//     double sum = block_sum(term, partial);      // the same memory again: a reduction begins with a barrier
//
// All threads of the block take part, and blockDim.x is a multiple of WARP. A block of one warp needs no shared memory.
#ifndef DQ_CORE_CUDA_REDUCE_CUH
#define DQ_CORE_CUDA_REDUCE_CUH

#include "core/cuda/kernel.cuh"

enum { REDUCE_BYTES = WARP * sizeof(double) }; // one number per warp

struct reduce_sum {
    template <typename T> static __device__ inline T of(T a, T b) { return a + b; }
};
struct reduce_max {
    static __device__ inline float of(float a, float b) { return fmaxf(a, b); } // NaN does not win
};
struct reduce_min {
    static __device__ inline int32_t of(int32_t a, int32_t b) { return a < b ? a : b; }
};

// The butterfly gives every lane the same bits: each step adds the same two numbers on both sides.
template <typename OP, typename T> __device__ inline T warp_reduce(T value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        value = OP::of(value, (T)__shfl_xor_sync(0xFFFFFFFFu, value, offset));
    return value;
}

template <typename OP, typename T> __device__ inline T block_reduce(T value, T none, T *partial) {
    value = warp_reduce<OP>(value);
    int lane = (int)(threadIdx.x % WARP), warp = (int)(threadIdx.x / WARP), warps = (int)(blockDim.x / WARP);
    if (warps == 1) return value;
    __syncthreads(); // who still reads `partial` of an earlier reduction
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    return warp_reduce<OP>(lane < warps ? partial[lane] : none);
}

template <typename T> __device__ inline T warp_sum(T value) { return warp_reduce<reduce_sum>(value); }
__device__ inline float warp_max(float value) { return warp_reduce<reduce_max>(value); }

template <typename T> __device__ inline T block_sum(T value, T *partial) {
    return block_reduce<reduce_sum>(value, (T)0, partial);
}
__device__ inline float block_max(float value, float *partial) {
    return block_reduce<reduce_max>(value, -INFINITY, partial);
}
__device__ inline int32_t block_min(int32_t value, int32_t *partial) {
    return block_reduce<reduce_min>(value, INT32_MAX, partial);
}

#endif
