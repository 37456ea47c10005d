#include "data/bpe_parts.h"

#include "core/base/mem.h"
#include "data/utf8.h"

#include <string.h>

static const char WHAT[] = "the words of a vocabulary";

static int64_t slot_of(const struct bpe_words *words, const char *text, int64_t n, uint32_t hash) {
    for (uint64_t at = hash;; at++) {
        int64_t slot = (int64_t)(at & (uint64_t)(words->n_slots - 1));
        if (words->slots[slot] < 0) return slot;
        const struct bpe_word *word = bpe_word(words, words->slots[slot]);
        if (word->hash == hash && word->n_bytes == n && memcmp(words->text.bytes + word->at, text, (size_t)n) == 0)
            return slot;
    }
}

static enum status slots_grow(struct bpe_words *words) {
    enum status status = STATUS_OK;
    mem_buffer_free(words->slots);
    words->slots = NULL;
    words->n_slots = words->n_slots ? 2 * words->n_slots : 1 << 12;
    TRY(mem_buffer_new(words->n_slots * (int64_t)sizeof *words->slots, WHAT, (void **)&words->slots));
    for (int64_t i = 0; i < words->n_slots; i++) words->slots[i] = -1;
    for (int64_t i = 0; i < words->n; i++) {
        const struct bpe_word *word = bpe_word(words, i);
        words->slots[slot_of(words, words->text.bytes + word->at, word->n_bytes, word->hash)] = i;
    }
done:
    return status;
}

static enum status word_put(struct bpe_words *words, const char *text, int64_t n) {
    enum status status = STATUS_OK;
    if (n == 0) return STATUS_OK;
    if (2 * (words->n + 1) > words->n_slots) TRY(slots_grow(words));
    uint32_t hash = bpe_hash(text, n);
    int64_t slot = slot_of(words, text, n, hash);
    if (words->slots[slot] < 0) {
        struct bpe_word word = {.at = words->text.n_bytes, .n_bytes = (int32_t)n, .hash = hash};
        TRY(buffer_append(&words->text, text, n, WHAT));
        TRY(buffer_append(&words->list, &word, sizeof word, WHAT));
        words->slots[slot] = words->n++;
    }
    bpe_word(words, words->slots[slot])->count++;
done:
    return status;
}

enum kind { KIND_NONE, KIND_SPACE, KIND_DIGIT, KIND_SIGN, KIND_LETTER };

static enum kind kind_of(uint32_t point) {
    if (point == ' ' || point == 0x2581) return KIND_SPACE;
    if (point < ' ' || point == 0x7F) return KIND_NONE;
    if (point >= '0' && point <= '9') return KIND_DIGIT;
    bool letter = (point >= 'a' && point <= 'z') || (point >= 'A' && point <= 'Z') || point > 0x7F;
    return letter ? KIND_LETTER : KIND_SIGN;
}

enum status bpe_words_add(struct bpe_words *words, const char *text, int64_t n_bytes) {
    enum status status = STATUS_OK;
    enum { WORD_BYTES_MAX = 256 }; // what is longer is cut: merges that long are of no use
    static const char space[] = "\xE2\x96\x81";
    char word[WORD_BYTES_MAX];
    int64_t n = 0;
    enum kind before = KIND_NONE;
    if (n_bytes > 0) memcpy(word, space, 3), n = 3, before = KIND_SPACE;
    for (int64_t i = 0; i < n_bytes;) {
        int length = utf8_length(text[i]);
        enum kind kind = kind_of(utf8_point(text + i));
        bool joins = kind == KIND_LETTER || kind == KIND_SIGN ? before == KIND_SPACE || before == kind : false;
        if (!joins || n + length > WORD_BYTES_MAX) {
            TRY(word_put(words, word, n));
            n = 0;
        }
        if (kind == KIND_SPACE)
            memcpy(word, space, 3), n = 3;
        else if (kind != KIND_NONE)
            memcpy(word + n, text + i, (size_t)length), n += length;
        before = kind;
        i += length;
    }
    TRY(word_put(words, word, n));
done:
    return status;
}

void bpe_words_free(struct bpe_words *words) {
    buffer_free(&words->text);
    buffer_free(&words->list);
    mem_buffer_free(words->slots);
    *words = (struct bpe_words){0};
}
