// The BPE model of a tokenizer.json: vocabulary, merges, and the tables that make looking them up fast.
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/json.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

static uint64_t mix(uint64_t h) {
    h = (h ^ (h >> 32)) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

uint64_t text_hash(const char *bytes, int64_t n) {
    uint64_t h = (uint64_t)n * 0x9e3779b97f4a7c15u, part = 0;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&part, bytes, 8);
        h = mix(h ^ part);
    }
    part = 0;
    memcpy(&part, bytes, (size_t)n);
    return mix(h ^ part);
}

// A power of two of at least twice n, so that open addressing stays short.
static uint32_t table_size(uint64_t n) {
    uint32_t size = 16;
    while (size < 2 * n) size *= 2;
    return size;
}

// The slot of a text: where it is, or where it would go.
static uint32_t vocab_slot(const struct vocab *vocab, const char *bytes, int64_t n) {
    uint32_t slot = (uint32_t)text_hash(bytes, n) & vocab->table_mask;
    for (;; slot = (slot + 1) & vocab->table_mask) {
        int32_t id = vocab->table[slot];
        if (id < 0) return slot;
        const struct token_text *token = &vocab->tokens[id];
        if (token->n == n && memcmp(vocab->texts + token->at, bytes, (size_t)n) == 0) return slot;
    }
}

int32_t vocab_find(const struct vocab *vocab, const char *bytes, int64_t n) {
    return vocab->table[vocab_slot(vocab, bytes, n)];
}

static uint32_t merge_slot(const struct bpe *bpe, uint64_t pair) {
    uint32_t slot = (uint32_t)mix(pair) & bpe->slot_mask;
    while (bpe->slots[slot].pair != pair && bpe->slots[slot].pair != UINT64_MAX) slot = (slot + 1) & bpe->slot_mask;
    return slot;
}

bool merge_find(const struct bpe *bpe, int32_t left, int32_t right, uint32_t *rank) {
    uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
    const struct merge_slot *slot = &bpe->slots[merge_slot(bpe, pair)];
    *rank = slot->rank;
    return slot->pair == pair;
}

static uint32_t seam_slot(const struct bpe *bpe, uint64_t pair) {
    uint32_t slot = (uint32_t)mix(pair) & bpe->seam_mask;
    while (bpe->seams[slot] != pair && bpe->seams[slot] != UINT64_MAX) slot = (slot + 1) & bpe->seam_mask;
    return slot;
}

bool seam_find(const struct bpe *bpe, uint32_t before, uint32_t after) {
    uint64_t pair = (uint64_t)before << 32 | after;
    return bpe->seams[seam_slot(bpe, pair)] == pair;
}

int32_t char_find(const struct bpe *bpe, const char *bytes, int length) {
    return length < 4 ? bpe->char_ids[utf8_point(bytes)] : vocab_find(&bpe->vocab, bytes, length);
}

// ---- reading

static enum status vocab_measure(struct vocab *vocab, json_t *object, const char *where, int64_t *n_bytes) {
    const char *token;
    json_t *id;
    int64_t largest = -1, bytes = 0;
    json_object_foreach(object, token, id) {
        if (!json_is_integer(id))
            return status_set(STATUS_FORMAT, "%s: the id of token '%s' is %s, must be an integer", where, token,
                              json_kind(id));
        json_int_t value = json_integer_value(id);
        if (value < 0 || value >= TOKEN_IDS_MAX)
            return status_set(STATUS_FORMAT, "%s: token '%s' has id %lld, must lie in [0, %d)", where, token,
                              (long long)value, TOKEN_IDS_MAX);
        if (value > largest) largest = value;
        bytes += (int64_t)strlen(token);
    }
    if (largest < 0) return status_set(STATUS_FORMAT, "%s: the vocabulary is empty", where);
    vocab->n_ids = (int32_t)largest + 1;
    vocab->n_tokens = (int32_t)json_object_size(object);
    *n_bytes = bytes;
    return STATUS_OK;
}

