// Texts of a task as the tokens that lm-evaluation-harness 0.4.2 gives to a model.
#ifndef DQ_BENCH_HARNESS_TOKENS_H
#define DQ_BENCH_HARNESS_TOKENS_H

#include "bench/harness.h"
#include "data/model.h"

struct harness_tokens {
    const struct model *model; // borrowed
    bool bos;
    int32_t prefix; // stands before what has no context: the tokenizer's eos_token, else the model's
};

enum status harness_tokens_open(const struct model *model, bool bos, struct harness_tokens *out);

// Tokens of one text, as they are.
enum status harness_encode(const struct harness_tokens *how, const char *text, struct token_list *out);

// Context and continuation as one: white space at the context's end goes to the continuation; both are tokenized as a whole, the
// context alone, and what follows the number of its tokens is the continuation's, tokens first .. n_tokens - 1. Cut from the left so that
// the model reads at most its positions. STATUS_INVALID: no token is the continuation's, or more than the positions are.
enum status harness_encode_pair(const struct harness_tokens *how, const struct harness_request *request,
                                struct token_list *out, int64_t *first);

#endif
