// WikiText-2 by pages: where a page begins, and what its text was before it was cut into tokens.
#include "bench/harness.h"

#include "bench/python_text.h"
#include "core/base/mem.h"
#include "data/file.h"
#include "data/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 31;

// Takes `text`.
static char *replaced(char *text, const char *from, const char *to) {
    char *out = python_replace(text, from, to);
    free(text);
    return out;
}

// Takes the white space off both ends of what stands between `open` and the next `close`.
static char *tightened(char *text, char open, char close) {
    char *out = NULL;
    size_t n = 0;
    FILE *stream = open_memstream(&out, &n);
    REQUIRE(stream, "out of memory");
    for (const char *at = text; *at;) {
        const char *end = *at == open ? strchr(at + 1, close) : NULL;
        if (!end) {
            fputc(*at++, stream);
            continue;
        }
        const char *from = python_behind_space(at + 1), *last = from;
        for (const char *c = from; c < end; c += utf8_length(*c))
            if (!python_space_at(c)) last = c + utf8_length(*c);
        fputc(open, stream);
        if (last > from) fwrite(from, 1, (size_t)(last - from), stream);
        fputc(close, stream);
        at = end + 1;
    }
    fclose(stream);
    free(text);
    return out;
}

// /' 5/ becomes the literal text /'[0-9]/: what the harness's substitution says.
static char *slashed(char *text) {
    char *out = NULL;
    size_t n = 0;
    FILE *stream = open_memstream(&out, &n);
    REQUIRE(stream, "out of memory");
    for (const char *at = text; *at;) {
        if (strncmp(at, "/' ", 3) == 0 && at[3] >= '0' && at[3] <= '9' && at[4] == '/') {
            fputs("/'[0-9]/", stream);
            at += 5;
        } else
            fputc(*at++, stream);
    }
    fclose(stream);
    free(text);
    return out;
}

char *harness_detokenize(const char *page) {
    static const char *const plain[][2] = {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}, {" : ", ": "}, {" ; ", "; "},
                                           {" . ", ". "},  {" ! ", "! "},  {" ? ", "? "},  {" , ", ", "}};
    static const char *const last[][2] = {
        {"= = = =", "===="}, {"= = =", "==="}, {"= =", "=="},  {" \xc2\xb0 ", "\xc2\xb0"},
        {" \n", "\n"},       {"\n ", "\n"},    {" N ", " 1 "}, {" 's", "'s"}};
    char *text = slashed(replaced(mem_string(page), "s '", "s'"));
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) text = replaced(text, plain[i][0], plain[i][1]);
    text = tightened(text, '(', ')');
    text = tightened(text, '[', ']');
    text = tightened(text, '{', '}');
    text = tightened(text, '"', '"');
    text = tightened(text, '\'', '\'');
    for (size_t i = 0; i < sizeof last / sizeof *last; i++) text = replaced(text, last[i][0], last[i][1]);
    return text;
}

// Parts that \s+ cuts the text into, empty ones at its ends too.
static int64_t words_of(const char *text) {
    int64_t words = 1;
    while (*text) {
        const char *behind = python_behind_space(text);
        words += behind > text;
        text = behind > text ? behind : text + utf8_length(*text);
    }
    return words;
}

static void page_add(struct harness_docs *docs, const char *page) {
    struct harness_doc *doc = harness_doc_add(docs, 1);
    doc->requests[0] = (struct harness_request){.context = mem_string(""), .continuation = harness_detokenize(page)};
    doc->words = words_of(page);
    doc->bytes = (int64_t)strlen(page);
}

// "= Title =" after the spaces inside of longer rows of = have been taken out: not "= = Section = =".
static bool is_title(const char *line, size_t n) {
    char *copy = replaced(replaced(mem_string_n(line, n), "= = =", "==="), "= =", "==");
    const char *from = python_behind_space(copy), *end = python_end(from);
    size_t length = (size_t)(end - from);
    bool is = length >= 2 && strncmp(from, "= ", 2) == 0 && strncmp(end - 2, " =", 2) == 0;
    free(copy);
    return is;
}

enum status harness_read_wikitext(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    enum status status = STATUS_OK;
    char *bytes = NULL, *page = NULL;
    int64_t n_bytes = 0;
    TRY(file_read(path, FILE_BYTES_MAX, &bytes, &n_bytes));
    if (memchr(bytes, 0, (size_t)n_bytes) || utf8_invalid_at(bytes, n_bytes) >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: is no UTF-8 text", path));
    const char *first = bytes; // of the page
    for (const char *line = bytes; line && !harness_is_full(docs, options);) {
        const char *end = strchr(line, '\n');
        if (line > first && is_title(line, end ? (size_t)(end - line) : strlen(line))) {
            page = mem_string_n(first, (size_t)(line - first) - 1); // lines are joined: no newline behind the last
            if (*python_behind_space(page)) page_add(docs, page);
            free(page);
            page = NULL;
            first = line;
        }
        line = end ? end + 1 : NULL;
    }
    if (!harness_is_full(docs, options)) page_add(docs, first);
done:
    free(page);
    mem_buffer_free(bytes);
    return status;
}
