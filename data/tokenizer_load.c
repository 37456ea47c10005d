// The steps around the model in a tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder. Sequences, also
// nested ones, become one flat list.
#include "data/tokenizer_parts.h"

#include "core/base/mem.h"
#include "data/json.h"
#include "data/utf8.h"

#include <string.h>

static struct text text_of(const char *s) { return (struct text){.bytes = mem_string(s), .n = (int64_t)strlen(s)}; }

static enum status unsupported(const struct tokenizer *t, const char *what, const char *type, const char *known) {
    return status_set(STATUS_UNSUPPORTED, "%s: %s '%s' is not supported (only %s)", t->name, what, type, known);
}

typedef enum status step_load(struct tokenizer *tokenizer, const json_t *step, const char *type);

// Calls `load` for every step under root[section]; a Sequence keeps its steps in `list`.
static enum status steps_walk(struct tokenizer *t, const json_t *step, const char *list, step_load *load) {
    enum status status = STATUS_OK;
    const char *type = NULL;
    json_t *steps = NULL;
    TRY(json_get_string(step, t->name, "type", &type));
    if (strcmp(type, "Sequence") != 0) return load(t, step, type);
    TRY(json_get_array(step, t->name, list, &steps));
    for (size_t i = 0; i < json_array_size(steps); i++) TRY(steps_walk(t, json_array_get(steps, i), list, load));
done:
    return status;
}

static enum status section_load(struct tokenizer *t, const json_t *root, const char *section, const char *list,
                                step_load *load, bool *there) {
    enum status status = STATUS_OK;
    json_t *step = NULL;
    TRY(json_get_object_or(root, t->name, section, NULL, &step));
    *there = step != NULL;
    if (step) TRY(steps_walk(t, step, list, load));
done:
    return status;
}

static enum status room(const struct tokenizer *t, int n, const char *what) {
    if (n < STEPS_MAX) return STATUS_OK;
    return status_set(STATUS_UNSUPPORTED, "%s: more than %d %s steps", t->name, STEPS_MAX, what);
}

// {"String": text} or {"Regex": text}
static enum status pattern_source(const struct tokenizer *t, const json_t *step, const char **string,
                                  const char **regex) {
    enum status status = STATUS_OK;
    json_t *pattern = NULL;
    TRY(json_get_object(step, t->name, "pattern", &pattern));
    TRY(json_get_string_or(pattern, t->name, "String", NULL, string));
    TRY(json_get_string_or(pattern, t->name, "Regex", NULL, regex));
    if (!*string == !*regex)
        TRY(status_set(STATUS_FORMAT, "%s: \"pattern\" must hold either \"String\" or \"Regex\"", t->name));
    if (*string && !(*string)[0]) TRY(status_set(STATUS_UNSUPPORTED, "%s: an empty pattern is not supported", t->name));
done:
    return status;
}

static enum status replace_load(const struct tokenizer *t, const json_t *step, const char **from, const char **to) {
    enum status status = STATUS_OK;
    const char *regex = NULL;
    TRY(pattern_source(t, step, from, &regex));
    if (regex) TRY(status_set(STATUS_UNSUPPORTED, "%s: Replace of the regex '%s' is not supported", t->name, regex));
    TRY(json_get_string(step, t->name, "content", to));
done:
    return status;
}

static enum status one_char(const struct tokenizer *t, const json_t *step, const char *key, const char **out) {
    enum status status = json_get_string(step, t->name, key, out);
    if (status != STATUS_OK) return status;
    if ((*out)[0] && (size_t)utf8_length((*out)[0]) == strlen(*out)) return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: \"%s\" is '%s', must be one character", t->name, key, *out);
}

// ---- normalizer

