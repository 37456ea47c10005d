#include "bench/harness_tokens.h"

#include "bench/python_text.h"
#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <stdlib.h>
#include <string.h>

// "eos_token" of tokenizer_config.json, a string or {"content": …}; -1 where there is none.
static enum status eos_of(const struct model *model, int32_t *out) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/tokenizer_config.json", model_folder_path(model->folder));
    json_t *root = NULL;
    *out = -1;
    if (file_exists(path)) {
        TRY(json_read_file(path, &root));
        const json_t *eos = json_object_get(root, "eos_token");
        const char *text = json_string_value(json_is_object(eos) ? json_object_get(eos, "content") : eos);
        if (text) *out = tokenizer_id(model->tokenizer, text);
    }
done:
    json_decref(root);
    free(path);
    return status;
}

enum status harness_tokens_open(const struct model *model, bool bos, struct harness_tokens *out) {
    enum status status = STATUS_OK;
    const struct transformer_config *config = &model->transformer->config;
    struct harness_tokens how = {.model = model, .bos = bos};
    TRY(eos_of(model, &how.prefix));
    if (how.prefix < 0 && config->n_eos) how.prefix = (int32_t)config->eos[0];
    if (how.prefix < 0 || how.prefix >= config->vocab)
        TRY(status_set(STATUS_FORMAT,
                       "%s: neither its tokenizer_config.json nor its config.json names an end-of-text token",
                       model_folder_path(model->folder)));
    *out = how;
done:
    return status;
}

static enum status encode(const struct harness_tokens *how, const char *text, int64_t n, struct token_list *out) {
    enum status status = STATUS_OK;
    struct token_list list = {0};
    int64_t vocab = how->model->transformer->config.vocab;
    TRY(tokenizer_encode(how->model->tokenizer, text, n, how->bos, &list));
    for (int64_t i = 0; i < list.n_tokens; i++)
        if (list.tokens[i] >= vocab)
            TRY(status_set(STATUS_INVALID, "token %d is none of the model's %lld; is this the model's tokenizer?",
                           (int)list.tokens[i], (long long)vocab));
    *out = list;
    list = (struct token_list){0};
done:
    token_list_free(&list);
    return status;
}

enum status harness_encode(const struct harness_tokens *how, const char *text, struct token_list *out) {
    return encode(how, text, (int64_t)strlen(text), out);
}

// [prefix] before the tokens of a continuation that has no context.
static enum status put_prefix(struct token_list *list, int32_t prefix) {
    void *tokens = NULL;
    enum status status = mem_buffer_new((list->n_tokens + 1) * (int64_t)sizeof prefix, "tokens", &tokens);
    if (status != STATUS_OK) return status;
    memcpy(tokens, &prefix, sizeof prefix);
    if (list->n_tokens) memcpy((int32_t *)tokens + 1, list->tokens, (size_t)list->n_tokens * sizeof prefix);
    mem_buffer_free(list->tokens);
    *list = (struct token_list){tokens, list->n_tokens + 1};
    return STATUS_OK;
}

enum status harness_encode_pair(const struct harness_tokens *how, const struct harness_request *request,
                                struct token_list *out, int64_t *first) {
    enum status status = STATUS_OK;
    struct token_list whole = {0}, context = {0};
    char *text = mem_format("%s%s", request->context, request->continuation);
    int64_t positions = how->model->transformer->config.max_positions, at = 1;
    TRY(harness_encode(how, text, &whole));
    if (request->context[0]) {
        TRY(encode(how, text, python_end(request->context) - request->context, &context));
        at = context.n_tokens;
    } else
        TRY(put_prefix(&whole, how->prefix));
    int64_t n = whole.n_tokens - at;
    if (n <= 0 || n > positions || at < 1)
        TRY(status_set(STATUS_INVALID, "a choice has %lld tokens, the model reads 1 to %lld", (long long)n,
                       (long long)positions));
    int64_t cut = whole.n_tokens - (positions + 1);
    if (cut > 0) {
        memmove(whole.tokens, whole.tokens + cut, (size_t)(whole.n_tokens - cut) * sizeof *whole.tokens);
        whole.n_tokens -= cut;
        at -= cut;
    }
    *out = whole;
    *first = at;
    whole = (struct token_list){0};
done:
    token_list_free(&whole);
    token_list_free(&context);
    free(text);
    return status;
}
