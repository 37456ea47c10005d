#include "core/nn/generate.h"

#include "core/base/mem.h"

#include <stdlib.h>

bool generate_ends(const struct transformer_config *config, int32_t token) {
    for (int i = 0; i < config->n_eos; i++)
        if (config->eos[i] == token) return true;
    return false;
}

static int32_t first_largest(const float *values, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (values[i] > values[best]) best = i;
    return (int32_t)best;
}

enum status generate_next(struct transformer *model, struct step *step, const int32_t *tokens, int64_t n,
                          struct kv_cache *cache, float *host_logits, int32_t *next) {
    enum status status = STATUS_OK;
    struct view device_tokens, logits;
    struct value *hidden = NULL;
    step_begin(step, (struct step_options){.seq_len = n, .dtype = model->dtype});
    TRY(step_take(step, DTYPE_I32, n, 1, &device_tokens));
    TRY(step_take(step, DTYPE_F32, 1, model->config.vocab, &logits));
    TRY(backend_write(model->backend, device_tokens, tokens));
    TRY(transformer_extend(model, step, device_tokens, cache, &hidden));
    TRY(transformer_logits(model, step, view_rows(hidden->data, n - 1, 1), logits));
    TRY(backend_read(model->backend, logits, host_logits));
    TRY(backend_sync(model->backend));
    *next = first_largest(host_logits, model->config.vocab);
done:
    return status;
}

enum status generate(struct transformer *model, struct step *step, const int32_t *prompt, int64_t n_prompt,
                     int64_t n_new, int32_t *out, int64_t *n_out) {
    REQUIRE(n_prompt >= 1 && n_new >= 0, "a prompt of at least one token");
    enum status status = STATUS_OK;
    struct kv_cache *cache = NULL;
    float *logits = mem_new((size_t)model->config.vocab, sizeof *logits);
    int64_t made = 0;
    TRY(kv_cache_new(model, n_prompt + n_new, &cache));
    for (bool ended = false; made < n_new && !ended; made++) {
        const int32_t *tokens = made ? out + made - 1 : prompt;
        TRY(generate_next(model, step, tokens, made ? 1 : n_prompt, cache, logits, &out[made]));
        ended = generate_ends(&model->config, out[made]);
    }
    *n_out = made;
done:
    kv_cache_free(cache);
    free(logits);
    return status;
}
