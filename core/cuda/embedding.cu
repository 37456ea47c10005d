// embedding and its gradient.
//
// Forward: one thread per pack of y. Traffic: y written, the rows of tokens read.
//
// Gradient: block (n, strip) of the columns looks through all tokens. It ends at once when an earlier token is equal; otherwise it
// owns the table's row: it adds dy of every later equal token, n ascending, in fp32 registers, and writes the row once. So the
// order of sums is the definition's, without atomics, and dy and the touched rows move once; the tokens are read up to once per
// block, from cache: 1 GB per strip for 16384 tokens at most. Each warp turns 32 comparisons into one word of shared memory (512
// tokens, 64 bytes per round).
//
// A token outside the vocabulary gives NaN, and its gradient is dropped.
#include "core/cuda/pack.cuh"
#include "core/cuda/reduce.cuh"
#include "core/cuda/tiling.cuh"

template <typename W, typename Y, int N>
static __global__ void embedding(struct tiling tiles, int64_t vocabulary, strided<const W> table,
                                 strided<const int32_t> tokens, strided<Y> y) {
    struct tile_place at = place_in(tiles);
    if (!at.inside) return;
    int32_t token = *tokens.row(at.row);
    float v[N];
    if (token >= 0 && token < vocabulary)
        load_pack(v, table.row(token) + at.pack * N);
    else
        for (int i = 0; i < N; i++) v[i] = NAN;
    store_pack(y.row(at.row) + at.pack * N, v);
}

enum { GRAD_THREADS = 128, GRAD_ROUND = 4 * GRAD_THREADS, GRAD_WORDS = GRAD_ROUND / WARP };

struct reduce_or {
    static __device__ inline uint32_t of(uint32_t a, uint32_t b) { return a | b; }
};

// Bit i of word w: token first + 32 w + i is `token`; tokens from `end` on are not. Every thread of the block; begins with a barrier.
static __device__ inline void find_equal(strided<const int32_t> tokens, int64_t first, int64_t end, int32_t token,
                                         uint32_t *words) {
    uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    __syncthreads(); // who still reads the words of the round before
    for (uint32_t w = warp; w < GRAD_WORDS; w += GRAD_THREADS / WARP) {
        int64_t n = first + w * WARP + lane;
        uint32_t bit = n < end && *tokens.row(n) == token ? 1u << lane : 0u;
        bit = warp_reduce<reduce_or>(bit);
        if (lane == 0) words[w] = bit;
    }
    __syncthreads();
}

template <typename Y, typename G, int N>
static __global__ void embedding_grad(int64_t rows, int64_t packs, int64_t vocabulary, uint32_t strips,
                                      strided<const Y> dy, strided<const int32_t> tokens, strided<G> dtable) {
    uint32_t *words = shared_memory<uint32_t>();
    int64_t own = blockIdx.x / strips, pack = (int64_t)(blockIdx.x % strips) * GRAD_THREADS + threadIdx.x;
    int32_t token = *tokens.row(own);
    if (token < 0 || token >= vocabulary) return;
    for (int64_t first = 0; first < own; first += GRAD_ROUND) {
        find_equal(tokens, first, own, token, words);
        for (int w = 0; w < GRAD_WORDS; w++)
            if (words[w]) return;
    }
    bool inside = pack < packs;
    G *to = dtable.row(token) + pack * N;
    float sum[N] = {}, v[N];
    if (inside) load_pack(sum, to);
    for (int64_t first = own; first < rows; first += GRAD_ROUND) {
        find_equal(tokens, first, rows, token, words);
        for (int w = 0; w < GRAD_WORDS; w++) {
            uint32_t word = inside ? words[w] : 0;
            for (int64_t n = first + w * WARP; word; n++, word >>= 1) {
                if (!(word & 1)) continue;
                load_pack(v, dy.row(n) + pack * N);
                for (int i = 0; i < N; i++) sum[i] += v[i];
            }
        }
    }
    if (inside) store_pack(to, sum);
}

template <typename W, typename Y>
static enum status embedding_run(struct backend *backend, struct view table, struct view tokens, struct view y) {
    enum status status;
    constexpr int64_t element = sizeof(W) < sizeof(Y) ? sizeof(W) : sizeof(Y);
    WITH_PACK(N, element, packs_fit(table, element) && packs_fit(y, element), {
        struct tiling tiles = tiling_of(y.rows, y.cols / N);
        status = LAUNCH((embedding<W, Y, N>), tiles.blocks, TILE_THREADS, 0, backend, tiles, table.rows,
                        strided_of<const W>(table), strided_of<const int32_t>(tokens), strided_of<Y>(y));
    });
    return status;
}

extern "C" enum status cuda_embedding(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view table = call->in[0], tokens = call->in[1], y = call->out[0];
    WITH_FLOAT(W, table.dtype, WITH_FLOAT(Y, y.dtype, status = (embedding_run<W, Y>(backend, table, tokens, y))));
    return status;
}

template <typename Y, typename G>
static enum status embedding_grad_run(struct backend *backend, struct view dy, struct view tokens, struct view dtable) {
    enum status status;
    constexpr int64_t element = sizeof(Y) < sizeof(G) ? sizeof(Y) : sizeof(G);
    WITH_PACK(N, element, packs_fit(dy, element) && packs_fit(dtable, element), {
        int64_t packs = dy.cols / N, strips = (packs + GRAD_THREADS - 1) / GRAD_THREADS;
        REQUIRE(dy.rows * strips <= INT32_MAX, "more blocks than a launch can have");
        status = LAUNCH((embedding_grad<Y, G, N>), (unsigned)(dy.rows * strips), GRAD_THREADS,
                        GRAD_WORDS * sizeof(uint32_t), backend, dy.rows, packs, dtable.rows, (uint32_t)strips,
                        strided_of<const Y>(dy), strided_of<const int32_t>(tokens), strided_of<G>(dtable));
    });
    return status;
}

extern "C" enum status cuda_embedding_grad(struct backend *backend, const struct op_call *call) {
    enum status status;
    struct view dy = call->in[0], tokens = call->in[1], dtable = call->out[0];
    WITH_FLOAT(Y, dy.dtype,
               WITH_FLOAT(G, dtable.dtype, status = (embedding_grad_run<Y, G>(backend, dy, tokens, dtable))));
    return status;
}