static enum status vocab_load(struct vocab *vocab, json_t *object, const char *where) {
    int64_t n_bytes = 0, at = 0;
    enum status status = vocab_measure(vocab, object, where, &n_bytes);
    if (status != STATUS_OK) return status;
    vocab->texts = mem_new((size_t)n_bytes, 1);
    vocab->tokens = mem_new((size_t)vocab->n_ids, sizeof *vocab->tokens);
    for (int32_t id = 0; id < vocab->n_ids; id++) vocab->tokens[id].n = -1;
    uint32_t size = table_size((uint64_t)vocab->n_tokens);
    vocab->table_mask = size - 1;
    vocab->table = mem_new(size, sizeof *vocab->table);
    memset(vocab->table, 0xff, size * sizeof *vocab->table);
    const char *token;
    json_t *value;
    json_object_foreach(object, token, value) {
        int32_t id = (int32_t)json_integer_value(value);
        int64_t n = (int64_t)strlen(token);
        struct token_text *slot = &vocab->tokens[id];
        if (slot->n >= 0)
            return status_set(STATUS_FORMAT, "%s: tokens '%.*s' and '%s' have the same id %d", where, (int)slot->n,
                              vocab->texts + slot->at, token, (int)id);
        memcpy(vocab->texts + at, token, (size_t)n);
        *slot = (struct token_text){.at = at, .n = (int32_t)n};
        at += n;
        vocab->table[vocab_slot(vocab, token, n)] = id;
    }
    return STATUS_OK;
}

// The two parts of one merge: "a b" or ["a", "b"].
static enum status merge_parts(const json_t *merge, size_t rank, bool as_pair, const char *where,
                               struct text parts[2]) {
    const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
    const char *line = json_string_value(merge);
    if (as_pair && json_array_size(merge) == 2 && json_is_string(a) && json_is_string(b)) {
        parts[0] = (struct text){(char *)json_string_value(a), (int64_t)json_string_length(a)};
        parts[1] = (struct text){(char *)json_string_value(b), (int64_t)json_string_length(b)};
    } else if (!as_pair && line && strchr(line, ' ')) {
        const char *space = strchr(line, ' ');
        parts[0] = (struct text){(char *)line, space - line};
        parts[1] = (struct text){(char *)space + 1, (int64_t)strlen(space + 1)};
    } else {
        return status_set(STATUS_FORMAT, "%s: merge %zu is not \"left right\" or [left, right] like the first one",
                          where, rank);
    }
    if (parts[0].n == 0 || parts[1].n == 0 || (!as_pair && strchr(parts[1].bytes, ' ')))
        return status_set(STATUS_FORMAT, "%s: merge %zu does not have two parts", where, rank);
    return STATUS_OK;
}

static enum status merge_token(const struct vocab *vocab, const char *bytes, int64_t n, size_t rank, const char *where,
                               int32_t *id) {
    *id = vocab_find(vocab, bytes, n);
    if (*id >= 0) return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: merge %zu needs the token '%.*s', which is not in the vocabulary", where,
                      rank, (int)(n > 100 ? 100 : n), bytes);
}

static enum status merges_load(struct bpe *bpe, const json_t *list, const char *where) {
    enum status status = STATUS_OK;
    struct buffer joined = {0};
    size_t n = json_array_size(list);
    bool as_pair = json_is_array(json_array_get(list, 0));
    bpe->merges = mem_new(n, sizeof *bpe->merges);
    uint32_t size = table_size(n);
    bpe->slot_mask = size - 1;
    bpe->slots = mem_new(size, sizeof *bpe->slots);
    for (uint32_t i = 0; i < size; i++) bpe->slots[i].pair = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *line = json_string_value(entry);
        struct text parts[2] = {{0}, {0}};
        struct merge merge;
        if (!as_pair && line && strncmp(line, "#version", 8) == 0) continue;
        TRY(merge_parts(entry, i, as_pair, where, parts));
        TRY(merge_token(&bpe->vocab, parts[0].bytes, parts[0].n, i, where, &merge.left));
        TRY(merge_token(&bpe->vocab, parts[1].bytes, parts[1].n, i, where, &merge.right));
        joined.n_bytes = 0;
        TRY(buffer_append(&joined, parts[0].bytes, parts[0].n, "a merge"));
        TRY(buffer_append(&joined, parts[1].bytes, parts[1].n, "a merge"));
        TRY(merge_token(&bpe->vocab, joined.bytes, joined.n_bytes, i, where, &merge.made));
        uint64_t pair = (uint64_t)merge.left << 32 | (uint32_t)merge.right;
        bpe->slots[merge_slot(bpe, pair)] =
            (struct merge_slot){pair, bpe->n_merges}; // a repeated merge: the later rank
        bpe->merges[bpe->n_merges++] = merge;
    }
done:
    buffer_free(&joined);
    return status;
}

