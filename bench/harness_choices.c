// Multiple choice: ARC, PIQA, HellaSwag, WinoGrande.
#include "bench/harness.h"

#include "bench/json_lines.h"
#include "bench/python_text.h"
#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const struct harness_options *options;
    struct harness_docs *docs;
    char *labels, *label; // PIQA: text of the labels' file, and its next line; NULL: labels are in the lines
};

static enum status each_line(const char *path, const struct harness_options *options, struct harness_docs *docs,
                             json_lines_take *take) {
    struct reader reader = {options, docs, NULL, NULL};
    return json_lines_read(path, take, &reader);
}

static enum status string_at(const json_t *list, const char *where, const char *key, size_t i, const char **out) {
    const json_t *value = json_array_get(list, i);
    *out = json_string_value(value);
    return *out ? STATUS_OK
                : status_set(STATUS_FORMAT, "%s: \"%s\"[%zu] is %s, must be a string", where, key, i, json_kind(value));
}

static enum status gold_check(const char *where, int64_t gold, int64_t n) {
    return gold >= 0 && gold < n ? STATUS_OK
                                 : status_set(STATUS_FORMAT, "%s: the right one is number %lld of %lld choices", where,
                                              (long long)gold, (long long)n);
}

// A document of several choices behind one context.
static enum status add_choices(struct reader *r, const char *where, const char *context, const json_t *choices,
                               const char *key, int64_t gold) {
    enum status status = STATUS_OK;
    size_t n = json_array_size(choices);
    if (n < 2) TRY(status_set(STATUS_FORMAT, "%s: \"%s\" has %zu entries, must have 2 or more", where, key, n));
    TRY(gold_check(where, gold, (int64_t)n));
    struct harness_doc *doc = harness_doc_add(r->docs, (int64_t)n);
    doc->gold = gold;
    for (size_t i = 0; i < n; i++) {
        const char *choice;
        TRY(string_at(choices, where, key, i, &choice));
        harness_choice(doc, (int64_t)i, mem_string(context), choice);
    }
done:
    return status;
}

// {"query", "choices", "gold"}, as other collections render these tasks. `behind` follows the query.
static enum status add_rendered(struct reader *r, const json_t *object, const char *where, const char *behind) {
    enum status status = STATUS_OK;
    const char *query;
    json_t *choices;
    int64_t gold;
    char *context = NULL;
    TRY(json_get_string(object, where, "query", &query));
    TRY(json_get_array(object, where, "choices", &choices));
    TRY(json_get_integer(object, where, "gold", &gold));
    context = mem_format("%s%s", query, behind);
    TRY(add_choices(r, where, context, choices, "choices", gold));
done:
    free(context);
    return status;
}

// ---- ARC ----

// choices as {"text": […], "label": […]} or as [{"text", "label"}, …].
static enum status arc_choices(const json_t *object, const char *where, json_t **texts, json_t **labels) {
    enum status status = STATUS_OK;
    json_t *choices = json_object_get(object, "choices");
    *texts = json_array(), *labels = json_array();
    if (json_is_object(choices)) {
        json_t *text, *label;
        TRY(json_get_array(choices, where, "text", &text));
        TRY(json_get_array(choices, where, "label", &label));
        json_array_extend(*texts, text);
        json_array_extend(*labels, label);
    } else {
        TRY(json_get_array(object, where, "choices", &choices));
        for (size_t i = 0; i < json_array_size(choices); i++) {
            json_array_append(*texts, json_object_get(json_array_get(choices, i), "text"));
            json_array_append(*labels, json_object_get(json_array_get(choices, i), "label"));
        }
    }
    if (json_array_size(*texts) != json_array_size(*labels))
        TRY(status_set(STATUS_FORMAT, "%s: \"choices\" need a \"text\" and a \"label\" each", where));
done:
    return status;
}

static enum status arc_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    enum status status = STATUS_OK;
    struct reader *r = context;
    (void)line;
    json_t *texts = NULL, *labels = NULL;
    const json_t *from = object;
    const char *question, *key;
    char *prompt = NULL;
    int64_t gold = -1;
    if (json_object_get(object, "query")) {
        TRY(add_rendered(r, object, where, "\nAnswer:"));
    } else {
        if (json_is_object(json_object_get(object, "question"))) {
            from = json_object_get(object, "question");
            TRY(json_get_string(from, where, "stem", &question));
        } else
            TRY(json_get_string(object, where, "question", &question));
        TRY(json_get_string(object, where, "answerKey", &key));
        TRY(arc_choices(from, where, &texts, &labels));
        for (size_t i = 0; i < json_array_size(labels) && gold < 0; i++) {
            const char *label = json_string_value(json_array_get(labels, i));
            if (label && strcmp(label, key) == 0) gold = (int64_t)i;
        }
        if (gold < 0) TRY(status_set(STATUS_FORMAT, "%s: \"answerKey\" %s is no choice's label", where, key));
        prompt = mem_format("Question: %s\nAnswer:", question);
        TRY(add_choices(r, where, prompt, texts, "choices", gold));
    }
    *stop = harness_is_full(r->docs, r->options);
