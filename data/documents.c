#include "data/documents.h"

#include "core/base/mem.h"
#include "data/buffer.h"
#include "data/file.h"
#include "data/json.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 40;

struct visitor {
    const char *path;
    document_visit *visit;
    void *self;
    int64_t n_documents;
};

static enum status document_put(struct visitor *v, int64_t line, const char *text, int64_t n) {
    char *where = mem_format("%s:%lld", v->path, (long long)line);
    enum status status = v->visit(v->self, where, text, n);
    v->n_documents++;
    free(where);
    return status;
}

static bool is_blank(const char *line, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

static enum status text_each(struct visitor *v, const char *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    int64_t start = -1, end = 0, start_line = 0, line = 1; // start: of the document in progress, -1 = none
    for (int64_t at = 0; at < n_bytes; line++) {
        const char *newline = memchr(bytes + at, '\n', (size_t)(n_bytes - at));
        int64_t n = newline ? newline - (bytes + at) : n_bytes - at;
        bool blank = is_blank(bytes + at, n);
        if (blank && start >= 0) {
            TRY(document_put(v, start_line, bytes + start, end - start));
            start = -1;
        } else if (!blank) {
            if (start < 0) start = at, start_line = line;
            end = at + n;
        }
        at += n + 1;
    }
    if (start >= 0) TRY(document_put(v, start_line, bytes + start, end - start));
done:
    return status;
}

static enum status json_line(struct visitor *v, int64_t line, const char *bytes, int64_t n) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    const char *text = NULL;
    char *where = mem_format("%s:%lld", v->path, (long long)line);
    TRY(json_read_buffer(bytes, n, where, &root));
    TRY(json_get_string(root, where, "text", &text));
    if (*text) TRY(document_put(v, line, text, (int64_t)strlen(text)));
done:
    json_decref(root);
    free(where);
    return status;
}

static enum status lines_each(struct visitor *v, const char *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    int64_t line = 1;
    for (int64_t at = 0; at < n_bytes; line++) {
        const char *newline = memchr(bytes + at, '\n', (size_t)(n_bytes - at));
        int64_t n = newline ? newline - (bytes + at) : n_bytes - at;
        if (!is_blank(bytes + at, n)) TRY(json_line(v, line, bytes + at, n));
        at += n + 1;
    }
done:
    return status;
}

enum status documents_each(const char *path, document_visit *visit, void *self) {
    enum status status = STATUS_OK;
    struct visitor v = {.path = path, .visit = visit, .self = self};
    size_t n_path = strlen(path);
    bool lines = n_path >= 6 && strcmp(path + n_path - 6, ".jsonl") == 0;
    char *bytes = NULL;
    int64_t n_bytes = 0;
    TRY(file_read(path, FILE_BYTES_MAX, &bytes, &n_bytes));
    int64_t invalid = utf8_invalid_at(bytes, n_bytes);
    if (invalid >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: not UTF-8: byte %lld is 0x%02X", path, (long long)invalid,
                       (unsigned)(unsigned char)bytes[invalid]));
    TRY(lines ? lines_each(&v, bytes, n_bytes) : text_each(&v, bytes, n_bytes));
    if (v.n_documents == 0) TRY(status_set(STATUS_FORMAT, "%s: holds no text", path));
done:
    mem_buffer_free(bytes);
    return status;
}

struct encoder {
    const struct tokenizer *tokenizer;
    struct buffer tokens; // int32_t
    int64_t n_documents, n_bytes;
};

static enum status document_encode(void *self, const char *where, const char *text, int64_t n_bytes) {
    enum status status = STATUS_OK;
    struct encoder *e = self;
    struct token_list list = {0};
    (void)where;
    TRY(tokenizer_encode(e->tokenizer, text, n_bytes, true, &list));
    TRY(buffer_append(&e->tokens, list.tokens, list.n_tokens * (int64_t)sizeof(int32_t), "the tokens of a corpus"));
    e->n_documents++;
    e->n_bytes += n_bytes;
done:
    token_list_free(&list);
    return status;
}

enum status documents_encode(const struct tokenizer *tokenizer, const char *const *paths, int64_t n_paths,
                             struct document_stream *out) {
    enum status status = STATUS_OK;
    struct encoder e = {.tokenizer = tokenizer};
    for (int64_t i = 0; i < n_paths; i++) TRY(documents_each(paths[i], document_encode, &e));
    *out = (struct document_stream){.tokens = (int32_t *)(void *)e.tokens.bytes,
                                    .n_tokens = e.tokens.n_bytes / (int64_t)sizeof(int32_t),
                                    .n_documents = e.n_documents,
                                    .n_bytes = e.n_bytes};
    e.tokens = (struct buffer){0};
done:
    buffer_free(&e.tokens);
    return status;
}

void document_stream_free(struct document_stream *stream) {
    mem_buffer_free(stream->tokens);
    *stream = (struct document_stream){0};
}
