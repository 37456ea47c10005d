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

enum status exact_match_text(struct model *model, struct scorer *scorer, const struct item *item, int64_t limit,
                             char **text, int64_t *n_tokens) {
    enum status status = STATUS_OK;
    const struct transformer_config *config = &model->transformer->config;
    int64_t n_prompt = item->prompt.n_tokens, made = 0, skip = 0;
    if (limit > config->max_positions - n_prompt + 1) limit = config->max_positions - n_prompt + 1;
    char *line = NULL, *prompt = NULL;
    int32_t *all = mem_new((size_t)(n_prompt + limit), sizeof *all);
    memcpy(all, item->prompt.tokens, (size_t)n_prompt * sizeof *all);
    TRY(tokenizer_decode(model->tokenizer, all, n_prompt, true, &prompt, &skip));
    for (bool ended = false; made < limit && !ended; made++) {
        int64_t n = n_prompt + made;
        TRY(scorer_next(scorer, all, n, &all[n]));
        free(line);
        line = NULL;
        TRY(text_behind(model, all, n + 1, skip, &line, &ended));
        ended = ended || generate_ends(config, all[n]);
    }
    *text = line;
    *n_tokens = made;
    line = NULL;
done:
    mem_buffer_free(prompt);
    free(line);
    free(all);
    return status;
}

static enum status exact_match_item(struct task *task, int64_t i, struct record *line) {
    enum status status = STATUS_OK;
    const struct item *item = &task->items->items[i];
    char *text = NULL;
    int64_t n_tokens = 0;
    TRY(exact_match_text(task->model, task->scorer, item, task->settings->tokens, &text, &n_tokens));
    task->right[i] = strcmp(text, item->answer) == 0;
    record_string(line, "answer", item->answer);
    record_string(line, "text", text);
    record_integer(line, "tokens", n_tokens);
done:
    free(text);
    return status;
}

static void exact_match_about(const struct task *task, struct record *settings) {
    record_integer(settings, "tokens", task->settings->tokens);
}

enum status exact_match_run(const struct program_common *common, const struct task_settings *settings) {
    static const struct task_fns fns = {
        .name = "exact-match", .format = ITEMS_EXACT_MATCH, .about = exact_match_about, .item = exact_match_item};
    return task_run(common, settings, &fns);
}
