// An orthonormal frame Q of the row space of M, made in place of M: M (x - y) = 0 exactly where Q (x - y) = 0.
//
//     double *matrix;                                          // [n, stride], from frame_matrix_new
//     TRY(frame_matrix_new(n, m, &matrix));                    // fill matrix[i * frame_stride(m) + j] = M_ji
//     TRY(frame_new(matrix, n, m, NULL, &frame));              // the matrix now holds Q
//     TRY(walk_round(frame, y, &options, x, NULL, &result));   // walk/walk.h
//
// Everything is coordinate-major: row i of the array is coordinate i (a weight), its m entries are the rows of M (samples),
// neighbours in memory. Equations (A = M^T, [n, m]):
//
//     A^T A = V L V^T                 first pass; directions with l_k < 1e-11 l_1 are scaled by 3e-6 s_1 instead of their own
//     B = A V D^-1                    s_k, which the Gram matrix does not know (its error is 1e-16 l_1)
//                                     Where l_m >= 1e-6 l_1 that is all: Q = B, orthonormal to about 1e-16 l_1 / l_m.
//     B^T B = R^T R                   second pass. Without such weak directions Q = B R^-1, orthonormal to rounding.
//     S = B_c^T B_c - B_c^T B_u (B_u^T B_u)^-1 B_u^T B_c = W diag(t^2) W^T    else: singular values t_k 3e-6 s_1 of the weak
//                                     directions, on which the rank is decided; a third pass makes Q orthonormal to rounding
//
// so singular values down to 1e-12 of the largest are kept, and what is dropped is reported. Columns of Q stand in the order
// of the singular values: the first k span the same space as the k strongest directions of M. Memory beyond M: about 10 m^2
// numbers and 8 bytes per coordinate.
#ifndef DQ_WALK_FRAME_H
#define DQ_WALK_FRAME_H

#include "core/base/status.h"

#include <stdint.h>

struct backend;
struct device_matrix;

struct frame_options {
    struct backend *backend; // where Q is made and walks run; NULL: the host. Borrowed until the frame is freed
    double rank_tolerance;   // directions with a singular value below this share of the largest are dropped; 0: 1e-12
};

struct frame {
    int64_t n, m, rank;
    int64_t stride;               // numbers between rows of q: frame_stride(m)
    int64_t width;                // rank rounded up to 8; columns rank .. stride - 1 of q are zero
    double *q;                    // [n, stride], Q_ki at q[i * stride + k]; the caller's memory
    double *norm2;                // [n], |q_i|^2: leverages, their sum is the rank
    double *singular;             // [m], singular values of M, falling; below ~1e-14 of the largest they are noise
    double dropped_energy;        // share of |M|_F^2 in the directions that were dropped
    int passes;                   // passes over M: 1, 2 or 3
    double seconds;               // what making the frame took
    struct device_matrix *device; // NULL, or a second Q (walk/device.h), on which walk_round walks
};

// m rounded up to 8 numbers, so that rows begin at multiples of 64 bytes.
static inline int64_t frame_stride(int64_t m) { return (m + 7) / 8 * 8; }

// Zeroed memory [n, frame_stride(m)] aligned to 64 bytes; free with mem_buffer_free. STATUS_NO_MEMORY.
enum status frame_matrix_new(int64_t n, int64_t m, double **out);

// Whitens matrix [n, frame_stride(m)] in place; it must be aligned to 64 bytes and outlive the frame. Rows of M that are
// zero or copies of others only lower the rank; M = 0 gives rank 0. `options` may be NULL.
// STATUS_INVALID: a number is not finite (the matrix is then as it was), or there are no rows or no coordinates.
enum status frame_new(double *matrix, int64_t n, int64_t m, const struct frame_options *options, struct frame **out);

void frame_free(struct frame *frame); // accepts NULL; leaves the matrix

// max_k |sum_i q_ki d_i|, d [n] = x - y: how far x is from M x = M y. One read of the matrix. `out` [width] or NULL: the sums.
double frame_residual(const struct frame *frame, const double *x, const double *y, double *out);

// d [n] -> d - Q^T Q d: its part in the null space of M. Two reads.
void frame_project(const struct frame *frame, double *d);

#endif
