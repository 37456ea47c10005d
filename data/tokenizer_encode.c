// Text to tokens: added tokens are cut out, the rest is normalized, cut again, split by the pre_tokenizer into pieces,
// and each piece goes through the model. Words that come again are answered from a cache that lives for one encoding.
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/utf8.h"

#include <string.h>

enum { CACHED_BYTES_MAX = 128, CACHE_SLOTS_MAX = 1 << 16 };

// A word (its bytes as they come from the text) and its tokens, both in cache.store, one behind the other.
struct cached {
    uint64_t hash;
    int64_t at;      // of the bytes; the tokens begin at the next multiple of 4
    int32_t n_bytes; // 0: free
    int32_t n_tokens;
};

struct cache {
    struct buffer slots; // struct cached
    uint32_t mask, n;
    struct buffer store;
};

struct encoder {
    const struct tokenizer *t;
    struct pattern_scratch *scratch;
    struct buffer normal[2];
    struct buffer step_text[STEPS_MAX]; // what step i made of its piece
    struct buffer spelled;              // a piece in the ByteLevel alphabet
    struct word_work work;
    struct cache cache;
    struct buffer tokens; // int32_t
};

// ---- cache

static enum status cache_new(struct cache *cache, int64_t n_text_bytes) {
    int64_t n_slots = 64;
    while (n_slots < CACHE_SLOTS_MAX && n_slots < n_text_bytes / 4) n_slots *= 2;
    enum status status = buffer_reserve(&cache->slots, n_slots * (int64_t)sizeof(struct cached), "a cache of words");
    if (status != STATUS_OK) return status;
    cache->mask = (uint32_t)n_slots - 1;
    memset(cache->slots.bytes, 0, (size_t)n_slots * sizeof(struct cached));
    return STATUS_OK;
}

static struct cached *cache_slot(const struct cache *cache, const char *word, int64_t n, uint64_t hash) {
    struct cached *slots = (struct cached *)(void *)cache->slots.bytes;
    for (uint32_t i = (uint32_t)(hash >> 20) & cache->mask;; i = (i + 1) & cache->mask) {
        struct cached *slot = &slots[i];
        if (slot->n_bytes == 0) return slot;
        if (slot->hash == hash && slot->n_bytes == n && memcmp(cache->store.bytes + slot->at, word, (size_t)n) == 0)
            return slot;
    }
}

static int64_t tokens_at(const struct cached *slot) { return (slot->at + slot->n_bytes + 3) / 4 * 4; }

// Remembers a word that is not there yet. A cache that is half full starts anew.
static enum status cache_put(struct cache *cache, struct cached *slot, const char *word, int64_t n, uint64_t hash,
                             const char *tokens, int64_t n_tokens) {
    enum status status = STATUS_OK;
    if (cache->n > cache->mask / 2) {
        memset(cache->slots.bytes, 0, ((size_t)cache->mask + 1) * sizeof(struct cached));
        cache->n = 0, cache->store.n_bytes = 0;
        slot = cache_slot(cache, word, n, hash);
    }
    struct cached new = {hash, cache->store.n_bytes, (int32_t)n, (int32_t)n_tokens};
    int64_t n_token_bytes = n_tokens * (int64_t)sizeof(int32_t), at = tokens_at(&new);
    TRY(buffer_reserve(&cache->store, at + n_token_bytes - new.at, "a cache of words"));
    memcpy(cache->store.bytes + new.at, word, (size_t)n);
    memcpy(cache->store.bytes + at, tokens, (size_t)n_token_bytes);
    cache->store.n_bytes = at + n_token_bytes;
    *slot = new;
    cache->n++;
done:
    return status;
}

// ---- the model

static enum status spell(struct encoder *e, const char *piece, int64_t n, const char **out, int64_t *n_out) {
    *out = piece, *n_out = n;
    if (!e->t->byte_level) return STATUS_OK;
    e->spelled.n_bytes = 0;
    enum status status = buffer_reserve(&e->spelled, 2 * n, "a piece of text");
    if (status != STATUS_OK) return status;
    char *to = e->spelled.bytes;
    for (int64_t i = 0; i < n; i++) to += utf8_put(byte_level_point((unsigned char)piece[i]), to);
    *out = e->spelled.bytes, *n_out = to - e->spelled.bytes;
    return STATUS_OK;
}

