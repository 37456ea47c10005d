#include "data/tokenize.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "data/buffer.h"
#include "data/file.h"
#include "data/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const int64_t INPUT_BYTES_MAX = (int64_t)1 << 40;

static enum status stdin_read(struct buffer *out) {
    enum status status = STATUS_OK;
    size_t got = 0;
    do {
        TRY(buffer_reserve(out, 1 << 16, "the text on stdin"));
        got = fread(out->bytes + out->n_bytes, 1, 1 << 16, stdin);
        out->n_bytes += (int64_t)got;
    } while (got > 0);
    if (ferror(stdin)) TRY(status_set(STATUS_IO, "stdin: cannot read it: %s", strerror(errno)));
    TRY(buffer_append(out, "", 1, "the text on stdin")); // the zero byte that file_read puts behind a text too
    out->n_bytes--;
done:
    return status;
}

static enum status input_read(const struct tokenize_options *options, struct buffer *out) {
    if (!options->input || strcmp(options->input, "-") == 0) return stdin_read(out);
    enum status status = file_read(options->input, INPUT_BYTES_MAX, &out->bytes, &out->n_bytes);
    out->capacity = out->n_bytes;
    return status;
}

// Ids separated by white space.
static enum status ids_read(const struct buffer *input, const char *where, int32_t vocab_size, struct buffer *ids) {
    enum status status = STATUS_OK;
    const char *at = input->bytes, *end = at + input->n_bytes;
    for (;;) {
        while (at < end && strchr(" \t\r\n", *at) && *at) at++;
        if (at == end) break;
        char *behind = (char *)at;
        errno = 0;
        long value = *at >= '0' && *at <= '9' ? strtol(at, &behind, 10) : -1;
        bool ends = behind == end || (*behind && strchr(" \t\r\n", *behind));
        if (value < 0 || value >= vocab_size || errno || !ends)
            TRY(status_set(STATUS_FORMAT, "%s: at byte %td there is no token id in [0, %d)", where, at - input->bytes,
                           (int)vocab_size));
        int32_t id = (int32_t)value;
        TRY(buffer_append(ids, &id, sizeof id, "the ids"));
        at = behind;
    }
done:
    return status;
}

static void count_print(FILE *out, int64_t n_tokens, int64_t n_bytes, double seconds) {
    fprintf(out, "%lld tokens, %lld bytes, %.6f s\n", (long long)n_tokens, (long long)n_bytes, seconds);
}

static enum status encode_print(const struct tokenize_options *options, const struct tokenizer *t,
                                const struct buffer *input, FILE *out) {
    enum status status = STATUS_OK;
    struct token_list list = {0};
    double start = clock_seconds();
    TRY(tokenizer_encode(t, input->bytes, input->n_bytes, !options->no_special, &list));
    if (options->count) {
        count_print(out, list.n_tokens, input->n_bytes, clock_seconds() - start);
    } else {
        for (int64_t i = 0; i < list.n_tokens; i++) fprintf(out, "%s%d", i ? " " : "", (int)list.tokens[i]);
        fputc('\n', out);
    }
done:
    token_list_free(&list);
    return status;
}

static enum status decode_print(const struct tokenize_options *options, const struct tokenizer *t,
                                const struct buffer *input, FILE *out) {
    enum status status = STATUS_OK;
    struct buffer ids = {0};
    char *text = NULL;
    int64_t n_bytes = 0;
    const char *where = options->input ? options->input : "stdin";
    double start = clock_seconds();
    TRY(ids_read(input, where, tokenizer_vocab_size(t), &ids));
    int64_t n = ids.n_bytes / (int64_t)sizeof(int32_t);
    TRY(tokenizer_decode(t, (const int32_t *)(void *)ids.bytes, n, options->no_special, &text, &n_bytes));
    if (options->count)
        count_print(out, n, n_bytes, clock_seconds() - start);
    else
        fwrite(text, 1, (size_t)n_bytes, out);
done:
    buffer_free(&ids);
    mem_buffer_free(text);
    return status;
}

enum status tokenize_print(const struct tokenize_options *options, FILE *out) {
    enum status status = STATUS_OK;
    struct tokenizer *t = NULL;
    struct buffer input = {0};
    TRY(tokenizer_open(options->tokenizer, &t));
    TRY(input_read(options, &input));
    if (options->decode)
        TRY(decode_print(options, t, &input, out));
    else
        TRY(encode_print(options, t, &input, out));
done:
    buffer_free(&input);
    tokenizer_free(t);
    return status;
}
