// Log-likelihoods of token sequences. Sequences are read in the order of their tokens, where neighbours share most, many in a pass
// behind one key/value cache, and each from where it leaves the one before: few-shot examples that questions share, and a question that
// its choices share, are read once in a call, and not again by the next one where its first sequence begins like the last one read.
//
//     TRY(scorer_new(model, &scorer));
//     TRY(scorer_loglikelihoods(scorer, texts, n));
//     scorer_free(scorer);                                        // accepts NULL
#ifndef DQ_BENCH_SCORER_H
#define DQ_BENCH_SCORER_H

#include "data/model.h"

struct scorer;

enum status scorer_new(struct model *model, struct scorer **out);
void scorer_free(struct scorer *scorer);

struct scored_text {
    const int32_t *tokens; // [n]
    int64_t n, first;      // 1 <= first < n; n - 1 at most the model's positions
    double loglikelihood;  // result: sum over t in [first, n) of log p(tokens[t] | tokens[0 .. t - 1]), nats
};

// In any order. What is read together changes results by rounding only.
enum status scorer_loglikelihoods(struct scorer *scorer, struct scored_text *texts, int64_t n_texts);

#endif
