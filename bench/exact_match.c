// Prompt and continuation are decoded together and cut at the length of the prompt's own text, so that spaces between tokens
// are right.
#include "bench/exact_match.h"

#include "core/base/mem.h"
#include "core/nn/generate.h"

#include <stdlib.h>
#include <string.h>

// The text of tokens behind the first `skip` bytes; *line_ends: there is a newline in it, which is cut off.
static enum status text_behind(const struct model *model, const int32_t *tokens, int64_t n, int64_t skip, char **out,
                               bool *line_ends) {
    enum status status = STATUS_OK;
    char *text = NULL;
    int64_t n_bytes = 0;
    TRY(tokenizer_decode(model->tokenizer, tokens, n, true, &text, &n_bytes));
    if (skip > n_bytes) skip = n_bytes;
    const char *end = memchr(text + skip, '\n', (size_t)(n_bytes - skip));
    int64_t length = (end ? end - text : n_bytes) - skip;
    const char *line = items_strip(text + skip, &length);
    *out = mem_string_n(line, (size_t)length);
    *line_ends = end;
done:
    mem_buffer_free(text);
    return status;
}

struct asked {
    struct model *model;
    struct continuation *texts; // [n_items]
    int64_t *skip;              // [n_items] bytes of the prompt
    exact_match_done *done;
    void *context;
};

static enum status check(void *context, int64_t i, bool *ends) {
    enum status status = STATUS_OK;
    struct asked *asked = context;
    const struct continuation *text = &asked->texts[i];
    int64_t n = text->n_prompt + text->made;
    char *line = NULL;
    TRY(text_behind(asked->model, text->tokens, n, asked->skip[i], &line, ends));
    *ends = *ends || generate_ends(&asked->model->transformer->config, text->tokens[n - 1]) || text->made == text->most;
    if (*ends) TRY(asked->done(asked->context, i, line, text->made));
done:
    free(line);
    return status;
}

static enum status ask_item(struct asked *asked, const struct item *item, int64_t limit, int64_t i) {
    struct continuation *text = &asked->texts[i];
    int64_t room = asked->model->transformer->config.max_positions - item->prompt.n_tokens + 1;
    char *prompt = NULL;
    *text = (struct continuation){.n_prompt = item->prompt.n_tokens, .most = limit < room ? limit : room};
    text->tokens = mem_new((size_t)(text->n_prompt + text->most), sizeof *text->tokens);
    memcpy(text->tokens, item->prompt.tokens, (size_t)text->n_prompt * sizeof *text->tokens);
    enum status status =
        tokenizer_decode(asked->model->tokenizer, text->tokens, text->n_prompt, true, &prompt, &asked->skip[i]);
    mem_buffer_free(prompt);
    return status;
}

enum status exact_match_texts(struct model *model, const struct items *items, int64_t limit, exact_match_done *done,
                              void *context) {
    enum status status = STATUS_OK;
    int64_t n = items->n_items;
    struct asked asked = {.model = model, .done = done, .context = context};
    asked.texts = mem_new((size_t)n, sizeof *asked.texts);
    asked.skip = mem_new((size_t)n, sizeof *asked.skip);
    for (int64_t i = 0; i < n; i++) TRY(ask_item(&asked, &items->items[i], limit, i));
    TRY(generate_texts(model->transformer, model->step, asked.texts, n,
                       &(struct generate_options){.check = check, .context = &asked}));
done:
    for (int64_t i = 0; i < n; i++) free(asked.texts[i].tokens);
    free(asked.texts);
    free(asked.skip);
    return status;
}

static enum status answered(void *context, int64_t i, const char *text, int64_t n_tokens) {
    struct task *task = context;
    const char *answer = task->items->items[i].answer;
    struct record *line = task_line(task, i);
    task->right[i] = strcmp(text, answer) == 0;
    record_string(line, "answer", answer);
    record_string(line, "text", text);
    record_integer(line, "tokens", n_tokens);
    return task_answered(task, i);
}

static enum status ask(struct task *task) {
    return exact_match_texts(task->model, task->items, task->settings->tokens, answered, task);
}

static void exact_match_about(const struct task *task, struct record *settings) {
    record_integer(settings, "tokens", task->settings->tokens);
}

enum status exact_match_run(const struct program_common *common, const struct task_settings *settings) {
    static const struct task_fns fns = {
        .name = "exact-match", .format = ITEMS_EXACT_MATCH, .about = exact_match_about, .ask = ask};
    return task_run(common, settings, &fns);
}
