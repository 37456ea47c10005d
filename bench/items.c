#include "bench/items.h"

#include "bench/json_lines.h"
#include "core/base/mem.h"
#include "data/json.h"
#include "data/utf8.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS_MAX = 1000, KIND_BYTES_MAX = 64 };

struct reader {
    const struct items_options *options;
    struct items *items;
    const char *where; // "PATH:LINE"
};

static bool is_space(char c) { return strchr(" \t\n\v\f\r", c) && c; }

const char *items_strip(const char *text, int64_t *n) {
    while (*n > 0 && is_space(text[*n - 1])) --*n;
    while (*n > 0 && is_space(*text)) text++, --*n;
    return text;
}

// ---- kinds ----

// They become parts of keys: accuracy_KIND.
static bool kind_is_a_name(const char *kind) {
    size_t n = strlen(kind);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)kind[i]) && !strchr("_-.", kind[i])) return false;
    bool taken = !strcmp(kind, "se") || !strcmp(kind, "norm") || !strcmp(kind, "norm_se");
    return n > 0 && n <= KIND_BYTES_MAX && !taken;
}

static enum status kind_read(struct reader *r, const json_t *root, struct item *item) {
    enum status status = STATUS_OK;
    struct items *items = r->items;
    const char *kind = NULL;
    item->kind = -1;
    TRY(json_get_string_or(root, r->where, "kind", NULL, &kind));
    if (!kind) return STATUS_OK;
    for (int64_t k = 0; k < items->n_kinds && item->kind < 0; k++)
        if (strcmp(items->kinds[k], kind) == 0) item->kind = k;
    if (item->kind >= 0) return STATUS_OK;
    if (!kind_is_a_name(kind))
        TRY(status_set(
            STATUS_FORMAT,
            "%s: \"kind\" is '%s'; must be 1 to %d letters, digits, '_', '-', '.', and not se, norm, norm_se", r->where,
            kind, (int)KIND_BYTES_MAX));
    if (items->n_kinds == KINDS_MAX)
        TRY(status_set(STATUS_FORMAT, "%s: more than %d different values of \"kind\"", r->where, (int)KINDS_MAX));
    items->kinds = mem_resize(items->kinds, (size_t)items->n_kinds + 1, sizeof *items->kinds);
    items->kinds[items->n_kinds] = mem_string(kind);
    item->kind = items->n_kinds++;
done:
    return status;
}

// ---- tokens ----

static enum status encode(const struct reader *r, const char *text, int64_t n, struct token_list *out) {
    enum status status = STATUS_OK;
    struct token_list list = {0};
    const struct model *model = r->options->model;
    int64_t vocab = model->transformer->config.vocab;
    if (tokenizer_encode(model->tokenizer, text, n, true, &list) != STATUS_OK) {
        char *why = mem_string(status_message());
        status = status_set(STATUS_FORMAT, "%s: %s", r->where, why);
        free(why);
        goto done;
    }
    for (int64_t i = 0; i < list.n_tokens; i++)
        if (list.tokens[i] >= vocab)
            TRY(status_set(STATUS_INVALID, "%s: token %d is none of the model's %lld; is this the model's tokenizer?",
                           r->where, (int)list.tokens[i], (long long)vocab));
    *out = list;
    list = (struct token_list){0};
done:
    token_list_free(&list);
    return status;
}

// The model reads n tokens of an item.
static enum status check_length(const struct reader *r, int64_t n) {
    int64_t positions = r->options->model->transformer->config.max_positions;
    if (n <= positions) return STATUS_OK;
    return status_set(STATUS_INVALID,
                      "%s: the item's %lld tokens exceed the model's %lld positions; shorten or remove it", r->where,
                      (long long)n, (long long)positions);
}

