// Dense random maps: for as many coordinates as fit into ENTRIES_MOST numbers of scratch memory the entries of a sketch are drawn, then
// the device's library multiplies: sketches_j += a [S, chunk] entries [chunk, k]. A thread draws four neighbouring buckets of a coordinate.
// Traffic: 8 bytes per entry and chunk of coordinates, for all samples together.
#include "core/cuda/blas.cuh"
#include "core/cuda/sketch.cuh"

enum { THREADS = 256, EACH = 4, BITS = 128, ENTRIES_MOST = 1 << 24 };

static __device__ inline void draw_normals(struct rng rng, uint64_t block, float (&out)[EACH]) {
    uint32_t w[4];
    random_block(rng, block, w);
    for (int m = 0; m < EACH; m += 2) {
        float r = sqrtf(-2 * logf(((float)(w[m] >> 9) + 0.5f) * 0x1p-23f));
        float t = (float)w[m + 1] * 1.46291807926715968e-9f; // 2 pi / 2^32
        out[m] = r * cosf(t), out[m + 1] = r * sinf(t);
    }
}

static __device__ inline void draw_signs(struct rng rng, uint64_t first, float (&out)[EACH]) {
    uint32_t word = random_bits(rng, first / 32);
    for (int i = 0; i < EACH; i++) out[i] = word >> (first % 32 + (uint64_t)i) & 1 ? -1.0f : 1.0f;
}

// to [n, k], coordinates first .. first + n - 1.
static __global__ void draw_entries(struct rng rng, bool normal, int64_t first, int64_t n, int64_t k, float scale,
                                    float *to) {
    int64_t width = (k + BITS - 1) / BITS * BITS, packs = (k + EACH - 1) / EACH;
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, row = i / packs, bucket = i % packs * EACH;
    if (row >= n) return;
    uint64_t at = (uint64_t)((first + row) * width + bucket);
    float entries[EACH];
    if (normal)
        draw_normals(rng, at / EACH, entries);
    else
        draw_signs(rng, at, entries);
    for (int b = 0; b < EACH; b++)
        if (bucket + b < k) to[row * k + bucket + b] = scale * entries[b];
}

extern "C" enum status sketch_dense_cuda(struct backend *backend, const struct op_call *call) {
    enum status status = STATUS_OK;
    const struct sketch_params *p = &call->params.sketch;
    struct view a = call->in[0], sketches = call->out[1];
    int64_t k = sketches.cols / p->sketches, packs = (k + EACH - 1) / EACH, chunk = ENTRIES_MOST / k;
    void *entries = NULL;
    if (chunk > a.cols) chunk = a.cols;
    if (chunk < 1) chunk = 1;
    TRY(device_scratch(backend, chunk * k * (int64_t)sizeof(float), &entries));
    for (int64_t j = 0; j < p->sketches; j++)
        for (int64_t c = 0; c < a.cols; c += chunk) {
            struct rng rng = sketch_rng(p, RNG_SKETCH_ENTRY);
            int64_t n = a.cols - c < chunk ? a.cols - c : chunk, blocks = (n * packs + THREADS - 1) / THREADS;
            rng.stream += (uint64_t)j;
            REQUIRE(blocks <= INT32_MAX, "more blocks than a launch can have");
            TRY(LAUNCH(draw_entries, (unsigned)blocks, THREADS, 0, backend, rng, p->kind == SKETCH_GAUSSIAN,
                       p->first + c, n, k, (float)(1 / sqrt((double)k)), (float *)entries));
            TRY(blas_product(cuda_state_of(backend)->blas, view_cols(a, c, n), false,
                             view_new(entries, DTYPE_F32, n, k), false, view_cols(sketches, j * k, k),
                             call->accumulate || c > 0));
        }
done:
    return status;
}
