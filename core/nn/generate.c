#include "core/nn/generate.h"

#include "core/base/mem.h"
#include "core/nn/rope.h"

#include <stdlib.h>
#include <string.h>

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

enum { MOST_SLOTS = 32 };

// The place of a text that is being continued. Its cache holds all its tokens but the newest.
struct slot {
    struct kv_cache *cache;
    struct continuation *text; // of which the cache is, also once it has ended; NULL: of none yet
    bool busy;
};

struct generation {
    struct transformer *model;
    struct step *step;
    struct continuation *texts;
    const struct generate_options *options;
    struct slot *slots; // [n_slots]
    int64_t n_slots;
    // of one pass
    struct kv_span *spans; // [n_slots]
    struct slot **of_span; // [n_slots]
    int32_t *tokens;       // [n_slots]
    float *logits;         // [n_slots, vocab]
};

static int64_t cache_tokens(const struct continuation *text) { return text->n_prompt + text->most - 1; }

// The next token of each span's text, from the hidden state of its last row.
static enum status take_tokens(struct generation *self, const struct value *hidden, int64_t n_spans) {
    enum status status = STATUS_OK;
    int64_t vocab = self->model->config.vocab, row = -1;
    struct view last = hidden->data, logits;
    TRY(step_take(self->step, DTYPE_F32, n_spans, vocab, &logits));
    if (last.rows > n_spans) TRY(step_take(self->step, last.dtype, n_spans, last.cols, &last));
    for (int64_t s = 0; s < n_spans; s++) {
        row += self->spans[s].rows;
        if (last.data == hidden->data.data) continue;
        TRY(backend_run(
            self->model->backend,
            &(struct op_call){.op = OP_copy, .in = {view_rows(hidden->data, row, 1)}, .out = {view_rows(last, s, 1)}}));
    }
    TRY(transformer_logits(self->model, self->step, last, logits));
    TRY(backend_read(self->model->backend, logits, self->logits));
    TRY(backend_sync(self->model->backend));
    for (int64_t s = 0; s < n_spans; s++) {
        struct slot *slot = self->of_span[s];
        struct continuation *text = slot->text;
        bool ends = false;
        text->tokens[text->n_prompt + text->made++] = first_largest(self->logits + s * vocab, vocab);
        TRY(self->options->check(self->options->context, text - self->texts, &ends));
        slot->busy = !ends && text->made < text->most;
    }
done:
    return status;
}

// The spans' tokens go through the network.
static enum status pass(struct generation *self, const int32_t *tokens, int64_t rows, int64_t n_spans) {
    enum status status = STATUS_OK;
    struct view device_tokens;
    struct value *hidden = NULL;
    step_begin(self->step, (struct step_options){.seq_len = rows, .dtype = self->model->dtype});
    TRY(step_take(self->step, DTYPE_I32, rows, 1, &device_tokens));
    TRY(backend_write(self->model->backend, device_tokens, tokens));
    TRY(transformer_extend(self->model, self->step, device_tokens, self->spans, n_spans, &hidden));
    TRY(take_tokens(self, hidden, n_spans));
done:
    return status;
}

// Tokens at the start of `text` that the slot's cache holds; the last of the prompt is always read. Longrope's factors are those of a length.
static int64_t shared_tokens(const struct generation *self, const struct slot *slot, const struct continuation *text) {
    const struct transformer_config *c = &self->model->config;
    int64_t n = 0, most = text->n_prompt - 1;
    if (!slot->text || rope_is_long(c, cache_tokens(slot->text)) != rope_is_long(c, cache_tokens(text))) return 0;
    if (most > slot->cache->length) most = slot->cache->length;
    while (n < most && slot->text->tokens[n] == text->tokens[n]) n++;
    return n;
}

static enum status begin_text(struct generation *self, struct slot *slot, struct continuation *text) {
    enum status status = STATUS_OK;
    const struct slot *nearest = slot;
    int64_t shared = shared_tokens(self, slot, text);
    for (const struct slot *other = self->slots; other < self->slots + self->n_slots; other++) {
        int64_t n = shared_tokens(self, other, text);
        if (n > shared) nearest = other, shared = n;
    }
    if (nearest != slot) TRY(kv_cache_copy(nearest->cache, shared, slot->cache));
    slot->text = text;
    text->made = 0;
    self->of_span[0] = slot;
    self->spans[0] = (struct kv_span){
        .cache = slot->cache, .past = shared, .rows = text->n_prompt - shared, .length = cache_tokens(text)};
    TRY(pass(self, text->tokens + shared, text->n_prompt - shared, 1));
done:
    return status;
}

