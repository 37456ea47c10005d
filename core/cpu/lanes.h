// Vectors of LANES floats as wide as the registers of the target, through the vector extension that gcc and clang share,
// for loops that compilers do not vectorize by themselves: row maxima that must respect NaN, and products of small tiles.
#ifndef DQ_CORE_CPU_LANES_H
#define DQ_CORE_CPU_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define TURN(v, k)                                                                                                     \
    __builtin_shufflevector(v, v, (k) % 16, (k + 1) % 16, (k + 2) % 16, (k + 3) % 16, (k + 4) % 16, (k + 5) % 16,      \
                            (k + 6) % 16, (k + 7) % 16, (k + 8) % 16, (k + 9) % 16, (k + 10) % 16, (k + 11) % 16,      \
                            (k + 12) % 16, (k + 13) % 16, (k + 14) % 16, (k + 15) % 16)
#elif defined(__AVX__)
#define LANES 8
#define TURN(v, k)                                                                                                     \
    __builtin_shufflevector(v, v, (k) % 8, (k + 1) % 8, (k + 2) % 8, (k + 3) % 8, (k + 4) % 8, (k + 5) % 8,            \
                            (k + 6) % 8, (k + 7) % 8)
#else
#define LANES 4
#define TURN(v, k) __builtin_shufflevector(v, v, (k) % 4, (k + 1) % 4, (k + 2) % 4, (k + 3) % 4)
#endif

typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));      // unaligned in memory
typedef float half_lanes __attribute__((vector_size(LANES * 2), aligned(4), may_alias)); // half a register
typedef double wide_lanes __attribute__((vector_size(LANES * 4), may_alias));            // LANES / 2 doubles
typedef int32_t int_lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef uint32_t bit_lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline lanes lanes_load(const float *x) { return *(const lanes *)x; }
static inline void lanes_store(float *x, lanes v) { *(lanes *)x = v; }
static inline lanes lanes_of(float x) { return x - (lanes){0}; }

// Elementwise maximum; b where either is NaN.
static inline lanes lanes_max(lanes a, lanes b) {
#if defined(__AVX512F__)
    return (lanes)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (lanes)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE__)
    return (lanes)_mm_max_ps((__m128)a, (__m128)b);
#else
    for (int l = 0; l < LANES; l++) b[l] = a[l] > b[l] ? a[l] : b[l];
    return b;
#endif
}

// Over the lanes of one vector, in a tree.
static inline float lanes_largest(lanes v) {
    if (LANES == 16) v = lanes_max(v, TURN(v, LANES / 2));
    if (LANES >= 8) v = lanes_max(v, TURN(v, 4));
    v = lanes_max(v, TURN(v, 2));
    v = lanes_max(v, TURN(v, 1));
    return v[0];
}

static inline float lanes_sum(lanes v) {
    if (LANES == 16) v += TURN(v, LANES / 2);
    if (LANES >= 8) v += TURN(v, 4);
    v += TURN(v, 2);
    v += TURN(v, 1);
    return v[0];
}

// The largest of n numbers; NaN is passed over.
static inline float row_max(const float *x, int64_t n) {
    lanes a = lanes_of(-INFINITY), b = a;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        a = lanes_max(lanes_load(x + i), a);
        b = lanes_max(lanes_load(x + i + LANES), b);
    }
    float best = lanes_largest(lanes_max(a, b));
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    return best;
}

// Doubles that add up to the sum of v: half the lanes each.
static inline wide_lanes lanes_widen(lanes v) {
    half_lanes low, high;
    memcpy(&low, &v, sizeof low);
    memcpy(&high, (const char *)&v + sizeof low, sizeof high);
    return __builtin_convertvector(low, wide_lanes) + __builtin_convertvector(high, wide_lanes);
}

static inline double wide_sum(wide_lanes v) {
    double sum = 0;
    for (int l = 0; l < LANES / 2; l++) sum += v[l];
    return sum;
}

// The first n < LANES elements of x, `other` in the remaining lanes.
static inline lanes lanes_load_some(const float *x, int64_t n, float other) {
    float some[LANES];
    for (int64_t l = 0; l < LANES; l++) some[l] = l < n ? x[l] : other;
    return lanes_load(some);
}

static inline void lanes_store_some(float *x, int64_t n, lanes v) { memcpy(x, &v, (size_t)n * sizeof *x); }

// Lanes first, first + 1, ... of v where from <= lane < to, `other` elsewhere.
static inline lanes lanes_between(lanes v, int32_t first, int32_t from, int32_t to, float other) {
    int_lanes index;
    for (int l = 0; l < LANES; l++) index[l] = l;
    index += first;
    int_lanes keep = (index >= from) & (index < to);
    return (lanes)((keep & (int_lanes)v) | (~keep & (int_lanes)lanes_of(other)));
}

// e^x for x <= 88: exp_f32 of vector_math.h.
static inline lanes lanes_exp(lanes x) {
    const float magic = 12582912.0f + 126.0f;
    x = lanes_max(lanes_of(-87.3f), x);
    lanes t = x * 1.44269504f + magic, n = t - magic;
    lanes r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    lanes g = r * 0.00278523852f + 0.0167263725f;
    g = g * r + 0.0833331091f;
    g = g * r + 0.333331539f;
    g = g * r + 1.0f;
    lanes e = (g * r + 2.0f) * r + 2.0f;
    return e * (lanes)((int_lanes)t << 23);
}

// 2^x: exp2_f32 of vector_math.h, within its limits.
static inline lanes lanes_exp2(lanes x) {
    const float magic = 12582912.0f + 126.0f;
    x = lanes_max(lanes_of(-126.0f), x);
    lanes t = x + magic, f = x - (t - magic);
    lanes g = f * 0.000308897679f + 0.00267626051f;
    g = g * f + 0.0192362065f;
    g = g * f + 0.111007620f;
    g = g * f + 0.480453014f;
    lanes e = (g * f + 1.38629436f) * f + 2.0f;
    return e * (lanes)((int_lanes)t << 23);
}

// The same for |x| <= 125: the exponent is added to that of 2^f.
static inline lanes lanes_exp2_bounded(lanes x) {
    const float magic = 12582912.0f;
    lanes t = x + magic, f = x - (t - magic);
    lanes g = f * 0.000154448840f + 0.00133813026f;
    g = g * f + 0.00961810325f;
    g = g * f + 0.0555038100f;
    g = g * f + 0.240226507f;
    lanes e = (g * f + 0.693147182f) * f + 1.0f;
    return (lanes)((int_lanes)e + ((int_lanes)t << 23));
}

#endif
