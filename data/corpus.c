#include "data/corpus.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "data/buffer.h"
#include "data/file.h"
#include "data/json.h"
#include "data/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 40;

struct reader {
    const struct tokenizer *tokenizer;
    const char *path;
    int64_t vocab_size;
    struct buffer tokens; // int32_t
    int64_t n_bytes;
};

// One document. `where` is "PATH" or "PATH:LINE".
static enum status document_add(struct reader *r, const char *where, const char *text, int64_t n) {
    enum status status = STATUS_OK;
    struct token_list list = {0};
    int64_t invalid = utf8_invalid_at(text, n);
    if (invalid >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: not UTF-8: byte %lld is 0x%02X", where, (long long)invalid,
                       (unsigned)(unsigned char)text[invalid]));
    TRY(tokenizer_encode(r->tokenizer, text, n, true, &list));
    for (int64_t i = 0; i < list.n_tokens && r->vocab_size > 0; i++)
        if (list.tokens[i] >= r->vocab_size)
            TRY(status_set(STATUS_INVALID, "%s: token %d is none of the model's %lld; is this the model's tokenizer?",
                           where, (int)list.tokens[i], (long long)r->vocab_size));
    TRY(buffer_append(&r->tokens, list.tokens, list.n_tokens * (int64_t)sizeof(int32_t), "the tokens of a corpus"));
    r->n_bytes += n;
done:
    token_list_free(&list);
    return status;
}

static bool is_blank(const char *line, int64_t n) {
    while (n > 0 && strchr(" \t\r", line[n - 1]) && line[n - 1]) n--;
    return n == 0;
}

static enum status lines_add(struct reader *r, const char *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    char *where = NULL;
    const char *text = NULL;
    int64_t at = 0;
    for (int64_t line = 1; at < n_bytes; line++) {
        const char *end = memchr(bytes + at, '\n', (size_t)(n_bytes - at));
        int64_t n = end ? end - (bytes + at) : n_bytes - at;
        if (!is_blank(bytes + at, n)) {
            where = mem_format("%s:%lld", r->path, (long long)line);
            TRY(json_read_buffer(bytes + at, n, where, &root));
            TRY(json_get_string(root, where, "text", &text));
            TRY(document_add(r, where, text, (int64_t)strlen(text)));
            json_decref(root);
            free(where);
            root = NULL, where = NULL;
        }
        at += n + 1;
    }
done:
    json_decref(root);
    free(where);
    return status;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), n_tail = strlen(tail);
    return n >= n_tail && strcmp(s + n - n_tail, tail) == 0;
}

static enum status file_add(struct reader *r) {
    enum status status = STATUS_OK;
    char *bytes = NULL;
    int64_t n_bytes = 0, before = r->n_bytes;
    TRY(file_read(r->path, FILE_BYTES_MAX, &bytes, &n_bytes));
    if (ends_with(r->path, ".jsonl"))
        TRY(lines_add(r, bytes, n_bytes));
    else
        TRY(document_add(r, r->path, bytes, n_bytes));
    if (r->n_bytes == before) TRY(status_set(STATUS_FORMAT, "%s: the corpus is empty", r->path));
done:
    mem_buffer_free(bytes);
    return status;
}

enum status corpus_read(const struct tokenizer *tokenizer, const char *const *paths, int64_t n_paths,
                        int64_t vocab_size, struct corpus **out) {
    REQUIRE(n_paths > 0, "a corpus needs a file");
    enum status status = STATUS_OK;
    struct reader r = {.tokenizer = tokenizer, .vocab_size = vocab_size};
    struct corpus *corpus = mem_new(1, sizeof *corpus);
    corpus->name =
        n_paths == 1 ? mem_string(paths[0]) : mem_format("%s and %lld more", paths[0], (long long)n_paths - 1);
    corpus->ends = mem_new((size_t)n_paths, sizeof *corpus->ends);
    for (; corpus->n_files < n_paths; corpus->n_files++) {
        r.path = paths[corpus->n_files];
        TRY(file_add(&r));
        corpus->ends[corpus->n_files] = r.tokens.n_bytes / (int64_t)sizeof(int32_t);
    }
    corpus->tokens = (int32_t *)(void *)r.tokens.bytes;
    corpus->n_tokens = r.tokens.n_bytes / (int64_t)sizeof(int32_t);
    corpus->n_bytes = r.n_bytes;
    r.tokens = (struct buffer){0};
    *out = corpus;
    corpus = NULL;
done:
    buffer_free(&r.tokens);
    corpus_free(corpus);
    return status;
}

void corpus_free(struct corpus *corpus) {
    if (!corpus) return;
    free(corpus->name);
    free(corpus->ends);
    mem_buffer_free(corpus->tokens);
    free(corpus);
}

static int64_t file_start(const struct corpus *corpus, int64_t file) { return file > 0 ? corpus->ends[file - 1] : 0; }