static enum status normal_step_load(struct tokenizer *t, const json_t *step, const char *type) {
    enum status status = STATUS_OK;
    const char *from = "", *to = NULL;
    TRY(room(t, t->n_normal, "normalizer"));
    if (strcmp(type, "Prepend") == 0)
        TRY(json_get_string(step, t->name, "prepend", &to));
    else if (strcmp(type, "Replace") == 0)
        TRY(replace_load(t, step, &from, &to));
    else
        TRY(unsupported(t, "normalizer", type, "Prepend, Replace, Sequence"));
    t->normal[t->n_normal++] = (struct normal_step){.from = text_of(from), .to = text_of(to)};
done:
    return status;
}

enum status normalizer_load(struct tokenizer *t, const json_t *root) {
    bool there;
    return section_load(t, root, "normalizer", "normalizers", normal_step_load, &there);
}

// ---- pre_tokenizer

static enum status split_add(struct tokenizer *t, const char *literal, const char *regex, enum split_behavior behavior,
                             bool invert) {
    enum status status = STATUS_OK;
    struct pre_step step = {.kind = PRE_SPLIT, .behavior = behavior, .invert = invert};
    TRY(room(t, t->n_pre, "pre_tokenizer"));
    if (regex)
        TRY(pattern_new(regex, t->name, &step.pattern));
    else
        step.literal = text_of(literal);
    t->pre[t->n_pre++] = step;
done:
    return status;
}

static enum status split_load(struct tokenizer *t, const json_t *step) {
    static const char *const behaviors[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                            "Contiguous"};
    enum status status = STATUS_OK;
    const char *string = NULL, *regex = NULL, *behavior = NULL;
    bool invert = false;
    TRY(pattern_source(t, step, &string, &regex));
    TRY(json_get_string(step, t->name, "behavior", &behavior));
    TRY(json_get_bool(step, t->name, "invert", &invert));
    int which = 0;
    while (which < 5 && strcmp(behavior, behaviors[which]) != 0) which++;
    if (which == 5)
        TRY(status_set(STATUS_FORMAT, "%s: the behavior '%s' of Split is none of the five", t->name, behavior));
    TRY(split_add(t, string, regex, (enum split_behavior)which, invert));
done:
    return status;
}

static enum status metaspace_scheme(const struct tokenizer *t, const json_t *step, enum prepend_scheme *out) {
    static const char *const schemes[] = {"always", "first", "never"};
    enum status status = STATUS_OK;
    const char *scheme = NULL;
    bool prefix = true;
    TRY(json_get_string_or(step, t->name, "prepend_scheme", "always", &scheme));
    TRY(json_get_bool_or(step, t->name, "add_prefix_space", true, &prefix));
    int which = 0;
    while (which < 3 && strcmp(scheme, schemes[which]) != 0) which++;
    if (which == 3) TRY(status_set(STATUS_FORMAT, "%s: prepend_scheme '%s' is unknown", t->name, scheme));
    // As the reference does; its default is "always", so that add_prefix_space false alone is a contradiction too.
    if (!prefix && which != PREPEND_NEVER)
        TRY(status_set(STATUS_FORMAT, "%s: add_prefix_space false contradicts prepend_scheme '%s'", t->name, scheme));
    *out = (enum prepend_scheme)which;
done:
    return status;
}

static enum status metaspace_load(struct tokenizer *t, const json_t *step) {
    enum status status = STATUS_OK;
    const char *replacement = NULL;
    bool split = true;
    enum prepend_scheme scheme = PREPEND_ALWAYS;
    TRY(room(t, t->n_pre, "pre_tokenizer"));
    TRY(one_char(t, step, "replacement", &replacement));
    TRY(metaspace_scheme(t, step, &scheme));
    TRY(json_get_bool_or(step, t->name, "split", true, &split));
    // Which piece is the first is a question about the original text; it is answered for the plain case only.
    for (int i = 0; i < t->n_normal && scheme == PREPEND_FIRST; i++)
        if (t->normal[i].from.n > 0 && t->normal[i].to.n == 0)
            TRY(unsupported(t, "prepend_scheme", "first", "always and never behind a normalizer that removes text"));
    if (scheme == PREPEND_FIRST && t->n_pre > 0)
        TRY(unsupported(t, "prepend_scheme", "first", "always and never behind another pre_tokenizer"));
    t->pre[t->n_pre++] = (struct pre_step){.kind = PRE_METASPACE, .literal = text_of(replacement), .scheme = scheme};
    if (split) TRY(split_add(t, replacement, NULL, SPLIT_NEXT, false));
done:
    return status;
}