static enum status token_put(struct encoder *e, int32_t id) {
    return buffer_append(&e->tokens, &id, sizeof id, "the tokens");
}

static enum status word_direct(struct encoder *e, const char *word, int64_t n, bool whole_piece) {
    enum status status = STATUS_OK;
    const char *spelled = NULL;
    int64_t n_spelled = 0;
    TRY(spell(e, word, n, &spelled, &n_spelled));
    if (e->t->bpe.ignore_merges && whole_piece) {
        int32_t id = vocab_find(&e->t->bpe.vocab, spelled, n_spelled);
        if (id >= 0) return token_put(e, id);
    }
    TRY(word_encode(&e->t->bpe, e->t->name, spelled, n_spelled, &e->work, &e->tokens));
done:
    return status;
}

static enum status word_cached(struct encoder *e, const char *word, int64_t n, bool whole_piece) {
    if (n > CACHED_BYTES_MAX) return word_direct(e, word, n, whole_piece);
    enum status status = STATUS_OK;
    uint64_t hash = text_hash(word, n);
    struct cached *slot = cache_slot(&e->cache, word, n, hash);
    if (slot->n_bytes)
        return buffer_append(&e->tokens, e->cache.store.bytes + tokens_at(slot),
                             slot->n_tokens * (int64_t)sizeof(int32_t), "the tokens");
    int64_t before = e->tokens.n_bytes;
    TRY(word_direct(e, word, n, whole_piece));
    TRY(cache_put(&e->cache, slot, word, n, hash, e->tokens.bytes + before,
                  (e->tokens.n_bytes - before) / (int64_t)sizeof(int32_t)));
done:
    return status;
}

// Cuts a piece where no merge can reach across (see struct bpe), so that a document without pre_tokenizer becomes words
// that come again. A character without a token may vanish or join its neighbours unless it becomes its bytes.
static enum status piece_cut(struct encoder *e, const char *piece, int64_t n) {
    enum status status = STATUS_OK;
    const struct bpe *bpe = &e->t->bpe;
    int64_t start = 0;
    uint32_t before = 0;
    bool before_known = false;
    for (int64_t i = 0; i < n;) {
        int length = utf8_length(piece[i]);
        uint32_t point = utf8_point(piece + i);
        bool known = bpe->bytes_complete || char_find(bpe, piece + i, length) >= 0;
        if (i > start && known && before_known && !seam_find(bpe, before, point)) {
            TRY(word_cached(e, piece + start, i - start, false));
            start = i;
        }
        before = point, before_known = known;
        i += length;
    }
    TRY(word_cached(e, piece + start, n - start, false));
done:
    return status;
}

static enum status piece_tokens(struct encoder *e, const char *piece, int64_t n) {
    const struct bpe *bpe = &e->t->bpe;
    if (n == 0) return STATUS_OK;
    if (e->t->byte_level || !bpe->cuttable) return word_cached(e, piece, n, true);
    if (bpe->ignore_merges) {
        int32_t id = vocab_find(&bpe->vocab, piece, n);
        if (id >= 0) return token_put(e, id);
    }
    return piece_cut(e, piece, n);
}

// ---- pre_tokenizer

struct span {
    int64_t start, end;
    bool delimiter;
};

// Spans of a piece, in order, matches of the pattern and what lies between. Empty matches are spans too.
struct split_scan {
    const struct pre_step *step;
    struct pattern_scratch *scratch;
    const char *text;
    int64_t n, search, last; // where to look on; end of the last match, -1 before the first
    int64_t done;            // up to where spans were given
    struct span match;       // found, but not given yet
    bool waits;
};

static int64_t step_ahead(const char *text, int64_t n, int64_t at) {
    return at < n ? at + utf8_length(text[at]) : at + 1;
}