static enum status prepend_bos(const struct reader *r, struct token_list *list) {
    enum status status = STATUS_OK;
    void *tokens = NULL;
    int64_t bos = r->options->model->transformer->config.bos;
    if (bos < 0 || bos >= r->options->model->transformer->config.vocab)
        TRY(status_set(STATUS_FORMAT, "%s: no token stands before the choices: give a \"query\"", r->where));
    TRY(mem_buffer_new((list->n_tokens + 1) * (int64_t)sizeof(int32_t), "tokens", &tokens));
    ((int32_t *)tokens)[0] = (int32_t)bos;
    memcpy((int32_t *)tokens + 1, list->tokens, (size_t)list->n_tokens * sizeof(int32_t));
    mem_buffer_free(list->tokens);
    *list = (struct token_list){.tokens = tokens, .n_tokens = list->n_tokens + 1};
done:
    return status;
}

// ---- items ----

static int64_t common_prefix(const struct token_list *a, const struct token_list *b) {
    int64_t n = a->n_tokens < b->n_tokens ? a->n_tokens : b->n_tokens, i = 0;
    while (i < n && a->tokens[i] == b->tokens[i]) i++;
    return i;
}

static int64_t characters(const char *text) {
    int64_t n = 0;
    for (; *text; text += utf8_length(*text)) n++;
    return n;
}

static enum status choice_read(const struct reader *r, const char *query, const struct token_list *context,
                               const json_t *value, int64_t index, struct item_choice *choice) {
    enum status status = STATUS_OK;
    const char *text = json_string_value(value);
    char *whole = NULL;
    if (!text)
        TRY(status_set(STATUS_FORMAT, "%s: \"choices\"[%lld] is %s, must be a string", r->where, (long long)index,
                       json_kind(value)));
    choice->n_characters = characters(text + (*text == ' '));
    if (choice->n_characters == 0)
        TRY(status_set(STATUS_FORMAT, "%s: \"choices\"[%lld] is empty", r->where, (long long)index));
    whole = mem_format("%s%s", query, text);
    TRY(encode(r, whole, (int64_t)strlen(whole), &choice->tokens));
    choice->first = common_prefix(context, &choice->tokens);
    if (choice->first == choice->tokens.n_tokens)
        TRY(status_set(STATUS_FORMAT, "%s: \"choices\"[%lld] adds no token to the query", r->where, (long long)index));
done:
    free(whole);
    return status;
}

static enum status choices_read(struct reader *r, const json_t *root, struct item *item) {
    enum status status = STATUS_OK;
    const char *query;
    json_t *choices;
    struct token_list context = {0};
    bool bare = false; // a choice with no token before it
    TRY(json_get_string(root, r->where, "query", &query));
    TRY(json_get_array(root, r->where, "choices", &choices));
    TRY(json_get_integer(root, r->where, "gold", &item->gold));
    int64_t n = (int64_t)json_array_size(choices), n_query = (int64_t)strlen(query);
    if (n < 2)
        TRY(status_set(STATUS_FORMAT, "%s: \"choices\" has %lld entries, must have 2 or more", r->where, (long long)n));
    if (item->gold < 0 || item->gold >= n)
        TRY(status_set(STATUS_FORMAT, "%s: \"gold\" is %lld, must be 0 to %lld: an index into \"choices\"", r->where,
                       (long long)item->gold, (long long)n - 1));
    while (n_query > 0 && is_space(query[n_query - 1])) n_query--;
    TRY(encode(r, query, n_query, &context));
    item->choices = mem_new((size_t)n, sizeof *item->choices);
    for (item->n_choices = 0; item->n_choices < n;) {
        int64_t c = item->n_choices++; // counted before it is read, so that a failure frees it too
        TRY(choice_read(r, query, &context, json_array_get(choices, (size_t)c), c, &item->choices[c]));
        bare = bare || item->choices[c].first == 0;
    }
    for (int64_t c = 0; c < n; c++) {
        struct item_choice *choice = &item->choices[c];
        if (bare) {
            TRY(prepend_bos(r, &choice->tokens));
            choice->first++;
        }
        TRY(check_length(r, choice->tokens.n_tokens - 1));
    }
done:
    token_list_free(&context);
    return status;
}