static enum status byte_level_load(struct tokenizer *t, const json_t *step) {
    enum status status = STATUS_OK;
    bool prefix = false, regex = true;
    TRY(json_get_bool(step, t->name, "add_prefix_space", &prefix));
    TRY(json_get_bool_or(step, t->name, "use_regex", true, &regex));
    TRY(room(t, t->n_pre, "pre_tokenizer"));
    if (prefix) t->pre[t->n_pre++] = (struct pre_step){.kind = PRE_PREFIX_SPACE};
    if (regex) TRY(split_add(t, NULL, pattern_gpt2, SPLIT_ISOLATED, false));
    t->byte_level = true;
done:
    return status;
}

static enum status pre_step_load(struct tokenizer *t, const json_t *step, const char *type) {
    if (t->byte_level)
        return status_set(STATUS_UNSUPPORTED, "%s: pre_tokenizer '%s' behind ByteLevel is not supported", t->name,
                          type);
    if (strcmp(type, "Split") == 0) return split_load(t, step);
    if (strcmp(type, "Metaspace") == 0) return metaspace_load(t, step);
    if (strcmp(type, "ByteLevel") == 0) return byte_level_load(t, step);
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        enum status status = json_get_bool(step, t->name, "individual_digits", &individual);
        if (status != STATUS_OK) return status;
        return split_add(t, NULL, pattern_digit, individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false);
    }
    return unsupported(t, "pre_tokenizer", type, "Split, Digits, ByteLevel, Metaspace, Sequence");
}

enum status pre_tokenizer_load(struct tokenizer *t, const json_t *root) {
    bool there;
    return section_load(t, root, "pre_tokenizer", "pretokenizers", pre_step_load, &there);
}

// ---- post_processor

// The ids of one special token of a template.
static enum status special_load(const struct tokenizer *t, const json_t *specials, const char *name,
                                struct buffer *out) {
    enum status status = STATUS_OK;
    json_t *special = NULL, *ids = NULL;
    TRY(json_get_object(specials, t->name, name, &special));
    TRY(json_get_array(special, t->name, "ids", &ids));
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *entry = json_array_get(ids, i);
        json_int_t id = json_is_integer(entry) ? json_integer_value(entry) : -1;
        if (id < 0 || id >= t->vocab_size)
            TRY(status_set(STATUS_FORMAT, "%s: the template's token '%s' has an id that is none of the vocabulary",
                           t->name, name));
        int32_t token = (int32_t)id;
        TRY(buffer_append(out, &token, sizeof token, "a template"));
    }
done:
    return status;
}

// Fills before and after from "single", a list of {"SpecialToken": {"id": name}} and one {"Sequence": {"id": "A"}}.
static enum status template_split(const struct tokenizer *t, const json_t *step, struct buffer *before,
                                  struct buffer *after) {
    enum status status = STATUS_OK;
    json_t *single = NULL, *specials = NULL, *token = NULL, *sequence = NULL;
    const char *id = NULL;
    int n_sequences = 0;
    TRY(json_get_array(step, t->name, "single", &single));
    TRY(json_get_object(step, t->name, "special_tokens", &specials));
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        TRY(json_get_object_or(piece, t->name, "SpecialToken", NULL, &token));
        TRY(json_get_object_or(piece, t->name, "Sequence", NULL, &sequence));
        if (!token == !sequence)
            TRY(status_set(STATUS_FORMAT, "%s: a template piece is neither SpecialToken nor Sequence", t->name));
        TRY(json_get_string(token ? token : sequence, t->name, "id", &id));
        if (token)
            TRY(special_load(t, specials, id, n_sequences ? after : before));
        else if (strcmp(id, "A") == 0)
            n_sequences++;
        else
            TRY(unsupported(t, "template for one text with sequence", id, "A"));
    }
    if (n_sequences != 1)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: a template that holds the text %d times is not supported", t->name,
                       n_sequences));
