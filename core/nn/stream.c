#include "core/nn/stream.h"

#include "core/base/mem.h"

#include <stdlib.h>

static int64_t inner_cols(const struct transformer_config *c, enum layer_part part) {
    return part == LAYER_ATTENTION ? c->heads * c->head_dim : c->intermediate;
}

enum status stream_new(struct transformer *model, struct step *step, const struct stream_options *options,
                       struct stream **out) {
    REQUIRE(options->windows > 0 && options->seq_len > 0, "at least one window of one token");
    enum status status = STATUS_OK;
    struct stream *stream = mem_new(1, sizeof *stream);
    *stream = (struct stream){.model = model, .step = step, .options = *options};
    struct stream_options *o = &stream->options;
    if (o->batch <= 0) o->batch = transformer_pass_tokens(model) / o->seq_len;
    if (o->batch <= 0) o->batch = 1;
    if (o->batch > o->windows) o->batch = o->windows;
    TRY(transformer_prepare(model, o->seq_len));
    TRY(backend_matrix_new(model->backend, model->dtype, o->windows * o->seq_len, model->config.hidden, "hidden states",
                           &stream->hidden));
    TRY(backend_matrix_new(model->backend, DTYPE_I32, o->batch * o->seq_len, 1, "tokens", &stream->tokens));
    *out = stream;
    stream = NULL;
done:
    stream_free(stream);
    return status;
}

void stream_free(struct stream *stream) {
    if (!stream) return;
    backend_matrix_free(stream->model->backend, &stream->hidden);
    backend_matrix_free(stream->model->backend, &stream->inner);
    backend_matrix_free(stream->model->backend, &stream->tokens);
    free(stream);
}

static struct view windows_of(const struct stream *stream, struct view states, int64_t first, int64_t n) {
    return view_rows(states, first * stream->options.seq_len, n * stream->options.seq_len);
}

struct view stream_windows(const struct stream *stream, int64_t first, int64_t n) {
    return windows_of(stream, stream->hidden, first, n);
}

// Inner states of a part, one behind the other in the room for the wider ones.
static struct view inner_windows(const struct stream *stream, enum layer_part part, int64_t first, int64_t n) {
    int64_t tokens = stream->options.windows * stream->options.seq_len;
    struct view inner =
        view_new(stream->inner.data, stream->inner.dtype, tokens, inner_cols(&stream->model->config, part));
    return windows_of(stream, inner, first, n);
}

// What is done with windows first .. first + n - 1, x their hidden states.
typedef enum status pass(struct stream *stream, enum layer_part part, int64_t first, int64_t n, struct value *x);

static enum status each_pass(struct stream *stream, pass *body, enum layer_part part) {
    enum status status = STATUS_OK;
    const struct stream_options *o = &stream->options;
    REQUIRE(stream->layer < stream->model->config.layers, "the network has no further layer");
    for (int64_t first = 0; first < o->windows; first += o->batch) {
        int64_t n = o->windows - first < o->batch ? o->windows - first : o->batch;
        step_begin(stream->step, (struct step_options){.seq_len = o->seq_len, .dtype = stream->model->dtype});
        TRY(body(stream, part, first, n, step_input(stream->step, stream_windows(stream, first, n))));
    }
done:
    return status;
}

static enum status keep(struct stream *stream, struct value *from, struct view to) {
    if (from->data.data == to.data) return STATUS_OK;
    return backend_run(stream->model->backend, &(struct op_call){.op = OP_copy, .in = {from->data}, .out = {to}});
}

enum status stream_start(struct stream *stream, const int32_t *tokens) {
    enum status status = STATUS_OK;
    const struct stream_options *o = &stream->options;
    struct backend *backend = stream->model->backend;
    stream->layer = 0;
    for (int64_t first = 0; first < o->windows; first += o->batch) {
        int64_t n = o->windows - first < o->batch ? o->windows - first : o->batch;
        struct view batch = view_rows(stream->tokens, 0, n * o->seq_len);
        struct value *x;
        step_begin(stream->step, (struct step_options){.seq_len = o->seq_len, .dtype = stream->model->dtype});
        TRY(backend_write(backend, batch, tokens + first * o->seq_len));
        TRY(record_embedding(stream->step, stream->model->embedding, batch, &x));
        TRY(keep(stream, x, stream_windows(stream, first, n)));
    }
done:
    return status;
}

static enum status enter_pass(struct stream *stream, enum layer_part part, int64_t first, int64_t n, struct value *x) {
    (void)first, (void)n;
    return transformer_part_tap(stream->model, stream->step, stream->layer, part, x);
}

enum status stream_enter(struct stream *stream, enum layer_part part) { return each_pass(stream, enter_pass, part); }

static enum status inner_pass(struct stream *stream, enum layer_part part, int64_t first, int64_t n, struct value *x) {
    enum status status = STATUS_OK;
    const struct layer *layer = &stream->model->layers[stream->layer];
    struct value *inner;
    TRY(transformer_part_inner(stream->model, stream->step, stream->layer, part, x, &inner));
    TRY(linear_tap(stream->step, inner, part == LAYER_ATTENTION ? layer->o : layer->down));
    TRY(keep(stream, inner, inner_windows(stream, part, first, n)));
done:
    return status;
}

enum status stream_inner(struct stream *stream, enum layer_part part) {
    if (!stream->inner.rows) {
        const struct transformer_config *c = &stream->model->config;
        int64_t attention = inner_cols(c, LAYER_ATTENTION), mlp = inner_cols(c, LAYER_MLP);
        enum status status =
            backend_matrix_new(stream->model->backend, stream->model->dtype, stream->hidden.rows,
                               attention > mlp ? attention : mlp, "inner states of a layer", &stream->inner);
        if (status != STATUS_OK) return status;
    }
    return each_pass(stream, inner_pass, part);
}

static enum status leave_pass(struct stream *stream, enum layer_part part, int64_t first, int64_t n, struct value *x) {
    enum status status = STATUS_OK;
    struct value *inner = step_input(stream->step, inner_windows(stream, part, first, n)), *y;
    struct view to = x->data;
    TRY(transformer_part_leave(stream->model, stream->step, stream->layer, part, inner, x, &y));
    TRY(keep(stream, y, to));
done:
    return status;
}

enum status stream_leave(struct stream *stream, enum layer_part part) {
    enum status status = each_pass(stream, leave_pass, part);
    if (status == STATUS_OK && part == LAYER_MLP) stream->layer++;
    return status;
}

static enum status layer_pass(struct stream *stream, enum layer_part part, int64_t first, int64_t n, struct value *x) {
    (void)part, (void)first, (void)n;
    enum status status = STATUS_OK;
    struct value *y;
    struct view to = x->data;
    TRY(transformer_layer(stream->model, stream->step, stream->layer, x, &y));
    TRY(keep(stream, y, to));
done:
    return status;
}

enum status stream_layer(struct stream *stream) {
    enum status status = each_pass(stream, layer_pass, LAYER_ATTENTION);
    if (status == STATUS_OK) stream->layer++;
    return status;
}
