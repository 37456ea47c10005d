// Windows of text through a network, one backward pass per batch, each window's gradient into a record of a store; and the exact
// sum of the gradients beside it.
//
//   FOLDER/records    spectra/store.h
//   FOLDER/sums       spectra/sums.h, over as many samples as it says; written after the records it stands for
//
// A window of seq_len tokens is a sample; its loss is the mean cross entropy of its seq_len - 1 predictions. Windows do not
// overlap and come in an order that the seed decides (corpus_draw). Sample i stands at place i mod batch of pass i / batch, so that
// its record has the same bits whatever range of samples a run has, and however often it was killed.
#ifndef DQ_SPECTRA_COLLECT_H
#define DQ_SPECTRA_COLLECT_H

#include "data/corpus.h"
#include "data/model.h"
#include "spectra/directions.h"
#include "spectra/settings.h"

struct collect_options {
    const char *folder; // is there
    struct model *model;
    const struct corpus *corpus;
    const struct groups *groups;
    const struct directions *directions; // NULL: none
    const struct settings *settings;     // of these: collect_settings
    int64_t first, samples;              // the range
    bool recompute;                      // keep only the inputs of layers between forward and backward
    bool resume;                         // go on where FOLDER's files end; without: start anew
    int64_t checkpoint_every;            // samples between states on the disk, 0: every 5 seconds or more
    // After each state on the disk, with the samples it has; may be NULL.
    enum status (*saved)(void *context, int64_t done);
    void *context;
};

// What a sample's record depends on, apart from the digests of model and corpus, which are copied.
struct settings_options {
    const char *model, *corpus;
    int64_t seq_len, batch; // batch 0: as many as make 2048 tokens, at least 8
    uint64_t seed;
    enum parameter_set parameters;
    enum sketch_kind sketch;
    int64_t dim, sketches;
};
struct settings *collect_settings(const struct transformer *model, const struct groups *groups,
                                  const struct directions *directions, const struct settings_options *options);

extern const char *const sketch_names[]; // by enum sketch_kind: none, rotation, gaussian, rademacher; NULL

struct collected {
    int64_t samples;  // of this call: not those that were there
    double seconds;   // it took
    double mean_loss; // of these
};

// STATUS_INVALID: fewer windows than the range needs, a loss or gradient that is not finite (which sample), files of other
// settings.
enum status collect(const struct collect_options *options, struct collected *out);

// Noise of the arithmetic: the same samples computed in passes of one window. share = E |g - g'|^2 / E |g|^2 by their sketches,
// over the first n records of the store. Needs sketches.
enum status collect_noise(const struct collect_options *options, int64_t n, double *share);

#endif
