// Functions of one float that vectorize: plain arithmetic, no branches, no calls. Used inside `#pragma omp simd` loops.
#ifndef DQ_CORE_CPU_VECTOR_MATH_H
#define DQ_CORE_CPU_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

// e^x within 2 ulp, +infinity above 88.73, NaN for NaN. Results below 2^-125 (x < -86.65) are exactly 0 or still right:
// below -86.99 always 0, so that masked scores (-infinity) vanish and no denormal slows the sums down.
//
// x = n log 2 + r with |r| <= log(2) / 2; e^x = 2^(n-1) * 2 e^r. Factor 2^(n-1) is built from its bits; doubling e^r
// keeps it in range for n = 128. Adding `magic` rounds x log2(e) to an integer in the low bits of the float, which
// hold n + 126, the biased exponent. 2 e^r = 2 + 2r + r^2 g(r), g interpolated at Chebyshev nodes (relative error 8e-9).
static inline float exp_f32(float x) {
    const float magic = 12582912.0f + 126.0f; // 1.5 * 2^23
    x = x < -87.3f ? -87.3f : x;
    x = x > 89.0f ? 89.0f : x;
    float t = x * 1.44269504f + magic;
    float n = t - magic;
    float r = x - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float g = 0.00278523852f;
    g = g * r + 0.0167263725f;
    g = g * r + 0.0833331091f;
    g = g * r + 0.333331539f;
    g = g * r + 1.0f;
    float e = (g * r + 2.0f) * r + 2.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return e * power;
}

// 2^x for x < 127, with the same scheme and less work: the caller folds log2(e) into a factor that it multiplies by
// anyway. Within 2 ulp; 0 below -125.5; NaN for NaN. Above 127 the result is meaningless.
static inline float exp2_f32(float x) {
    const float magic = 12582912.0f + 126.0f;
    x = x < -126.0f ? -126.0f : x;
    float t = x + magic;
    float f = x - (t - magic);
    float g = 0.000308897679f;
    g = g * f + 0.00267626051f;
    g = g * f + 0.0192362065f;
    g = g * f + 0.111007620f;
    g = g * f + 0.480453014f;
    float e = (g * f + 1.38629436f) * f + 2.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits <<= 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return e * power;
}

#define LOG2_E 1.4426950408889634
#define LOG_2 0.6931471805599453

// Logistic function 1 / (1 + e^-x).
static inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

// Float lanes, fixed at compile time.
static inline float dot_f32(const float *a, const float *b, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

#endif
