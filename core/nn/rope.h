// Angles of rotary position embeddings (Su et al. 2021) and their extensions, as Hugging Face Transformers computes
// them (modeling_rope_utils): theta^(-2i/d), rescaled for longer contexts by `linear`, `llama3` or `longrope`.
#ifndef DQ_CORE_NN_ROPE_H
#define DQ_CORE_NN_ROPE_H

#include "core/nn/config.h"

// cos, sin [n_positions, head_dim / 2] of positions 0 .. n_positions - 1. Fp64 inside. `seq_len` is the length of the
// sequences they will serve: longrope takes its long factors when it exceeds the original context.
void rope_tables(const struct transformer_config *config, int64_t seq_len, int64_t n_positions, float *cos, float *sin);

// Which of the two tables of a longrope model serves a sequence length; always false for other kinds.
bool rope_is_long(const struct transformer_config *config, int64_t seq_len);

#endif
