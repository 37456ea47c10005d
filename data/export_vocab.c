// tokenizer.json as the keys that llama.cpp reads ("tokenizer.ggml.…").
//
// Byte-fallback BPE (Llama 2, Phi-3) is its model "llama": it joins, whatever the list of merges says, the two neighbours
// whose joined text is the token with the highest score. Scores are the negative ranks of the first merge that makes the
// token; where every pair of tokens that spells a token is a merge, and the merges that make one token follow each
// other, the result is that of tokenizer.json. Byte-level BPE (Llama 3, GPT-2) is its model "gpt2", which has the
// merges; of the patterns that split a text it knows a list of names.
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/export_parts.h"
#include "data/file.h"
#include "data/gguf.h"
#include "data/json.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

struct vocab_table {
    const struct transformer_config *config;
    const char *where;
    json_t *root, *model;
    int64_t n;          // rows of the embedding
    const char **texts; // [n], borrowed from root or `padding`
    char **padding;     // [n] made here, or NULL
    int32_t *types;     // [n]
    float *scores;      // [n]
};

static void table_free(struct vocab_table *t) {
    for (int64_t i = 0; t->padding && i < t->n; i++) free(t->padding[i]);
    free(t->texts);
    free(t->padding);
    free(t->types);
    free(t->scores);
    json_decref(t->root);
}

static bool is_byte(const char *text) {
    unsigned byte;
    char after;
    return strlen(text) == 6 && sscanf(text, "<0x%2X%c", &byte, &after) == 2 && after == '>';
}

// tokenizer_open has judged the file: ids are whole numbers, texts strings.
static enum status tokens_fill(struct vocab_table *t) {
    const char *text, *unknown = json_string_value(json_object_get(t->model, "unk_token"));
    json_t *id, *added;
    size_t k;
    json_object_foreach(json_object_get(t->model, "vocab"), text, id) {
        int64_t i = json_integer_value(id);
        if (i >= t->n) return status_set(STATUS_FORMAT, "%s: token '%s' has no row in the embedding", t->where, text);
        t->texts[i] = text;
        t->types[i] = unknown && strcmp(text, unknown) == 0 ? TOKEN_UNKNOWN : is_byte(text) ? TOKEN_BYTE : TOKEN_NORMAL;
    }
    json_array_foreach(json_object_get(t->root, "added_tokens"), k, added) {
        int64_t i = json_integer_value(json_object_get(added, "id"));
        if (i >= t->n)
            return status_set(STATUS_FORMAT, "%s: token %lld has no row in the embedding", t->where, (long long)i);
        t->texts[i] = json_string_value(json_object_get(added, "content"));
        if (t->types[i] != TOKEN_UNKNOWN)
            t->types[i] = json_is_true(json_object_get(added, "special")) ? TOKEN_CONTROL : TOKEN_USER;
    }
    for (int64_t i = 0; i < t->n; i++) {
        if (t->texts[i]) continue;
        t->texts[i] = t->padding[i] = mem_format("[PAD%lld]", (long long)i);
        t->types[i] = TOKEN_UNUSED;
    }
    return STATUS_OK;
}

// The two parts of a merge, "left right" or [left, right], as one line; free with free().
static char *merge_line(const json_t *merge) {
    if (json_is_string(merge)) return mem_string(json_string_value(merge));
    return mem_format("%s %s", json_string_value(json_array_get(merge, 0)),
                      json_string_value(json_array_get(merge, 1)));
}

// ---- byte-fallback BPE

// How many ways there are to put two tokens together into a token of the vocabulary.
static int64_t pairs_count(const json_t *vocab) {
    int64_t pairs = 0;
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
        if (is_byte(text)) continue;
        for (size_t cut = 1; text[0] && text[cut]; cut++) {
            if (((unsigned char)text[cut] & 0xc0) == 0x80) continue;
            if (json_object_getn(vocab, text, cut) && json_object_get(vocab, text + cut)) pairs++;
        }
    }
    return pairs;
}

