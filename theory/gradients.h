// Synthetic gradients g = U diag(sqrt(lambda)) z whose covariance Sigma = U diag(lambda) U^T is known: lambda_k =
// scale k^-alpha, z of independent coordinates with mean 0 and variance 1. Row `row` of stream `stream` is a function
// of (seed, stream, row) alone: rows can be drawn in any order, over threads, again. Both bases draw the same z.
//
//     struct gradients_options options = {.law = {.n = 4096, .alpha = 1.5, .scale = 1}, .basis = BASIS_HADAMARD};
//     TRY(gradients_new(&options, &gradients));
//     TRY(gradients_columns(gradients, GRADIENTS_SAMPLES, 0, m, matrix, m));   // M as [n, m]
//     double qe = gradients_error(gradients, d, work);                         // E <g, d>^2, exact
#ifndef DQ_THEORY_GRADIENTS_H
#define DQ_THEORY_GRADIENTS_H

#include "core/base/rng.h"
#include "theory/power_law.h"

enum basis {
    BASIS_IDENTITY, // localised: coordinate k - 1 is the k-th eigenvector
    BASIS_HADAMARD, // spread out: U = D H Q / sqrt(n), D random signs, Q a random permutation; n a power of two
};

// All are beta-reasonable in every basis with beta = max(3, kurtosis), if that is finite:
// E <z, v>^4 = 3 |v|^4 + (kurtosis - 3) sum v_k^4, and sum v_k^4 lies between 0 and |v|^4.
enum distribution {
    DISTRIBUTION_GAUSSIAN,   // kurtosis E z^4 = 3
    DISTRIBUTION_RADEMACHER, // +1 or -1, kurtosis 1
    DISTRIBUTION_STUDENT, // Student's t over its standard deviation; kurtosis 3 + 6 / (degrees - 4), infinite for <= 4
};

struct gradients_options {
    struct power_law law;
    enum basis basis;
    enum distribution distribution;
    double degrees; // of freedom, of Student's t; > 2; 0: 5, kurtosis 9
    uint64_t seed;
};

// Streams of rows. Any value with zeros in its lower 32 bits, which hold the row, is one.
#define GRADIENTS_SAMPLES RNG_STREAM(16) // what a rounder sees
#define GRADIENTS_FRESH RNG_STREAM(17)   // what it is judged on
#define GRADIENTS_BASIS RNG_STREAM(18)   // signs and permutation of U

struct gradients;

// STATUS_INVALID for a law, n or degrees out of range; STATUS_NO_MEMORY. Holds 24 n bytes.
enum status gradients_new(const struct gradients_options *options, struct gradients **out);
void gradients_free(struct gradients *gradients); // accepts NULL

// What was asked for, with defaults filled in.
const struct gradients_options *gradients_settings(const struct gradients *gradients);

double gradients_kurtosis(const struct gradients *gradients); // of a coordinate of z; may be INFINITY
double gradients_beta(const struct gradients *gradients);     // max(3, kurtosis)

// One row g [n]; 0 <= row < 2^32.
void gradients_row(const struct gradients *gradients, uint64_t stream, int64_t row, double *g);

// The same row in the eigenbasis: U^T g [n], coordinate k - 1 = sqrt(lambda_k) z_k.
void gradients_row_eigen(const struct gradients *gradients, uint64_t stream, int64_t row, double *g);

// Rows first … first + rows - 1 as a matrix, fp64, row-major: row i at out + i * stride, stride >= n.
void gradients_rows(const struct gradients *gradients, uint64_t stream, int64_t first, int64_t rows, double *out,
                    int64_t stride);

// The same coordinate-major: coordinate j of row i at out[j * stride + i], stride >= rows. Borrows 8 rows per thread.
enum status gradients_columns(const struct gradients *gradients, uint64_t stream, int64_t first, int64_t rows,
                              double *out, int64_t stride);

// d^T Sigma d = E <g, d>^2, the exact QE of x - y = d [n]. work [n] is overwritten.
double gradients_error(const struct gradients *gradients, const double *d, double *work);

// out [n] = Sigma d; out may be d.
void gradients_covariance(const struct gradients *gradients, const double *d, double *out);

// out [n] = U^T d, so that QE = sum_k lambda_k out[k - 1]^2. out may be d. work [n] is overwritten.
void gradients_to_eigen(const struct gradients *gradients, const double *d, double *work, double *out);

// out [n] = the k-th unit eigenvector, 1 <= k <= n.
void gradients_eigenvector(const struct gradients *gradients, int64_t k, double *out);

#endif
