// GSM8K with worked examples: what is generated, and which number of it counts.
#include "bench/harness.h"

#include "bench/json_lines.h"
#include "bench/python_text.h"
#include "core/base/mem.h"
#include "data/json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const struct harness_options *options;
    struct harness_docs *docs;
};

static enum status gsm8k_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    enum status status = STATUS_OK;
    struct reader *r = context;
    (void)line;
    const char *question, *answer, *last;
    TRY(json_get_string(object, where, "question", &question));
    TRY(json_get_string(object, where, "answer", &answer));
    last = answer;
    for (const char *mark; (mark = strstr(last, "####"));) last = mark + 4;
    if (last == answer) TRY(status_set(STATUS_FORMAT, "%s: \"answer\" has no ####", where));
    struct harness_doc *doc = harness_doc_add(r->docs, 1);
    doc->target = python_strip(last);
    doc->requests[0].context = mem_format("%sQ: %s\nA:", r->options->prompt ? r->options->prompt : "", question);
    *stop = harness_is_full(r->docs, r->options);
done:
    return status;
}

enum status harness_read_gsm8k(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    struct reader reader = {options, docs};
    return json_lines_read(path, gsm8k_line, &reader);
}

// ---- answers ----

static const char invalid[] = "[invalid]";

// How many bytes of `text` are digits, commas, full stops, and dollars where they are allowed.
static size_t run_of(const char *text, bool dollars) {
    return strspn(text, dollars ? "$0123456789.," : "0123456789.,");
}

char *harness_answer_strict(const char *text) {
    static const char words[] = "The answer is ";
    for (const char *at = text; (at = strstr(at, words)); at++) {
        const char *number = at + strlen(words);
        size_t sign = *number == '-', n = run_of(number + sign, false);
        char behind = number[sign + n];
        // One character that is no newline has to follow: the last of the number where nothing else does.
        if (behind == 0 || behind == '\n') n = n ? n - 1 : 0;
        if (n) return mem_string_n(number, sign + n);
    }
    return mem_string(invalid);
}

char *harness_answer_flexible(const char *text) {
    const char *last = NULL;
    size_t length = 0;
    for (const char *at = text; *at;) {
        size_t sign = *at == '-', n = run_of(at + sign, true);
        if (n < 2) n = strspn(at + sign, "0123456789");
        if (!n) {
            at++;
            continue;
        }
        last = at, length = sign + n;
        at += length;
    }
    return last ? mem_string_n(last, length) : mem_string(invalid);
}

// A new string.
static char *comparable(const char *text) {
    char *out = mem_string(text), *to = out;
    for (const char *c = text; *c; c++)
        if (*c != ',' && *c != '$') *to++ = (char)tolower((unsigned char)*c);
    *to = 0;
    char *behind = out;
    for (char *mark; (mark = strstr(behind, "#### "));) behind = mark + 5;
    memmove(out, behind, strlen(behind) + 1);
    size_t n = strlen(out);
    if (n && out[n - 1] == '.') out[n - 1] = 0;
    return out;
}

bool harness_answers_agree(const char *answer, const char *target) {
    char *a = comparable(answer), *b = comparable(target);
    bool agree = strcmp(a, b) == 0;
    free(a);
    free(b);
    return agree;
}
