#include "bench/scorer.h"

#include "core/base/mem.h"
#include "core/nn/rope.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = -1 };

struct scorer {
    struct model *model;
    struct kv_cache *cache;
    int64_t capacity;
    int32_t *tokens; // [capacity] of the sequence that was read last
    int64_t n_tokens;
    int64_t *rows;      // [capacity] of the pass, where the hidden state of a token is; KEPT: it is in `hidden`
    struct view hidden; // [capacity, C]
};

// Hidden states that follow one another in the pass, or among the kept ones, and as rows of the scored ones.
struct run {
    bool kept;
    int64_t from, to, n;
};

// What goes through the network at once.
struct pass {
    int32_t *tokens, *targets; // [room]
    int64_t room, n_tokens, n_scored;
    struct kv_span *spans;      // [n_texts]
    struct scored_text **texts; // [n_texts]
    int64_t n_spans, n_texts;
    struct run *runs; // [room_runs] of all texts' scored states
    int64_t n_runs, room_runs;
};

enum status scorer_new(struct model *model, struct scorer **out) {
    struct scorer *self = mem_new(1, sizeof *self);
    self->model = model;
    *out = self;
    return STATUS_OK;
}

static void scorer_empty(struct scorer *self) {
    backend_matrix_free(self->model->backend, &self->hidden);
    kv_cache_free(self->cache);
    free(self->tokens);
    free(self->rows);
    self->cache = NULL;
    self->tokens = NULL;
    self->rows = NULL;
    self->n_tokens = self->capacity = 0;
}

void scorer_free(struct scorer *self) {
    if (!self) return;
    scorer_empty(self);
    free(self);
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
    self->rows = mem_new((size_t)capacity, sizeof *self->rows);
    self->capacity = capacity;
done:
    return status;
}

// ---- what a pass reads ----

static int by_tokens(const void *left, const void *right) {
    const struct scored_text *a = *(struct scored_text *const *)left, *b = *(struct scored_text *const *)right;
    for (int64_t i = 0; i < a->n && i < b->n; i++)
        if (a->tokens[i] != b->tokens[i]) return a->tokens[i] < b->tokens[i] ? -1 : 1;
    return (a->n > b->n) - (a->n < b->n);
}

// Tokens of a text that the sequence read last has too. Longrope's factors are those of a length.
static int64_t shared_tokens(const struct scorer *self, const struct scored_text *text) {
    const struct transformer_config *c = &self->model->transformer->config;
    int64_t n = 0, most = text->n - 1 < self->n_tokens ? text->n - 1 : self->n_tokens;
    if (rope_is_long(c, text->n - 1) != rope_is_long(c, self->n_tokens)) return 0;
    while (n < most && text->tokens[n] == self->tokens[n]) n++;
    return n;
}

// The hidden state of token t is the pass's next to be scored.
static void score_token(const struct scorer *self, struct pass *pass, int64_t t) {
    bool kept = self->rows[t] == KEPT;
    int64_t from = kept ? t : self->rows[t];
    struct run *last = pass->n_runs ? &pass->runs[pass->n_runs - 1] : NULL;
    if (!last || last->kept != kept || last->from + last->n != from) {
        if (pass->n_runs == pass->room_runs)
            pass->runs = mem_resize(pass->runs, (size_t)(pass->room_runs = 2 * pass->room_runs + 16), sizeof *last);
        last = &pass->runs[pass->n_runs++];
        *last = (struct run){.kept = kept, .from = from, .to = pass->n_scored};
    }
    last->n++;
    pass->n_scored++;
}

// Adds a text; false when the pass is full.
static bool pass_add(struct scorer *self, struct pass *pass, struct scored_text *text) {
    int64_t n = text->n - 1, past = shared_tokens(self, text), scored = text->n - text->first;
    bool full = pass->n_tokens + n - past > pass->room || pass->n_scored + scored > pass->room;
    if (full && pass->n_texts) return false;
    if (full) { // longer than a pass: one that long; those behind it have the room too
        pass->room = n > scored ? n : scored;
        pass->tokens = mem_resize(pass->tokens, (size_t)pass->room, sizeof *pass->tokens);
        pass->targets = mem_resize(pass->targets, (size_t)pass->room, sizeof *pass->targets);
    }
    memcpy(pass->targets + pass->n_scored, text->tokens + text->first, (size_t)scored * sizeof *text->tokens);
    memcpy(pass->tokens + pass->n_tokens, text->tokens + past, (size_t)(n - past) * sizeof *text->tokens);
    memcpy(self->tokens + past, text->tokens + past, (size_t)(n - past) * sizeof *text->tokens);
    self->n_tokens = n;
    for (int64_t t = past; t < n; t++) self->rows[t] = pass->n_tokens++;
    for (int64_t t = text->first - 1; t < n; t++) score_token(self, pass, t);
    if (past < n)
        pass->spans[pass->n_spans++] =
            (struct kv_span){.cache = self->cache, .past = past, .rows = n - past, .length = n};
    pass->texts[pass->n_texts++] = text;
    return true;
}

