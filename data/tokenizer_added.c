// Added tokens: strings that are one token wherever they stand, found before anything else happens to a text.
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/json.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

static struct text text_copy(const char *bytes, int64_t n) {
    return (struct text){.bytes = mem_string_n(bytes, (size_t)n), .n = n};
}

static bool text_is(struct text text, const char *bytes, int64_t n) {
    return text.n == n && memcmp(text.bytes, bytes, (size_t)n) == 0;
}

// ---- loading

static enum status match_fill(const struct tokenizer *tokenizer, struct added_token *token) {
    struct buffer work[2] = {{0}, {0}};
    const char *match = token->content.bytes;
    int64_t n = token->content.n;
    enum status status = STATUS_OK;
    if (token->normalized) TRY(normalize(tokenizer, match, n, work, &match, &n));
    if (n == 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: added token '%s' is nothing once it is normalized", tokenizer->name,
                       token->content.bytes));
    token->match = text_copy(match, n);
done:
    buffer_free(&work[0]);
    buffer_free(&work[1]);
    return status;
}

// A token has the id of the vocabulary; one that is not there has the next free number. A file that says otherwise is
// read differently by different programs.
static enum status id_check(const struct tokenizer *tokenizer, const struct added_token *token, int64_t says,
                            int64_t *next) {
    const struct vocab *vocab = &tokenizer->bpe.vocab;
    int64_t id = vocab_find(vocab, token->content.bytes, token->content.n);
    if (id < 0) id = (*next)++;
    if (id != says)
        return status_set(STATUS_FORMAT, "%s: added token '%s' says id %lld, but %s %lld", tokenizer->name,
                          token->content.bytes, (long long)says,
                          id < vocab->n_ids ? "the vocabulary says" : "the next free one is", (long long)id);
    if (id >= TOKEN_IDS_MAX)
        return status_set(STATUS_FORMAT, "%s: added token '%s' has id %lld, must be below %d", tokenizer->name,
                          token->content.bytes, (long long)id, TOKEN_IDS_MAX);
    return STATUS_OK;
}

static enum status token_load(const struct tokenizer *tokenizer, const json_t *entry, struct added_token *token,
                              int64_t *next) {
    enum status status = STATUS_OK;
    const char *where = tokenizer->name, *content = NULL;
    int64_t id = 0;
    TRY(json_get_string(entry, where, "content", &content));
    TRY(json_get_integer(entry, where, "id", &id));
    TRY(json_get_bool_or(entry, where, "single_word", false, &token->single_word));
    TRY(json_get_bool_or(entry, where, "lstrip", false, &token->lstrip));
    TRY(json_get_bool_or(entry, where, "rstrip", false, &token->rstrip));
    TRY(json_get_bool_or(entry, where, "normalized", true, &token->normalized));
    TRY(json_get_bool_or(entry, where, "special", false, &token->special));
    token->content = text_copy(content, (int64_t)strlen(content));
    if (token->content.n == 0) return STATUS_OK; // the caller leaves it out
    TRY(id_check(tokenizer, token, id, next));
    token->id = (int32_t)id;
    TRY(match_fill(tokenizer, token));
done:
    return status;
}

