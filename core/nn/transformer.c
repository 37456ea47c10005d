#include "core/nn/transformer.h"

#include "core/base/mem.h"
#include "core/nn/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- construction ----

// What fills a buffer of a layer, and how many rows each matrix has there, by architecture.
enum part { PART_QKV, PART_GATE_UP };

static int layer_parts(const struct transformer_config *c, enum part part, const char *names[3], int64_t rows[3]) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, i = c->intermediate;
    bool fused = c->architecture == ARCHITECTURE_PHI3;
    if (part == PART_QKV && fused) return names[0] = "self_attn.qkv_proj", rows[0] = q + 2 * kv, 1;
    if (part == PART_GATE_UP && fused) return names[0] = "mlp.gate_up_proj", rows[0] = 2 * i, 1;
    if (part == PART_QKV) {
        names[0] = "self_attn.q_proj", names[1] = "self_attn.k_proj", names[2] = "self_attn.v_proj";
        rows[0] = q, rows[1] = rows[2] = kv;
        return 3;
    }
    names[0] = "mlp.gate_proj", names[1] = "mlp.up_proj";
    rows[0] = rows[1] = i;
    return 2;
}

static struct weight *add_weight(struct transformer *model, char *name, int64_t rows, int64_t cols, bool is_linear) {
    struct weight *weight = &model->weights[model->n_weights];
    *weight =
        (struct weight){.name = name, .rows = rows, .cols = cols, .is_linear = is_linear, .index = model->n_weights};
    model->n_weights++;
    return weight;
}

static struct weight *add_layer_weight(struct transformer *model, int64_t l, const char *part, int64_t rows,
                                       int64_t cols) {
    return add_weight(model, mem_format("model.layers.%lld.%s.weight", (long long)l, part), rows, cols, rows > 1);
}

static void add_layer(struct transformer *model, int64_t l) {
    const struct transformer_config *c = &model->config;
    struct layer *layer = &model->layers[l];
    const char *names[3];
    int64_t rows[3];
    layer->attention_norm = add_layer_weight(model, l, "input_layernorm", 1, c->hidden);
    int n = layer_parts(c, PART_QKV, names, rows);
    for (int i = 0; i < n; i++) layer->qkv[i] = add_layer_weight(model, l, names[i], rows[i], c->hidden);
    layer->o = add_layer_weight(model, l, "self_attn.o_proj", c->hidden, c->heads * c->head_dim);
    layer->mlp_norm = add_layer_weight(model, l, "post_attention_layernorm", 1, c->hidden);
    n = layer_parts(c, PART_GATE_UP, names, rows);
    for (int i = 0; i < n; i++) layer->gate_up[i] = add_layer_weight(model, l, names[i], rows[i], c->hidden);
    layer->down = add_layer_weight(model, l, "mlp.down_proj", c->hidden, c->intermediate);
}

static void add_weights(struct transformer *model) {
    const struct transformer_config *c = &model->config;
    enum { PER_LAYER = 9, OTHERS = 3 };
    model->weights = mem_new((size_t)(c->layers * PER_LAYER + OTHERS), sizeof *model->weights);
    model->layers = mem_new((size_t)c->layers, sizeof *model->layers);
    model->embedding = add_weight(model, mem_string("model.embed_tokens.weight"), c->vocab, c->hidden, false);
    for (int64_t l = 0; l < c->layers; l++) add_layer(model, l);
    model->final_norm = add_weight(model, mem_string("model.norm.weight"), 1, c->hidden, false);
    model->head =
        c->tied ? model->embedding : add_weight(model, mem_string("lm_head.weight"), c->vocab, c->hidden, false);
}

static enum status load_weight(struct transformer *model, struct tensor_source source, struct weight *weight) {
    enum status status = STATUS_OK;
    void *host = NULL;
    enum dtype dtype = weight->rows > 1 ? model->dtype : DTYPE_F32;
    TRY(backend_matrix_new(model->backend, dtype, weight->rows, weight->cols, weight->name, &weight->stored));
    if (model->backend->fns->plans_only) goto done;
    if (model->backend->fns->host_memory && dtype == DTYPE_F32) {
        TRY(source.read(source.self, weight->name, weight->rows, weight->cols, weight->stored.data,
                        &weight->file_dtype));
    } else {
        TRY(mem_buffer_new(weight->rows * weight->cols * 4, weight->name, &host));
        TRY(source.read(source.self, weight->name, weight->rows, weight->cols, host, &weight->file_dtype));
        TRY(backend_floats_write(model->backend, weight->stored, host));
    }
done:
    mem_buffer_free(host);
    return status;
}

