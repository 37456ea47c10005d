// Parts of the BPE learner: distinct words with counts, and the vocabulary that becomes a tokenizer.json.
#ifndef DQ_DATA_BPE_PARTS_H
#define DQ_DATA_BPE_PARTS_H

#include "core/base/status.h"
#include "data/buffer.h"

#include <stdint.h>

struct bpe_word {
    int64_t at; // in bpe_words.text
    int32_t n_bytes;
    uint32_t hash;
    int64_t count;
};

// {0} is empty.
struct bpe_words {
    struct buffer text, list; // bytes of all words; struct bpe_word
    int64_t n;
    int64_t *slots, n_slots; // hash table: index into list, -1 = free
};

static inline struct bpe_word *bpe_word(const struct bpe_words *words, int64_t i) {
    return (struct bpe_word *)(void *)words->list.bytes + i;
}

// Cuts valid UTF-8 into words (data/bpe_learner.h says how) and counts them.
enum status bpe_words_add(struct bpe_words *words, const char *text, int64_t n_bytes);
void bpe_words_free(struct bpe_words *words);

struct bpe_token {
    int64_t at; // in bpe_model.text
    int32_t n_bytes;
    uint32_t hash;
};

struct bpe_merge {
    int32_t left, right;
};

struct bpe_model {
    int64_t vocab_size; // wanted
    struct buffer text, tokens, merges;
    int64_t n_tokens;
};

// The special tokens and the bytes.
enum status bpe_model_open(struct bpe_model *model);
void bpe_model_free(struct bpe_model *model);
enum status bpe_token_add(struct bpe_model *model, const char *text, int64_t n_bytes);
// The next merge; *made is the token that it makes, a new one unless an earlier merge makes the same text.
enum status bpe_merge_add(struct bpe_model *model, int32_t left, int32_t right, int32_t *made);
char *bpe_model_json(const struct bpe_model *model); // free with free()

// FNV-1a, 32 bit.
static inline uint32_t bpe_hash(const char *bytes, int64_t n) {
    uint32_t hash = 2166136261u;
    for (int64_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    return hash;
}

#endif
