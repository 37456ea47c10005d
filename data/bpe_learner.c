// Byte-pair encoding (Sennrich, Haddow and Birch 2016, https://arxiv.org/abs/1508.07909) over distinct words with counts.
//
// Each pair of neighbouring symbols has its number of occurrences and the list of words it was ever seen in. A heap holds
// pairs by the count they had when they were put in; counts that have fallen since are put in again when they come up, so
// the top is the most frequent pair. A merge rewrites the words of its list only.
#include "data/bpe_learner.h"

#include "core/base/mem.h"
#include "data/bpe_parts.h"
#include "data/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CHARACTER = 3 + 256, POINTS = 0x110000, SPACE_POINT = 0x2581 };
// Characters are taken until they cover all but this share of the text; the rest is spelled in bytes.
static const double UNCOVERED = 1e-4;
static const char WHAT[] = "the words of a vocabulary";

// ---- characters ----

struct character {
    int64_t count;
    int32_t point;
};

// The space first: the decoder knows it as a character only.
static int character_order(const void *a, const void *b) {
    const struct character *x = a, *y = b;
    if ((x->point == SPACE_POINT) != (y->point == SPACE_POINT)) return x->point == SPACE_POINT ? -1 : 1;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    return x->point < y->point ? -1 : 1;
}

// ids[point] = token of a character, -1 for none.
static enum status characters_choose(struct bpe_model *model, const struct bpe_words *words, int32_t *ids) {
    enum status status = STATUS_OK;
    struct buffer list = {0};
    int64_t *counts = NULL, total = 0, taken = 0;
    TRY(mem_buffer_new(POINTS * (int64_t)sizeof *counts, WHAT, (void **)&counts));
    memset(counts, 0, POINTS * sizeof *counts);
    for (int64_t w = 0; w < words->n; w++) {
        const struct bpe_word *word = bpe_word(words, w);
        const char *text = words->text.bytes + word->at;
        for (int i = 0; i < word->n_bytes; i += utf8_length(text[i])) counts[utf8_point(text + i)] += word->count;
    }
    for (int32_t p = 0; p < POINTS; p++) {
        ids[p] = -1;
        struct character c = {counts[p], p};
        if (c.count) TRY(buffer_append(&list, &c, sizeof c, WHAT));
        total += c.count;
    }
    int64_t n = list.n_bytes / (int64_t)sizeof(struct character);
    struct character *all = (struct character *)(void *)list.bytes;
    if (n) qsort(all, (size_t)n, sizeof *all, character_order);
    for (int64_t i = 0; i < n && model->n_tokens < model->vocab_size; i++) {
        if ((double)(total - taken) <= UNCOVERED * (double)total) break;
        char bytes[4];
        ids[all[i].point] = (int32_t)model->n_tokens;
        TRY(bpe_token_add(model, bytes, utf8_put((uint32_t)all[i].point, bytes)));
        taken += all[i].count;
    }
done:
    buffer_free(&list);
    mem_buffer_free(counts);
    return status;
}

// ---- pairs ----

struct pair {
    uint64_t key; // left << 32 | right
    int64_t count;
    int64_t words; // last entry of its list, -1 = none
    int32_t made;  // token of its merge, -1 = not merged yet
};

struct seen {
    int64_t word, before;
};

struct entry {
    int64_t count;
    uint64_t key;
};

struct merging {
    const struct bpe_words *words;
    struct buffer symbols; // int32_t, of all words; -1 = no character of the vocabulary
    struct span {
        int64_t at, n;
    } * spans; // [words->n]
    struct buffer pairs, seen, heap;
    int64_t *slots, n_slots; // hash table: index into pairs, -1 = free
};

static int64_t pairs_count(const struct merging *m) { return m->pairs.n_bytes / (int64_t)sizeof(struct pair); }
static struct pair *pair_at(const struct merging *m, int64_t i) { return (struct pair *)(void *)m->pairs.bytes + i; }

static int64_t slot_of(const struct merging *m, uint64_t key) {
    uint64_t at = (key * 0x9E3779B97F4A7C15u) >> 20;
    for (;; at++) {
        int64_t slot = (int64_t)(at & (uint64_t)(m->n_slots - 1));
        if (m->slots[slot] < 0 || pair_at(m, m->slots[slot])->key == key) return slot;
    }
}

