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

// Four rows, one after the other: read side by side they look like no stream to the processor (NOTES.md).
static inline void rows_dot(const double *const a[4], const double *b, int64_t width, double out[4]) {
    for (int r = 0; r < 4; r++) out[r] = row_dot(a[r], b, width);
}

static inline void rows_dot2(const double *const a[4], const double *b, const double *c, int64_t width, double out_b[4],
                             double out_c[4]) {
    for (int r = 0; r < 4; r++) {
        row_lanes s = {0}, t = {0}, u = {0}, v = {0};
        int64_t k = 0;
        for (; k + 16 <= width; k += 16) {
            row_lanes x = ROW(a[r] + k), y = ROW(a[r] + k + 8);
            s += x * ROW(b + k), t += x * ROW(c + k);
            u += y * ROW(b + k + 8), v += y * ROW(c + k + 8);
        }
        if (k < width) s += ROW(a[r] + k) * ROW(b + k), t += ROW(a[r] + k) * ROW(c + k);
        s += u, t += v;
        out_b[r] = row_total(&s), out_c[r] = row_total(&t);
    }
}

// to += sum_r c[r] a[r]
static inline void rows_add(double *to, const double c[4], const double *const a[4], int64_t width) {
    for (int64_t k = 0; k < width; k += 8)
        *(row_lanes *)(to + k) +=
            (c[0] * ROW(a[0] + k) + c[1] * ROW(a[1] + k)) + (c[2] * ROW(a[2] + k) + c[3] * ROW(a[3] + k));
}

#endif
