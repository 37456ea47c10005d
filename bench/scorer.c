#include "bench/scorer.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct scorer {
    struct model *model;
    struct kv_cache *cache;
    int64_t capacity;
    int32_t *tokens; // [capacity] that the cache holds
    int64_t n_tokens;
    struct view hidden; // [capacity, C] their hidden states
    float *logits;      // [vocab]
};

enum status scorer_new(struct model *model, struct scorer **out) {
    struct scorer *self = mem_new(1, sizeof *self);
    self->model = model;
    self->logits = mem_new((size_t)model->transformer->config.vocab, sizeof *self->logits);
    *out = self;
    return STATUS_OK;
}

static void scorer_empty(struct scorer *self) {
    backend_matrix_free(self->model->backend, &self->hidden);
    kv_cache_free(self->cache);
    free(self->tokens);
    self->cache = NULL;
    self->tokens = NULL;
    self->n_tokens = self->capacity = 0;
}

// Room for n tokens. The memory of a model's 131072 positions is taken when a sequence asks for it; what was there is lost.
static enum status scorer_reserve(struct scorer *self, int64_t n) {
    enum status status = STATUS_OK;
    struct transformer *transformer = self->model->transformer;
    int64_t positions = transformer->config.max_positions, capacity = n > 1024 ? 2 * n : 1024;
    if (n <= self->capacity) return STATUS_OK;
    if (capacity > positions) capacity = positions;
    scorer_empty(self);
    TRY(kv_cache_new(transformer, capacity, &self->cache));
    TRY(backend_matrix_new(self->model->backend, transformer->dtype, capacity, transformer->config.hidden,
                           "hidden states", &self->hidden));
    self->tokens = mem_new((size_t)capacity, sizeof *self->tokens);
    self->capacity = capacity;
done:
    return status;
}

void scorer_free(struct scorer *self) {
    if (!self) return;
    scorer_empty(self);
    free(self->logits);
    free(self);
}

// Brings cache and hidden states to tokens [n], n >= 1.
static enum status read_tokens(struct scorer *self, const int32_t *tokens, int64_t n) {
    enum status status = STATUS_OK;
    struct model *model = self->model;
    struct value *hidden = NULL;
    struct view device_tokens;
    int64_t same = 0;
    REQUIRE(n >= 1 && n <= model->transformer->config.max_positions,
            "a sequence has at least one token and fits into the model's positions");
    TRY(scorer_reserve(self, n));
    while (same < n && same < self->n_tokens && tokens[same] == self->tokens[same]) same++;
    self->n_tokens = same;
    if (same == n) return STATUS_OK;
    self->cache->length = same;
    step_begin(model->step, (struct step_options){.seq_len = n - same, .dtype = model->transformer->dtype});
    TRY(step_take(model->step, DTYPE_I32, n - same, 1, &device_tokens));
    TRY(backend_write(model->backend, device_tokens, tokens + same));
    TRY(transformer_extend(model->transformer, model->step, device_tokens, self->cache, &hidden));
    TRY(backend_run(
        model->backend,
        &(struct op_call){.op = OP_copy, .in = {hidden->data}, .out = {view_rows(self->hidden, same, n - same)}}));
    memcpy(self->tokens + same, tokens + same, (size_t)(n - same) * sizeof *tokens);
    self->n_tokens = n;
done:
    return status;
}

enum status scorer_loglikelihood(struct scorer *self, const int32_t *tokens, int64_t n, int64_t first, double *sum) {
    enum status status = STATUS_OK;
    struct model *model = self->model;
    int64_t rows = n - first;
    struct view targets, losses;
    double *host = mem_new((size_t)rows, sizeof *host);
    REQUIRE(first >= 1 && first < n, "something is predicted from something");
    TRY(read_tokens(self, tokens, n - 1));
    step_begin(model->step, (struct step_options){.seq_len = rows, .dtype = model->transformer->dtype});
    TRY(step_take(model->step, DTYPE_I32, rows, 1, &targets));
    TRY(step_take(model->step, DTYPE_F64, rows, 1, &losses));
    TRY(backend_write(model->backend, targets, tokens + first));
    struct transformer_loss what = {.targets = targets, .cross_entropy = losses};
    TRY(transformer_loss(model->transformer, model->step,
                         step_input(model->step, view_rows(self->hidden, first - 1, rows)), &what));
    TRY(backend_read(model->backend, losses, host));
    TRY(backend_sync(model->backend));
    *sum = 0;
    for (int64_t i = 0; i < rows; i++) *sum -= host[i];
done:
    free(host);
    return status;
}

enum status scorer_next(struct scorer *self, const int32_t *tokens, int64_t n, int32_t *next) {
    enum status status = STATUS_OK;
    struct model *model = self->model;
    int64_t vocab = model->transformer->config.vocab;
    struct view logits;
    TRY(read_tokens(self, tokens, n));
    step_begin(model->step, (struct step_options){.seq_len = 1, .dtype = model->transformer->dtype});
    TRY(step_take(model->step, DTYPE_F32, 1, vocab, &logits));
    TRY(transformer_logits(model->transformer, model->step, view_rows(self->hidden, n - 1, 1), logits));
    TRY(backend_read(model->backend, logits, self->logits));
    TRY(backend_sync(model->backend));
    *next = 0;
    for (int64_t v = 1; v < vocab; v++)
        if (self->logits[v] > self->logits[*next]) *next = (int32_t)v;
done:
    return status;
}
