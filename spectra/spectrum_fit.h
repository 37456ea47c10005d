// Decay of the eigenvalues of the gradients' covariance, lambda_k = C k^-alpha, from sketches of samples.
//
// The eigenvalues of the sketches' covariance are not those of Sigma: N samples and k dimensions bias them like
// 1 / (kappa / N + 1 / k) samples would (theory/spectrum_bias.h), enough for a slope below 1 where alpha is 1.1. The fit
// therefore sends the law through the same bias and compares what comes out.
//
//     struct spectrum_input in = {.rows = rows, .norms = norms, .norms_stride = 1, .weights = n};
//     TRY(spectrum_fit_new(&in, NULL, backend, &fit));
//     fit->alpha.value, fit->alpha.error, …
//     spectrum_fit_free(fit);
//
// Errors: squares of two parts are added. Samples: delete-a-group jackknife over consecutive groups, eigenvalues without a group to
// first order (or anew: `exact_jackknife`), kappa and everything else anew. Sketches: the mean of the spread over the J sketches, which has
// J - 1 degrees of freedom only, and of a jackknife over groups of sketch coordinates, which has many but overestimates; the latter
// alone for J = 1.
#ifndef DQ_SPECTRA_SPECTRUM_FIT_H
#define DQ_SPECTRA_SPECTRUM_FIT_H

#include "spectra/decay.h"
#include "spectra/norms.h"

struct spectrum_input {
    struct sketch_rows rows;
    const double *norms; // |g_i|^2 at norms[i * norms_stride]
    int64_t norms_stride;
    int64_t weights; // n, how many eigenvalues Sigma has
    bool exact;      // rows are the gradients themselves (dim = weights, one "sketch"): only N biases
};

struct spectrum_options {
    bool centred;
    int64_t first_rank;   // of the fit; 0: 3
    double last_share;    // last rank as a share of min(dim, samples / kappa, weights), at most 0.85; 0: 0.6
    int64_t groups;       // of the jackknife; 0: 20
    bool exact_jackknife; // one eigenvalue problem per sketch and group
    double noise_floor;   // eigenvalues below 10 times this are left out (spectrum_noise_floor); 0: none is known
    bool alternatives;    // judge a broken power law and an exponential too: needs two halves of enough samples
};

// A law fitted to one half of the samples and judged on the other, both ways: root mean square of the log residuals, weight
// 1 / rank. The halves have sketches of their own if there are two.
struct spectrum_alternative {
    double held_out;     // NaN: not judged, or no law of this kind fits a half
    struct decay fitted; // to all samples
};

struct spectrum_fit {
    struct estimate alpha;    // decay of Sigma's eigenvalues, debiased
    struct estimate scale;    // C of lambda_k = C k^-alpha; its error is that of log C times C
    struct estimate envelope; // the C of Theorem 2: max over ranks 1 … last_rank of lambda_k k^alpha, lambda debiased
    int64_t envelope_rank;    // where it is reached
    // BIASED, beside the others for comparison: least squares of log eigenvalue on log rank over the same ranks, times -1.
    struct estimate naive_slope;
    double residual; // root mean square of the log residuals, weight 1 / rank

    int64_t first_rank, last_rank; // of the fit
    double samples_effective;      // N / kappa
    double kappa;                  // heterogeneity of the samples' scales, 1 for Gaussian gradients (below)

    double trace;                 // E |g|^2 (centred: minus |E g|^2), exact norms
    struct estimate moment2;      // tr Sigma^2, unbiased
    struct estimate rank_largest; // effective rank tr / lambda_1, lambda_1 debiased
    struct estimate rank_moment;  // effective rank tr^2 / tr Sigma^2

    struct spectrum_alternative laws[LAWS]; // with `alternatives`

    int64_t size;           // min(samples, dim)
    double *sampled;        // [size] eigenvalues as they are, mean over sketches, falling
    double *expected;       // [size] what the fitted law would give there; NaN beyond last_rank
    double *debiased;       // [size] sampled times law / expected; NaN beyond last_rank
    double *debiased_error; // [size] one standard error of it
};

// kappa = E|g|^4 / (E|g|^2)^2 / (1 + 2 tr Sigma^2 / tr^2): for g = s x with Gaussian x this is E s^4 / (E s^2)^2.
//
// STATUS_INVALID, one line, where the fit has nothing to stand on: fewer than 2 samples per group or fewer than 8 ranks to fit,
// numbers that are not finite, gradients that are all 0 or all equal. `options` may be NULL.
enum status spectrum_fit_new(const struct spectrum_input *in, const struct spectrum_options *options,
                             struct backend *backend, struct spectrum_fit **out);
void spectrum_fit_free(struct spectrum_fit *fit); // accepts NULL

// The eigenvalue that noise alone would give: share = E |g - g'|^2 / E |g|^2 over gradients of the same samples computed
// twice (other batches, other precision); half of it is the noise of one, spread over dim directions.
double spectrum_noise_floor(double share, double trace, int64_t dim);

#endif
