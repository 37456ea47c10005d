// How kernels that reduce along a row share it: a row of a few packs is the work of one warp, ROWS_PER_BLOCK of them in a block
// without a barrier; a wider row is the work of a block.
//
//     struct teams teams = teams_of(x.rows, x.cols / N);
//     LAUNCH((kernel<T, N>), teams.blocks, teams.threads, REDUCE_BYTES, backend, teams, …);
//
//     struct team team = team_here(teams);            // in the kernel
//     if (team.row >= teams.rows) return;             // a whole warp
//     for (int64_t p = team.rank; p < teams.packs; p += team.size) sum += …;
//     sum = team_sum(team, sum, shared_memory<float>());
//
// The first PACKS_HELD packs of a thread fit into its registers, so that a row of up to
// TEAM_LARGEST PACKS_HELD packs is read once: 16384 columns of bf16, 8192 of fp32.
#ifndef DQ_CORE_CUDA_TEAM_CUH
#define DQ_CORE_CUDA_TEAM_CUH

#include "core/cuda/reduce.cuh"

enum { PACKS_HELD = 4, ROWS_PER_BLOCK = 4, TEAM_LARGEST = 512 };

struct teams {
    int64_t rows, packs; // packs per row
    unsigned blocks, threads;
    int size; // threads per row: WARP, or all of the block
};

inline struct teams teams_of(int64_t rows, int64_t packs) {
    int64_t size = (packs + WARP * PACKS_HELD - 1) / (WARP * PACKS_HELD) * WARP;
    if (size > TEAM_LARGEST) size = TEAM_LARGEST;
    int64_t rows_each = size == WARP ? ROWS_PER_BLOCK : 1, blocks = (rows + rows_each - 1) / rows_each;
    REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
    return {rows, packs, (unsigned)blocks, (unsigned)(size * rows_each), (int)size};
}

struct team {
    int64_t row;
    int rank, size;
};

__device__ inline struct team team_here(struct teams t) {
    if (t.size > WARP) return {(int64_t)blockIdx.x, (int)threadIdx.x, t.size};
    return {(int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP, (int)(threadIdx.x % WARP), WARP};
}

template <typename T> __device__ inline T team_sum(struct team team, T value, T *partial) {
    return team.size == WARP ? warp_sum(value) : block_sum(value, partial);
}

#endif