static enum status slots_grow(struct merging *m) {
    enum status status = STATUS_OK;
    mem_buffer_free(m->slots);
    m->slots = NULL;
    m->n_slots = m->n_slots ? 2 * m->n_slots : 1 << 12;
    TRY(mem_buffer_new(m->n_slots * (int64_t)sizeof *m->slots, WHAT, (void **)&m->slots));
    for (int64_t i = 0; i < m->n_slots; i++) m->slots[i] = -1;
    for (int64_t i = 0; i < pairs_count(m); i++) m->slots[slot_of(m, pair_at(m, i)->key)] = i;
done:
    return status;
}

static enum status pair_find(struct merging *m, uint64_t key, struct pair **out) {
    enum status status = STATUS_OK;
    if (2 * (pairs_count(m) + 1) > m->n_slots) TRY(slots_grow(m));
    int64_t slot = slot_of(m, key);
    if (m->slots[slot] < 0) {
        struct pair pair = {.key = key, .words = -1, .made = -1};
        TRY(buffer_append(&m->pairs, &pair, sizeof pair, WHAT));
        m->slots[slot] = pairs_count(m) - 1;
    }
    *out = pair_at(m, m->slots[slot]);
done:
    return status;
}

static bool entry_before(struct entry a, struct entry b) {
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static enum status heap_put(struct merging *m, struct entry entry) {
    enum status status = buffer_append(&m->heap, &entry, sizeof entry, WHAT);
    if (status != STATUS_OK) return status;
    struct entry *heap = (struct entry *)(void *)m->heap.bytes;
    int64_t at = m->heap.n_bytes / (int64_t)sizeof entry - 1;
    for (int64_t up; at > 0 && entry_before(entry, heap[up = (at - 1) / 2]); at = up) heap[at] = heap[up];
    heap[at] = entry;
    return STATUS_OK;
}

static bool heap_take(struct merging *m, struct entry *out) {
    struct entry *heap = (struct entry *)(void *)m->heap.bytes;
    int64_t n = m->heap.n_bytes / (int64_t)sizeof *heap - 1, at = 0;
    if (n < 0) return false;
    *out = heap[0];
    m->heap.n_bytes -= (int64_t)sizeof *heap;
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && entry_before(heap[child + 1], heap[child])) child++;
        if (!entry_before(heap[child], heap[n])) break;
        heap[at] = heap[child];
    }
    heap[at] = heap[n];
    return true;
}

static int32_t *word_symbols(const struct merging *m, int64_t w) {
    return (int32_t *)(void *)m->symbols.bytes + m->spans[w].at;
}

// Adds (sign 1) or takes away (-1) the pairs of word w. Counts that may have grown, those of pairs with `made`, go to the
// heap.
static enum status word_count(struct merging *m, int64_t w, int sign, int32_t made) {
    enum status status = STATUS_OK;
    const int32_t *symbols = word_symbols(m, w);
    for (int64_t i = 0; i + 1 < m->spans[w].n; i++) {
        if (symbols[i] < 0 || symbols[i + 1] < 0) continue;
        struct pair *pair = NULL;
        TRY(pair_find(m, (uint64_t)symbols[i] << 32 | (uint32_t)symbols[i + 1], &pair));
        pair->count += sign * bpe_word(m->words, w)->count;
        if (sign < 0) continue;
        const struct seen *seen_words = (const struct seen *)(const void *)m->seen.bytes;
        if (pair->words < 0 || seen_words[pair->words].word != w) {
            struct seen seen = {w, pair->words};
            TRY(buffer_append(&m->seen, &seen, sizeof seen, WHAT));
            pair->words = m->seen.n_bytes / (int64_t)sizeof seen - 1;
        }
        if (symbols[i] == made || symbols[i + 1] == made) TRY(heap_put(m, (struct entry){pair->count, pair->key}));
    }
done:
    return status;
}

static enum status words_open(struct merging *m, const int32_t *ids) {
    enum status status = STATUS_OK;
    m->spans = mem_new((size_t)m->words->n + 1, sizeof *m->spans);
    for (int64_t w = 0; w < m->words->n; w++) {
        const struct bpe_word *word = bpe_word(m->words, w);
        const char *text = m->words->text.bytes + word->at;
        m->spans[w].at = m->symbols.n_bytes / (int64_t)sizeof(int32_t);
        for (int i = 0; i < word->n_bytes; i += utf8_length(text[i]), m->spans[w].n++)
            TRY(buffer_append(&m->symbols, &ids[utf8_point(text + i)], sizeof *ids, WHAT));
    }
    for (int64_t w = 0; w < m->words->n; w++) TRY(word_count(m, w, 1, -1));
    for (int64_t i = 0; i < pairs_count(m); i++)
        TRY(heap_put(m, (struct entry){pair_at(m, i)->count, pair_at(m, i)->key}));
done:
    return status;
}

