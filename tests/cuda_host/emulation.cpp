// The scheduler of the emulation. Blocks run one at a time in random order. In each round the warps of the block take turns in
// random order, and each goes as far as it can: until all its lanes wait at the block's barrier or have ended. So a warp that
// runs ahead of a missing barrier does it as far as the hardware ever could.
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/device_memory.h"
#include "tests/cuda_host/fiber.h"

#include "core/cuda/kernel.cuh"

#include <algorithm>
#include <numeric>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
enum { WITH_ASAN = 1 };
#else
enum { WITH_ASAN = 0 };
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

enum { THREADS_MOST = 1024, GRID_Y_MOST = 65535, SHARED_MOST = 163 * 1024, SHARED_ALIGNMENT = 128 };

enum turn { READY, AT_BARRIER, AT_MEETING, ENDED };

struct pending_copy {
    void *shared;
    const void *global;
    bool valid;
};

struct thread {
    struct fiber *fiber;
    enum turn turn;
    uint3 index;
    const char *file; // where it waits
    int line;
    const char *what; // AT_MEETING
    unsigned mask;
    void *slot;
    std::vector<pending_copy> copies;
    std::vector<size_t> commits; // copies covered by each commit not waited for
};

static struct {
    const char *kernel;
    void (*run)(void *);
    void *context;
    int n_threads;
    thread threads[THREADS_MOST];
    thread *current;
    char *shared;
    int64_t shared_bytes;
    uint64_t random;
} block;

// ---- misuse

__attribute__((noreturn, format(printf, 4, 5))) static void misuse(const thread *who, const char *file, int line,
                                                                   const char *format, ...) {
    va_list args;
    fprintf(stderr, "cuda_host: %s:%d: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", file, line, block.kernel,
            blockIdx.x, blockIdx.y, blockIdx.z, who->index.x, who->index.y, who->index.z);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

// While kernels run, memory that they must not touch is reported here, or by AddressSanitizer with the line; the test
// framework's handler would go on in the middle of a fiber.
static struct sigaction asan_action;
__attribute__((constructor)) static void asan_action_keep() { sigaction(SIGSEGV, NULL, &asan_action); }

static void segv_report(int) {
    misuse(block.current, "emulation", 0, "memory that is neither an operand's nor the block's");
}

static struct sigaction segv_take() {
    struct sigaction ours = {}, before;
    ours.sa_handler = segv_report;
    REQUIRE(sigaction(SIGSEGV, WITH_ASAN ? &asan_action : &ours, &before) == 0, "no handler of signals");
    return before;
}

// ---- random order

static uint64_t random_next() { // splitmix64
    uint64_t x = block.random += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static void shuffle_order(int *order, int n) {
    for (int i = n - 1; i > 0; i--) std::swap(order[i], order[random_next() % (uint64_t)(i + 1)]);
}

void emulation_seed(uint64_t seed) {
    const char *more = getenv("DISCQUANT_EMULATION_SEED");
    block.random = seed * 0x9E3779B97F4A7C15u + (more ? strtoull(more, NULL, 10) : 0);
}

// ---- what threads call

static void thread_main(void *self) {
    thread *t = (thread *)self;
    for (;;) {
        block.run(block.context);
        t->turn = ENDED;
        fiber_leave(t->fiber);
    }
}

static void wait(enum turn turn, const char *file, int line) {
    thread *t = block.current;
    t->turn = turn, t->file = file, t->line = line;
    fiber_leave(t->fiber);
}

void emulation_barrier(const char *file, int line) { wait(AT_BARRIER, file, line); }

static thread *warp_of(const thread *t) { return block.threads + (t - block.threads) / WARP * WARP; }

static bool meets(const thread *t, const thread *other) {
    return other->turn == AT_MEETING && other->mask == t->mask && other->what == t->what && other->line == t->line &&
           strcmp(other->file, t->file) == 0;
}

void emulation_meet(unsigned mask, const char *what, void *slot, void (*together)(void *const *slots, unsigned mask),
                    const char *file, int line) {
    thread *t = block.current, *warp = warp_of(t);
    t->mask = mask, t->what = what, t->slot = slot, t->file = file, t->line = line, t->turn = AT_MEETING;
    if (!(mask >> (t - warp) & 1)) misuse(t, file, line, "%s whose mask %08x lacks the lane itself", what, mask);
    void *slots[WARP];
    bool complete = true;
    for (int i = 0; i < WARP; i++) {
        if (!(mask >> i & 1)) continue;
        if (warp + i >= block.threads + block.n_threads || warp[i].turn == ENDED)
            misuse(t, file, line, "%s with mask %08x, but lane %d has ended", what, mask, i);
        complete = complete && meets(t, warp + i);
        slots[i] = warp[i].slot;
    }
    if (!complete) {
        fiber_leave(t->fiber);
        return;
    }
    if (together) together(slots, mask);
    for (int i = 0; i < WARP; i++)
        if (mask >> i & 1) warp[i].turn = READY;
}

void *emulation_shared() { return block.shared; }

static bool is_shared(const void *at, int64_t bytes) {
    const char *first = (const char *)at;
    return first >= block.shared && first + bytes <= block.shared + block.shared_bytes;
}

// Between issue and wait the destination holds neither what was there nor what comes.
void emulation_copy(void *shared, const void *global, bool valid, const char *file, int line) {
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16) misuse(block.current, file, line, "copy_async not aligned");
    if (!is_shared(shared, 16)) misuse(block.current, file, line, "copy_async to what is not shared memory");
    memset(shared, 0xFF, 16);
    block.current->copies.push_back({shared, global, valid});
}

void emulation_copy_commit() { block.current->commits.push_back(block.current->copies.size()); }

void emulation_copy_wait(int pending) {
    thread *t = block.current;
    if ((int)t->commits.size() <= pending) return;
    size_t waited = t->commits.size() - (size_t)pending, n = t->commits[waited - 1];
    for (size_t i = 0; i < n; i++) {
        if (t->copies[i].valid)
            memcpy(t->copies[i].shared, t->copies[i].global, 16);
        else
            memset(t->copies[i].shared, 0, 16);
    }
    t->copies.erase(t->copies.begin(), t->copies.begin() + (ptrdiff_t)n);
    t->commits.erase(t->commits.begin(), t->commits.begin() + (ptrdiff_t)waited);
    for (size_t &commit : t->commits) commit -= n;
}

// ---- tensor cores: fragments as kernel.cuh describes them

struct mma_slot {
    float *d;
    const uint32_t *a, *b;
};

static float half_of(uint32_t word, int i) { return bf16_to_float((uint16_t)(word >> 16 * i)); }

static void mma_together(void *const *slots, unsigned) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < WARP; lane++) {
        const mma_slot *slot = (const mma_slot *)slots[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 8; i++) a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of(slot->a[i / 2], i % 2);
        for (int i = 0; i < 4; i++) b[2 * t + i % 2 + i / 2 * 8][g] = half_of(slot->b[i / 2], i % 2);
    }
    for (int lane = 0; lane < WARP; lane++) {
        const mma_slot *slot = (const mma_slot *)slots[lane];
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, col = 2 * (lane % 4) + i % 2;
            double sum = (double)slot->d[i];
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[k][col];
            slot->d[i] = (float)sum;
        }
    }
}

