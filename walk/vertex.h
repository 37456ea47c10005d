// A vertex of K = {x in [0,1]^n: M x = M y} that minimises <c, x>: what DiscQuant's linear term aims at, against which walks are
// compared.
//
//     vertex_closest_cost(y, n, c);                            // c = 1 - 2y: <c, x> = |x - y|^2 - |y|^2 at corners of the box
//     TRY(vertex_minimise(frame, y, c, x, &result));           // at most rank fractional coordinates
//
// Equations: min <c, x> + mu/2 |x - y|^2 over K has x_i = clip(y_i - (c_i - q_i . v) / mu), where v solves
// sum_i q_i (x_i - y_i) = 0: semismooth Newton in rank variables with the Jacobian sum over unclipped coordinates of q q^T / mu.
// mu falls by thirds until few coordinates are unclipped; from there x goes downhill inside its face of the box (gsw.c) to a
// vertex. Any v bounds the minimum from below, sum_i min(0, c_i - q_i . v) + <v, Q y>, and the gap to it is reported.
#ifndef DQ_WALK_VERTEX_H
#define DQ_WALK_VERTEX_H

#include "core/base/status.h"
#include "walk/frame.h"

struct vertex_result {
    int64_t fractional;   // at most rank
    int64_t newton_steps; // each reads the matrix once
    int64_t moves;        // of the last part
    double objective;     // <c, x>
    double gap;           // objective less a lower bound of the minimum
    double residual;      // max_k |Q (x - y)|_k
    double reads, seconds;
};

// c [n] = 1 - 2 y.
void vertex_closest_cost(const double *y, int64_t n, double *c);

// y, c [n] -> x [n]. STATUS_INVALID: y is not in [0,1], or c is not finite.
enum status vertex_minimise(const struct frame *frame, const double *y, const double *c, double *x,
                            struct vertex_result *result);

#endif
