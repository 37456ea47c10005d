// The samples of a run: from a model folder and texts to the files of spectra/collect.h in the run folder.
#ifndef DQ_SPECTRA_SAMPLING_H
#define DQ_SPECTRA_SAMPLING_H

#include "data/program.h"
#include "spectra/collect.h"

enum { SAMPLING_FILES_MAX = 64, SAMPLING_QUANTIZED_MAX = 8 };

struct sampling_settings {
    const char *model;
    const char *corpus[SAMPLING_FILES_MAX];
    int n_corpus;
    int64_t first, samples, seq_len, batch;
    bool recompute;
    enum parameter_set parameters;
    struct layer_set layers;
    const char *layers_text; // as it was given, NULL: all
    bool per_layer;
    enum sketch_kind sketch;
    int64_t dim, sketches;
    int bits; // of the rounding to nearest whose direction is measured, 0: none
    int64_t group_size;
    char *quantized_names[SAMPLING_QUANTIZED_MAX];
    const char *quantized[SAMPLING_QUANTIZED_MAX];
    int n_quantized;
    int64_t checkpoint_every;
};

struct sampling {
    const struct sampling_settings *given;
    struct model *model;
    struct corpus *corpus;
    struct groups *groups;
    struct directions *directions;
    struct settings *settings;
    struct collect_options options;
};

// All that decides the samples, into the settings of the run folder.
enum status sampling_describe(const struct sampling_settings *given, uint64_t seed, struct record *record);

// Opens what `given` names; `described` is the record above.
enum status sampling_open(const struct sampling_settings *given, const struct program_common *common,
                          const struct record *described, struct sampling **out);
void sampling_free(struct sampling *sampling); // accepts NULL

// Into `folder`, the path of `run`. *seconds: of the passes, earlier parts of the run included.
enum status sampling_collect(struct sampling *sampling, struct run_folder *run, const char *folder, bool resume,
                             double *seconds);

#endif
