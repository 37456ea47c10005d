// One store of several whose samples follow one another: `discquant-spectra merge`. The result has the bits of one run over
// all of them, sums of gradients included.
#ifndef DQ_SPECTRA_MERGE_H
#define DQ_SPECTRA_MERGE_H

#include "data/program.h"

extern const struct command merge_command;

// Run folders, in any order -> FOLDER/records and FOLDER/sums. STATUS_INVALID: settings that differ, samples that are in
// two of them or in none. *samples of the result from *first on.
enum status merge(const char *const *paths, int64_t n, const char *folder, int64_t *first, int64_t *samples);

#endif