void mma_16x8x16(float d[4], const uint32_t a[4], const uint32_t b[2], const char *file, int line) {
    mma_slot slot = {d, a, b};
    emulation_meet(0xFFFFFFFFu, "mma_16x8x16", &slot, mma_together, file, line);
}

struct tile_slot {
    uint32_t *out;
    const void *row;
};

template <bool TRANSPOSED> static void tiles_together(void *const *slots, unsigned) {
    for (int tile = 0; tile < 4; tile++) {
        uint16_t at[8][8];
        for (int row = 0; row < 8; row++) memcpy(at[row], ((const tile_slot *)slots[tile * 8 + row])->row, 16);
        for (int lane = 0; lane < WARP; lane++) {
            int g = lane / 4, t = 2 * (lane % 4);
            uint32_t low = TRANSPOSED ? at[t][g] : at[g][t], high = TRANSPOSED ? at[t + 1][g] : at[g][t + 1];
            ((const tile_slot *)slots[lane])->out[tile] = low | high << 16;
        }
    }
}

template <bool TRANSPOSED>
static void tiles(uint32_t out[4], const void *row, const char *what, const char *file, int line) {
    if ((uintptr_t)row % 16) misuse(block.current, file, line, "%s not aligned to 16 bytes", what);
    if (!is_shared(row, 16)) misuse(block.current, file, line, "%s from what is not shared memory", what);
    tile_slot slot = {out, row};
    emulation_meet(0xFFFFFFFFu, what, &slot, tiles_together<TRANSPOSED>, file, line);
}

void load_tiles(uint32_t out[4], const void *row, const char *file, int line) {
    tiles<false>(out, row, "load_tiles", file, line);
}

void load_tiles_transposed(uint32_t out[4], const void *row, const char *file, int line) {
    tiles<true>(out, row, "load_tiles_transposed", file, line);
}

// ---- turns

static void run_thread(thread *t) {
    block.current = t;
    threadIdx = t->index;
    fiber_enter(t->fiber);
}