enum status transformer_new(struct backend *backend, const struct transformer_config *config, enum dtype dtype,
                            struct tensor_source source, struct transformer **out) {
    enum status status = STATUS_OK;
    struct transformer *model = mem_new(1, sizeof *model);
    model->config = *config;
    model->backend = backend;
    model->dtype = dtype;
    add_weights(model);
    for (int64_t i = 0; i < model->n_weights; i++) TRY(load_weight(model, source, &model->weights[i]));
    *out = model;
    model = NULL;
done:
    transformer_free(model);
    return status;
}

void transformer_free(struct transformer *model) {
    if (!model) return;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *weight = &model->weights[i];
        struct view *views[] = {&weight->stored, &weight->scale, &weight->x, &weight->grad, &weight->direction};
        for (size_t k = 0; k < sizeof views / sizeof *views; k++) backend_matrix_free(model->backend, views[k]);
        free(weight->name);
    }
    for (int i = 0; i < 2; i++) {
        backend_matrix_free(model->backend, &model->rope[i].cos);
        backend_matrix_free(model->backend, &model->rope[i].sin);
    }
    free(model->weights);
    free(model->layers);
    free(model);
}

struct weight *transformer_weight(struct transformer *model, const char *name) {
    for (int64_t i = 0; i < model->n_weights; i++)
        if (strcmp(model->weights[i].name, name) == 0) return &model->weights[i];
    return NULL;
}

void transformer_set_form(struct transformer *model, enum weight_form form) {
    for (int64_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].grid) model->weights[i].form = form;
}

int64_t transformer_parameters(const struct transformer *model) {
    int64_t n = 0;
    for (int64_t i = 0; i < model->n_weights; i++) n += model->weights[i].rows * model->weights[i].cols;
    return n;
}

// ---- positions ----

static enum status rope_table_fill(struct transformer *model, struct rope_table *table, int64_t seq_len) {
    enum status status = STATUS_OK;
    int64_t half = model->config.head_dim / 2;
    void *cos = NULL, *sin = NULL;
    backend_matrix_free(model->backend, &table->cos);
    backend_matrix_free(model->backend, &table->sin);
    TRY(mem_buffer_new(seq_len * half * 4, "position table", &cos));
    TRY(mem_buffer_new(seq_len * half * 4, "position table", &sin));
    rope_tables(&model->config, seq_len, seq_len, cos, sin);
    TRY(backend_matrix_new(model->backend, DTYPE_F32, seq_len, half, "position table", &table->cos));
    TRY(backend_matrix_new(model->backend, DTYPE_F32, seq_len, half, "position table", &table->sin));
    TRY(backend_write(model->backend, table->cos, cos));
    TRY(backend_write(model->backend, table->sin, sin));
    TRY(backend_sync(model->backend));
done:
    mem_buffer_free(cos);
    mem_buffer_free(sin);
    return status;
}

static struct rope_table *rope_table(struct transformer *model, int64_t seq_len) {
    return &model->rope[rope_is_long(&model->config, seq_len)];
}

enum status transformer_prepare(struct transformer *model, int64_t seq_len) {
    if (seq_len > model->config.max_positions)
        return status_set(STATUS_INVALID, "--seq-len %lld: the model was made for at most %lld positions",
                          (long long)seq_len, (long long)model->config.max_positions);
    struct rope_table *table = rope_table(model, seq_len);
    if (table->cos.rows >= seq_len) return STATUS_OK;
    REQUIRE(!model->backend->dry, "transformer_prepare comes before a plan");
    return rope_table_fill(model, table, seq_len);
}

int64_t transformer_pass_tokens(const struct transformer *model) {
    return model->backend->fns->host_memory ? 2048 : 16384;
}

// ---- one layer ----

struct layer_run {
    struct transformer *model;
    struct layer *layer;
    struct rope_table *rope; // of whole sequences
    const struct kv_span *spans;
    int64_t n_spans; // 0: whole sequences
    int64_t index;
};

static bool asks(struct value *x, struct weight *const *weights, int n) {
    for (int i = 0; i < n; i++)
        if (weights[i] && weight_needs_grad(weights[i])) return true;
    return x->needs_grad;
}

