// Dense random maps: sketches += S a, S drawn a tile at a time and never held.
//
// A task is COLS numbers of one sketch: for CHUNK coordinates after the other it draws their [CHUNK, COLS] entries, then adds the
// product with every sample's CHUNK numbers, eight samples at a time in registers, coordinates ascending: a sample's bits do not
// depend on how many others there are.
#include "core/cpu/sketch.h"

#include "core/cpu/eight_rows.h"
#include "core/cpu/parts.h"
#include "core/cpu/philox_lanes.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>

enum { CHUNK = 64, COLS = 256, BITS = 128, GROUP = 8 };

// ln u for 2^-24 <= u < 1: ln m + e ln 2 with u = m 2^e, m in [sqrt(1/2), sqrt 2) and a polynomial of Cephes (logf) in m - 1; 1.5 ulp.
static inline lanes lanes_log(lanes u) {
    int_lanes bits = (int_lanes)u, e = (bits - 0x3F3504F3) >> 23;
    lanes f = (lanes)(bits - e * (1 << 23)) - 1.0f, n = __builtin_convertvector(e, lanes), z = f * f;
    lanes p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * z - n * 2.12194440e-4f - 0.5f * z;
    return f + p + n * 0.693359375f;
}

static inline lanes lanes_root(lanes x) {
#if defined(__AVX512F__)
    return (lanes)_mm512_sqrt_ps((__m512)x);
#else
    for (int l = 0; l < LANES; l++) x[l] = sqrtf(x[l]);
    return x;
#endif
}

// cos and sin of 2 pi w 2^-32: the nearest quarter turn, and polynomials of Cephes (sinf, cosf) for what is left, |t| <= pi / 4; 1.5 ulp.
static inline void lanes_turn(bit_lanes w, lanes *cosine, lanes *sine) {
    bit_lanes quarter = (w + (1u << 29)) >> 30;
    lanes t = __builtin_convertvector((int_lanes)(w - (quarter << 30)), lanes) * 1.46291807926715968e-9f, z = t * t;
    lanes s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * t + t;
    lanes c =
        ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    bit_lanes swap = 0u - (quarter & 1), sign_c = ((quarter + 1) & 2) << 30, sign_s = (quarter & 2) << 30;
    *cosine = (lanes)(((swap & (bit_lanes)s) | (~swap & (bit_lanes)c)) ^ sign_c);
    *sine = (lanes)(((swap & (bit_lanes)c) | (~swap & (bit_lanes)s)) ^ sign_s);
}

// The normals of LANES blocks from `first` on, four each.
static void draw_normals(struct rng rng, uint64_t first, float *out) {
    enum { WORDS = LANES > PHILOX_BLOCKS ? LANES : PHILOX_BLOCKS };
    uint32_t words[4][WORDS], some[4][PHILOX_BLOCKS];
    for (int b = 0; b < LANES; b += PHILOX_BLOCKS) {
        philox_blocks(rng, first + (uint64_t)b, some);
        for (int i = 0; i < 4; i++) memcpy(words[i] + b, some[i], sizeof some[i]);
    }
    for (int m = 0; m < 4; m += 2) {
        lanes cosine, sine;
        lanes u = (__builtin_convertvector(*(const int_lanes *)words[m] >> 9 & 0x7FFFFF, lanes) + 0.5f) * 0x1p-23f;
        lanes r = lanes_root(-2.0f * lanes_log(u));
        lanes_turn(*(const bit_lanes *)words[m + 1], &cosine, &sine);
        cosine *= r, sine *= r;
        for (int b = 0; b < LANES; b++) out[4 * b + m] = cosine[b], out[4 * b + m + 1] = sine[b];
    }
}

// The signs of block `block`, as numbers.
static void draw_signs(struct rng rng, uint64_t block, float *out) {
    uint32_t w[4];
    philox_block(rng.seed, rng.stream, block, w);
    for (int i = 0; i < BITS; i++) {
        uint32_t one = 0x3F800000u | (w[i / 32] >> i % 32) << 31;
        memcpy(out + i, &one, sizeof one);
    }
}

// Entries of coordinate c and buckets first .. first + COLS - 1, not scaled; first is a multiple of COLS. Buckets from k on belong to
// nobody.
static void draw_row(const struct sketch_params *p, struct rng rng, int64_t c, int64_t k, int64_t first, float *out) {
    int64_t width = ceil_div(k, BITS) * BITS, n = min_i64(COLS, k - first);
    uint64_t at = (uint64_t)(c * width + first);
    if (p->kind == SKETCH_RADEMACHER)
        for (int64_t b = 0; b < n; b += BITS) draw_signs(rng, (at + (uint64_t)b) / BITS, out + b);
    else
        for (int64_t b = 0; b < n; b += 4 * LANES) draw_normals(rng, (at + (uint64_t)b) / 4, out + b);
}

// to [GROUP, COLS] += a [GROUP, n] entries [n, COLS] for samples s .. s + GROUP - 1, of which those below a.rows exist.
static void add_products(struct view a, int64_t s, int64_t first, int64_t n, const float *entries, float *to) {
    float some[GROUP * CHUNK] = {0};
    for (int64_t i = 0; i < GROUP && s + i < a.rows; i++)
        memcpy(some + i * CHUNK, view_f32(a, s + i) + first, (size_t)n * sizeof *some);
    for (int64_t b = 0; b < COLS; b += 32) eight_rows(some, CHUNK, 1, entries + b, COLS, to + b, COLS, 32, n, true);
}

static void sketch_columns(const struct sketch_params *p, struct view a, int64_t j, int64_t k, int64_t first,
                           float *entries, float *sums, struct view sketches) {
    struct rng rng = sketch_rng(p, RNG_SKETCH_ENTRY, j);
    int64_t groups = ceil_div(a.rows, GROUP), n = min_i64(COLS, k - first);
    memset(entries, 0, CHUNK * COLS * sizeof *entries);
    memset(sums, 0, (size_t)(groups * GROUP * COLS) * sizeof *sums);
    for (int64_t c = 0; c < a.cols; c += CHUNK) {
        int64_t depth = min_i64(CHUNK, a.cols - c);
        for (int64_t e = 0; e < depth; e++) draw_row(p, rng, p->first + c + e, k, first, entries + e * COLS);
        for (int64_t g = 0; g < groups; g++) add_products(a, g * GROUP, c, depth, entries, sums + g * GROUP * COLS);
    }
    float scale = (float)(1 / sqrt((double)k));
    for (int64_t s = 0; s < a.rows; s++)
        for (int64_t b = 0; b < n; b++) view_f32(sketches, s)[j * k + first + b] += scale * sums[s * COLS + b];
}

enum status sketch_dense(const struct sketch_params *p, struct view a, struct view sketches) {
    int64_t k = sketches.cols / p->sketches, parts = ceil_div(k, COLS), tasks = p->sketches * parts;
    int64_t entries = CHUNK * COLS, each = entries + ceil_div(a.rows, GROUP) * GROUP * COLS;
    void *room = NULL; // each thread's
    enum status status =
        mem_buffer_new(omp_get_max_threads() * each * (int64_t)sizeof(float), "entries of a sketch", &room);
    if (status != STATUS_OK) return status;
#pragma omp parallel for schedule(dynamic) if (tasks > 1)
    for (int64_t task = 0; task < tasks; task++) {
        float *mine = (float *)room + omp_get_thread_num() * each;
        sketch_columns(p, a, task / parts, k, task % parts * COLS, mine, mine + entries, sketches);
    }
    mem_buffer_free(room);
    return STATUS_OK;
}