enum status corpus_windows(const struct corpus *corpus, int64_t seq_len, int64_t *n_windows) {
    REQUIRE(seq_len > 0, "a window has at least one token");
    int64_t n = 0, longest = 0;
    for (int64_t file = 0; file < corpus->n_files; file++) {
        int64_t n_tokens = corpus->ends[file] - file_start(corpus, file);
        n += n_tokens / seq_len;
        if (n_tokens > longest) longest = n_tokens;
    }
    if (n == 0)
        return status_set(STATUS_INVALID,
                          "%s: %s%lld tokens are fewer than one window of %lld; give more text or a shorter "
                          "--seq-len",
                          corpus->name, corpus->n_files > 1 ? "at most " : "", (long long)longest, (long long)seq_len);
    *n_windows = n;
    return STATUS_OK;
}

const int32_t *corpus_window(const struct corpus *corpus, int64_t seq_len, int64_t i) {
    REQUIRE(i >= 0 && seq_len > 0, "no such window");
    for (int64_t file = 0; file < corpus->n_files; file++) {
        int64_t start = file_start(corpus, file), n = (corpus->ends[file] - start) / seq_len;
        if (i < n) return corpus->tokens + start + i * seq_len;
        i -= n;
    }
    REQUIRE(false, "no such window");
    return NULL;
}

int64_t *corpus_order(int64_t n_windows, uint64_t seed) {
    int64_t *order = mem_new((size_t)n_windows, sizeof *order);
    rng_permutation((struct rng){.seed = seed, .stream = RNG_ORDER}, order, n_windows);
    return order;
}

enum status corpus_draw(const struct corpus *corpus, int64_t seq_len, uint64_t seed, int64_t first, int64_t n,
                        int32_t *tokens) {
    int64_t windows = 0;
    enum status status = corpus_windows(corpus, seq_len, &windows);
    if (status != STATUS_OK) return status;
    if (first < 0 || n < 0 || first > windows - n)
        return status_set(STATUS_INVALID, "%s: has %lld windows of %lld tokens, %lld are needed", corpus->name,
                          (long long)windows, (long long)seq_len, (long long)(first + n));
    int64_t *order = corpus_order(windows, seed);
    for (int64_t k = 0; k < n; k++)
        memcpy(tokens + k * seq_len, corpus_window(corpus, seq_len, order[first + k]),
               (size_t)seq_len * sizeof *tokens);
    free(order);
    return STATUS_OK;
}

// round(share n): of n windows those of the second corpus.
static int64_t of_second(double share, int64_t n) { return (int64_t)floor(share * (double)n + 0.5); }

static int64_t mixed_windows(int64_t n_first, int64_t n_second, double share, int64_t most) {
    double bound = share < 1 ? (double)n_first / (1 - share) : INFINITY;
    if (share > 0) bound = fmin(bound, (double)n_second / share);
    int64_t n = (int64_t)bound + 2; // rounding may allow one more
    if (most > 0 && most < n) n = most;
    while (n > 0 && (of_second(share, n) > n_second || n - of_second(share, n) > n_first)) n--;
    return n;
}

enum status corpus_mix(const struct corpus *first, const struct corpus *second, double share, int64_t seq_len,
                       int64_t most, struct corpus **out) {
    REQUIRE(share >= 0 && share <= 1, "a share is at most the whole");
    enum status status = STATUS_OK;
    int64_t n_first = 0, n_second = 0, at_first = 0, at_second = 0;
    void *tokens = NULL;
    struct corpus *corpus = NULL;
    if (share < 1) TRY(corpus_windows(first, seq_len, &n_first));
    if (share > 0) TRY(corpus_windows(second, seq_len, &n_second));
    int64_t n = mixed_windows(n_first, n_second, share, most);
    if (n == 0)
        TRY(status_set(STATUS_INVALID, "%s and %s: no mixture with a share of %g in one window of each", first->name,
                       second->name, share));
    corpus = mem_new(1, sizeof *corpus);
    corpus->name = mem_format("%s and %s", first->name, second->name);
    corpus->n_files = 1;
    corpus->ends = mem_new(1, sizeof *corpus->ends);
    TRY(mem_buffer_new(n * seq_len * (int64_t)sizeof *corpus->tokens, "a mixture of texts", &tokens));
    corpus->tokens = tokens;
    corpus->n_tokens = corpus->ends[0] = n * seq_len;
    for (int64_t i = 0; i < n; i++) {
        bool is_second = of_second(share, i + 1) > at_second;
        const int32_t *from =
            is_second ? corpus_window(second, seq_len, at_second++) : corpus_window(first, seq_len, at_first++);
        memcpy(corpus->tokens + i * seq_len, from, (size_t)seq_len * sizeof *from);
    }
    *out = corpus;
    corpus = NULL;
done:
    corpus_free(corpus);
    return status;
}
