// sketch and exact_sum on the CPU.
//
// Samples are shared out as in sample_products.c; a task is one sample's norm and inner products, or one of its sketches. Norms
// and inner products: products of floats are exact in double, summed in named lanes. A rotation moves each run of k coordinates as two
// contiguous stretches; signs are a word of 32 bits for 32 coordinates, shifted into the sign bits of a vector and xored in. The
// words are drawn once per call, for all samples.
#include "core/cpu/sketch.h"

#include "core/cpu/cpu.h"
#include "core/cpu/lanes.h"
#include "core/cpu/parts.h"

#include "core/base/mem.h"
#include "core/base/philox.h"

enum { WORD = 32, BLOCK_BITS = 128, BLOCK_WORDS = 4, BLOCKS_PER_PART = 64 };

// ---- norms and inner products ----

static inline wide_lanes wide_low(lanes v) {
    half_lanes half;
    memcpy(&half, &v, sizeof half);
    return __builtin_convertvector(half, wide_lanes);
}
static inline wide_lanes wide_high(lanes v) {
    half_lanes half;
    memcpy(&half, (const char *)&v + sizeof half, sizeof half);
    return __builtin_convertvector(half, wide_lanes);
}

static inline __attribute__((always_inline)) double product_sum(const float *a, const float *b, int64_t n) {
    wide_lanes sums[4] = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int h = 0; h < 2; h++) {
            lanes u = lanes_load(a + i + h * LANES), v = lanes_load(b + i + h * LANES);
            sums[2 * h] += wide_low(u) * wide_low(v);
            sums[2 * h + 1] += wide_high(u) * wide_high(v);
        }
    double sum = wide_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

// ---- rotations ----

// Sign bits of coordinates from - from mod 128 on, `words` of them per sketch and one more to read beyond.
struct signs {
    uint32_t *bits;
    int64_t from, words;
};

static enum status signs_draw(const struct sketch_params *p, int64_t n, struct signs *signs) {
    int64_t first = p->first / BLOCK_BITS, blocks = ceil_div(p->first + n, BLOCK_BITS) - first;
    int64_t parts = ceil_div(blocks, BLOCKS_PER_PART);
    void *bits = NULL;
    signs->from = first * BLOCK_BITS, signs->words = blocks * BLOCK_WORDS;
    enum status status =
        mem_buffer_new((p->sketches * signs->words + 1) * (int64_t)sizeof(uint32_t), "signs of a sketch", &bits);
    if (status != STATUS_OK) return status;
    signs->bits = bits;
    signs->bits[p->sketches * signs->words] = 0;
#pragma omp parallel for collapse(2) schedule(static) if (p->sketches * parts > 4)
    for (int64_t j = 0; j < p->sketches; j++)
        for (int64_t part = 0; part < parts; part++)
            for (int64_t b = part * BLOCKS_PER_PART; b < min_i64(blocks, (part + 1) * BLOCKS_PER_PART); b++) {
                struct rng rng = sketch_rng(p, RNG_SKETCH_ENTRY, j);
                philox_block(rng.seed, rng.stream, (uint64_t)(first + b),
                             signs->bits + j * signs->words + b * BLOCK_WORDS);
            }
    return STATUS_OK;
}

// The 32 bits from bit `at` on.
static inline uint32_t bits_at(const uint32_t *words, int64_t at) {
    const uint32_t *w = words + at / WORD;
    return (uint32_t)(((uint64_t)w[1] << WORD | w[0]) >> (at % WORD));
}

static inline float signed_float(float x, uint32_t bit) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits ^= bit << 31;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// out_i += +-a_i, signs from bit `at` of the words on.
static void add_signed(float *out, const float *a, const uint32_t *words, int64_t at, int64_t n) {
    bit_lanes up[WORD / LANES]; // moves bit i to the sign of lane i
    for (int v = 0; v < WORD / LANES; v++)
        for (int l = 0; l < LANES; l++) up[v][l] = (uint32_t)(31 - v * LANES - l);
    int64_t i = 0;
    for (; i + WORD <= n; i += WORD) {
        bit_lanes word = bits_at(words, at + i) - (bit_lanes){0};
        for (int v = 0; v < WORD / LANES; v++) {
            bit_lanes x = *(const bit_lanes *)(a + i + v * LANES) ^ ((word << up[v]) & 0x80000000u);
            lanes_store(out + i + v * LANES, lanes_load(out + i + v * LANES) + (lanes)x);
        }
    }
    if (i == n) return;
    uint32_t word = bits_at(words, at + i);
    for (int64_t l = 0; i + l < n; l++) out[i + l] += signed_float(a[i + l], word >> l & 1);
}

