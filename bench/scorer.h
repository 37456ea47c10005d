// Log-likelihoods and greedy continuations of one token sequence after another. Keys, values and hidden states of the last
// sequence stay, and the next one begins where it leaves the common part: few-shot examples that questions share, and a question that its
// choices share, are read once.
//
//     TRY(scorer_new(model, &scorer));
//     TRY(scorer_loglikelihood(scorer, tokens, n, first, &sum));
//     scorer_free(scorer);                                        // accepts NULL
#ifndef DQ_BENCH_SCORER_H
#define DQ_BENCH_SCORER_H

#include "data/model.h"

struct scorer;

enum status scorer_new(struct model *model, struct scorer **out);
void scorer_free(struct scorer *scorer);

// Sum over t in [first, n) of log p(tokens[t] | tokens[0 .. t - 1]), nats; 1 <= first < n, n - 1 at most the model's positions.
enum status scorer_loglikelihood(struct scorer *scorer, const int32_t *tokens, int64_t n, int64_t first, double *sum);

// The most likely token behind tokens [n], 1 <= n <= positions.
enum status scorer_next(struct scorer *scorer, const int32_t *tokens, int64_t n, int32_t *next);

#endif
