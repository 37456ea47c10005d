// Q on a device: its making, and the vectors and systems of a walk there. What runs there are ops (core/ops/op.h) alone.
//
//     struct device_matrix *d = NULL;
//     TRY(device_matrix_new(backend, matrix, n, stride, &d));      // copies the rows to the device
//     TRY(device_matrix_gram(d, m, gram));                         // frame.c makes them orthonormal with these
//     TRY(device_matrix_transform(d, map, m));
//
// A walk (state.h) with `device` set keeps its lists and decisions on the host. Per step, with k free coordinates, of them l
// leaving, and r constraints:
//
//     host to device    4 k bytes (list), 16 r (what is solved for), 28 l (lists and numbers of the leavers)
//     device to host    8 k (the points after the step), about 16 r, 24 r where someone leaves, and some single numbers
//
// Q, x, the noise, the Gram matrix and its factors do not move. G^-1 is held as H^T H: H the inverse of the Cholesky factor, or
// eigenvectors over the roots of their eigenvalues where that fails, so that every system is two products.
#ifndef DQ_WALK_DEVICE_H
#define DQ_WALK_DEVICE_H

#include "core/backend/backend.h"

struct device_matrix {
    struct backend *backend;
    int64_t n, stride;
    struct view q;        // [n, stride]
    struct view part;     // [part_rows, stride]: rows on their way
    struct view products; // [part_rows, stride]
    int64_t part_rows;
};

// a [n, stride] on the host. STATUS_NO_MEMORY, STATUS_INVALID for more than the device's indices can count.
enum status device_matrix_new(struct backend *backend, const double *a, int64_t n, int64_t stride,
                              struct device_matrix **out);
void device_matrix_free(struct device_matrix *d); // accepts NULL

// gram [m, m] of the first m columns.
enum status device_matrix_gram(struct device_matrix *d, int64_t m, double *gram);
// The first m columns <- those columns times map [m, m].
enum status device_matrix_transform(struct device_matrix *d, const double *map, int64_t m);
enum status device_matrix_read(struct device_matrix *d, double *a); // [n, stride]

// As symmetric_eigen (gram.h).
enum status device_eigen(struct backend *backend, double *gram, int64_t size, double *values);
// The leading block of map [m, m] <- R^-1, gram = R^T R in its leading size x size block; the rest is left.
enum status device_inverse_triangle(struct backend *backend, const double *gram, int64_t m, int64_t size, double *map);

// ---- walks: state.c calls these where s->device is set; each is what its name without `device_` does on the host.

struct walk_state;
struct gram_sums;
struct device_walk;

enum status device_walk_new(struct walk_state *s); // sets s->device
void device_walk_free(struct device_walk *w);      // accepts NULL

// Points s->position [n_free] after the step (s->direction stays 0), residual, noise, least_ratio: the step that was taken.
enum status device_pass(struct walk_state *s, bool noisy, double step);
// G <- identity less the rows ids [n], or the free rows' own. Both set s->gram_trace.
enum status device_gram_without(struct walk_state *s, const int64_t *ids, int64_t n);
enum status device_gram(struct walk_state *s);
// Leavers with slots first .. end - 1 off G, and their sums.
enum status device_take_off(struct walk_state *s, const struct gram_sums *sums, int64_t first, int64_t end);
// Systems: the trial one is made from G, its rank is s->trial.rank; swap makes it that of the walk, but for the ranks.
enum status device_factor(struct walk_state *s);
void device_swap(struct walk_state *s);
enum status device_trace(struct walk_state *s);
// |G^-1| of the walk's system, and the largest eigenvalue of trial^-1 G as of device_keep_before (gram.h, solver_norm).
enum status device_inverse_norm(struct walk_state *s, double *vector, int steps, double *out);
enum status device_trial_norm(struct walk_state *s, double *vector, int steps, double *out);
// G as it was at the start of leaving, and before those that jump left.
enum status device_keep_start(struct walk_state *s);
enum status device_keep_before(struct walk_state *s);
enum status device_back_to_start(struct walk_state *s);
// correct and push of the coming pass; without `push` correct alone.
enum status device_solve(struct walk_state *s, bool push);
enum status device_leverages(struct walk_state *s, const int64_t *ids, int64_t n, double *out);
// Of gsw.c: sum of (x_i - y_i) q_i over the free set, to `out` [width], and q_i . v of each, to `dots` [n_free]; v [width]. The
// first moves x to the device (8 n bytes), the second 8 bytes per free coordinate back.
enum status device_sum_free(struct walk_state *s, double *out);
enum status device_dot_free(struct walk_state *s, const double *v, double *dots);
// max |Q (x - y)| of s->x; the sums to s->residual.
enum status device_residual(struct walk_state *s, double *most);
// s->gram for a checkpoint; G from s->gram after one was loaded, before the first pass (which brings x).
enum status device_gram_read(struct walk_state *s);
enum status device_resume(struct walk_state *s);

#endif