// out [k] += S_j a
static void add_rotated(const struct sketch_params *p, int64_t j, const uint32_t *words, int64_t from, const float *a,
                        int64_t n, float *out, int64_t k) {
    struct rng rng = sketch_rng(p, RNG_SKETCH_ROTATION, j);
    for (int64_t i = 0; i < n;) {
        int64_t c = p->first + i, run = c / k, length = min_i64((run + 1) * k - c, n - i);
        int64_t shift = (int64_t)((uint64_t)rng_bits(rng, (uint64_t)run) * (uint64_t)k >> 32);
        int64_t to = (c % k + shift) % k, before = min_i64(length, k - to);
        add_signed(out + to, a + i, words, c - from, before);
        if (before < length) add_signed(out, a + i + before, words, c - from + before, length - before);
        i += length;
    }
}

// ---- the op ----

static void put(double *to, double value, bool add) { *to = add ? *to + value : value; }

static void measure(const struct op_call *call, int64_t s) {
    struct view a = call->in[0], directions = call->in[1];
    put(view_f64(call->out[0], s), product_sum(view_f32(a, s), view_f32(a, s), a.cols), call->accumulate);
    for (int64_t d = 0; d < directions.rows; d++)
        put(view_f64(call->out[2], s) + d, product_sum(view_f32(a, s), view_f32(directions, d), a.cols),
            call->accumulate);
}

enum status cpu_sketch(struct backend *backend, const struct op_call *call) {
    (void)backend;
    const struct sketch_params *p = &call->params.sketch;
    struct view a = call->in[0], sketches = call->out[1];
    bool rotates = p->kind == SKETCH_ROTATION;
    int64_t units = rotates ? p->sketches : 0, k = sketches.rows ? sketches.cols / p->sketches : 0;
    struct signs signs = {0};
    enum status status = STATUS_OK;
    if (rotates) TRY(signs_draw(p, a.cols, &signs));
#pragma omp parallel for collapse(2) schedule(static) if (view_count(a) * (1 + units) > 2 * PIECE)
    for (int64_t s = 0; s < a.rows; s++)
        for (int64_t j = -1; j < units; j++) {
            if (j < 0) {
                measure(call, s);
                continue;
            }
            float *out = view_f32(sketches, s) + j * k;
            if (!call->accumulate) memset(out, 0, (size_t)k * sizeof *out);
            add_rotated(p, j, signs.bits + j * signs.words, signs.from, view_f32(a, s), a.cols, out, k);
        }
    if (sketches.rows && !rotates) {
        for (int64_t s = 0; s < sketches.rows && !call->accumulate; s++)
            memset(view_f32(sketches, s), 0, (size_t)sketches.cols * sizeof(float));
        TRY(sketch_dense(p, a, sketches));
    }
done:
    mem_buffer_free(signs.bits);
    return status;
}

// ---- exact_sum ----

// Added and taken away again, this leaves multiples of 2^-40 of numbers below 2^11; floats beyond are multiples already.
#define ROUNDER 6144.0
#define SUM_LIMIT 4096.0

static inline wide_lanes sum_add(wide_lanes sum, wide_lanes a) {
    typedef int64_t masks __attribute__((vector_size(sizeof(wide_lanes))));
    sum += (a + ROUNDER) - ROUNDER;
    masks within = (sum < SUM_LIMIT) & (sum > -SUM_LIMIT);
    return (wide_lanes)((masks)sum | ~within); // all bits set is a NaN
}

static void sum_columns(struct view a, int64_t first, int64_t n, double *y, bool add) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        wide_lanes sums[2] = {0};
        if (add) memcpy(sums, y + i, sizeof sums);
        for (int64_t s = 0; s < a.rows; s++) {
            lanes v = lanes_load(view_f32(a, s) + first + i);
            sums[0] = sum_add(sums[0], wide_low(v)), sums[1] = sum_add(sums[1], wide_high(v));
        }
        memcpy(y + i, sums, sizeof sums);
    }
    for (; i < n; i++) {
        double sum = add ? y[i] : 0;
        for (int64_t s = 0; s < a.rows; s++) {
            sum += ((double)view_f32(a, s)[first + i] + ROUNDER) - ROUNDER;
            if (!(fabs(sum) < SUM_LIMIT)) sum = NAN;
        }
        y[i] = sum;
    }
}

enum status cpu_exact_sum(struct backend *backend, const struct op_call *call) {
    (void)backend;
    enum { COLUMNS = 512 };
    struct view a = call->in[0];
    int64_t parts = ceil_div(a.cols, COLUMNS);
#pragma omp parallel for schedule(static) if (view_count(a) > 2 * PIECE)
    for (int64_t p = 0; p < parts; p++)
        sum_columns(a, p * COLUMNS, min_i64(COLUMNS, a.cols - p * COLUMNS), view_f64(call->out[0], 0) + p * COLUMNS,
                    call->accumulate);
    return STATUS_OK;
}
