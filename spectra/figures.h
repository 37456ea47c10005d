// What samples say of the gradients' covariance, as keys of a record: Table 1.
//
//   mean_norm2, …_se, …_naive   |E g|^2 without bias, its standard error, and |mean g|^2 as it is
//   norm2_mean, …_se            E |g|^2
//   mean_norm2_sketched, …_se   the first from sketches alone, as a check
#ifndef DQ_SPECTRA_FIGURES_H
#define DQ_SPECTRA_FIGURES_H

#include "data/record.h"
#include "spectra/samples.h"
#include "spectra/norms.h"

struct figures_input {
    struct sketch_rows rows; // of sketches, or of gradients themselves
    bool exact;              // the latter
    const double *norms;     // squared, at [i * norms_stride]
    int64_t norms_stride;
    double sum2; // |sum of g|^2
};

// Table 1 and kappa.
enum status figures_norms(const struct figures_input *in, struct record *record);

#endif