// Scores; how many merges make a token that merges of another one have separated from its first, and repeated ones.
static void scores_fill(struct vocab_table *t, int64_t *scattered, int64_t *distinct) {
    const json_t *merges = json_object_get(t->model, "merges"), *vocab = json_object_get(t->model, "vocab");
    int64_t n = (int64_t)json_array_size(merges), before = -1;
    json_t *seen = json_object();
    for (int64_t i = 0; i < t->n; i++) t->scores[i] = t->types[i] == TOKEN_NORMAL ? (float)-(n + 1) : 0;
    for (int64_t rank = 0; rank < n; rank++) {
        char *line = merge_line(json_array_get(merges, (size_t)rank)), *space = strchr(line, ' ');
        if (!json_object_get(seen, line)) json_object_set_new(seen, line, json_true());
        memmove(space, space + 1, strlen(space + 1) + 1);
        const json_t *id = json_object_get(vocab, line);
        int64_t made = id ? json_integer_value(id) : -1;
        if (made >= 0 && t->scores[made] == (float)-(n + 1))
            t->scores[made] = (float)-(rank + 1);
        else if (made != before)
            ++*scattered;
        before = made;
        free(line);
    }
    *distinct = (int64_t)json_object_size(seen);
    json_decref(seen);
}

static bool prepends_space(const json_t *root) {
    char *normalizer = json_dumps(json_object_get(root, "normalizer"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    char *splitter = json_dumps(json_object_get(root, "pre_tokenizer"), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    bool prepends = (normalizer && strstr(normalizer, "\"Prepend\"")) ||
                    (splitter && strstr(splitter, "\"Metaspace\"") && !strstr(splitter, "\"never\""));
    free(normalizer);
    free(splitter);
    return prepends;
}

static void byte_fallback_put(struct vocab_table *t, struct gguf_writer *writer) {
    int64_t scattered = 0, distinct = 0;
    scores_fill(t, &scattered, &distinct);
    int64_t others = pairs_count(json_object_get(t->model, "vocab")) - distinct;
    if (others > 0 || scattered > 0)
        progress_say(
            "export.gguf: llama.cpp may cut some words otherwise than tokenizer.json: %lld pairs of tokens are "
            "no merges, %lld merges come late",
            (long long)others, (long long)scattered);
    gguf_put_string(writer, "tokenizer.ggml.model", "llama");
    gguf_put_string(writer, "tokenizer.ggml.pre", "default");
    gguf_put_strings(writer, "tokenizer.ggml.tokens", t->texts, t->n);
    gguf_put_f32s(writer, "tokenizer.ggml.scores", t->scores, t->n);
    gguf_put_i32s(writer, "tokenizer.ggml.token_type", t->types, t->n);
    gguf_put_bool(writer, "tokenizer.ggml.add_space_prefix", prepends_space(t->root));
}

// ---- byte-level BPE

// The names of llama.cpp for the patterns that split a text before it is merged.
static const char *pattern_name(const json_t *root) {
    static const struct {
        const char *pattern, *name;
    } known[] = {
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         "llama-bpe"},
        {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
         "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
         "qwen2"},
    };
    const json_t *splitter = json_object_get(root, "pre_tokenizer"),
                 *steps = json_object_get(splitter, "pretokenizers");
    const json_t *last = steps ? json_array_get(steps, json_array_size(steps) - 1) : splitter;
    const char *type = json_string_value(json_object_get(last, "type"));
    const json_t *regex = json_object_get(last, "use_regex");
    if (!type || strcmp(type, "ByteLevel") != 0) return NULL;
    if ((!steps || json_array_size(steps) == 1) && !json_is_false(regex)) return "gpt-2";
    if (!steps || json_array_size(steps) != 2) return NULL;
    const json_t *pattern = json_object_get(json_array_get(steps, 0), "pattern");
    const char *source = json_string_value(json_object_get(pattern, "Regex"));
    for (size_t i = 0; source && i < sizeof known / sizeof *known; i++)
        if (strcmp(source, known[i].pattern) == 0) return known[i].name;
    return NULL;
}

static void byte_level_put(struct vocab_table *t, struct gguf_writer *writer, const char *pattern) {
    const json_t *merges = json_object_get(t->model, "merges");
    size_t n = json_array_size(merges);
    char **lines = mem_new(n, sizeof *lines);
    for (size_t i = 0; i < n; i++) lines[i] = merge_line(json_array_get(merges, i));
    gguf_put_string(writer, "tokenizer.ggml.model", "gpt2");
    gguf_put_string(writer, "tokenizer.ggml.pre", pattern);
    gguf_put_strings(writer, "tokenizer.ggml.tokens", t->texts, t->n);
    gguf_put_i32s(writer, "tokenizer.ggml.token_type", t->types, t->n);
    gguf_put_strings(writer, "tokenizer.ggml.merges", (const char *const *)lines, (int64_t)n);
    for (size_t i = 0; i < n; i++) free(lines[i]);
    free(lines);
}

// ---- both

// BOS, EOS and the like; whether the post_processor puts BOS in front, as an empty text shows.
static enum status special_put(const struct vocab_table *t, const char *model, const struct tokenizer *tokenizer,
                               struct gguf_writer *writer) {
    enum status status = STATUS_OK;
    const struct transformer_config *c = t->config;
    struct token_list tokens = {0};
    char *path = mem_format("%s/tokenizer_config.json", model);
    json_t *root = NULL;
    TRY(tokenizer_encode(tokenizer, "", 0, true, &tokens));
    gguf_put_bool(writer, "tokenizer.ggml.add_bos_token", tokens.n_tokens > 0 && tokens.tokens[0] == c->bos);
    if (c->bos >= 0 && c->bos < t->n) gguf_put_u32(writer, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    // The last of several: llama.cpp stops at one, and files that list several begin with BOS or the like.
    if (c->n_eos > 0 && c->eos[c->n_eos - 1] < t->n)
        gguf_put_u32(writer, "tokenizer.ggml.eos_token_id", (uint32_t)c->eos[c->n_eos - 1]);
    for (int64_t i = 0; i < t->n; i++)
        if (t->types[i] == TOKEN_UNKNOWN) gguf_put_u32(writer, "tokenizer.ggml.unknown_token_id", (uint32_t)i);
    if (file_exists(path)) {
        TRY(json_read_file(path, &root));
        const json_t *chat = json_object_get(root, "chat_template");
        if (json_is_string(chat)) gguf_put_string(writer, "tokenizer.chat_template", json_string_value(chat));
    }
done:
    json_decref(root);
    token_list_free(&tokens);
    free(path);
    return status;
}

enum status vocab_put(const char *model, const struct transformer_config *config, struct gguf_writer *writer) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/tokenizer.json", model);
    struct tokenizer *tokenizer = NULL;
    struct vocab_table t = {.config = config, .where = path, .n = config->vocab};
    TRY(tokenizer_open(path, &tokenizer));
    TRY(json_read_file(path, &t.root));
    t.model = json_object_get(t.root, "model");
    bool bytes = json_is_true(json_object_get(t.model, "byte_fallback"));
    const char *pattern = bytes ? NULL : pattern_name(t.root);
    if (!bytes && !pattern)
        TRY(status_set(STATUS_UNSUPPORTED,
                       "--export gguf: %s: llama.cpp has no name for this way to split texts into words", path));
    if (!writer) goto done;
    t.texts = mem_new((size_t)t.n, sizeof *t.texts);
    t.padding = mem_new((size_t)t.n, sizeof *t.padding);
    t.types = mem_new((size_t)t.n, sizeof *t.types);
    t.scores = mem_new((size_t)t.n, sizeof *t.scores);
    TRY(tokens_fill(&t));
    if (bytes)
        byte_fallback_put(&t, writer);
    else
        byte_level_put(&t, writer, pattern);
    TRY(special_put(&t, model, tokenizer, writer));
done:
    table_free(&t);
    tokenizer_free(tokenizer);
    free(path);
    return status;
}