static enum status continue_texts(struct generation *self) {
    int64_t n = 0;
    for (struct slot *slot = self->slots; slot < self->slots + self->n_slots; slot++) {
        if (!slot->busy) continue;
        const struct continuation *text = slot->text;
        int64_t past = text->n_prompt + text->made - 1;
        self->of_span[n] = slot;
        self->tokens[n] = text->tokens[past];
        self->spans[n++] =
            (struct kv_span){.cache = slot->cache, .past = past, .rows = 1, .length = cache_tokens(text)};
    }
    return n ? pass(self, self->tokens, n, n) : STATUS_OK;
}

// As many caches as fit into a quarter of the memory that is free.
static int64_t affordable_slots(const struct transformer *model, int64_t capacity) {
    const struct transformer_config *c = &model->config;
    int64_t free_bytes = backend_bytes_free(model->backend);
    int64_t cache_bytes = 2 * c->layers * capacity * c->kv_heads * c->head_dim * dtype_bytes(model->dtype);
    int64_t slots = free_bytes < 0 ? MOST_SLOTS : free_bytes / 4 / cache_bytes;
    return slots < MOST_SLOTS ? slots : MOST_SLOTS;
}

static enum status open_slots(struct generation *self, int64_t n_texts) {
    enum status status = STATUS_OK;
    int64_t capacity = 1, slots = self->options->slots;
    for (int64_t i = 0; i < n_texts; i++) {
        const struct continuation *text = &self->texts[i];
        REQUIRE(text->n_prompt >= 1 && text->most >= 1, "a prompt, and tokens to make");
        if (capacity < cache_tokens(text)) capacity = cache_tokens(text);
    }
    if (slots <= 0) slots = affordable_slots(self->model, capacity);
    if (slots > n_texts) slots = n_texts;
    if (slots < 1) slots = 1;
    self->n_slots = slots;
    self->slots = mem_new((size_t)slots, sizeof *self->slots);
    self->spans = mem_new((size_t)slots, sizeof *self->spans);
    self->of_span = mem_new((size_t)slots, sizeof *self->of_span);
    self->tokens = mem_new((size_t)slots, sizeof *self->tokens);
    self->logits = mem_new((size_t)(slots * self->model->config.vocab), sizeof *self->logits);
    for (int64_t s = 0; s < slots; s++) TRY(kv_cache_new(self->model, capacity, &self->slots[s].cache));
done:
    return status;
}

static void close_slots(struct generation *self) {
    for (int64_t s = 0; self->slots && s < self->n_slots; s++) kv_cache_free(self->slots[s].cache);
    free(self->slots);
    free(self->spans);
    free(self->of_span);
    free(self->tokens);
    free(self->logits);
}

enum status generate_texts(struct transformer *model, struct step *step, struct continuation *texts, int64_t n_texts,
                           const struct generate_options *options) {
    enum status status = STATUS_OK;
    struct generation self = {.model = model, .step = step, .texts = texts, .options = options};
    int64_t begun = 0, busy = 1;
    TRY(open_slots(&self, n_texts));
    while (busy) {
        for (int64_t s = 0; s < self.n_slots; s++)
            while (!self.slots[s].busy && begun < n_texts) TRY(begin_text(&self, &self.slots[s], &texts[begun++]));
        TRY(continue_texts(&self));
        busy = n_texts - begun;
        for (int64_t s = 0; s < self.n_slots; s++) busy += self.slots[s].busy;
    }
done:
    close_slots(&self);
    return status;
}

struct one_text {
    const struct transformer_config *config;
    const struct continuation *text;
};

static enum status ends_itself(void *context, int64_t i, bool *ends) {
    const struct one_text *one = context;
    (void)i;
    *ends = generate_ends(one->config, one->text->tokens[one->text->n_prompt + one->text->made - 1]);
    return STATUS_OK;
}

enum status generate(struct transformer *model, struct step *step, const int32_t *prompt, int64_t n_prompt,
                     int64_t n_new, int32_t *out, int64_t *n_out) {
    REQUIRE(n_prompt >= 1 && n_new >= 0, "a prompt of at least one token");
    enum status status = STATUS_OK;
    struct continuation text = {.n_prompt = n_prompt, .most = n_new};
    struct one_text one = {.config = &model->config, .text = &text};
    text.tokens = mem_new((size_t)(n_prompt + n_new), sizeof *text.tokens);
    memcpy(text.tokens, prompt, (size_t)n_prompt * sizeof *prompt);
    if (n_new > 0)
        TRY(generate_texts(model, step, &text, 1, &(struct generate_options){.check = ends_itself, .context = &one}));
    memcpy(out, text.tokens + n_prompt, (size_t)text.made * sizeof *out);
    *n_out = text.made;
done:
    free(text.tokens);
    return status;
}
