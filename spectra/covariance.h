// The covariance of sketches of gradients, centred or not, and its eigenvalues.
//
//     struct sketch_rows rows = {.at = sketches, .samples = n, .sketches = 4, .dim = k, .sample_stride = 4 * k, .sketch_stride = k};
//     TRY(covariance_new(&rows, 0, &covariance));
//     TRY(covariance_eigenvalues(covariance, backend, &(struct covariance_part){0}, values));
//     covariance_free(covariance);
//
// Sketches are fp32, every sum over samples is fp64. The smaller one of the Gram matrices [dim, dim] and [samples, samples]
// is made once; leaving samples out changes it by these samples alone. The same bits for any number of threads.
#ifndef DQ_SPECTRA_COVARIANCE_H
#define DQ_SPECTRA_COVARIANCE_H

#include "core/backend/backend.h"

// Sketch s of sample i: dim floats at at + i * sample_stride + s * sketch_stride. Borrowed.
struct sketch_rows {
    const float *at;
    int64_t samples, sketches, dim;
    int64_t sample_stride, sketch_stride;
};

static inline const float *sketch_row(const struct sketch_rows *rows, int64_t sample, int64_t sketch) {
    return rows->at + sample * rows->sample_stride + sketch * rows->sketch_stride;
}

struct covariance; // borrows the rows

// STATUS_INVALID where a number is not finite (which sample) or there are fewer than two samples; STATUS_NO_MEMORY.
enum status covariance_new(const struct sketch_rows *rows, int64_t sketch, struct covariance **out);
void covariance_free(struct covariance *covariance); // accepts NULL

// Which samples count: all but skip_first … skip_first + skip - 1; and around what.
struct covariance_part {
    int64_t skip_first, skip;
    bool centred; // sum of (y - mean)(y - mean)^T / (samples - 1); otherwise sum of y y^T / samples
};

// How many eigenvalues covariance_eigenvalues gives: min(samples left, dim).
int64_t covariance_size(const struct covariance *covariance, const struct covariance_part *part);

// values [covariance_size], falling; the ones that rounding made negative are 0. By OP_eigh of the backend.
enum status covariance_eigenvalues(const struct covariance *covariance, struct backend *backend,
                                   const struct covariance_part *part, double *values);

// The same with the first n unit eigenvectors, vectors [n, dim], n <= covariance_size. Where eigenvalues are 0 and the Gram
// matrix is [samples, samples], vectors are 0.
enum status covariance_vectors(const struct covariance *covariance, struct backend *backend,
                               const struct covariance_part *part, int64_t n, double *values, double *vectors);

// The same, either of vectors and loadings NULL: loadings [n, samples left] are the products <v_r, y_i - mean> (mean only where
// centred). With fewer samples than dimensions, loadings alone need no vector of dim numbers.
enum status covariance_factors(const struct covariance *covariance, struct backend *backend,
                               const struct covariance_part *part, int64_t n, double *values, double *vectors,
                               double *loadings);

// The uncentred second moment of all samples times samples, sum of y y^T, [dim, dim], where dim <= samples; else NULL.
const double *covariance_moments(const struct covariance *covariance);

#endif
