// Byte-pair merging of one word in O(n log n).
//
// The word's characters are a linked list of symbols. All neighbouring pairs that have a merge wait in a binary heap
// ordered by (rank, position); the least one is merged and its two new pairs are put in. An entry whose pair is gone is
// recognised when it comes up: the symbols at its position are not those of its merge. A document of megabytes is one
// word for models that do not split (Phi-3), which is why this is no quadratic loop.
#include "data/tokenizer_parts.h"

#include "data/utf8.h"

struct symbol {
    int32_t id; // -1: merged into the one before
    int32_t prev, next;
};

// ---- heap of rank << 32 | position

static void heap_sink(uint64_t *heap, int64_t n, int64_t at) {
    uint64_t moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= moved) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void heap_put(uint64_t *heap, int64_t at, uint64_t entry) {
    for (int64_t parent; at > 0 && heap[parent = (at - 1) / 2] > entry; at = parent) heap[at] = heap[parent];
    heap[at] = entry;
}

// ---- symbols

struct word {
    const struct bpe *bpe;
    const char *where;
    struct symbol *symbols;
    int32_t n;
    bool unk_waits; // an unknown symbol that has not been put in yet, since the next unknown may join it
};

static void symbol_put(struct word *word, int32_t id) { word->symbols[word->n++] = (struct symbol){.id = id}; }

static void unk_put(struct word *word) {
    if (word->unk_waits) symbol_put(word, word->bpe->unk_id);
    word->unk_waits = false;
}

// A character that the vocabulary lacks: its bytes, or the unknown token, or nothing. As in the reference, an unknown
// token that waits is not put in before bytes; only a known character or the end of the word does that.
static enum status symbol_unknown(struct word *word, const char *bytes, int length) {
    const struct bpe *bpe = word->bpe;
    bool all = bpe->byte_fallback;
    for (int i = 0; i < length && all; i++) all = bpe->byte_ids[(unsigned char)bytes[i]] >= 0;
    if (all) {
        for (int i = 0; i < length; i++) symbol_put(word, bpe->byte_ids[(unsigned char)bytes[i]]);
        return STATUS_OK;
    }
    if (!bpe->unk_token) return STATUS_OK;
    if (bpe->unk_id < 0)
        return status_set(STATUS_FORMAT,
                          "%s: character U+%04X has no token, and unk_token '%s' is not in the vocabulary", word->where,
                          (unsigned)utf8_point(bytes), bpe->unk_token);
    if (!bpe->fuse_unk) unk_put(word);
    word->unk_waits = true;
    return STATUS_OK;
}

static enum status symbols_fill(struct word *word, const char *text, int64_t n) {
    for (int64_t i = 0; i < n;) {
        int length = utf8_length(text[i]);
        int32_t id = char_find(word->bpe, text + i, length);
        if (id >= 0) {
            unk_put(word);
            symbol_put(word, id);
        } else {
            enum status status = symbol_unknown(word, text + i, length);
            if (status != STATUS_OK) return status;
        }
        i += length;
    }
    unk_put(word);
    for (int32_t i = 0; i < word->n; i++) word->symbols[i].prev = i - 1, word->symbols[i].next = i + 1;
    if (word->n) word->symbols[word->n - 1].next = -1;
    return STATUS_OK;
}

// ---- merging

// The heap never holds more than 2 entries per symbol: n - 1 at the start, and each of at most n - 1 merges takes one out
// and puts at most two in.
static void word_merge(struct word *word, uint64_t *heap) {
    const struct bpe *bpe = word->bpe;
    struct symbol *symbols = word->symbols;
    int64_t n = 0;
    uint32_t rank;
    for (int32_t i = 0; i + 1 < word->n; i++)
        if (merge_find(bpe, symbols[i].id, symbols[i + 1].id, &rank)) heap[n++] = (uint64_t)rank << 32 | (uint32_t)i;
    for (int64_t i = n / 2 - 1; i >= 0; i--) heap_sink(heap, n, i);
    while (n > 0) {
        const struct merge *merge = &bpe->merges[heap[0] >> 32];
        int32_t at = (int32_t)(uint32_t)heap[0];
        heap[0] = heap[--n];
        if (n > 0) heap_sink(heap, n, 0);
        struct symbol *left = &symbols[at];
        if (left->id != merge->left || left->next < 0 || symbols[left->next].id != merge->right) continue;
        struct symbol *right = &symbols[left->next];
        left->id = merge->made;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) {
            symbols[left->next].prev = at;
            if (merge_find(bpe, left->id, symbols[left->next].id, &rank))
                heap_put(heap, n++, (uint64_t)rank << 32 | (uint32_t)at);
        }
        if (left->prev >= 0 && merge_find(bpe, symbols[left->prev].id, left->id, &rank))
            heap_put(heap, n++, (uint64_t)rank << 32 | (uint32_t)left->prev);
    }
}

enum status word_encode(const struct bpe *bpe, const char *where, const char *word, int64_t n, struct word_work *work,
                        struct buffer *tokens) {
    enum status status = STATUS_OK;
    if (n >= INT32_MAX) return status_set(STATUS_UNSUPPORTED, "%s: one word has %lld bytes", where, (long long)n);
    work->symbols.n_bytes = work->heap.n_bytes = 0;
    TRY(buffer_reserve(&work->symbols, (n + 1) * (int64_t)sizeof(struct symbol), "the symbols of a word"));
    TRY(buffer_reserve(&work->heap, (n + 1) * 2 * (int64_t)sizeof(uint64_t), "the merges of a word"));
    struct word w = {.bpe = bpe, .where = where, .symbols = (struct symbol *)(void *)work->symbols.bytes};
    TRY(symbols_fill(&w, word, n));
    word_merge(&w, (uint64_t *)(void *)work->heap.bytes);
    TRY(buffer_reserve(tokens, w.n * (int64_t)sizeof(int32_t), "the tokens"));
    int32_t *out = (int32_t *)(void *)(tokens->bytes + tokens->n_bytes);
    for (int32_t i = 0; i < w.n; i++)
        if (w.symbols[i].id >= 0) *out++ = w.symbols[i].id;
    tokens->n_bytes = (char *)out - tokens->bytes;
done:
    return status;
}

void word_work_free(struct word_work *work) {
    buffer_free(&work->symbols);
    buffer_free(&work->heap);
}
