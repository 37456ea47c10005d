// Batches of calibration windows in a seeded order: sample k of a run is window order_e[k mod N] of epoch e = k / N; every
// epoch has its own permutation. A function of (seed, step): an interrupted run goes on with the same batches.
//
//     struct batches *batches = batches_new(&(struct batches_options){corpus, windows, seq_len, batch, seed});
//     const int32_t *tokens = batches_load(batches, step);     // [batch, seq_len], until the next call
//     batches_free(batches);                                   // accepts NULL
#ifndef DQ_DISCQUANT_BATCHES_H
#define DQ_DISCQUANT_BATCHES_H

#include "data/corpus.h"

struct batches;

struct batches_options {
    const struct corpus *corpus; // borrowed
    int64_t windows;             // of it, from the start
    int64_t seq_len, batch;
    uint64_t seed;
};

enum status batches_new(const struct batches_options *options, struct batches **out);
void batches_free(struct batches *batches);
const int32_t *batches_load(struct batches *batches, int64_t step);

#endif
