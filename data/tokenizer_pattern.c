// Regular expressions of tokenizer.json files. They are written for Oniguruma and read here by PCRE2; where the same
// construct means something else, the source is rewritten, and what cannot be rewritten is refused by name:
//
//   \s \S     PCRE2 counts U+180E as white space; written out as ranges
//   \p{L} …   characters newer than the PCRE2 library are added (tokenizer_unicode.c; scripts are not)
//   \d        as \p{Nd}
//   ^ $       match at line ends in Oniguruma's default syntax: PCRE2_MULTILINE
//   refused   sets inside sets, &&, {n}+, {,n}, (?m, (?s, (?x, names, verbs, \w \b \h \v \R \X and the like
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

const char pattern_gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pattern_word[] = "[\\p{Alphabetic}\\p{L}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const char pattern_digit[] = "\\p{N}";

// A word of megabytes may need as many steps as it has bytes; a pattern that needs far more is a bad one.
enum { MATCH_STEPS = 1000000, MATCH_STEPS_PER_BYTE = 16, MATCH_HEAP_KB = 1 << 18 };

#define SPACE "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                                      \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"                \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

struct pattern {
    pcre2_code *code;
    char *source, *where; // for messages
    bool jit;
};

struct pattern_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
};

// ---- rewriting

struct rewrite {
    const char *at, *source, *where;
    struct buffer out;
    bool in_set;
};

static enum status refused(const struct rewrite *r, const char *what, int length) {
    return status_set(STATUS_UNSUPPORTED, "%s: '%.*s'%s at byte %td of the pattern '%s' is not supported", r->where,
                      length, r->at, what, r->at - r->source, r->source);
}

static enum status put(struct rewrite *r, const char *text) {
    return buffer_append(&r->out, text, (int64_t)strlen(text), "a pattern");
}

static enum status copy(struct rewrite *r, int64_t n) {
    enum status status = buffer_append(&r->out, r->at, n, "a pattern");
    r->at += n;
    return status;
}

// A property with what is newer than PCRE2; \P{…} inside a set cannot be written with additions.
static enum status put_property(struct rewrite *r, bool negated, const char *property, int length, const char *more) {
    enum status status = STATUS_OK;
    if (negated && r->in_set) return refused(r, " inside a set", 2);
    if (!r->in_set) TRY(put(r, negated ? "[^" : "["));
    TRY(put(r, "\\p{"));
    TRY(buffer_append(&r->out, property, length, "a pattern"));
    TRY(put(r, "}"));
    TRY(put(r, more));
    if (!r->in_set) TRY(put(r, "]"));
done:
    return status;
}

// \p{…} and \P{…}
static enum status rewrite_property(struct rewrite *r) {
    const char *close = strchr(r->at, '}');
    if (r->at[2] != '{' || !close) return refused(r, " (a property without braces)", 2);
    int length = (int)(close - r->at) + 1;
    const char *property = r->at + 3, *more = unicode_additions(property, length - 4);
    if (!more) return copy(r, length);
    enum status status = put_property(r, r->at[1] == 'P', property, length - 4, more);
    r->at += length;
    return status;
}

static enum status rewrite_escape(struct rewrite *r) {
    enum status status = STATUS_OK;
    char c = r->at[1];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (c == 0) return refused(r, " (nothing behind it)", 1);
    if (!letter) return copy(r, 2);
    switch (c) {
    case 's':
    case 'S':
        r->at += 2;
        if (r->in_set) return put(r, c == 's' ? SPACE : NOT_SPACE);
        return put(r, c == 's' ? "[" SPACE "]" : "[^" SPACE "]");
    case 'p':
    case 'P': return rewrite_property(r);
    case 'd':
    case 'D':
        status = put_property(r, c == 'D', "Nd", 2, unicode_additions("Nd", 2));
        r->at += 2;
        return status;
    case 'n':
    case 'r':
    case 't':
    case 'f': return copy(r, 2);
    case 'x':
        if (r->at[2] == '{') return copy(r, 3);
        if (r->at[2] >= '0' && r->at[2] <= '7') return copy(r, 3);
        return refused(r, "", 2);
    default: return refused(r, "", 2);
    }
}

static enum status rewrite_set(struct rewrite *r) {
    enum status status = STATUS_OK;
    r->in_set = true;
    TRY(copy(r, r->at[1] == '^' ? 2 : 1));
    if (*r->at == ']') return refused(r, " first in a set", 1);
    while (*r->at != ']') {
        if (*r->at == 0) return refused(r, " (a set without end)", 1);
        if (*r->at == '[') return refused(r, " inside a set", 1);
        if (r->at[0] == '&' && r->at[1] == '&') return refused(r, "", 2);
        if (*r->at == '\\')
            TRY(rewrite_escape(r));
        else
            TRY(copy(r, 1));
    }
    r->in_set = false;
    TRY(copy(r, 1));
done:
    return status;
}

