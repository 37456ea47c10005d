// Samples of planted gradients as a collection of real ones gives them: exact squared norms, sketches, the exact sum. Their
// covariance is known, so that estimators can be judged.
//
//     struct planted_options options = {.gradients = {.law = {65536, 1.1, 1}, .basis = BASIS_HADAMARD, .seed = seed},
//                                       .kind = SKETCH_ROTATION, .samples = 2048, .dim = 512, .sketches = 4};
//     TRY(planted_new(&options, backend, &planted));
//
// g = s U diag(sqrt lambda) z (theory/gradients.h). U is the Walsh-Hadamard matrix with random signs and order, eigenvectors
// that are spread out as those of networks are, or the axes.
#ifndef DQ_SPECTRA_PLANTED_H
#define DQ_SPECTRA_PLANTED_H

#include "spectra/covariance.h"
#include "theory/gradients.h"

struct planted_options {
    struct gradients_options gradients; // law, basis, distribution of z, seed
    double spread;                      // sd of log s, E s^2 = 1: kappa = E s^4 = e^(4 spread^2); 0: s = 1
    enum sketch_kind kind;
    int64_t samples, dim, sketches;
};

struct planted {
    struct sketch_rows rows;
    float *sketches; // [samples, sketches, dim]
    double *norms;   // [samples]
    double sum2;     // |sum of g|^2
};

// STATUS_INVALID for a law or basis that gradients_new refuses; STATUS_NO_MEMORY.
enum status planted_new(const struct planted_options *options, struct backend *backend, struct planted **out);
void planted_free(struct planted *planted); // accepts NULL

#endif
