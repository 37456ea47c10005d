#include "tests/cuda_host/planted_bugs.h"

#include "core/cuda/kernel.cuh"

template <enum planted BUG> __global__ void mirror(const float *x, float *y) {
    float *shared = shared_memory<float>();
    int t = (int)threadIdx.x, last = (int)blockDim.x - 1;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + t;
    shared[t] = x[i];
    if (BUG == MIRROR_SHARED_TOO_SHORT && t == last) shared[blockDim.x] = 0;
    if (BUG != MIRROR_WITHOUT_BARRIER && (BUG != MIRROR_WITH_HALF_BARRIER || t < 64)) __syncthreads();
    float turned = shared[last - t];
    if (BUG != MIRROR_WITHOUT_SECOND) __syncthreads();
    shared[t] = turned + 1;
    __syncthreads();
    y[i] = turned + shared[t];
}

template <enum planted BUG> __global__ void warp_mirror(const float *x, float *y) {
    int t = (int)threadIdx.x, lane = t % WARP;
    float *shared = shared_memory<float>() + t - lane;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + t;
    shared[lane] = x[i];
    if (BUG != WARP_MIRROR_WITHOUT_SYNC) __syncwarp();
    y[i] = shared[WARP - 1 - lane];
}

template <enum planted BUG> __global__ void warp_sum(const float *x, float *y) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    int lane = (int)threadIdx.x % WARP;
    float value = x[BUG == WARP_SUM_ONE_AHEAD ? i + 1 : i];
    if (BUG == WARP_SUM_WITHOUT_ONE && lane == 5) return;
    if (BUG != WARP_SUM_IN_HALF || lane < 16)
        for (int step = 1; step < WARP; step *= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
    y[i] = value;
}

template <enum planted BUG> __global__ void copies(const float *x, float *y) {
    float *shared = shared_memory<float>();
    int t = (int)threadIdx.x, n = (int)blockDim.x;
    int64_t first = blockIdx.x * (int64_t)n;
    if (4 * t < n) copy_async(shared + 4 * t + (BUG == COPIES_UNALIGNED), x + first + 4 * t, true);
    copy_async_commit();
    if (4 * t < n) copy_async(shared + n + 4 * t, x, false);
    copy_async_commit();
    if (BUG != COPIES_WITHOUT_WAIT) copy_async_wait<1>();
    __syncthreads();
    float copied = shared[n - 1 - t];
    copy_async_wait<0>();
    __syncthreads();
    y[first + t] = copied + shared[n + t]; // which is 0
}

// a as four 8 x 8 tiles: rows 0 and 8 of columns 0, then of columns 8; b as it lies, so that its tiles are turned.
__global__ void product(const float *x, float *y) {
    bf16 *a = shared_memory<bf16>(), *b = a + 16 * 16;
    int lane = (int)threadIdx.x;
    uint32_t a_part[4], b_part[4];
    float d[4] = {0, 0, 0, 0};
    for (int i = lane; i < 16 * 16; i += WARP) a[i] = bf16_of(x[i]);
    for (int i = lane; i < 16 * 8; i += WARP) b[i] = bf16_of(x[16 * 16 + i]);
    __syncwarp();
    load_tiles(a_part, a + (lane % 16) * 16 + lane / 16 * 8);
    load_tiles_transposed(b_part, b + lane % 16 * 8); // the last two tiles are the first two again
    mma_16x8x16(d, a_part, b_part);
    for (int i = 0; i < 4; i++) y[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = d[i];
}

typedef void kernel(const float *, float *);

enum status planted_run(struct backend *backend, enum planted which, const float *x, float *y) {
    static kernel *const kernels[] = {
        mirror<MIRROR>,
        mirror<MIRROR_WITHOUT_BARRIER>,
        mirror<MIRROR_WITHOUT_SECOND>,
        mirror<MIRROR_WITH_HALF_BARRIER>,
        mirror<MIRROR_SHARED_TOO_SHORT>,
        warp_mirror<WARP_MIRROR>,
        warp_mirror<WARP_MIRROR_WITHOUT_SYNC>,
        warp_sum<WARP_SUM>,
        warp_sum<WARP_SUM_IN_HALF>,
        warp_sum<WARP_SUM_WITHOUT_ONE>,
        warp_sum<WARP_SUM_ONE_AHEAD>,
        copies<COPIES>,
        copies<COPIES_WITHOUT_WAIT>,
        copies<COPIES_UNALIGNED>,
    };
    int64_t row_bytes = PLANTED_THREADS * sizeof(float);
    if (which == PRODUCT) return LAUNCH(product, 1, WARP, (16 * 16 + 16 * 8) * sizeof(bf16), backend, x, y);
    bool twice = which >= COPIES;
    return LAUNCH(kernels[which], PLANTED_BLOCKS, PLANTED_THREADS, row_bytes * (twice ? 2 : 1), backend, x, y);
}