// y [N, cols] from matrices that fill its columns one after another.
static enum status project(struct step *step, struct value *x, struct weight *const *weights, int n, int64_t cols,
                           struct value **y) {
    enum status status = STATUS_OK;
    TRY(step_value(step, x->data.rows, cols, asks(x, weights, n), y));
    int64_t column = 0;
    for (int i = 0; i < n && weights[i]; i++) {
        TRY(record_linear(step, x, weights[i], *y, column));
        column += weights[i]->rows;
    }
done:
    return status;
}

static enum status show(struct step *step, struct value *y, struct weight *const *weights, int n) {
    enum status status = STATUS_OK;
    int64_t column = 0;
    for (int i = 0; i < n && weights[i]; i++) {
        TRY(record_output(step, weights[i]->output, y, column, weights[i]->rows));
        column += weights[i]->rows;
    }
done:
    return status;
}

static struct attention_params attention_sizes(const struct transformer_config *c) {
    return (struct attention_params){.window = c->window,
                                     .heads = c->heads,
                                     .kv_heads = c->kv_heads,
                                     .head_dim = c->head_dim,
                                     .scale = 1 / sqrt((double)c->head_dim)};
}

// Keys and values of a span, whose rows qkv, o and lse are, to its cache; o: its queries' attention over it.
static enum status attend_span(const struct layer_run *run, const struct kv_span *span, struct view qkv, struct view o,
                               struct view lse) {
    enum status status = STATUS_OK;
    const struct transformer_config *c = &run->model->config;
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    struct view k = span->cache->k[run->index], v = span->cache->v[run->index];
    TRY(backend_run(run->model->backend, &(struct op_call){.op = OP_copy,
                                                           .in = {view_cols(qkv, q, kv)},
                                                           .out = {view_rows(k, span->past, span->rows)}}));
    TRY(backend_run(run->model->backend, &(struct op_call){.op = OP_copy,
                                                           .in = {view_cols(qkv, q + kv, kv)},
                                                           .out = {view_rows(v, span->past, span->rows)}}));
    struct op_call call = {.op = OP_attention_cached,
                           .in = {view_cols(qkv, 0, q), k, v},
                           .out = {o},
                           .params.attention = attention_sizes(c)};
    call.params.attention.past = span->past;
    if (span->past == 0) { // a whole prompt: the op for whole sequences is several times faster on many queries
        call =
            (struct op_call){.op = OP_attention, .in = {qkv}, .out = {o, lse}, .params.attention = attention_sizes(c)};
        call.params.attention.seq_len = span->rows;
    }
    TRY(backend_run(run->model->backend, &call));
done:
    return status;
}

static enum status attend_cached(struct step *step, const struct layer_run *run, struct value *qkv, struct value **o) {
    enum status status = STATUS_OK;
    const struct transformer_config *c = &run->model->config;
    struct view lse;
    int64_t first = 0;
    for (const struct kv_span *span = run->spans; span < run->spans + run->n_spans; first += span++->rows) {
        struct rope_table *rope = rope_table(run->model, span->length);
        struct value *rows = step_input(step, view_rows(qkv->data, first, span->rows));
        TRY(record_rope(step, rows, rope->cos, rope->sin,
                        (struct rope_params){.seq_len = span->rows,
                                             .heads = c->heads + c->kv_heads,
                                             .head_dim = c->head_dim,
                                             .offset = span->past}));
    }
    TRY(show(step, qkv, run->layer->qkv, 3));
    TRY(step_value(step, qkv->data.rows, c->heads * c->head_dim, false, o));
    TRY(step_take(step, DTYPE_F32, qkv->data.rows, c->heads, &lse));
    first = 0;
    for (const struct kv_span *span = run->spans; span < run->spans + run->n_spans; first += span++->rows)
        TRY(attend_span(run, span, view_rows(qkv->data, first, span->rows), view_rows((*o)->data, first, span->rows),
                        view_rows(lse, first, span->rows)));
done:
    return status;
}

static enum status attend(struct step *step, const struct layer_run *run, struct value *qkv, struct value **o) {
    if (run->n_spans) return attend_cached(step, run, qkv, o);
    enum status status = STATUS_OK;
    const struct transformer_config *c = &run->model->config;
    struct rope_params rope = {
        .seq_len = step_options(step)->seq_len, .heads = c->heads + c->kv_heads, .head_dim = c->head_dim};
    struct attention_params params = attention_sizes(c);
    params.seq_len = rope.seq_len;
    TRY(record_rope(step, qkv, run->rope->cos, run->rope->sin, rope));
    TRY(show(step, qkv, run->layer->qkv, 3));
    TRY(record_attention(step, qkv, params, o));
done:
    return status;
}

