// config.json of a Hugging Face model folder -> struct transformer_config. Model types llama and phi3, in the key style
// of Transformers 4 (rope_theta, rope_scaling) and 5 (rope_parameters).
//
//     struct transformer_config config;
//     TRY(config_read_file("model/config.json", &config));
//
// STATUS_FORMAT: a key is missing, has the wrong type or an impossible value. STATUS_UNSUPPORTED: a sound setting that the
// transformer here does not have (another model type, biases, another activation, yarn, partial rotary, weights that
// are quantized already). Sizes are bounded so that no product of them leaves int64_t: see size_read's callers.
//
// The model type "rotated_llama" or "rotated_phi3" is that of a folder whose matrices are stored rotated (data/rotation.h).
//
// Defaults are those of Transformers: num_key_value_heads = num_attention_heads, head_dim = hidden_size / heads,
// rope_theta 10000, no tied head, bos 1, eos 2 (llama) or 32000 (phi3); an id may be null = none, eos a list.
//
// longrope: rope.attention_factor is always filled in: the file's, else sqrt(1 + ln(s) / ln(original)) with
// s = max_position_embeddings / original_max_position_embeddings (or the file's factor), 1 where s <= 1.
//
// phi3: sliding_window W becomes window = W: query i sees the keys i - W + 1 … i, as in Transformers 5. The
// flash-attention path that the paper's code ran on saw one key more (2048 for Phi-3-mini-4k); whoever wants that adds 1
// to config.window. A window no shorter than max_position_embeddings is 0 = all. llama ignores the key.
#ifndef DQ_DATA_CONFIG_H
#define DQ_DATA_CONFIG_H

#include "core/base/status.h"
#include "core/nn/config.h"

#include <stdint.h>

enum status config_read_file(const char *path, struct transformer_config *out);
// The same from text; `where` names it in messages.
enum status config_read_buffer(const void *bytes, int64_t n_bytes, const char *where, struct transformer_config *out);

#endif
