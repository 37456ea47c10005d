// Greedy continuations of prompts with key/value caches.
#ifndef DQ_CORE_NN_GENERATE_H
#define DQ_CORE_NN_GENERATE_H

#include "core/nn/transformer.h"

// A text that is continued.
struct continuation {
    int32_t *tokens;  // [n_prompt + most], the prompt and what is made
    int64_t n_prompt; // >= 1
    int64_t most;     // tokens to make, >= 1; n_prompt + most - 1 at most the model's positions
    int64_t made;     // result
};

// Called whenever text i has got a token; says whether it was the last. Texts end in an order of their own.
typedef enum status continuation_check(void *context, int64_t i, bool *ends);

struct generate_options {
    int64_t slots; // texts at once, a cache for each; 0: 32, or what a quarter of the free memory holds
    continuation_check *check;
    void *context;
};

// Continues every text by up to `most` tokens, each the most likely one (the first of equals), until `check` ends it. A text takes the place
// of one that has ended; what its prompt begins with is copied from the cache that shares most of it. Phi-3 with longrope takes the
// factors for n_prompt + most - 1 positions from the first token on. What is read together changes logits by rounding only. Each cache has
// room for the longest n_prompt + most - 1 of all texts; free memory is what backend_bytes_free says (on the CPU all of it).
enum status generate_texts(struct transformer *model, struct step *step, struct continuation *texts, int64_t n_texts,
                           const struct generate_options *options);

// One text, prompt [n_prompt >= 1], up to an end-of-sequence token of the configuration. out has room for n_new; *n_out tokens were made.
enum status generate(struct transformer *model, struct step *step, const int32_t *prompt, int64_t n_prompt,
                     int64_t n_new, int32_t *out, int64_t *n_out);

// Whether a token ends the sequence.
bool generate_ends(const struct transformer_config *config, int32_t token);

#endif