static enum status word_merge(struct merging *m, int64_t w, int32_t left, int32_t right, int32_t made) {
    enum status status = STATUS_OK;
    int32_t *symbols = word_symbols(m, w);
    int64_t n = m->spans[w].n, at = 0;
    while (at + 1 < n && (symbols[at] != left || symbols[at + 1] != right)) at++;
    if (at + 1 >= n) return STATUS_OK; // an earlier merge took it
    TRY(word_count(m, w, -1, made));
    int64_t to = 0;
    for (int64_t i = 0; i < n; i++) {
        bool here = i + 1 < n && symbols[i] == left && symbols[i + 1] == right;
        symbols[to++] = here ? made : symbols[i];
        i += here;
    }
    m->spans[w].n = to;
    TRY(word_count(m, w, 1, made));
done:
    return status;
}

static enum status pair_merge(struct merging *m, struct bpe_model *model, int64_t index) {
    enum status status = STATUS_OK;
    uint64_t key = pair_at(m, index)->key;
    int32_t left = (int32_t)(key >> 32), right = (int32_t)(uint32_t)key, made = pair_at(m, index)->made;
    if (made < 0) TRY(bpe_merge_add(model, left, right, &made));
    pair_at(m, index)->made = made;
    for (int64_t i = pair_at(m, index)->words; i >= 0;) {
        struct seen seen = ((struct seen *)(void *)m->seen.bytes)[i];
        TRY(word_merge(m, seen.word, left, right, made));
        i = seen.before;
    }
done:
    return status;
}

static enum status merges_learn(struct bpe_model *model, const struct bpe_words *words, const int32_t *ids) {
    enum status status = STATUS_OK;
    struct merging m = {.words = words};
    struct entry entry;
    TRY(words_open(&m, ids));
    while (model->n_tokens < model->vocab_size && heap_take(&m, &entry)) {
        int64_t index = m.slots[slot_of(&m, entry.key)], count = pair_at(&m, index)->count;
        if (count < 2 || count > entry.count) continue; // gone, or in the heap with more
        if (count == entry.count)
            TRY(pair_merge(&m, model, index));
        else
            TRY(heap_put(&m, (struct entry){count, entry.key}));
    }
done:
    buffer_free(&m.symbols);
    buffer_free(&m.pairs);
    buffer_free(&m.seen);
    buffer_free(&m.heap);
    mem_buffer_free(m.slots);
    free(m.spans);
    return status;
}

// ---- the learner ----

struct bpe_learner {
    struct bpe_words words;
};

struct bpe_learner *bpe_learner_new(void) {
    return mem_new(1, sizeof(struct bpe_learner));
}

void bpe_learner_free(struct bpe_learner *learner) {
    if (!learner) return;
    bpe_words_free(&learner->words);
    free(learner);
}

enum status bpe_learner_add(struct bpe_learner *learner, const char *text, int64_t n_bytes) {
    int64_t invalid = utf8_invalid_at(text, n_bytes);
    if (invalid >= 0)
        return status_set(STATUS_FORMAT, "a text to learn tokens from is not UTF-8: byte %lld is 0x%02X",
                          (long long)invalid, (unsigned)(unsigned char)text[invalid]);
    return bpe_words_add(&learner->words, text, n_bytes);
}

enum status bpe_learner_finish(struct bpe_learner *learner, int64_t vocab_size, char **json) {
    REQUIRE(vocab_size >= BPE_VOCAB_MIN && vocab_size <= BPE_VOCAB_MAX, "the size of a vocabulary");
    enum status status = STATUS_OK;
    struct bpe_model model = {.vocab_size = vocab_size};
    int32_t *ids = NULL;
    if (learner->words.n == 0)
        TRY(status_set(STATUS_INVALID, "there is no text to learn tokens from: the documents hold no character"));
    TRY(mem_buffer_new(POINTS * (int64_t)sizeof *ids, WHAT, (void **)&ids));
    TRY(bpe_model_open(&model));
    TRY(characters_choose(&model, &learner->words, ids));
    TRY(merges_learn(&model, &learner->words, ids));
    *json = bpe_model_json(&model);
done:
    mem_buffer_free(ids);
    bpe_model_free(&model);
    return status;
}
