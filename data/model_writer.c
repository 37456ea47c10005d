#include "data/model_writer.h"

#include "core/base/mem.h"
#include "data/folder.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <stdlib.h>
#include <string.h>

// The next document's <s> ends one, so it ends generation as </s> does.
static const char config_format[] = "{\n"
                                    "  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n"
                                    "  \"model_type\": \"llama\",\n"
                                    "  \"hidden_size\": %lld,\n"
                                    "  \"intermediate_size\": %lld,\n"
                                    "  \"num_hidden_layers\": %lld,\n"
                                    "  \"num_attention_heads\": %lld,\n"
                                    "  \"num_key_value_heads\": %lld,\n"
                                    "  \"head_dim\": %lld,\n"
                                    "  \"vocab_size\": %lld,\n"
                                    "  \"max_position_embeddings\": %lld,\n"
                                    "  \"rms_norm_eps\": %.9g,\n"
                                    "  \"rope_theta\": %.1f,\n"
                                    "  \"rope_scaling\": null,\n"
                                    "  \"hidden_act\": \"silu\",\n"
                                    "  \"attention_bias\": false,\n"
                                    "  \"mlp_bias\": false,\n"
                                    "  \"tie_word_embeddings\": %s,\n"
                                    "  \"bos_token_id\": 1,\n"
                                    "  \"eos_token_id\": [\n    1,\n    2\n  ],\n"
                                    "  \"torch_dtype\": \"%s\"\n"
                                    "}\n";

static const char generation_text[] = "{\n"
                                      "  \"bos_token_id\": 1,\n"
                                      "  \"eos_token_id\": [\n    1,\n    2\n  ],\n"
                                      "  \"pad_token_id\": 2\n"
                                      "}\n";

static const char tokenizer_config_format[] = "{\n"
                                              "  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                                              "  \"bos_token\": \"<s>\",\n"
                                              "  \"eos_token\": \"</s>\",\n"
                                              "  \"unk_token\": \"<unk>\",\n"
                                              "  \"clean_up_tokenization_spaces\": false,\n"
                                              "  \"model_max_length\": %lld\n"
                                              "}\n";

static char *config_text(const struct transformer_config *c, enum dtype dtype) {
    REQUIRE(c->architecture == ARCHITECTURE_LLAMA && c->rope.kind == ROPE_DEFAULT && c->window == 0,
            "what a config.json is written for");
    return mem_format(config_format, (long long)c->hidden, (long long)c->intermediate, (long long)c->layers,
                      (long long)c->heads, (long long)c->kv_heads, (long long)c->head_dim, (long long)c->vocab,
                      (long long)c->max_positions, c->rms_eps, c->rope.theta, c->tied ? "true" : "false",
                      dtype == DTYPE_BF16 ? "bfloat16" : "float32");
}

static enum status text_write(const char *folder, const char *name, const char *text) {
    char *path = mem_format("%s/%s", folder, name);
    enum status status = whole_file_put(path, text, strlen(text));
    free(path);
    return status;
}

static enum status weight_write(struct transformer *model, const struct weight *w, enum dtype dtype,
                                struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    int64_t n = w->rows * w->cols;
    float *values = NULL;
    void *bytes = NULL;
    TRY(mem_buffer_new(n * (int64_t)sizeof *values, w->name, (void **)&values));
    TRY(mem_buffer_new(n * dtype_bytes(dtype), w->name, &bytes));
    TRY(backend_read(model->backend, w->stored, values));
    TRY(backend_sync(model->backend));
    dtype_from_float(dtype, values, bytes, n);
    TRY(safetensors_writer_put(writer, bytes, n * dtype_bytes(dtype)));
done:
    mem_buffer_free(values);
    mem_buffer_free(bytes);
    return status;
}

static enum status weights_write(struct transformer *model, const char *folder, enum dtype dtype) {
    enum status status = STATUS_OK;
    int64_t n = model->n_weights;
    struct safetensors_writer *writer = NULL;
    struct safetensors_entry *entries = mem_new((size_t)n, sizeof *entries);
    int64_t(*shapes)[2] = mem_new((size_t)n, sizeof *shapes);
    char *path = mem_format("%s/model.safetensors", folder);
    for (int64_t i = 0; i < n; i++) {
        const struct weight *w = &model->weights[i];
        bool vector = w->rows == 1;
        shapes[i][0] = vector ? w->cols : w->rows, shapes[i][1] = w->cols;
        entries[i] = (struct safetensors_entry){w->name, safetensors_dtype_of(dtype), vector ? 1 : 2,
                                                (const int64_t *)shapes[i]};
    }
    TRY(safetensors_writer_new(path, entries, n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
        TRY(weight_write(model, &model->weights[i], dtype, writer));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    free(entries);
    free(shapes);
    free(path);
    return status;
}

enum status model_write(struct transformer *model, const char *path, const struct model_writer_options *options) {
    enum status status = STATUS_OK;
    struct folder_writer *folder = NULL;
    char *config = config_text(&model->config, options->dtype),
         *tokenizer_config = mem_format(tokenizer_config_format, (long long)model->config.max_positions);
    TRY(folder_writer_new(path, true, "config.json", &folder));
    const char *to = folder_writer_path(folder);
    TRY(text_write(to, "config.json", config));
    TRY(text_write(to, "generation_config.json", generation_text));
    TRY(text_write(to, "tokenizer.json", options->tokenizer));
    TRY(text_write(to, "tokenizer_config.json", tokenizer_config));
    TRY(text_write(to, "README.md", options->readme));
    TRY(weights_write(model, to, options->dtype));
    TRY(folder_writer_finish(folder));
done:
    folder_writer_free(folder);
    free(config);
    free(tokenizer_config);
    return status;
}
