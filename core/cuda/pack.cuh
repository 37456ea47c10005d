// Rows of numbers in packs of N: 16 bytes per access where the views allow it, single elements (N = 1) where not.
//
//     WITH_FLOAT(T, y.dtype,
//                WITH_PACK(N, sizeof(T), packs_fit(x, sizeof(T)) && packs_fit(y, sizeof(T)),
//                          status = LAUNCH((scale<T, N>), …, strided_of<const T>(x), strided_of<T>(y))));
//
//     float v[N];                        // in the kernel: pack p of row i
//     load_pack(v, x.row(i) + p * N);
//     store_pack(y.row(i) + p * N, v);
#ifndef DQ_CORE_CUDA_PACK_CUH
#define DQ_CORE_CUDA_PACK_CUH

#include "core/cuda/kernel.cuh"

#include <string.h>

template <typename T> struct strided {
    T *data;
    int64_t stride;
    __device__ inline T *row(int64_t i) const { return data + i * stride; }
};

template <typename T> inline strided<T> strided_of(struct view v) { return {(T *)v.data, v.stride}; }

template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) pack { T at[N]; };

template <int N, typename T> __device__ inline pack<T, N> pack_at(const T *from) {
    return *reinterpret_cast<const pack<T, N> *>(from);
}

template <typename T, int N> __device__ inline void pack_floats(float (&to)[N], const pack<T, N> &from) {
    for (int i = 0; i < N; i++) to[i] = to_float(from.at[i]);
}

template <int N, typename T> __device__ inline void load_pack(float (&to)[N], const T *from) {
    pack_floats(to, pack_at<N>(from));
}

template <int N> __device__ inline void store_pack(float *to, const float (&from)[N]) {
    pack<float, N> all;
    for (int i = 0; i < N; i++) all.at[i] = from[i];
    *reinterpret_cast<pack<float, N> *>(to) = all;
}

template <int N> __device__ inline void store_pack(bf16 *to, const float (&from)[N]) {
    pack<bf16, N> all;
    if constexpr (N % 2 == 0) {
        uint32_t words[N / 2]; // two at a time is one instruction
        for (int i = 0; i < N / 2; i++) words[i] = bf16_pair(from[2 * i], from[2 * i + 1]);
        memcpy(&all, words, sizeof all);
    } else {
        for (int i = 0; i < N; i++) all.at[i] = bf16_of(from[i]);
    }
    *reinterpret_cast<pack<bf16, N> *>(to) = all;
}

// Whether rows can be read in packs of 16 / element_bytes, where element_bytes is the smallest among the operands of a call.
inline bool packs_fit(struct view v, int64_t element_bytes) {
    return (uintptr_t)v.data % 16 == 0 && v.cols % (16 / element_bytes) == 0 &&
           (v.rows == 1 || v.stride * dtype_bytes(v.dtype) % 16 == 0);
}

// Runs the statement with N the elements per pack.
#define WITH_PACK(N, element_bytes, fits, ...)                                                                         \
    do {                                                                                                               \
        if (fits) {                                                                                                    \
            constexpr int N = 16 / (int)(element_bytes);                                                               \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            constexpr int N = 1;                                                                                       \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } while (0)

#endif
