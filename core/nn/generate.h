// Greedy continuation of a prompt with a key/value cache.
#ifndef DQ_CORE_NN_GENERATE_H
#define DQ_CORE_NN_GENERATE_H

#include "core/nn/transformer.h"

// Continues prompt [n_prompt >= 1] by up to n_new tokens, each the most likely one (the first of equals), and stops
// after an end-of-sequence token of the configuration. out has room for n_new; *n_out tokens were made.
// `emit` (may be NULL) is called after each token.
enum status generate(struct transformer *model, struct step *step, const int32_t *prompt, int64_t n_prompt,
                     int64_t n_new, void (*emit)(void *context, int32_t token), void *context, int32_t *out,
                     int64_t *n_out);

#endif
