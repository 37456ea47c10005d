// `discquant-bench eval --task perplexity`: perplexity of a model on consecutive windows of a text, and its distance to a
// second model.
#ifndef DQ_BENCH_PERPLEXITY_H
#define DQ_BENCH_PERPLEXITY_H

#include "data/program.h"

struct perplexity_settings {
    const char *model;
    const char *adapter;   // adapters on the model, or NULL
    const char *reference; // second model with the same tokens, or NULL
    const char *data;      // text file
    int64_t seq_len;       // tokens per window; 0 = the model's positions
    int64_t windows;       // from the start of the file; 0 = all
    int64_t batch;         // windows per pass; 0 = chosen
};

// Prints the summary to stdout as one JSON line and writes it to the run folder, if there is one:
//   windows, seq_len, loss, loss_se, perplexity, bits_per_token and, with a reference, kl, kl_se, top1_agreement,
//   perplexity_reference. metrics.jsonl has a line per window.
enum status perplexity_run(const struct program_common *common, const struct perplexity_settings *settings);

#endif