// The next match. An empty one right behind the match before does not count.
static enum status match_next(struct split_scan *scan, bool *found) {
    *found = false;
    while (scan->search <= scan->n) {
        int64_t start = -1, end = -1;
        if (scan->step->pattern) {
            enum status status =
                pattern_find(scan->step->pattern, scan->scratch, scan->text, scan->n, scan->search, &start, &end);
            if (status != STATUS_OK) return status;
        } else {
            const struct text *literal = &scan->step->literal;
            const char *at =
                memmem(scan->text + scan->search, (size_t)(scan->n - scan->search), literal->bytes, (size_t)literal->n);
            if (at) start = at - scan->text, end = start + literal->n;
        }
        if (start < 0) break;
        scan->search = end > start ? end : step_ahead(scan->text, scan->n, end);
        if (start == end && scan->last == end) continue;
        scan->last = end;
        scan->match = (struct span){start, end, !scan->step->invert};
        *found = true;
        return STATUS_OK;
    }
    scan->search = scan->n + 1;
    return STATUS_OK;
}

static enum status span_next(struct split_scan *scan, struct span *span, bool *found) {
    enum status status = STATUS_OK;
    if (!scan->waits) TRY(match_next(scan, &scan->waits));
    int64_t until = scan->waits ? scan->match.start : scan->n;
    *found = scan->done < until || scan->waits;
    if (scan->done < until)
        *span = (struct span){scan->done, until, scan->step->invert};
    else if (scan->waits)
        *span = scan->match, scan->waits = false;
    if (*found) scan->done = span->end;
done:
    return status;
}

// Whether span `b` is glued to the group that ends with span `a`.
static bool joins(enum split_behavior behavior, const struct span *a, const struct span *b) {
    switch (behavior) {
    case SPLIT_CONTIGUOUS: return a->delimiter == b->delimiter;
    case SPLIT_PREVIOUS: return b->delimiter && !a->delimiter;
    case SPLIT_NEXT: return a->delimiter && !b->delimiter;
    case SPLIT_ISOLATED:
    case SPLIT_REMOVED: break;
    }
    return false;
}

static enum status piece_steps(struct encoder *e, int step, const char *piece, int64_t n, bool first);

static enum status piece_split(struct encoder *e, int index, const char *piece, int64_t n, bool first) {
    enum status status = STATUS_OK;
    const struct pre_step *step = &e->t->pre[index];
    struct split_scan scan = {.step = step, .scratch = e->scratch, .text = piece, .n = n, .last = -1};
    struct span last = {0}, span = {0};
    int64_t start = 0; // of the group that ends with `last`
    bool any = false, found = false;
    for (;;) {
        TRY(span_next(&scan, &span, &found));
        bool glue = any && found && joins(step->behavior, &last, &span);
        if (any && !glue && !(step->behavior == SPLIT_REMOVED && last.delimiter))
            TRY(piece_steps(e, index + 1, piece + start, last.end - start, first && start == 0));
        if (!found) break;
        if (!glue) start = span.start;
        last = span, any = true;
    }
done:
    return status;
}

static enum status piece_metaspace(struct encoder *e, int index, const char *piece, int64_t n, bool first) {
    static const char WHAT[] = "a piece of text";
    enum status status = STATUS_OK;
    const struct pre_step *step = &e->t->pre[index];
    struct text mark = step->literal;
    struct buffer *out = &e->step_text[index];
    out->n_bytes = 0;
    bool marked = piece[0] == ' ' || (n >= mark.n && memcmp(piece, mark.bytes, (size_t)mark.n) == 0);
    bool wanted = step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && first);
    if (wanted && !marked) TRY(buffer_append(out, mark.bytes, mark.n, WHAT));
    TRY(text_replace(out, piece, n, (struct text){(char[]){' '}, 1}, mark));
    TRY(piece_steps(e, index + 1, out->bytes, out->n_bytes, first));
done:
    return status;
}

static enum status piece_prefix_space(struct encoder *e, int index, const char *piece, int64_t n, bool first) {
    enum status status = STATUS_OK;
    struct buffer *out = &e->step_text[index];
    if (piece[0] == ' ') return piece_steps(e, index + 1, piece, n, first);
    out->n_bytes = 0;
    TRY(buffer_append(out, " ", 1, "a piece of text"));
    TRY(buffer_append(out, piece, n, "a piece of text"));
    TRY(piece_steps(e, index + 1, out->bytes, out->n_bytes, first));
done:
    return status;
}