static int match_order(const void *a, const void *b) {
    const struct text *x = &(*(const struct added_token *const *)a)->match;
    const struct text *y = &(*(const struct added_token *const *)b)->match;
    int order = memcmp(x->bytes, y->bytes, (size_t)(x->n < y->n ? x->n : y->n));
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static enum status set_fill(const struct tokenizer *tokenizer, bool normalized, struct added_set *set) {
    const struct added *added = &tokenizer->added;
    set->sorted = mem_new((size_t)added->n, sizeof *set->sorted);
    for (int64_t i = 0; i < added->n; i++)
        if (added->tokens[i].normalized == normalized) set->sorted[set->n++] = &added->tokens[i];
    qsort(set->sorted, (size_t)set->n, sizeof *set->sorted, match_order);
    for (int64_t i = 0; i < set->n; i++) {
        const struct text match = set->sorted[i]->match;
        if (i > 0 && text_is(match, set->sorted[i - 1]->match.bytes, set->sorted[i - 1]->match.n))
            return status_set(STATUS_FORMAT, "%s: two added tokens stand for the same text '%s'", tokenizer->name,
                              match.bytes);
        set->begins[(unsigned char)match.bytes[0]] = true;
    }
    return STATUS_OK;
}

// By id, and which ones skip_special drops: as in the reference, those whose decoded text is the content of a special
// token, so that a special token which normalizing changes is not dropped.
static enum status by_id_fill(struct tokenizer *tokenizer) {
    struct added *added = &tokenizer->added;
    tokenizer->vocab_size = tokenizer->bpe.vocab.n_ids;
    for (int64_t i = 0; i < added->n; i++)
        if (added->tokens[i].id >= tokenizer->vocab_size) tokenizer->vocab_size = added->tokens[i].id + 1;
    tokenizer->added_by_id = mem_new((size_t)tokenizer->vocab_size, sizeof(int32_t));
    memset(tokenizer->added_by_id, 0xff, (size_t)tokenizer->vocab_size * sizeof(int32_t));
    for (int64_t i = 0; i < added->n; i++) {
        struct added_token *token = &added->tokens[i];
        int32_t *slot = &tokenizer->added_by_id[token->id];
        const struct vocab *vocab = &tokenizer->bpe.vocab;
        bool taken = *slot >= 0;
        if (token->id < vocab->n_ids && vocab->tokens[token->id].n >= 0)
            taken |= vocab_find(vocab, token->content.bytes, token->content.n) != token->id;
        if (taken)
            return status_set(STATUS_FORMAT, "%s: added token '%s' has the id %d of another token", tokenizer->name,
                              token->content.bytes, (int)token->id);
        *slot = (int32_t)i;
        token->skipped = token->special && text_is(token->match, token->content.bytes, token->content.n);
    }
    return STATUS_OK;
}

enum status added_load(struct tokenizer *tokenizer, const json_t *root) {
    enum status status = STATUS_OK;
    struct added *added = &tokenizer->added;
    json_t *list = NULL;
    bool single_word = false;
    TRY(json_get_array_or(root, tokenizer->name, "added_tokens", NULL, &list));
    size_t n = json_array_size(list);
    int64_t next = tokenizer->bpe.vocab.n_tokens;
    added->tokens = mem_new(n, sizeof *added->tokens);
    for (size_t i = 0; i < n; i++) {
        struct added_token *token = &added->tokens[added->n++]; // counted first, so that it is freed whatever happens
        TRY(token_load(tokenizer, json_array_get(list, i), token, &next));
        if (token->content.n == 0) {
            free(token->content.bytes);
            memset(token, 0, sizeof *token);
            added->n--;
            continue;
        }
        single_word |= token->single_word;
    }
    TRY(set_fill(tokenizer, false, &added->raw));
    TRY(set_fill(tokenizer, true, &added->normalized));
    TRY(by_id_fill(tokenizer));
    if (single_word) TRY(pattern_new(pattern_word, tokenizer->name, &added->word));
done:
    return status;
}

void added_clear(struct added *added) {
    for (int64_t i = 0; i < added->n; i++) {
        free(added->tokens[i].content.bytes);
        free(added->tokens[i].match.bytes);
    }
    free(added->tokens);
    free(added->raw.sorted);
    free(added->normalized.sorted);
    pattern_free(added->word);
}

// ---- finding

// The longest match that begins at text[0]: the sorted list is narrowed byte by byte.
static const struct added_token *match_at(const struct added_set *set, const char *text, int64_t n) {
    const struct added_token *longest = NULL;
    int64_t low = 0, high = set->n;
    for (int64_t depth = 0; low < high; depth++) {
        if (set->sorted[low]->match.n == depth) longest = set->sorted[low++]; // a prefix sorts before what extends it
        if (depth == n) break;
        unsigned char c = (unsigned char)text[depth];
        int64_t bounds[2]; // first match whose byte here is at least c, and at least c + 1
        for (int b = 0; b < 2; b++) {
            int64_t from = low, to = high;
            while (from < to) {
                int64_t middle = from + (to - from) / 2;
                if ((unsigned char)set->sorted[middle]->match.bytes[depth] < c + b)
                    from = middle + 1;
                else
                    to = middle;
            }
            bounds[b] = from;
        }
        low = bounds[0], high = bounds[1];
    }
    return longest;
}

static enum status is_word_char(const struct added_scan *scan, int64_t at, bool *is) {
    int64_t start = 0, end = 0;
    int length = utf8_length(scan->text[at]);
    enum status status = pattern_find(scan->added->word, scan->scratch, scan->text + at, length, 0, &start, &end);
    *is = start == 0;
    return status;
}

static int64_t char_before(const char *text, int64_t at) {
    do at--;
    while (((unsigned char)text[at] & 0xc0) == 0x80);
    return at;
}

// No word character touches the match.
static enum status stands_alone(const struct added_scan *scan, int64_t start, int64_t end, bool *alone) {
    enum status status = STATUS_OK;
    bool touches = false;
    *alone = false;
    if (start > 0) TRY(is_word_char(scan, char_before(scan->text, start), &touches));
    if (touches) return STATUS_OK;
    if (end < scan->n) TRY(is_word_char(scan, end, &touches));
    *alone = !touches;
done:
    return status;
}

// The bounds of a match with the white space that it swallows; space that an earlier span has is not taken again.
static struct added_span stripped(const struct added_scan *scan, struct added_span span) {
    if (span.token->lstrip) {
        while (span.start > scan->done) {
            int64_t before = char_before(scan->text, span.start);
            if (!utf8_is_space(utf8_point(scan->text + before))) break;
            span.start = before;
        }
        if (span.start < scan->done) span.start = scan->done;
    }
    if (span.token->rstrip) {
        if (span.end < scan->done) span.end = scan->done; // up to there the token before has swallowed space
        while (span.end < scan->n && utf8_is_space(utf8_point(scan->text + span.end)))
            span.end += utf8_length(scan->text[span.end]);
    }
    return span;
}

enum status added_next(struct added_scan *scan, struct added_span *span, bool *found) {
    *found = true;
    if (scan->pending.token) { // the token behind the plain stretch given last
        *span = scan->pending;
        scan->pending.token = NULL;
        scan->done = span->end;
        return STATUS_OK;
    }
    while (scan->search < scan->n) {
        const struct added_token *token = NULL;
        if (scan->set->begins[(unsigned char)scan->text[scan->search]])
            token = match_at(scan->set, scan->text + scan->search, scan->n - scan->search);
        if (!token) {
            scan->search++;
            continue;
        }
        struct added_span match = {token, scan->search, scan->search + token->match.n};
        scan->search = match.end;
        if (token->single_word) {
            bool alone = false;
            enum status status = stands_alone(scan, match.start, match.end, &alone);
            if (status != STATUS_OK) return status;
            if (!alone) continue;
        }
        match = stripped(scan, match);
        if (scan->done < match.start) {
            *span = (struct added_span){NULL, scan->done, match.start};
            scan->pending = match;
        } else {
            *span = match;
        }
        scan->done = span->end;
        return STATUS_OK;
    }
    *span = (struct added_span){NULL, scan->done, scan->n};
    *found = scan->done < scan->n;
    scan->done = scan->n;
    return STATUS_OK;
}