static void chars_index(struct bpe *bpe) {
    bpe->char_ids = mem_new(0x10000, sizeof *bpe->char_ids);
    memset(bpe->char_ids, 0xff, 0x10000 * sizeof *bpe->char_ids);
    for (int32_t id = 0; id < bpe->vocab.n_ids; id++) {
        const struct token_text *token = &bpe->vocab.tokens[id];
        const char *bytes = bpe->vocab.texts + token->at;
        if (token->n > 0 && token->n < 4 && utf8_length(bytes[0]) == token->n) bpe->char_ids[utf8_point(bytes)] = id;
    }
    bpe->bytes_complete = bpe->byte_fallback;
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        bpe->byte_ids[byte] = vocab_find(&bpe->vocab, name, 6);
        if (bpe->byte_ids[byte] < 0) bpe->bytes_complete = false;
    }
    bpe->unk_id = bpe->unk_token ? vocab_find(&bpe->vocab, bpe->unk_token, (int64_t)strlen(bpe->unk_token)) : -1;
}

// Every character pair across which some merge works. Tokens that stand for bytes or for the unknown are not spelled by
// the characters of the word; where a merge takes one, words are never cut.
static void seams_index(struct bpe *bpe) {
    uint32_t size = table_size(bpe->n_merges);
    bpe->seam_mask = size - 1;
    bpe->seams = mem_new(size, sizeof *bpe->seams);
    memset(bpe->seams, 0xff, size * sizeof *bpe->seams);
    bool *opaque = mem_new((size_t)bpe->vocab.n_ids, sizeof *opaque);
    if (bpe->byte_fallback)
        for (int byte = 0; byte < 256; byte++)
            if (bpe->byte_ids[byte] >= 0) opaque[bpe->byte_ids[byte]] = true;
    if (bpe->unk_id >= 0) opaque[bpe->unk_id] = true;
    bpe->cuttable = true;
    for (uint32_t i = 0; i < bpe->n_merges; i++) {
        const struct merge *merge = &bpe->merges[i];
        if (opaque[merge->left] || opaque[merge->right]) bpe->cuttable = false;
        const struct token_text *left = &bpe->vocab.tokens[merge->left];
        const char *first = bpe->vocab.texts + left->at, *last = first + left->n - 1;
        while (((unsigned char)*last & 0xc0) == 0x80) last--;
        const char *after = bpe->vocab.texts + bpe->vocab.tokens[merge->right].at;
        uint64_t pair = (uint64_t)utf8_point(last) << 32 | utf8_point(after);
        bpe->seams[seam_slot(bpe, pair)] = pair;
    }
    free(opaque);
}

static enum status options_load(struct bpe *bpe, const json_t *model, const char *where) {
    enum status status = STATUS_OK;
    const char *type = NULL, *prefix = NULL, *suffix = NULL, *unk = NULL;
    double dropout = 0;
    TRY(json_get_string_or(model, where, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0)
        return status_set(STATUS_UNSUPPORTED, "%s: model type '%s' is not supported (only BPE is)", where, type);
    TRY(json_get_number_or(model, where, "dropout", 0, &dropout));
    if (dropout != 0) return status_set(STATUS_UNSUPPORTED, "%s: dropout %g is not supported (only 0)", where, dropout);
    TRY(json_get_string_or(model, where, "continuing_subword_prefix", "", &prefix));
    TRY(json_get_string_or(model, where, "end_of_word_suffix", "", &suffix));
    if (prefix[0] || suffix[0])
        return status_set(STATUS_UNSUPPORTED, "%s: %s '%s' is not supported", where,
                          prefix[0] ? "continuing_subword_prefix" : "end_of_word_suffix", prefix[0] ? prefix : suffix);
    TRY(json_get_string_or(model, where, "unk_token", NULL, &unk));
    bpe->unk_token = unk ? mem_string(unk) : NULL;
    TRY(json_get_bool_or(model, where, "fuse_unk", false, &bpe->fuse_unk));
    TRY(json_get_bool_or(model, where, "byte_fallback", false, &bpe->byte_fallback));
    TRY(json_get_bool_or(model, where, "ignore_merges", false, &bpe->ignore_merges));
done:
    return status;
}

enum status bpe_load(struct bpe *bpe, const json_t *model, const char *where) {
    enum status status = STATUS_OK;
    json_t *vocab = NULL, *merges = NULL;
    TRY(options_load(bpe, model, where));
    TRY(json_get_object(model, where, "vocab", &vocab));
    TRY(json_get_array(model, where, "merges", &merges));
    TRY(vocab_load(&bpe->vocab, vocab, where));
    TRY(merges_load(bpe, merges, where));
    chars_index(bpe);
    seams_index(bpe);
done:
    return status;
}

void bpe_clear(struct bpe *bpe) {
    free(bpe->vocab.texts);
    free(bpe->vocab.tokens);
    free(bpe->vocab.table);
    free(bpe->merges);
    free(bpe->slots);
    free(bpe->char_ids);
    free(bpe->unk_token);
    free(bpe->seams);
}