static void run_warp(thread *warp, int lanes) {
    int order[WARP];
    std::iota(order, order + lanes, 0);
    for (bool any = true; any;) {
        any = false;
        shuffle_order(order, lanes);
        for (int i = 0; i < lanes; i++) {
            if (warp[order[i]].turn != READY) continue;
            run_thread(warp + order[i]);
            any = true;
        }
    }
    for (int i = 0; i < lanes; i++)
        if (warp[i].turn == AT_MEETING)
            misuse(warp + i, warp[i].file, warp[i].line, "%s with mask %08x, but not all lanes of the mask arrive",
                   warp[i].what, warp[i].mask);
}

// All threads wait at the barrier or have ended. False when all have ended.
static bool barrier_opens() {
    const thread *waiting = NULL, *ended = NULL;
    for (int i = 0; i < block.n_threads; i++) {
        thread *t = block.threads + i;
        if (t->turn == ENDED) {
            ended = t;
            continue;
        }
        if (waiting && (t->line != waiting->line || strcmp(t->file, waiting->file) != 0))
            misuse(t, t->file, t->line, "__syncthreads, but thread (%u, %u, %u) is at that of line %d",
                   waiting->index.x, waiting->index.y, waiting->index.z, waiting->line);
        waiting = t;
        t->turn = READY;
    }
    if (waiting && ended)
        misuse(waiting, waiting->file, waiting->line, "__syncthreads, but thread (%u, %u, %u) has ended",
               ended->index.x, ended->index.y, ended->index.z);
    return waiting;
}

static void run_block() {
    int warps = (block.n_threads + WARP - 1) / WARP, order[THREADS_MOST / WARP];
    for (int i = 0; i < block.n_threads; i++) {
        thread *t = block.threads + i;
        if (!t->fiber) t->fiber = fiber_new(thread_main, t);
        t->turn = READY;
        t->index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        t->copies.clear();
        t->commits.clear();
    }
    std::iota(order, order + warps, 0);
    do {
        shuffle_order(order, warps);
        for (int i = 0; i < warps; i++)
            run_warp(block.threads + order[i] * WARP, std::min((int)WARP, block.n_threads - order[i] * WARP));
    } while (barrier_opens());
}

// Shared memory of each block: exactly the size asked for, so that AddressSanitizer sees its end, all bytes 0xFF. Without it the
// bytes behind the end are checked.
static void run_block_with_memory() {
    size_t bytes = (size_t)block.shared_bytes, behind = WITH_ASAN ? 0 : SHARED_ALIGNMENT;
    void *memory = NULL;
    if (bytes + behind > 0) REQUIRE(posix_memalign(&memory, SHARED_ALIGNMENT, bytes + behind) == 0, "out of memory");
    block.shared = (char *)memory;
    if (memory) memset(memory, 0xFF, bytes + behind);
    run_block();
    for (size_t i = bytes; i < bytes + behind; i++)
        if ((unsigned char)block.shared[i] != 0xFF)
            misuse(block.threads, "emulation", 0, "the block wrote behind its shared memory");
    free(memory);
    block.shared = NULL;
}

static void launch_check(dim3 grid, dim3 size) {
    uint64_t threads = (uint64_t)size.x * size.y * size.z, blocks = (uint64_t)grid.x * grid.y * grid.z;
    const char *wrong = NULL;
    if (threads < 1 || threads > THREADS_MOST || size.z > 64) wrong = "no block has this size";
    if (grid.x > INT32_MAX || grid.y > GRID_Y_MOST || grid.z > GRID_Y_MOST) wrong = "no grid has this size";
    if (blocks < 1 || blocks > INT32_MAX) wrong = "a grid without blocks, or with more than are emulated";
    if (block.shared_bytes < 0 || block.shared_bytes > SHARED_MOST) wrong = "more shared memory than a block has";
    if (!wrong) return;
    fprintf(stderr, "cuda_host: kernel %s, grid (%u, %u, %u), block (%u, %u, %u), %lld bytes of shared memory: %s\n",
            block.kernel, grid.x, grid.y, grid.z, size.x, size.y, size.z, (long long)block.shared_bytes, wrong);
    abort();
}

void emulation_run(const char *kernel, dim3 grid, dim3 size, int64_t shared_bytes, void (*run)(void *), void *context) {
    block.kernel = kernel, block.run = run, block.context = context, block.shared_bytes = shared_bytes;
    launch_check(grid, size);
    block.n_threads = (int)(size.x * size.y * size.z), blockDim = size, gridDim = grid;
    std::vector<int> order((size_t)grid.x * grid.y * grid.z);
    std::iota(order.begin(), order.end(), 0);
    shuffle_order(order.data(), (int)order.size());
    struct sigaction before = segv_take();
    device_memory_open();
    for (int i : order) {
        blockIdx = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
        run_block_with_memory();
    }
    device_memory_close();
    sigaction(SIGSEGV, &before, NULL);
}
