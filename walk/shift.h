// A start of the walk other than y, so that M x = M y + target can be asked for: weights outside the grid's range move whatever
// x is, by offsets o_k in every sampled loss, and a walk that starts at t with M (t - y) = -o ends where the sum is 0.
//
//     TRY(shift_new(matrix, n, m, stride, offsets, t, &left));       // before frame_new: y + delta of least norm, maybe outside
//     TRY(shift_into_box(frame, t, work, &moved));                   // after it: in [0,1]^n with the same M t
//     TRY(walk_round(frame, t, …));
#ifndef DQ_WALK_SHIFT_H
#define DQ_WALK_SHIFT_H

#include "walk/frame.h"

// t [n] -> t + delta, delta = -M^T (M M^T)^+ o. matrix [n, stride] coordinate-major, offsets [m].
// *left = |o + M delta| / |o|: what directions too weak to be inverted (1e-10 of the largest eigenvalue) leave over.
enum status shift_new(const double *matrix, int64_t n, int64_t m, int64_t stride, const double *offsets, double *t,
                      double *left);

// t [n] -> a point of [0,1]^n with M t as before, by projecting in turn on the box and on {M t = const}. work [2 n].
// *residual: max_k |Q (new - old)|_k, at most 1e-12 sqrt(n) where they meet; else what 500 turns leave: the box then holds
// no such point, or hardly.
enum status shift_into_box(const struct frame *frame, double *t, double *work, double *residual);

#endif