static enum status part_enter(struct step *step, const struct layer_run *run, enum layer_part part, struct value *in,
                              struct value **h) {
    const struct layer *layer = run->layer;
    struct weight *norm = part == LAYER_ATTENTION ? layer->attention_norm : layer->mlp_norm;
    return record_rmsnorm(step, in, norm, run->model->config.rms_eps, h);
}

static enum status part_inner(struct step *step, const struct layer_run *run, enum layer_part part, struct value *in,
                              struct value **inner) {
    enum status status = STATUS_OK;
    const struct layer *layer = run->layer;
    const struct transformer_config *c = &run->model->config;
    struct value *h, *wide;
    TRY(part_enter(step, run, part, in, &h));
    if (part == LAYER_ATTENTION) {
        TRY(project(step, h, layer->qkv, 3, (c->heads + 2 * c->kv_heads) * c->head_dim, &wide));
        TRY(attend(step, run, wide, inner));
    } else {
        TRY(project(step, h, layer->gate_up, 2, 2 * c->intermediate, &wide));
        TRY(show(step, wide, layer->gate_up, 2));
        TRY(record_swiglu(step, wide, inner));
    }
done:
    return status;
}

static enum status part_leave(struct step *step, const struct layer_run *run, enum layer_part part, struct value *inner,
                              struct value *in, struct value **out) {
    struct weight *last = part == LAYER_ATTENTION ? run->layer->o : run->layer->down;
    enum status status = STATUS_OK;
    struct value *y;
    if (!last->output) return record_linear_residual(step, inner, last, in, out);
    TRY(project(step, inner, &last, 1, last->rows, &y));
    TRY(record_output(step, last->output, y, 0, last->rows));
    TRY(record_sum(step, y, in, out));
done:
    return status;
}

static enum status layer_forward(struct step *step, void *context, struct value *in, struct value **out) {
    enum status status = STATUS_OK;
    const struct layer_run *run = context;
    struct value *inner, *middle;
    TRY(part_inner(step, run, LAYER_ATTENTION, in, &inner));
    TRY(part_leave(step, run, LAYER_ATTENTION, inner, in, &middle));
    TRY(part_inner(step, run, LAYER_MLP, middle, &inner));
    TRY(part_leave(step, run, LAYER_MLP, inner, middle, out));
    TRY(record_output(step, run->layer->output, *out, 0, (*out)->data.cols));
done:
    return status;
}

// ---- the network ----

static bool any_direction(const struct transformer *model) {
    for (int64_t i = 0; i < model->n_weights; i++)
        if (weight_has_direction(&model->weights[i])) return true;
    return false;
}

// Each layer as `what` says, whose layer and index are filled in.
static enum status forward(struct transformer *model, struct step *step, struct view tokens, struct layer_run what,
                           struct value **hidden) {
    enum status status = STATUS_OK;
    struct value *x;
    TRY(record_embedding(step, model->embedding, tokens, &x));
    if (!x->has_tangent && any_direction(model)) {
        TRY(step_tangent(step, x));
        TRY(backend_run(model->backend, &(struct op_call){.op = OP_fill, .out = {x->tangent}, .params.value = 0}));
    }
    for (int64_t l = 0; l < model->config.layers; l++) {
        struct layer_run *run = step_object(step, sizeof *run);
        *run = what;
        run->model = model;
        run->layer = &model->layers[l];
        run->index = l;
        TRY(step_segment(step, layer_forward, run, x, &x));
    }
    TRY(record_rmsnorm(step, x, model->final_norm, model->config.rms_eps, hidden));
done:
    return status;
}

enum status transformer_forward(struct transformer *model, struct step *step, struct view tokens,
                                struct value **hidden) {
    int64_t seq_len = step_options(step)->seq_len;
    enum status status = transformer_prepare(model, seq_len);
    if (status != STATUS_OK) return status;
    return forward(model, step, tokens, (struct layer_run){.rope = rope_table(model, seq_len)}, hidden);
}

// ---- layer by layer ----

static struct layer_run whole_sequences(struct transformer *model, const struct step *step, int64_t l) {
    struct rope_table *rope = rope_table(model, step_options(step)->seq_len);
    REQUIRE(rope->cos.rows >= step_options(step)->seq_len, "transformer_prepare comes before single layers");
    return (struct layer_run){.model = model, .layer = &model->layers[l], .rope = rope, .index = l};
}

