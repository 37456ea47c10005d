// Writes a transformer of this process as a new Hugging Face folder: config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json, model.safetensors, README.md. It appears complete or not at all.
//
//     struct model_writer_options options = {.dtype = DTYPE_BF16, .tokenizer = json, .readme = card};
//     TRY(model_write(transformer, "run/model", &options));
#ifndef DQ_DATA_MODEL_WRITER_H
#define DQ_DATA_MODEL_WRITER_H

#include "core/nn/transformer.h"

struct model_writer_options {
    enum dtype dtype;      // of the weights: DTYPE_F32 or DTYPE_BF16
    const char *tokenizer; // text of tokenizer.json, with <unk> <s> </s> as 0, 1, 2
    const char *readme;    // the model card, README.md
};

// Llama with default rope. A folder at `path` is replaced if it holds a config.json.
enum status model_write(struct transformer *model, const char *path, const struct model_writer_options *options);

#endif
