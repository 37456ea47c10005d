// Greedy continuation of a prompt with a key/value cache.
#ifndef DQ_CORE_NN_GENERATE_H
#define DQ_CORE_NN_GENERATE_H

#include "core/nn/transformer.h"

// Continues prompt [n_prompt >= 1] by up to n_new tokens, each the most likely one (the first of equals), and stops
// after an end-of-sequence token of the configuration. out has room for n_new; *n_out tokens were made.
// Phi-3 with longrope takes the factors for n_prompt + n_new positions from the first token on.
enum status generate(struct transformer *model, struct step *step, const int32_t *prompt, int64_t n_prompt,
                     int64_t n_new, int32_t *out, int64_t *n_out);

// One token of it, for who decides himself when to stop: the most likely one after what the cache holds and `tokens`
// [n >= 1], which are added to the cache. host_logits is scratch [vocab].
enum status generate_next(struct transformer *model, struct step *step, const int32_t *tokens, int64_t n,
                          struct kv_cache *cache, float *host_logits, int32_t *next);

// Whether a token ends the sequence.
bool generate_ends(const struct transformer_config *config, int32_t token);

#endif
