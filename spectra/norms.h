// What the squared norms of single gradients and their exact sum say: Table 1 of the paper, with errors.
//
//     struct norms_input in = {.samples = n, .norms = norms, .stride = 1, .sum2 = sum2, .inner = inner};
//     TRY(norms_estimate(&in, &norms));      // norms.mean2.value +- norms.mean2.error
#ifndef DQ_SPECTRA_NORMS_H
#define DQ_SPECTRA_NORMS_H

#include "spectra/covariance.h"

struct estimate {
    double value, error; // one standard error; NaN: not known
};

struct norms_input {
    int64_t samples;
    const double *norms; // |g_i|^2 at norms[i * stride]
    int64_t stride;
    double sum2;         // |sum of g_i|^2, from the exact sum
    const double *inner; // [samples] <g_i, sum of g>, exact or by norms_inner; NULL: no error for mean2
};

struct norms {
    struct estimate mean2;  // |E g|^2, unbiased: can be negative where it is smaller than its error
    double mean2_naive;     // |mean g|^2, too large by (E |g|^2 - |E g|^2) / samples
    struct estimate second; // E |g|^2
    struct estimate ratio;  // mean2 / second
    struct estimate kappa;  // E |g|^4 / (E |g|^2)^2 >= 1: how unequal the norms are
};

// Delete-one jackknife. STATUS_INVALID for fewer than 3 samples, numbers that are not finite, negative norms, all norms 0.
enum status norms_estimate(const struct norms_input *in, struct norms *out);

// inner [samples] = <g_i, sum of g> estimated without bias by the mean over sketches of <y_i, sum of y>, except that |g_i|^2,
// which is known, replaces |y_i|^2: the one term of the sum that sketching blurs most.
enum status norms_inner(const struct sketch_rows *rows, const double *norms, int64_t stride, double *inner);

// |E g|^2 from sketches alone: a check of the exact sum. Its error is sampling and sketching together (jackknife over samples,
// spread over sketches).
enum status norms_mean2_sketched(const struct sketch_rows *rows, const double *norms, int64_t stride,
                                 struct estimate *mean2);

#endif