static enum status exact_read(struct reader *r, const json_t *root, struct item *item) {
    enum status status = STATUS_OK;
    const char *prompt, *answer;
    TRY(json_get_string(root, r->where, "prompt", &prompt));
    TRY(json_get_string(root, r->where, "answer", &answer));
    int64_t n = (int64_t)strlen(answer);
    answer = items_strip(answer, &n);
    if (n == 0 || memchr(answer, '\n', (size_t)n))
        TRY(status_set(STATUS_FORMAT, "%s: \"answer\" %s", r->where,
                       n ? "has two lines; generation stops at the first" : "is empty"));
    item->answer = mem_string_n(answer, (size_t)n);
    TRY(encode(r, prompt, (int64_t)strlen(prompt), &item->prompt));
    if (item->prompt.n_tokens == 0) TRY(status_set(STATUS_FORMAT, "%s: \"prompt\" has no tokens", r->where));
    TRY(check_length(r, item->prompt.n_tokens));
done:
    return status;
}

static void item_free(struct item *item) {
    for (int64_t c = 0; c < item->n_choices; c++) token_list_free(&item->choices[c].tokens);
    free(item->choices);
    token_list_free(&item->prompt);
    free(item->answer);
}

static enum status line_read(void *context, const json_t *root, const char *where, int64_t line, bool *stop) {
    enum status status = STATUS_OK;
    struct reader *r = context;
    struct item item = {.line = line};
    r->where = where;
    if (r->options->format == ITEMS_CHOICE)
        TRY(choices_read(r, root, &item));
    else
        TRY(exact_read(r, root, &item));
    TRY(kind_read(r, root, &item));
    struct items *items = r->items;
    if ((items->n_items & (items->n_items - 1)) == 0) // full at 0 and at each power of two
        items->items = mem_resize(items->items, items->n_items ? 2 * (size_t)items->n_items : 1, sizeof item);
    items->items[items->n_items++] = item;
    item = (struct item){0};
    *stop = r->options->limit && items->n_items == r->options->limit;
done:
    item_free(&item);
    return status;
}

enum status items_read(const char *path, const struct items_options *options, struct items **out) {
    enum status status = STATUS_OK;
    struct items *items = mem_new(1, sizeof *items);
    struct reader r = {.options = options, .items = items};
    items->path = mem_string(path);
    TRY(json_lines_read(path, line_read, &r));
    *out = items;
    items = NULL;
done:
    items_free(items);
    return status;
}

void items_free(struct items *items) {
    if (!items) return;
    for (int64_t i = 0; i < items->n_items; i++) item_free(&items->items[i]);
    for (int64_t k = 0; k < items->n_kinds; k++) free(items->kinds[k]);
    free(items->items);
    free(items->kinds);
    free(items->path);
    free(items);
}

const char *items_where(const struct items *items, const struct item *item) {
    static _Thread_local char where[1024];
    snprintf(where, sizeof where, "%s:%lld", items->path, (long long)item->line);
    return where;
}

// ---- accuracy ----

void items_accuracy(const struct items *items, const bool *right, const char *key, struct record *record) {
    double n = (double)items->n_items, p = 0;
    char *key_se = mem_format("%s_se", key);
    for (int64_t i = 0; i < items->n_items; i++) p += right[i];
    p /= n;
    record_number(record, key, p);
    record_number(record, key_se, n > 1 ? sqrt(p * (1 - p) / (n - 1)) : 0);
    free(key_se);
}

void items_accuracy_by_kind(const struct items *items, const bool *right, const char *key, struct record *record) {
    for (int64_t k = 0; k < items->n_kinds; k++) {
        int64_t n = 0, n_right = 0;
        for (int64_t i = 0; i < items->n_items; i++)
            if (items->items[i].kind == k) n++, n_right += right[i];
        char *name = mem_format("%s_%s", key, items->kinds[k]);
        record_number(record, name, (double)n_right / (double)n);
        free(name);
    }
}
