// The gradients of samples themselves, for models and numbers of samples that fit in memory: what sketches are judged by.
#ifndef DQ_SPECTRA_EXACT_H
#define DQ_SPECTRA_EXACT_H

#include "spectra/collect.h"
#include "spectra/covariance.h"

struct exact;

// The samples of the options' range. STATUS_NO_MEMORY where they do not fit: 4 bytes per sample and weight that counts.
enum status exact_new(const struct collect_options *options, struct exact **out);
void exact_free(struct exact *exact); // accepts NULL

// One "sketch" per sample: its gradient, the weights that count one behind the other.
struct sketch_rows exact_rows(const struct exact *exact);

#endif