done:
    free(prompt);
    json_decref(texts);
    json_decref(labels);
    return status;
}

enum status harness_read_arc(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    return each_line(path, options, docs, arc_line);
}

// ---- PIQA ----

static enum status piqa_label(struct reader *r, const json_t *object, const char *where, int64_t *label) {
    if (!r->labels) return json_get_integer(object, where, "label", label);
    char *end = r->label ? strchr(r->label, '\n') : NULL;
    if (!r->label || (r->label[0] != '0' && r->label[0] != '1') || (r->label[1] != '\n' && r->label[1] != 0))
        return status_set(STATUS_FORMAT, "%s: its line in the file of labels is not 0 or 1", where);
    *label = r->label[0] - '0';
    r->label = end && end[1] ? end + 1 : NULL;
    return STATUS_OK;
}

static enum status piqa_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    enum status status = STATUS_OK;
    struct reader *r = context;
    (void)line;
    const char *goal, *solutions[2];
    int64_t label;
    TRY(json_get_string(object, where, "goal", &goal));
    TRY(json_get_string(object, where, "sol1", &solutions[0]));
    TRY(json_get_string(object, where, "sol2", &solutions[1]));
    TRY(piqa_label(r, object, where, &label));
    TRY(gold_check(where, label, 2));
    struct harness_doc *doc = harness_doc_add(r->docs, 2);
    doc->gold = label;
    for (int i = 0; i < 2; i++) harness_choice(doc, i, mem_format("Question: %s\nAnswer:", goal), solutions[i]);
    *stop = harness_is_full(r->docs, r->options);
done:
    return status;
}

enum status harness_read_piqa(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    enum status status = STATUS_OK;
    struct reader reader = {options, docs, NULL, NULL};
    size_t n = strlen(path), stem = n > 6 && strcmp(path + n - 6, ".jsonl") == 0 ? n - 6 : n;
    char *beside = mem_format("%.*s-labels.lst", (int)stem, path);
    int64_t n_bytes;
    if (file_exists(beside)) TRY(file_read(beside, 1 << 28, &reader.labels, &n_bytes));
    reader.label = reader.labels;
    TRY(json_lines_read(path, piqa_line, &reader));
done:
    mem_buffer_free(reader.labels);
    free(beside);
    return status;
}

// ---- HellaSwag ----

// Without "[…]" that stand on one line.
static char *without_brackets(const char *text) {
    char *out = mem_string(text), *to = out;
    while (*text) {
        const char *end = *text == '[' ? text + strcspn(text, "]\n") : NULL;
        if (end && *end == ']')
            text = end + 1;
        else
            *to++ = *text++;
    }
    *to = 0;
    return out;
}

static char *hellaswag_clean(const char *text) {
    char *a = python_strip(text), *b = python_replace(a, " [title]", ". "), *c = without_brackets(b),
         *d = python_replace(c, "  ", " ");
    free(a);
    free(b);
    free(c);
    return d;
}

