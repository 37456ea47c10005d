// A finished store in memory: what estimators take.
//
//     TRY(samples_open("run", &samples));                    // run/records, run/sums
//     TRY(samples_load(samples, SAMPLES_WHOLE));             // sketches of one group, or of all together
//     struct sketch_rows rows = samples_rows(samples);
#ifndef DQ_SPECTRA_SAMPLES_H
#define DQ_SPECTRA_SAMPLES_H

#include "spectra/covariance.h"
#include "spectra/store.h"

enum { SAMPLES_WHOLE = -1 };

struct samples {
    struct store *store;
    const struct settings *settings;
    int64_t n;
    double *losses;  // [n]
    double *norms;   // [n, groups] squared
    double *whole;   // [n] squared norms over all groups
    double *inner;   // [directions, n]
    double *squares; // [groups + 1] |sum of gradients|^2 per group, the last of all groups together
    float *sketches; // [n, J, k] of what was loaded
};

// STATUS_INVALID where samples are missing, STATUS_FORMAT where a file is damaged or holds what is not finite.
enum status samples_open(const char *folder, struct samples **out);
void samples_free(struct samples *samples); // accepts NULL

// The sketch of several groups is the sum of theirs.
enum status samples_load(struct samples *samples, int64_t group);
struct sketch_rows samples_rows(const struct samples *samples);

// Squared norms of a group, at [i * *stride].
const double *samples_norms(const struct samples *samples, int64_t group, int64_t *stride);
double samples_sum2(const struct samples *samples, int64_t group);
int64_t samples_weights(const struct samples *samples, int64_t group); // entries of the weights that count

#endif
