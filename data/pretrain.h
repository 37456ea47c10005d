// discquant-data pretrain: a model of the Llama family and its tokenizer from nothing but text.
//
// The vocabulary is learnt from the corpus (data/bpe_learner.h); documents are tokenized on their own and stand one behind
// the other, each with <s> before it (data/documents.h). Epoch e cuts the stream into windows of seq_len tokens from
// a random offset on and takes them in a random order, both functions of (seed, e); every second window is moved to the first
// document that begins inside of it. The validation text is cut from its beginning. OUT/model is the Hugging Face folder,
// OUT/result.json the summary.
#ifndef DQ_DATA_PRETRAIN_H
#define DQ_DATA_PRETRAIN_H

#include "data/program.h"
#include "data/trainer.h"

enum { PRETRAIN_FILES_MAX = 64 };

struct pretrain_settings {
    const char *corpus[PRETRAIN_FILES_MAX];
    int n_corpus;
    const char *validation;
    int64_t validation_samples; // windows, 0 = all
    int64_t vocab_size;         // at most; as many tokens as the corpus gives
    int64_t hidden, intermediate, layers, heads, kv_heads;
    bool tied;
    struct trainer_options trainer;
    enum dtype dtype; // of the saved weights: DTYPE_F32 or DTYPE_BF16
    int64_t report_every, checkpoint_every;
};

enum status pretrain(const struct program_common *common, const struct pretrain_settings *settings);

// The subcommand.
extern const struct argp_option pretrain_options[];
extern struct pretrain_settings pretrain_settings;
error_t pretrain_parse(int key, char *arg, struct argp_state *state);
enum status pretrain_run(const struct program_common *common, void *settings);

// Validation documents, each read on its own from its <s> on.
struct pretrain_documents {
    int64_t n;            // of at most seq_len tokens, 1000 at most; 0: the two below are NaN
    double nats, nats_se; // -log of a document's probability, its mean and standard error
};

// What pretrain says about a run in OUT/model/README.md; free with free().
struct pretrain_facts {
    const struct program_common *common;
    const struct pretrain_settings *settings;
    const struct transformer *model;
    int64_t corpus_documents, corpus_tokens, corpus_bytes, validation_tokens;
    double loss_training, loss_validation; // nats per token
    struct pretrain_documents documents;
};
char *pretrain_card(const struct pretrain_facts *facts);

#endif