// Steps from `step` on. `first`: the piece begins where the text begins.
static enum status piece_steps(struct encoder *e, int step, const char *piece, int64_t n, bool first) {
    if (n == 0) return STATUS_OK;
    if (step == e->t->n_pre) return piece_tokens(e, piece, n);
    switch (e->t->pre[step].kind) {
    case PRE_SPLIT: return piece_split(e, step, piece, n, first);
    case PRE_METASPACE: return piece_metaspace(e, step, piece, n, first);
    case PRE_PREFIX_SPACE: return piece_prefix_space(e, step, piece, n, first);
    }
    REQUIRE(false, "unknown pre_tokenizer step");
    return STATUS_OK;
}

// ---- the whole text

static struct added_scan scan_of(struct encoder *e, const struct added_set *set, const char *text, int64_t n) {
    return (struct added_scan){.added = &e->t->added, .set = set, .scratch = e->scratch, .text = text, .n = n};
}

// A stretch between the added tokens that are looked for in the text as it stands.
static enum status stretch_encode(struct encoder *e, const char *text, int64_t n, bool first) {
    enum status status = STATUS_OK;
    struct added_span span;
    bool found = false;
    TRY(normalize(e->t, text, n, e->normal, &text, &n));
    struct added_scan scan = scan_of(e, &e->t->added.normalized, text, n);
    for (;;) {
        TRY(added_next(&scan, &span, &found));
        if (!found) break;
        if (span.token)
            TRY(token_put(e, span.token->id));
        else
            TRY(piece_steps(e, 0, text + span.start, span.end - span.start, first && span.start == 0));
    }
done:
    return status;
}

static enum status text_encode(struct encoder *e, const char *text, int64_t n) {
    enum status status = STATUS_OK;
    struct added_scan scan = scan_of(e, &e->t->added.raw, text, n);
    struct added_span span;
    bool found = false;
    for (;;) {
        TRY(added_next(&scan, &span, &found));
        if (!found) break;
        if (span.token)
            TRY(token_put(e, span.token->id));
        else
            TRY(stretch_encode(e, text + span.start, span.end - span.start, span.start == 0));
    }
done:
    return status;
}

static void encoder_clear(struct encoder *e) {
    pattern_scratch_free(e->scratch);
    buffer_free(&e->normal[0]);
    buffer_free(&e->normal[1]);
    for (int i = 0; i < STEPS_MAX; i++) buffer_free(&e->step_text[i]);
    buffer_free(&e->spelled);
    word_work_free(&e->work);
    buffer_free(&e->cache.slots);
    buffer_free(&e->cache.store);
    buffer_free(&e->tokens);
}

enum status tokenizer_encode(const struct tokenizer *t, const char *text, int64_t n_bytes, bool add_special,
                             struct token_list *out) {
    enum status status = STATUS_OK;
    struct encoder e = {.t = t, .scratch = pattern_scratch_new()};
    int64_t invalid = utf8_invalid_at(text, n_bytes);
    if (invalid >= 0)
        TRY(status_set(STATUS_FORMAT, "the text is not UTF-8: byte %lld is 0x%02X", (long long)invalid,
                       (unsigned)(unsigned char)text[invalid]));
    TRY(cache_new(&e.cache, n_bytes));
    TRY(buffer_reserve(&e.tokens, n_bytes / 4 * (int64_t)sizeof(int32_t) + 64, "the tokens"));
    if (add_special) TRY(buffer_append(&e.tokens, t->before.bytes, t->before.n_bytes, "the tokens"));
    TRY(text_encode(&e, text, n_bytes));
    if (add_special) TRY(buffer_append(&e.tokens, t->after.bytes, t->after.n_bytes, "the tokens"));
    out->tokens = (int32_t *)(void *)e.tokens.bytes;
    out->n_tokens = e.tokens.n_bytes / (int64_t)sizeof(int32_t);
    e.tokens = (struct buffer){0};
done:
    encoder_clear(&e);
    return status;
}
