#include "data/bpe_parts.h"

#include "core/base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char WHAT[] = "a vocabulary";

static struct bpe_token *token_at(const struct bpe_model *model, int64_t i) {
    return (struct bpe_token *)(void *)model->tokens.bytes + i;
}

enum status bpe_token_add(struct bpe_model *model, const char *text, int64_t n_bytes) {
    enum status status = STATUS_OK;
    struct bpe_token token = {.at = model->text.n_bytes, .n_bytes = (int32_t)n_bytes, .hash = bpe_hash(text, n_bytes)};
    TRY(buffer_append(&model->text, text, n_bytes, WHAT));
    TRY(buffer_append(&model->tokens, &token, sizeof token, WHAT));
    model->n_tokens++;
done:
    return status;
}

enum status bpe_model_open(struct bpe_model *model) {
    enum status status = STATUS_OK;
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < 3; i++) TRY(bpe_token_add(model, special[i], (int64_t)strlen(special[i])));
    for (unsigned i = 0; i < 256; i++) {
        char text[8];
        TRY(bpe_token_add(model, text, snprintf(text, sizeof text, "<0x%02X>", i)));
    }
done:
    return status;
}

void bpe_model_free(struct bpe_model *model) {
    buffer_free(&model->text);
    buffer_free(&model->tokens);
    buffer_free(&model->merges);
}

static char *token_text(const struct bpe_model *model, int64_t i) {
    return mem_string_n(model->text.bytes + token_at(model, i)->at, (size_t)token_at(model, i)->n_bytes);
}

enum status bpe_merge_add(struct bpe_model *model, int32_t left, int32_t right, int32_t *made) {
    enum status status = STATUS_OK;
    struct bpe_merge merge = {left, right};
    char *a = token_text(model, left), *b = token_text(model, right), *text = mem_format("%s%s", a, b);
    int64_t n = (int64_t)strlen(text), id = 0;
    uint32_t hash = bpe_hash(text, n);
    for (; id < model->n_tokens; id++) {
        const struct bpe_token *token = token_at(model, id);
        if (token->hash == hash && token->n_bytes == n && !memcmp(model->text.bytes + token->at, text, (size_t)n))
            break;
    }
    if (id == model->n_tokens) TRY(bpe_token_add(model, text, n));
    TRY(buffer_append(&model->merges, &merge, sizeof merge, WHAT));
    *made = (int32_t)id;
done:
    free(a);
    free(b);
    free(text);
    return status;
}

// All of the file but the vocabulary.
#define SPECIAL(id, text)                                                                                              \
    "{\"id\":" id ",\"content\":\"" text "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"                 \
    "\"normalized\":false,\"special\":true}"
#define BOS(type) "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":" type "}}"
#define TEXT(name, type) "{\"Sequence\":{\"id\":\"" name "\",\"type_id\":" type "}}"
static const char frame[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":[" SPECIAL("0", "<unk>") "," SPECIAL("1", "<s>") "," SPECIAL(
        "2",
        "</s>") "],"
                "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\u2581\"},"
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"}]},"
                "\"pre_tokenizer\":null,"
                "\"post_processor\":{\"type\":\"TemplateProcessing\","
                "\"single\":[" BOS("0") "," TEXT(
                    "A",
                    "0") "],"
                         "\"pair\":[" BOS("0") "," TEXT("A", "0") "," BOS("1") "," TEXT(
                             "B",
                             "1") "],"
                                  "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]}}},"
                                  "\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
                                  "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\u2581\"},\"content\":\" \"},"
                                  "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" "
                                  "\",\"start\":1,\"stop\":0}]},"
                                  "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\",\"continuing_"
                                  "subword_prefix\":null,"
                                  "\"end_of_word_suffix\":null,\"fuse_unk\":true,\"byte_fallback\":true,\"ignore_"
                                  "merges\":false}}";

char *bpe_model_json(const struct bpe_model *model) {
    json_t *root = json_loads(frame, 0, NULL), *vocab = json_object(), *merges = json_array();
    REQUIRE(root, "the frame of tokenizer.json is JSON");
    for (int64_t i = 0; i < model->n_tokens; i++) {
        char *text = token_text(model, i);
        json_object_set_new(vocab, text, json_integer(i));
        free(text);
    }
    for (int64_t i = 0; i < model->merges.n_bytes / (int64_t)sizeof(struct bpe_merge); i++) {
        struct bpe_merge merge = ((struct bpe_merge *)(void *)model->merges.bytes)[i];
        char *a = token_text(model, merge.left), *b = token_text(model, merge.right), *both = mem_format("%s %s", a, b);
        json_array_append_new(merges, json_string(both));
        free(a);
        free(b);
        free(both);
    }
    json_object_set_new(json_object_get(root, "model"), "vocab", vocab);
    json_object_set_new(json_object_get(root, "model"), "merges", merges);
    char *text = json_dumps(root, JSON_INDENT(1));
    REQUIRE(text, "memory for a tokenizer.json");
    json_decref(root);
    return text;
}
