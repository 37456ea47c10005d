// What kernel.cuh takes from here instead of CUDA where the host's compiler compiles kernels: the words of CUDA C++ that kernels
// may use, on one fiber per CUDA thread. README.md says how blocks, warps and lanes take turns and what that finds.
//
// Who uses CUDA wrongly (a barrier that part of a block reaches, a shuffle that lanes of its mask do not reach, an unaligned
// tile) is told file, line, kernel, block and thread on stderr, and the process aborts.
#ifndef DQ_TESTS_CUDA_HOST_CUDA_EMULATION_CUH
#define DQ_TESTS_CUDA_HOST_CUDA_EMULATION_CUH

#include <string.h>
#include <tuple>

// Names of its own, so that a program can also hold what nvcc makes of the same kernel.
#define __global__ __attribute__((abi_tag("cuda_host")))
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

// Of the thread that runs now.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// Where in the source a call stands: the last two parameters of everything that threads meet in.
#define CALL_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Lanes of a warp meet: when all of the mask have arrived with the same `what` from the same line, the last one runs
// `together` on the slots of all, indexed by lane, and everybody goes on.
void emulation_meet(unsigned mask, const char *what, void *slot, void (*together)(void *const *slots, unsigned mask),
                    const char *file, int line);
void emulation_barrier(const char *file, int line);
void *emulation_shared();
void emulation_copy(void *shared, const void *global, bool valid, const char *file, int line);
void emulation_copy_commit();
void emulation_copy_wait(int pending);
void emulation_run(const char *kernel, dim3 grid, dim3 block, int64_t shared_bytes, void (*run)(void *), void *context);

static inline void __syncthreads(CALL_SITE) { emulation_barrier(file, line); }
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, CALL_SITE) {
    emulation_meet(mask, "__syncwarp", NULL, NULL, file, line);
}

template <typename T> struct shuffle_slot {
    T given, got;
    int from; // lane
};

// A lane outside the mask gives bytes of 0xFF: CUDA leaves its value open.
template <typename T> void shuffle_together(void *const *slots, unsigned mask) {
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1)) continue;
        shuffle_slot<T> *slot = (shuffle_slot<T> *)slots[lane];
        if (mask >> slot->from & 1)
            slot->got = ((shuffle_slot<T> *)slots[slot->from])->given;
        else
            memset(&slot->got, 0xFF, sizeof slot->got);
    }
}

static inline int emulation_lane() {
    return (int)((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

template <typename T> T shuffle(unsigned mask, const char *what, T value, int from, const char *file, int line) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8), "what CUDA shuffles");
    shuffle_slot<T> slot = {value, value, from};
    emulation_meet(mask, what, &slot, shuffle_together<T>, file, line);
    return slot.got;
}

// Lanes work in segments of `width`; a lane whose source would lie outside its segment keeps its own value.
template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, CALL_SITE) {
    int lane = emulation_lane(), segment = lane / width * width;
    return shuffle(mask, "__shfl_sync", value, segment + (source & (width - 1)), file, line);
}
template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CALL_SITE) {
    int lane = emulation_lane(), segment = lane / width * width, from = lane - (int)delta;
    return shuffle(mask, "__shfl_up_sync", value, from < segment ? lane : from, file, line);
}
template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CALL_SITE) {
    int lane = emulation_lane(), segment = lane / width * width, from = lane + (int)delta;
    return shuffle(mask, "__shfl_down_sync", value, from >= segment + width ? lane : from, file, line);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CALL_SITE) {
    int lane = emulation_lane(), segment = lane / width * width, from = lane ^ bits;
    return shuffle(mask, "__shfl_xor_sync", value, from >= segment + width ? lane : from, file, line);
}

template <typename T> T *shared_memory() { return (T *)emulation_shared(); }

static inline float to_float(float value) { return value; }
static inline float to_float(bf16 value) { return bf16_to_float(value.bits); }
static inline float bits_to_float(uint32_t bits) { return float_from_bits(bits); }
static inline uint32_t float_bits(float value) { return float_to_bits(value); }
static inline bf16 bf16_of(float value) { return {bf16_from_float(value)}; }
static inline uint32_t bf16_pair(float low, float high) {
    return bf16_from_float(low) | (uint32_t)bf16_from_float(high) << 16;
}
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }

void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], CALL_SITE);
void load_tiles(uint32_t out[4], const void *row, CALL_SITE);
void load_tiles_transposed(uint32_t out[4], const void *row, CALL_SITE);

static inline void copy_async(void *shared, const void *global, bool valid, CALL_SITE) {
    emulation_copy(shared, global, valid, file, line);
}
static inline void copy_async_commit() { emulation_copy_commit(); }
template <int PENDING> void copy_async_wait() { emulation_copy_wait(PENDING); }

// Parameters are converted once, at the launch.
template <typename... PARAMETER, typename... ARGUMENT>
enum status emulation_launch(const char *name, dim3 grid, dim3 block, int64_t shared_bytes, const struct backend *,
                             void (*kernel)(PARAMETER...), ARGUMENT &&...arguments) {
    std::tuple<PARAMETER...> bound(static_cast<PARAMETER>(arguments)...);
    auto run = [&] { std::apply(kernel, bound); };
    emulation_run(
        name, grid, block, shared_bytes, [](void *context) { (*(decltype(run) *)context)(); }, &run);
    return STATUS_OK;
}

#define LAUNCH(kernel, grid, block, shared_bytes, backend, ...)                                                        \
    emulation_launch(#kernel, (grid), (block), (int64_t)(shared_bytes), (backend), (kernel), __VA_ARGS__)

#endif
