// Gram matrices of rows of the frame, and systems with them.
//
//     gram_add(gram, -1, &rows, ids, n_ids, NULL, NULL, scratch);      // what a set of coordinates takes away
//     if (solver_factor(&solver, gram)) solver_solve(&solver, z, c);   // gram c = z
//
// Sums are cut into parts by the shape alone and added in the order of the parts, so any number of threads gives the same.
#ifndef DQ_WALK_GRAM_H
#define DQ_WALK_GRAM_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct gram_rows {
    const double *a; // [n, stride], 64-byte aligned rows
    int64_t n, stride, cols;
};

struct gram_scratch;
enum status gram_scratch_new(int64_t n, int64_t cols, struct gram_scratch **out);
void gram_scratch_free(struct gram_scratch *scratch); // accepts NULL

// Columns that ride along with a product: sums[k] += sum_i weight[k][i] a_i over the listed rows.
struct gram_sums {
    int n; // at most 3
    const double *weight[3];
    double *sum[3]; // [cols rounded up to 8]
};

// gram [cols, cols] (both triangles) += sign * sum_i a_i a_i^T over the rows ids[0 .. n_ids), or over rows 0 .. n_ids - 1
// where ids is NULL. gram may be NULL: sums only; sums may be NULL.
void gram_add(double *gram, double sign, struct gram_rows rows, const int64_t *ids, int64_t n_ids,
              const struct gram_sums *sums, struct gram_scratch *scratch);

// A Gram matrix made ready for solving: Cholesky, and where that fails eigenvectors without the null space (so that the
// solution is the one of least norm).
struct solver {
    int64_t size;   // of the system
    int64_t rank;   // < size: eigenvectors are used
    double *factor; // [size, size]: L of L L^T in rows, or eigenvectors as rows
    double *values; // [size]: eigenvalues, 0 for those dropped
    double *work;   // [2 * size]
};

enum status solver_new(struct solver *solver, int64_t size);
void solver_free(struct solver *solver);

// Cholesky only; false where gram is not safely positive definite (the solver is then not usable).
bool solver_try(struct solver *solver, const double *gram);
// Cholesky or eigenvectors. STATUS_DEVICE never; fails only if the eigenvalues do not converge (NaN in gram).
enum status solver_factor(struct solver *solver, const double *gram);

// x may be b. size numbers each.
void solver_solve(const struct solver *solver, const double *b, double *x);

// Quadratic forms: out[k] = a_k^T gram^-1 a_k for n rows [n, stride], which are overwritten.
void solver_leverage(const struct solver *solver, double *rows, int64_t n, int64_t stride, double *out);

// Estimates of the largest eigenvalue of gram^-1, and of gram^-1 other, by `steps` steps of power iteration from
// `vector` [size], which is left for a warm start. Estimates from below.
double solver_norm(const struct solver *solver, const double *other, double *vector, int steps);

// Eigenvalues falling, eigenvectors as rows of `gram` [size, size]. STATUS_INVALID where they do not converge.
enum status symmetric_eigen(double *gram, int64_t size, double *values);

#endif
