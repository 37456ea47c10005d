// Rounding with error feedback: GPTQ (Frantar et al., ICLR 2023) in the form of LDLQ (Chee et al., "QuIP", NeurIPS 2023, Theorem 6: the
// two give the same roundings).
//
// With the Gram matrix H of a layer's inputs (discquant/hessian.h), its columns and rows in the order in which weights are rounded,
//
//     H + damping mean(diag H) 1 = M D M^T        M unit upper triangular, D diagonal
//     q_k = nearest grid point to v_k = w_k + sum over j < k of (w_j - q_j) M_jk                    for k = 0 .. n - 1
//     tr((W - Q)(M D M^T)(W - Q)^T) = sum over rows and k of D_k (v_k - q_k)^2
//
// so each weight's rounding minimizes its own term given the ones before. M D^(1/2) is the Cholesky factor of the matrix in reversed
// order, reversed: nothing is inverted. Columns come in blocks; the errors of a block reach the columns behind it in one product.
//
//     TRY(feedback_new(backend, hessian, name, &(struct feedback_options){.damping = 0.01, .ordered = true}, &feedback));
//     TRY(feedback_round(feedback, grid, w, scale, rows, q, &loss));     // q, k, v of a layer share a feedback
#ifndef DQ_DISCQUANT_FEEDBACK_H
#define DQ_DISCQUANT_FEEDBACK_H

#include "discquant/hessian.h"

struct feedback_options {
    double damping; // share of the mean of H's diagonal that is added to it
    bool ordered;   // columns of large diagonal first ("activation order"); the groups of the grid stay where they are
};

struct feedback {
    int64_t n;
    int64_t *order; // [n] order[k] is the input that is rounded k-th
    float *factor;  // [n, n] M; row j is used right of its diagonal
    double *pivots; // [n] D
    double damping; // that was used: the first of those tried whose factorization succeeded
    double added;   // what it came to on the diagonal
    int64_t raised; // how often it was raised
    int64_t dead;   // inputs that are 0 in all rows: rounded to nearest, without feedback
};

// Damping that does not do, since the matrix is not positive definite in double or a pivot is below 1e-7 of the mean diagonal (the
// size of the errors in H), is raised tenfold, from 0 to 1e-6. STATUS_INVALID, naming the layer, when H is not finite.
enum status feedback_new(struct backend *backend, const struct hessian *hessian, const char *name,
                         const struct feedback_options *options, struct feedback **out);
void feedback_free(struct feedback *feedback); // accepts NULL

// Rounds w [rows, n] to q [rows, n] on the grid, scale as weight.scale; *error = tr((w - q) H (w - q)^T), without the damping.
enum status feedback_round(const struct feedback *feedback, const struct grid *grid, const float *w, const float *scale,
                           int64_t rows, float *q, double *error);

#endif