// ---- a pass ----

static enum status copy_rows(struct scorer *self, struct view from, int64_t first, struct view to, int64_t to_first,
                             int64_t n) {
    return backend_run(
        self->model->backend,
        &(struct op_call){.op = OP_copy, .in = {view_rows(from, first, n)}, .out = {view_rows(to, to_first, n)}});
}

// The states of the sequence read last stay for the next pass.
static enum status keep_states(struct scorer *self, struct view states) {
    enum status status = STATUS_OK;
    for (int64_t t = 0, n; t < self->n_tokens; t += n) {
        for (n = 1; self->rows[t] != KEPT && t + n < self->n_tokens && self->rows[t + n] == self->rows[t] + n;) n++;
        if (self->rows[t] != KEPT) TRY(copy_rows(self, states, self->rows[t], self->hidden, t, n));
    }
    for (int64_t t = 0; t < self->n_tokens; t++) self->rows[t] = KEPT;
done:
    return status;
}

static enum status pass_run(struct scorer *self, struct pass *pass) {
    enum status status = STATUS_OK;
    struct model *model = self->model;
    enum dtype dtype = model->transformer->dtype;
    struct value *hidden = NULL;
    struct view tokens, targets, losses, scored;
    double *host = mem_new((size_t)pass->n_scored, sizeof *host), *loss = host;
    step_begin(model->step, (struct step_options){.seq_len = pass->n_scored, .dtype = dtype});
    TRY(step_take(model->step, dtype, pass->n_scored, self->hidden.cols, &scored));
    TRY(step_take(model->step, DTYPE_I32, pass->n_scored, 1, &targets));
    TRY(step_take(model->step, DTYPE_F64, pass->n_scored, 1, &losses));
    TRY(backend_write(model->backend, targets, pass->targets));
    if (pass->n_spans) {
        TRY(step_take(model->step, DTYPE_I32, pass->n_tokens, 1, &tokens));
        TRY(backend_write(model->backend, tokens, pass->tokens));
        TRY(transformer_extend(model->transformer, model->step, tokens, pass->spans, pass->n_spans, &hidden));
    }
    for (const struct run *run = pass->runs; run < pass->runs + pass->n_runs; run++)
        TRY(copy_rows(self, run->kept ? self->hidden : hidden->data, run->from, scored, run->to, run->n));
    if (hidden) TRY(keep_states(self, hidden->data));
    struct transformer_loss what = {.targets = targets, .cross_entropy = losses};
    TRY(transformer_loss(model->transformer, model->step, step_input(model->step, scored), &what));
    TRY(backend_read(model->backend, losses, host));
    TRY(backend_sync(model->backend));
    for (int64_t i = 0; i < pass->n_texts; i++) {
        struct scored_text *text = pass->texts[i];
        text->loglikelihood = 0;
        for (int64_t t = text->first; t < text->n; t++) text->loglikelihood -= *loss++;
    }
done:
    free(host);
    return status;
}

enum status scorer_loglikelihoods(struct scorer *self, struct scored_text *texts, int64_t n_texts) {
    enum status status = STATUS_OK;
    struct scored_text **sorted = mem_new((size_t)n_texts, sizeof *sorted);
    struct pass pass = {.room = transformer_pass_tokens(self->model->transformer)};
    int64_t longest = 0;
    pass.tokens = mem_new((size_t)pass.room, sizeof *pass.tokens);
    pass.targets = mem_new((size_t)pass.room, sizeof *pass.targets);
    pass.spans = mem_new((size_t)n_texts, sizeof *pass.spans);
    pass.texts = mem_new((size_t)n_texts, sizeof *pass.texts);
    for (int64_t i = 0; i < n_texts; i++) {
        sorted[i] = &texts[i];
        REQUIRE(texts[i].first >= 1 && texts[i].first < texts[i].n &&
                    texts[i].n - 1 <= self->model->transformer->config.max_positions,
                "something is predicted from something that fits into the model's positions");
        if (longest < texts[i].n - 1) longest = texts[i].n - 1;
    }
    TRY(scorer_reserve(self, longest));
    qsort(sorted, (size_t)n_texts, sizeof *sorted, by_tokens);
    for (int64_t i = 0; i < n_texts;) {
        pass.n_tokens = pass.n_scored = pass.n_spans = pass.n_texts = pass.n_runs = 0;
        while (i < n_texts && pass_add(self, &pass, sorted[i])) i++;
        TRY(pass_run(self, &pass));
    }
done:
    if (status != STATUS_OK) self->n_tokens = 0; // the cache holds less than the tokens say
    free(pass.tokens);
    free(pass.targets);
    free(pass.spans);
    free(pass.texts);
    free(pass.runs);
    free(sorted);
    return status;
}
