// A proven upper bound of the largest fourth moment of whitened samples over all directions.
//
// Samples h_i [r], i < n, with (1/n) sum h_i h_i^T = I. For every t the operator on symmetric matrices
//     L_t(V) = (1/n) sum_i (h_i^T V h_i) h_i h_i^T - t tr(V) I + t V
// has <u u^T, L_t(u u^T)> = (1/n) sum <h_i, u>^4 for unit u, since there tr(V)^2 = |V|^2 = 1. Hence
//     max over u of (1/n) sum <h_i, u>^4  <=  lambda_max(L_t),
// which is convex in t: the smallest over t is the bound (one parameter of the degree-4 sum-of-squares relaxation of Barak,
// Brandao, Harrow, Kelner, Steurer and Zhou, "Hypercontractivity, sum-of-squares proofs, and their applications", STOC 2012).
// t = 0 alone, the flattened fourth moments, gives r + 2 for a Gaussian, whose answer is 3.
//
// Lanczos finds t. What is returned does not rest on its convergence: c >= lambda_max(L_t) is proven by a Cholesky
// factorisation of c - L_t, or, where n < r (r + 1) / 2, of its Schur complement [n, n], with what rounding may have hidden
// added (Rump, "Verification of positive definiteness", BIT 2006).
#ifndef DQ_SPECTRA_BETA_CERTIFICATE_H
#define DQ_SPECTRA_BETA_CERTIFICATE_H

#include "core/base/status.h"

#include <stdint.h>

struct beta_certificate {
    double upper; // proven
    double t;     // at which it was found
    double least; // no t gives less than this (up to Lanczos' error): upper - least is what more work could gain
};

// h [n, r]. `lower`: a fourth moment that some direction has, from which the search starts. Memory: the smaller one of n^2 and
// (r (r + 1) / 2)^2 doubles. The same bits for any number of threads.
enum status beta_certificate(const double *h, int64_t n, int64_t r, double lower, struct beta_certificate *out);

// The proof alone: *upper is c and what rounding may hide where lambda_max(L_t) <= c has been proven, else infinity. t >= 0.
enum status beta_certificate_prove(const double *h, int64_t n, int64_t r, double t, double c, double *upper);

#endif