// As str.capitalize of Python for ASCII: the first letter upper, all others lower case.
static char *capitalized(const char *text) {
    char *out = mem_string(text);
    for (char *c = out; *c; c++)
        if (c == out && *c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
        else if (c != out && *c >= 'A' && *c <= 'Z')
            *c = (char)(*c - 'A' + 'a');
    return out;
}

static enum status hellaswag_gold(const json_t *object, const char *where, int64_t *gold) {
    const json_t *label = json_object_get(object, "label");
    if (!json_is_string(label)) return json_get_integer(object, where, "label", gold);
    char *end = NULL;
    const char *text = json_string_value(label);
    *gold = strtoll(text, &end, 10);
    return *text && !*end ? STATUS_OK : status_set(STATUS_FORMAT, "%s: \"label\" '%s' is no number", where, text);
}

static enum status hellaswag_native(struct reader *r, const json_t *object, const char *where) {
    enum status status = STATUS_OK;
    const char *activity, *a, *b;
    json_t *endings, *clean = json_array();
    int64_t gold;
    char *second = NULL, *whole = NULL, *query = NULL;
    TRY(json_get_string(object, where, "activity_label", &activity));
    TRY(json_get_string(object, where, "ctx_a", &a));
    TRY(json_get_string(object, where, "ctx_b", &b));
    TRY(json_get_array(object, where, "endings", &endings));
    TRY(hellaswag_gold(object, where, &gold));
    second = capitalized(b);
    whole = mem_format("%s: %s %s", activity, a, second);
    query = hellaswag_clean(whole);
    for (size_t i = 0; i < json_array_size(endings); i++) {
        const char *ending;
        TRY(string_at(endings, where, "endings", i, &ending));
        char *text = hellaswag_clean(ending);
        json_array_append_new(clean, json_string(text));
        free(text);
    }
    TRY(add_choices(r, where, query, clean, "endings", gold));
done:
    json_decref(clean);
    free(second);
    free(whole);
    free(query);
    return status;
}

static enum status hellaswag_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    struct reader *r = context;
    (void)line;
    enum status status =
        json_object_get(object, "query") ? add_rendered(r, object, where, "") : hellaswag_native(r, object, where);
    *stop = harness_is_full(r->docs, r->options);
    return status;
}

enum status harness_read_hellaswag(const char *path, const struct harness_options *options, struct harness_docs *docs) {
    return each_line(path, options, docs, hellaswag_line);
}

// ---- WinoGrande ----

// Two contexts, one continuation that both are scored on.
static enum status add_contexts(struct reader *r, const char *where, char *const contexts[2], const char *continuation,
                                int64_t gold) {
    enum status status = gold_check(where, gold, 2);
    if (status != STATUS_OK) return status;
    struct harness_doc *doc = harness_doc_add(r->docs, 2);
    doc->gold = gold;
    for (int i = 0; i < 2; i++) harness_choice(doc, i, mem_string(contexts[i]), continuation);
    return STATUS_OK;
}

static enum status winogrande_rendered(struct reader *r, const json_t *object, const char *where) {
    enum status status = STATUS_OK;
    const char *options[2], *continuation;
    json_t *list;
    int64_t gold;
    TRY(json_get_array(object, where, "context_options", &list));
    TRY(json_get_string(object, where, "continuation", &continuation));
    TRY(json_get_integer(object, where, "gold", &gold));
    if (json_array_size(list) != 2) TRY(status_set(STATUS_FORMAT, "%s: \"context_options\" must be two", where));
    for (size_t i = 0; i < 2; i++) TRY(string_at(list, where, "context_options", i, &options[i]));
    TRY(add_contexts(r, where, (char *const[2]){(char *)options[0], (char *)options[1]}, continuation, gold));
done:
    return status;
}

static enum status winogrande_native(struct reader *r, const json_t *object, const char *where) {
    enum status status = STATUS_OK;
    const char *sentence, *options[2], *answer;
    char *contexts[2] = {NULL, NULL}, *continuation = NULL;
    TRY(json_get_string(object, where, "sentence", &sentence));
    TRY(json_get_string(object, where, "option1", &options[0]));
    TRY(json_get_string(object, where, "option2", &options[1]));
    TRY(json_get_string(object, where, "answer", &answer));
    const char *blank = strchr(sentence, '_');
    if (!blank) TRY(status_set(STATUS_FORMAT, "%s: \"sentence\" has no _", where));
    if (strcmp(answer, "1") != 0 && strcmp(answer, "2") != 0)
        TRY(status_set(STATUS_FORMAT, "%s: \"answer\" is '%s', must be 1 or 2", where, answer));
    for (int i = 0; i < 2; i++) contexts[i] = mem_format("%.*s%s", (int)(blank - sentence), sentence, options[i]);
    continuation = python_strip(blank + 1);
    TRY(add_contexts(r, where, contexts, continuation, answer[0] - '1'));
done:
    free(contexts[0]);
    free(contexts[1]);
    free(continuation);
    return status;
}

static enum status winogrande_line(void *context, const json_t *object, const char *where, int64_t line, bool *stop) {
    struct reader *r = context;
    (void)line;
    enum status status = json_object_get(object, "context_options") ? winogrande_rendered(r, object, where)
                                                                    : winogrande_native(r, object, where);
    *stop = harness_is_full(r->docs, r->options);
    return status;
}

enum status harness_read_winogrande(const char *path, const struct harness_options *options,
                                    struct harness_docs *docs) {
    return each_line(path, options, docs, winogrande_line);
}