static enum status rewrite_group(struct rewrite *r) {
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)", "(?-i:"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(r->at, known[i], strlen(known[i])) == 0) return copy(r, (int64_t)strlen(known[i]));
    if (r->at[1] == '*') return refused(r, "", 2);
    if (r->at[1] == '?') return refused(r, "", r->at[2] ? 3 : 2);
    return copy(r, 1);
}

// {n}, {n,}, {n,m}; anything else in braces means a repetition to one library and plain text to the other.
static enum status rewrite_braces(struct rewrite *r) {
    size_t n = 1 + strspn(r->at + 1, "0123456789");
    if (n > 1 && r->at[n] == ',') n += 1 + strspn(r->at + n + 1, "0123456789");
    if (n == 1 || r->at[n] != '}') return refused(r, " (not {n}, {n,} or {n,m})", 1);
    if (r->at[n + 1] == '+') return refused(r, "", (int)n + 2);
    return copy(r, (int64_t)n + 1);
}

static enum status rewrite(struct rewrite *r) {
    enum status status = STATUS_OK;
    while (*r->at) {
        switch (*r->at) {
        case '\\': TRY(rewrite_escape(r)); break;
        case '[': TRY(rewrite_set(r)); break;
        case '(': TRY(rewrite_group(r)); break;
        case '{': TRY(rewrite_braces(r)); break;
        default: TRY(copy(r, 1));
        }
    }
done:
    return status;
}

// ---- compiling and matching

static enum status compile(struct pattern *pattern, const struct buffer *rewritten) {
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    REQUIRE(context, "out of memory for a small allocation");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int error = 0;
    PCRE2_SIZE at = 0;
    pattern->code = pcre2_compile((PCRE2_SPTR)rewritten->bytes, (PCRE2_SIZE)rewritten->n_bytes,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(error, why, sizeof why);
        return status_set(STATUS_FORMAT, "%s: the pattern '%s' does not compile: %s", pattern->where, pattern->source,
                          (const char *)why);
    }
    pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
    return STATUS_OK;
}

enum status pattern_new(const char *source, const char *where, struct pattern **out) {
    enum status status = STATUS_OK;
    struct rewrite r = {.at = source, .source = source, .where = where};
    struct pattern *pattern = mem_new(1, sizeof *pattern);
    pattern->source = mem_string(source);
    pattern->where = mem_string(where);
    if (!source[0]) TRY(status_set(STATUS_UNSUPPORTED, "%s: an empty pattern is not supported", where));
    TRY(rewrite(&r));
    TRY(compile(pattern, &r.out));
    *out = pattern;
    pattern = NULL;
done:
    pattern_free(pattern);
    buffer_free(&r.out);
    return status;
}

void pattern_free(struct pattern *pattern) {
    if (!pattern) return;
    pcre2_code_free(pattern->code);
    free(pattern->source);
    free(pattern->where);
    free(pattern);
}

struct pattern_scratch *pattern_scratch_new(void) {
    struct pattern_scratch *scratch = mem_new(1, sizeof *scratch);
    scratch->match = pcre2_match_data_create(1, NULL);
    scratch->context = pcre2_match_context_create(NULL);
    REQUIRE(scratch->match && scratch->context, "out of memory for a small allocation");
    pcre2_set_heap_limit(scratch->context, MATCH_HEAP_KB);
    return scratch;
}

void pattern_scratch_free(struct pattern_scratch *scratch) {
    if (!scratch) return;
    pcre2_match_data_free(scratch->match);
    pcre2_match_context_free(scratch->context);
    free(scratch);
}

enum status pattern_find(const struct pattern *pattern, struct pattern_scratch *scratch, const char *text, int64_t n,
                         int64_t from, int64_t *start, int64_t *end) {
    int64_t steps = MATCH_STEPS + (n - from) * MATCH_STEPS_PER_BYTE;
    pcre2_set_match_limit(scratch->context, steps < UINT32_MAX ? (uint32_t)steps : UINT32_MAX);
    int found = PCRE2_ERROR_JIT_STACKLIMIT;
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    if (pattern->jit)
        found = pcre2_jit_match(pattern->code, subject, (PCRE2_SIZE)n, (PCRE2_SIZE)from, PCRE2_NO_UTF_CHECK,
                                scratch->match, scratch->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter has a stack that grows
        found = pcre2_match(pattern->code, subject, (PCRE2_SIZE)n, (PCRE2_SIZE)from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                            scratch->match, scratch->context);
    if (found == PCRE2_ERROR_NOMATCH) return *start = -1, STATUS_OK;
    if (found < 0) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(found, why, sizeof why);
        return status_set(STATUS_UNSUPPORTED, "%s: the pattern '%s' gives up behind byte %lld of a text: %s",
                          pattern->where, pattern->source, (long long)from, (const char *)why);
    }
    const PCRE2_SIZE *bounds = pcre2_get_ovector_pointer(scratch->match);
    *start = (int64_t)bounds[0];
    *end = (int64_t)bounds[1];
    return STATUS_OK;
}
