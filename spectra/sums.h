// Gradients summed over samples, entry by entry, exactly: so that |sum of gradients|^2 is exact, and sums over parts of the
// samples add up to the bits of the sum over all of them, in any order.
//
//     TRY(sums_new(settings, &sums));
//     …  sums->values[i][e] += …                        // multiples of 2^-40 (core/graph/sketch_sink.h)
//     TRY(sums_write(sums, "run/sums", first));
//     TRY(sums_read("run/sums", settings, first, &sums));
//
// Entries stay below 2^12, so that sums of two are still exact in double.
#ifndef DQ_SPECTRA_SUMS_H
#define DQ_SPECTRA_SUMS_H

#include "spectra/settings.h"

struct sums {
    const struct settings *settings; // borrowed
    int64_t samples;                 // that have been added
    double **values;                 // [settings->n_weights][elements]
};

enum status sums_new(const struct settings *settings, struct sums **out); // zeros
void sums_free(struct sums *sums);                                        // accepts NULL

// The file (data/checkpoint.h) holds sums over samples first .. first + sums->samples - 1.
enum status sums_write(const struct sums *sums, const char *path, int64_t first);
// STATUS_FORMAT where the file is damaged or belongs to other settings or another first sample.
enum status sums_read(const char *path, const struct settings *settings, int64_t first, struct sums **out);

// STATUS_INVALID where an entry is no longer exact.
enum status sums_add(struct sums *sums, const struct sums *more);

// squares[g] = |sum of the gradients of group g|^2, summed in fixed order.
void sums_squares(const struct sums *sums, double *squares);

#endif
