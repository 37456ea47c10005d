// What the parts of `discquant-spectra taylor` share: its settings, the passes that were planned and what they gave.
#ifndef DQ_SPECTRA_TAYLOR_RUN_H
#define DQ_SPECTRA_TAYLOR_RUN_H

#include "data/corpus.h"
#include "data/program.h"
#include "spectra/taylor_order.h"
#include "spectra/taylor_pass.h"

enum { TAYLOR_FILES_MAX = 64, TAYLOR_QUANTIZED_MAX = 8 };

struct quantized {
    char *name;
    const char *path;
};

struct taylor_settings {
    const char *model;
    const char *corpus[TAYLOR_FILES_MAX];
    int n_corpus;
    struct quantized quantized[TAYLOR_QUANTIZED_MAX];
    int n_quantized;
    int bits; // 0: not given
    int64_t group_size;
    int64_t samples, seq_len, batch;
    int64_t order_samples; // windows of the remainder's order
    int halvings;          // t = 1 … 2^-halvings
    int64_t checkpoint_every;
};

// One setting of the weights for a number of windows. Numbers are filled window by window.
struct taylor_numbers {
    int64_t direction;
    double t;
    int64_t windows;
    double *losses;   // [windows, seq_len - 1]
    double *tangents; // the same; NULL: not asked for
};

struct taylor_run {
    const struct program_common *common;
    const struct taylor_settings *settings;
    struct run_folder *folder;
    struct model *model;
    struct corpus *corpus;
    struct groups *groups;
    struct directions *directions;
    struct taylor_passes *passes;
    int32_t *tokens;
    int64_t size; // seq_len - 1
    int64_t order_windows;
    struct taylor_numbers *plan; // per direction: f(w) with tangents, f(w_hat), then f(w + t d), f(w - t d) for all t
    int64_t n_plan, per_direction;
    double saved_at;
};

// How many t there are, from 1 down.
static inline int taylor_run_t(const struct taylor_settings *s) { return s->order_samples ? s->halvings + 1 : 0; }

// A figure of one rounding, KEY_NAME in result.json.
void taylor_put(struct taylor_run *run, const char *key, const char *name, double value);

// Everything that OUT holds, once all passes are done.
enum status taylor_judge(struct taylor_run *run);

#endif
