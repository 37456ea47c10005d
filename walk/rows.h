// Inner loops over rows of the frame: eight doubles at a time, rows aligned to 64 bytes and padded with zeros.
#ifndef DQ_WALK_ROWS_H
#define DQ_WALK_ROWS_H

#include <stdint.h>

enum { ROW_LANES = 8 };
typedef double row_lanes __attribute__((vector_size(64), may_alias));

#define ROW(a) (*(const row_lanes *)(a))

// By address: vectors as arguments depend on the processor the compiler is told of.
static inline double row_total(const row_lanes *at) {
    row_lanes v = *at;
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

// width is a multiple of 8 in all of these.
static inline double row_dot(const double *a, const double *b, int64_t width) {
    row_lanes sum = {0}, other = {0};
    int64_t k = 0;
    for (; k + 16 <= width; k += 16) {
        sum += ROW(a + k) * ROW(b + k);
        other += ROW(a + k + 8) * ROW(b + k + 8);
    }
    if (k < width) sum += ROW(a + k) * ROW(b + k);
    sum += other;
    return row_total(&sum);
}

// to += c a
static inline void row_add(double *to, double c, const double *a, int64_t width) {
    for (int64_t k = 0; k < width; k += 8) *(row_lanes *)(to + k) += c * ROW(a + k);
}

// Four rows at once, so that the vectors are loaded once for all of them.
static inline void rows_dot(const double *const a[4], const double *b, int64_t width, double out[4]) {
    row_lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (int64_t k = 0; k < width; k += 8) {
        row_lanes v = ROW(b + k);
        s0 += ROW(a[0] + k) * v;
        s1 += ROW(a[1] + k) * v;
        s2 += ROW(a[2] + k) * v;
        s3 += ROW(a[3] + k) * v;
    }
    out[0] = row_total(&s0), out[1] = row_total(&s1), out[2] = row_total(&s2), out[3] = row_total(&s3);
}

static inline void rows_dot2(const double *const a[4], const double *b, const double *c, int64_t width, double out_b[4],
                             double out_c[4]) {
    row_lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
    for (int64_t k = 0; k < width; k += 8) {
        row_lanes v = ROW(b + k), w = ROW(c + k);
        row_lanes r0 = ROW(a[0] + k), r1 = ROW(a[1] + k), r2 = ROW(a[2] + k), r3 = ROW(a[3] + k);
        s0 += r0 * v, t0 += r0 * w;
        s1 += r1 * v, t1 += r1 * w;
        s2 += r2 * v, t2 += r2 * w;
        s3 += r3 * v, t3 += r3 * w;
    }
    out_b[0] = row_total(&s0), out_b[1] = row_total(&s1), out_b[2] = row_total(&s2), out_b[3] = row_total(&s3);
    out_c[0] = row_total(&t0), out_c[1] = row_total(&t1), out_c[2] = row_total(&t2), out_c[3] = row_total(&t3);
}

// to += sum_r c[r] a[r]
static inline void rows_add(double *to, const double c[4], const double *const a[4], int64_t width) {
    for (int64_t k = 0; k < width; k += 8)
        *(row_lanes *)(to + k) +=
            (c[0] * ROW(a[0] + k) + c[1] * ROW(a[1] + k)) + (c[2] * ROW(a[2] + k) + c[3] * ROW(a[3] + k));
}

#endif
