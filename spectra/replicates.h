// The eigenvalues of the covariance of sketches, and what they would be without a group of samples or of sketch coordinates.
#ifndef DQ_SPECTRA_REPLICATES_H
#define DQ_SPECTRA_REPLICATES_H

#include "spectra/covariance.h"

struct replicates_options {
    bool centred, exact; // exact: without samples by eigenvalue problems of their own, otherwise to first order
    bool coordinates;    // replicates without coordinates too; otherwise they are as the whole
    int64_t groups;      // of samples and of coordinates, consecutive
    int64_t last;        // ranks kept, <= min(samples, dim)
};

// Replicate 0: everything; 1 … groups: without a group of samples; groups + 1 … 2 groups: without a group of coordinates.
struct replicates {
    int64_t sketches, groups, count, last, size; // count = 1 + 2 groups, size = min(samples, dim)
    double *values;                              // [sketches, count, last] falling
    double *squares;                             // [sketches, count] sum of the squares of all eigenvalues
    double *fourth; // [sketches, count] sum of |y|^4 over the samples left (around the mean where centred)
    double *whole;  // [sketches, size] all eigenvalues of replicate 0
};

// First sample (coordinate) of group g of n.
static inline int64_t replicate_first(int64_t n, int64_t groups, int64_t g) { return g * n / groups; }

enum status replicates_new(const struct sketch_rows *rows, const struct replicates_options *options,
                           struct backend *backend, struct replicates **out);
void replicates_free(struct replicates *replicates); // accepts NULL

#endif