enum status transformer_part_tap(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                 struct value *x) {
    enum status status = STATUS_OK;
    struct layer_run run = whole_sequences(model, step, l);
    struct weight *const *weights = part == LAYER_ATTENTION ? run.layer->qkv : run.layer->gate_up;
    struct value *h;
    TRY(part_enter(step, &run, part, x, &h));
    for (int i = 0; i < (part == LAYER_ATTENTION ? 3 : 2) && weights[i]; i++) TRY(linear_tap(step, h, weights[i]));
done:
    return status;
}

enum status transformer_part_inner(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                   struct value *x, struct value **inner) {
    struct layer_run run = whole_sequences(model, step, l);
    return part_inner(step, &run, part, x, inner);
}

enum status transformer_part_leave(struct transformer *model, struct step *step, int64_t l, enum layer_part part,
                                   struct value *inner, struct value *x, struct value **y) {
    struct layer_run run = whole_sequences(model, step, l);
    return part_leave(step, &run, part, inner, x, y);
}

enum status transformer_layer(struct transformer *model, struct step *step, int64_t l, struct value *x,
                              struct value **y) {
    struct layer_run run = whole_sequences(model, step, l);
    return layer_forward(step, &run, x, y);
}

// ---- generation ----

// Position tables for all that a cache of this capacity can hold of a sequence.
static enum status prepare_span(struct transformer *model, const struct kv_span *span) {
    const struct transformer_config *c = &model->config;
    bool same = rope_is_long(c, span->length) == rope_is_long(c, span->cache->capacity);
    return transformer_prepare(model, same ? span->cache->capacity : c->rope.original_max_positions);
}

enum status transformer_extend(struct transformer *model, struct step *step, struct view tokens,
                               const struct kv_span *spans, int64_t n_spans, struct value **hidden) {
    enum status status = STATUS_OK;
    int64_t rows = 0;
    for (const struct kv_span *span = spans; span < spans + n_spans; rows += span++->rows) {
        REQUIRE(span->rows > 0 && span->past <= span->cache->length && span->past + span->rows <= span->length &&
                    span->length <= span->cache->capacity,
                "a span follows what its cache holds and fits into it");
        TRY(prepare_span(model, span));
        span->cache->length = span->past + span->rows;
    }
    REQUIRE(!step_options(step)->gradient && rows == tokens.rows && rows > 0, "the tokens of all spans, no gradients");
    TRY(forward(model, step, tokens, (struct layer_run){.spans = spans, .n_spans = n_spans}, hidden));
done:
    return status;
}

// ---- key/value cache ----

enum status kv_cache_new(struct transformer *model, int64_t capacity, struct kv_cache **out) {
    enum status status = STATUS_OK;
    const struct transformer_config *c = &model->config;
    struct kv_cache *cache = mem_new(1, sizeof *cache);
    *cache = (struct kv_cache){.capacity = capacity, .n_layers = c->layers, .backend = model->backend};
    cache->k = mem_new((size_t)c->layers, sizeof *cache->k);
    cache->v = mem_new((size_t)c->layers, sizeof *cache->v);
    for (int64_t l = 0; l < c->layers; l++) {
        TRY(backend_matrix_new(model->backend, model->dtype, capacity, c->kv_heads * c->head_dim, "key cache",
                               &cache->k[l]));
        TRY(backend_matrix_new(model->backend, model->dtype, capacity, c->kv_heads * c->head_dim, "value cache",
                               &cache->v[l]));
    }
    *out = cache;
    cache = NULL;
done:
    kv_cache_free(cache);
    return status;
}

enum status kv_cache_copy(const struct kv_cache *from, int64_t n, struct kv_cache *to) {
    enum status status = STATUS_OK;
    REQUIRE(n <= from->length && n <= to->capacity, "tokens that one cache has and the other has room for");
    for (int64_t l = 0; n > 0 && l < to->n_layers; l++) {
        TRY(backend_run(
            to->backend,
            &(struct op_call){.op = OP_copy, .in = {view_rows(from->k[l], 0, n)}, .out = {view_rows(to->k[l], 0, n)}}));
        TRY(backend_run(
            to->backend,
            &(struct op_call){.op = OP_copy, .in = {view_rows(from->v[l], 0, n)}, .out = {view_rows(to->v[l], 0, n)}}));
    }
    to->length = n;
done:
    return status;
}

void kv_cache_free(struct kv_cache *cache) {
    if (!cache) return;
    for (int64_t l = 0; l < cache->n_layers; l++) {
        backend_matrix_free(cache->backend, &cache->k[l]);
        backend_matrix_free(cache->backend, &cache->v[l]);
    }
    free(cache->k);
    free(cache->v);
    free(cache);
}
