// What samples say of the gradients' covariance, as keys of a record: Table 1, the decay of the eigenvalues (Figure 3), beta.
//
//   mean_norm2, …_se, …_naive   |E g|^2 without bias, its standard error, and |mean g|^2 as it is
//   norm2_mean, …_se            E |g|^2
//   mean_norm2_sketched, …_se   the first from sketches alone, as a check
//   alpha, …_se, c, …_se        lambda_k = C k^-alpha, debiased; with _centred: around the mean
//   c_envelope                  max_k lambda_k k^alpha, the C of Theorem 2
//   alpha_naive                 BIASED: slope of the sampled eigenvalues over the same ranks; …_se
//   spectrum_fit.h has the rest
#ifndef DQ_SPECTRA_FIGURES_H
#define DQ_SPECTRA_FIGURES_H

#include "data/record.h"
#include "spectra/samples.h"
#include "spectra/spectrum_fit.h"

struct figures_input {
    struct sketch_rows rows; // of sketches, or of gradients themselves
    bool exact;              // the latter
    const double *norms;     // squared, at [i * norms_stride]
    int64_t norms_stride;
    double sum2; // |sum of g|^2
    int64_t weights;
    double noise_share; // spectrum_noise_floor; 0: not known
};

// Table 1 and kappa.
enum status figures_norms(const struct figures_input *in, struct record *record);

// The fit, uncentred or centred; the latter's keys end in _centred. The fit is the caller's to free.
enum status figures_spectrum(const struct figures_input *in, bool centred, struct backend *backend,
                             struct record *record, struct spectrum_fit **fit);

#endif