done:
    return status;
}

static enum status post_step_load(struct tokenizer *t, const json_t *step, const char *type) {
    enum status status = STATUS_OK;
    struct buffer before = {0}, after = {0};
    if (strcmp(type, "ByteLevel") == 0) return STATUS_OK; // about offsets only
    if (strcmp(type, "TemplateProcessing") != 0)
        return unsupported(t, "post_processor", type, "TemplateProcessing, ByteLevel, Sequence");
    TRY(template_split(t, step, &before, &after));
    // A second template goes around the first.
    TRY(buffer_append(&before, t->before.bytes, t->before.n_bytes, "a template"));
    TRY(buffer_append(&t->after, after.bytes, after.n_bytes, "a template"));
    struct buffer swap = t->before;
    t->before = before;
    before = swap;
done:
    buffer_free(&before);
    buffer_free(&after);
    return status;
}

enum status post_processor_load(struct tokenizer *t, const json_t *root) {
    bool there;
    return section_load(t, root, "post_processor", "processors", post_step_load, &there);
}

// ---- decoder

static enum status strip_load(const struct tokenizer *t, const json_t *step, struct decode_step *out) {
    enum status status = STATUS_OK;
    const char *content = NULL;
    TRY(one_char(t, step, "content", &content));
    TRY(json_get_integer(step, t->name, "start", &out->start));
    TRY(json_get_integer(step, t->name, "stop", &out->stop));
    if (out->start < 0 || out->stop < 0)
        TRY(status_set(STATUS_FORMAT, "%s: Strip has a negative number of characters", t->name));
    out->kind = DECODE_STRIP;
    out->from = text_of(content);
done:
    return status;
}

static enum status decode_step_load(struct tokenizer *t, const json_t *step, const char *type) {
    enum status status = STATUS_OK;
    struct decode_step out = {0};
    const char *from = NULL, *to = NULL;
    TRY(room(t, t->n_decode, "decoder"));
    if (strcmp(type, "ByteLevel") == 0)
        out.kind = DECODE_BYTE_LEVEL;
    else if (strcmp(type, "ByteFallback") == 0)
        out.kind = DECODE_BYTE_FALLBACK;
    else if (strcmp(type, "Fuse") == 0)
        out.kind = DECODE_FUSE;
    else if (strcmp(type, "Strip") == 0)
        TRY(strip_load(t, step, &out));
    else if (strcmp(type, "Replace") == 0) {
        TRY(replace_load(t, step, &from, &to));
        out = (struct decode_step){.kind = DECODE_REPLACE, .from = text_of(from), .to = text_of(to)};
    } else if (strcmp(type, "Metaspace") == 0) {
        enum prepend_scheme scheme = PREPEND_ALWAYS;
        TRY(one_char(t, step, "replacement", &from));
        TRY(metaspace_scheme(t, step, &scheme));
        out = (struct decode_step){
            .kind = DECODE_METASPACE, .from = text_of(from), .drop_first = scheme != PREPEND_NEVER};
    } else {
        TRY(unsupported(t, "decoder", type, "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence"));
    }
    t->decode[t->n_decode++] = out;
done:
    return status;
}

enum status decoder_load(struct tokenizer *t, const json_t *root) {
    return section_load(t, root, "decoder", "decoders", decode_step_load, &t->has_decoder);
}
