#include "core/graph/sketch_sink.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A tile has all rows of a weight, or as many as make PART elements per sample, and as many samples as make TILE: the second-level
// caches of two threads, or what keeps a device busy. Rows follow from the weight's shape alone, and so do the bits.
enum { HOST_PART = 1 << 16, HOST_TILE = 1 << 18, DEVICE_PART = 1 << 22, DEVICE_TILE = 1 << 23, ROWS_LEAST = 8 };

struct sketch_state {
    struct backend *backend;
    struct weight *weights;
    int64_t n_weights;
    struct sketch_options options; // with a group of its own
    int64_t *group;
    struct view norms, sketches,
        inner;                 // of a pass; F64 [samples, groups], F32 [samples, groups J k], F64 [samples, directions]
    struct view *sums;         // [weights] F64 [1, rows cols]
    struct view tokens;        // I32 [samples T, 1] of the pass
    struct view picked, cross; // of the shared weight: head part's rows of the tokens [samples T, C], F64 [samples, 1]
    double *host_cross;        // [samples]
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static struct view flat(struct view v, int64_t rows) { return view_new(v.data, v.dtype, rows, view_count(v) / rows); }

static struct view sample_rows(struct step *step, struct view v, int64_t first, int64_t n) {
    int64_t t = step_options(step)->seq_len;
    return view_rows(v, first * t, n * t);
}

static int64_t sample_count(struct step *step, int64_t rows) {
    int64_t t = step_options(step)->seq_len;
    REQUIRE(rows % t == 0, "the sink sees whole samples");
    return rows / t;
}

static enum status run(struct step *step, struct op_call call) { return backend_run(step_backend(step), &call); }

// ---- a tile ----

// grads [n, coordinates first .. of the weight] of samples sample .. sample + n - 1 of the pass.
static enum status take(struct sketch_state *own, struct step *step, const struct weight *weight, struct view grads,
                        int64_t first, int64_t sample) {
    enum status status = STATUS_OK;
    const struct sketch_options *o = &own->options;
    int64_t group = own->group[weight->index], width = o->sketches * o->dim;
    REQUIRE(sample + grads.rows <= own->norms.rows, "the sink was made for this many samples");
    struct op_call call = {
        .op = OP_sketch,
        .accumulate = true,
        .in = {grads},
        .out = {view_cols(view_rows(own->norms, sample, grads.rows), group, 1)},
        .params.sketch = {
            .kind = o->kind, .sketches = o->sketches, .first = first, .stream = weight->index, .seed = o->seed}};
    if (o->kind != SKETCH_NONE)
        call.out[1] = view_cols(view_rows(own->sketches, sample, grads.rows), group * width, width);
    if (o->n_directions && o->directions[weight->index].rows) {
        call.in[1] = view_cols(o->directions[weight->index], first, grads.cols);
        call.out[2] = view_rows(own->inner, sample, grads.rows);
    }
    TRY(run(step, call));
    if (o->sum)
        TRY(run(step, (struct op_call){.op = OP_exact_sum,
                                       .accumulate = true,
                                       .in = {grads},
                                       .out = {view_cols(own->sums[weight->index], first, grads.cols)}}));
done:
    return status;
}

struct tile {
    int64_t rows, samples;
};

static struct tile tile_of(const struct sketch_state *own, const struct weight *weight, bool whole, int64_t samples) {
    bool host = own->backend->fns->host_memory;
    int64_t part = (host ? HOST_PART : DEVICE_PART) / weight->cols, tile = host ? HOST_TILE : DEVICE_TILE;
    int64_t rows = whole ? weight->rows : least(weight->rows, most(part / ROWS_LEAST * ROWS_LEAST, ROWS_LEAST));
    return (struct tile){rows, least(samples, most(tile / (rows * weight->cols), 1))};
}

// Keeps what the cross term of the shared weight's norm needs: rows tokens_n of the samples' gradients.
static enum status pick_rows(struct sketch_state *own, struct step *step, struct view grads, int64_t rows,
                             int64_t sample) {
    enum status status = STATUS_OK;
    for (int64_t b = 0; b < grads.rows / rows; b++)
        TRY(run(step, (struct op_call){
                          .op = OP_embedding,
                          .in = {view_rows(grads, b * rows, rows), sample_rows(step, own->tokens, sample + b, 1)},
                          .out = {sample_rows(step, own->picked, sample + b, 1)}}));
done:
    return status;
}

// ---- the sink's functions ----

static enum status sketch_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                  struct view x, int64_t first) {
    struct sketch_state *own = ((struct sketch_sink *)sink)->own;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    bool shared = weight == own->options.shared;
    int64_t samples = sample_count(step, dy.rows), before = sample_count(step, first);
    struct tile tile = tile_of(own, weight, shared, samples);
    struct view room;
    TRY(step_take(step, DTYPE_F32, tile.samples * tile.rows, weight->cols, &room));
    for (int64_t row = 0; row < weight->rows; row += tile.rows)
        for (int64_t b = 0; b < samples; b += tile.samples) {
            int64_t rows = least(tile.rows, weight->rows - row), n = least(tile.samples, samples - b);
            struct view grads = view_rows(room, 0, n * rows);
            TRY(run(step, (struct op_call){
                              .op = OP_sample_products,
                              .in = {view_cols(sample_rows(step, dy, b, n), row, rows), sample_rows(step, x, b, n)},
                              .out = {grads}}));
            TRY(take(own, step, weight, flat(grads, n), row * weight->cols, before + b));
            if (shared) TRY(pick_rows(own, step, grads, rows, before + b));
        }
    step_release(step, mark);
done:
    return status;
}

static enum status sketch_gain(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                               struct view x, struct view rstd) {
    struct sketch_state *own = ((struct sketch_sink *)sink)->own;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view grads;
    TRY(step_take(step, DTYPE_F32, sample_count(step, dy.rows), weight->cols, &grads));
    TRY(run(step, (struct op_call){.op = OP_rmsnorm_gain_grad, .in = {x, rstd, dy}, .out = {grads}}));
    TRY(take(own, step, weight, grads, 0, 0));
    step_release(step, mark);
done:
    return status;
}

// cross_s = 2 <head part, table part> = 2 sum over rows n of sample s of <row tokens_n of the head part, dy_n>.
static enum status cross_terms(struct sketch_state *own, struct step *step, struct view dy) {
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows);
    struct view plain;
    TRY(step_take(step, DTYPE_F32, dy.rows, dy.cols, &plain));
    TRY(run(step, (struct op_call){.op = OP_copy, .in = {dy}, .out = {plain}}));
    TRY(run(step, (struct op_call){.op = OP_row_dot,
                                   .in = {flat(plain, samples), flat(view_rows(own->picked, 0, dy.rows), samples)},
                                   .out = {view_rows(own->cross, 0, samples)},
                                   .params.factor = 2}));
    step_release(step, mark);
done:
    return status;
}

static enum status sketch_table(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                struct view tokens) {
    struct sketch_state *own = ((struct sketch_sink *)sink)->own;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows), rows = weight->rows;
    struct tile tile = tile_of(own, weight, true, samples);
    struct view room;
    if (weight == own->options.shared) TRY(cross_terms(own, step, dy));
    TRY(step_take(step, DTYPE_F32, tile.samples * rows, weight->cols, &room));
    for (int64_t b = 0; b < samples; b += tile.samples) {
        int64_t n = least(tile.samples, samples - b);
        struct view grads = view_rows(room, 0, n * rows);
        TRY(run(step, (struct op_call){.op = OP_fill, .out = {grads}, .params.value = 0}));
        for (int64_t i = 0; i < n; i++)
            TRY(run(step, (struct op_call){.op = OP_embedding_grad,
                                           .in = {sample_rows(step, dy, b + i, 1), sample_rows(step, tokens, b + i, 1)},
                                           .out = {view_rows(grads, i * rows, rows)}}));
        TRY(take(own, step, weight, flat(grads, n), 0, b));
    }
    step_release(step, mark);
done:
    return status;
}

// ---- lifetime ----

static void check_options(const struct sketch_options *o, const struct weight *weights, int64_t n_weights) {
    REQUIRE(o->n_groups > 0, "there are groups");
    REQUIRE(o->kind == SKETCH_NONE || (o->dim > 0 && o->sketches > 0 && o->sketches <= SKETCHES_MOST),
            "sketches have a size");
    for (int64_t i = 0; i < n_weights; i++) {
        REQUIRE(weights[i].index == i, "the weights of one network, in its order");
        REQUIRE(o->group[i] >= -1 && o->group[i] < o->n_groups, "a group for every weight");
        if (!o->n_directions || o->group[i] < 0 || !o->directions[i].rows) continue;
        REQUIRE(o->directions[i].rows == o->n_directions && o->directions[i].cols == weights[i].rows * weights[i].cols,
                "a direction has the entries of its weight");
    }
}

static enum status sums_new(struct sketch_state *own) {
    enum status status = STATUS_OK;
    void *zeros = NULL;
    int64_t largest = 0;
    own->sums = mem_new((size_t)own->n_weights, sizeof *own->sums);
    for (int64_t i = 0; i < own->n_weights; i++)
        if (own->group[i] >= 0) largest = most(largest, own->weights[i].rows * own->weights[i].cols);
    TRY(mem_buffer_new(largest * (int64_t)sizeof(double), "sums of gradients", &zeros));
    memset(zeros, 0, (size_t)largest * sizeof(double));
    for (int64_t i = 0; i < own->n_weights; i++) {
        const struct weight *w = &own->weights[i];
        if (own->group[i] < 0) continue;
        TRY(backend_matrix_new(own->backend, DTYPE_F64, 1, w->rows * w->cols, "sums of gradients", &own->sums[i]));
        TRY(backend_write(own->backend, own->sums[i], zeros));
    }
    TRY(backend_sync(own->backend));
done:
    mem_buffer_free(zeros);
    return status;
}

static enum status results_new(struct sketch_sink *self) {
    enum status status = STATUS_OK;
    struct sketch_state *own = self->own;
    const struct sketch_options *o = &own->options;
    int64_t n = self->samples, width = o->n_groups * o->sketches * o->dim;
    self->norms = mem_new((size_t)(n * o->n_groups), sizeof *self->norms);
    TRY(backend_matrix_new(own->backend, DTYPE_F64, n, o->n_groups, "norms of gradients", &own->norms));
    if (o->n_directions) {
        self->inner = mem_new((size_t)(n * o->n_directions), sizeof *self->inner);
        TRY(backend_matrix_new(own->backend, DTYPE_F64, n, o->n_directions, "inner products", &own->inner));
    }
    if (o->kind != SKETCH_NONE) {
        void *host = NULL;
        TRY(mem_buffer_new(n * width * (int64_t)sizeof(float), "sketches", &host));
        self->sketches = host;
        TRY(backend_matrix_new(own->backend, DTYPE_F32, n, width, "sketches", &own->sketches));
    }
    if (o->shared) {
        own->host_cross = mem_new((size_t)n, sizeof *own->host_cross);
        TRY(backend_matrix_new(own->backend, DTYPE_F64, n, 1, "cross terms of norms", &own->cross));
    }
    if (o->sum) TRY(sums_new(own));
done:
    return status;
}

enum status sketch_sink_new(struct backend *backend, struct weight *weights, int64_t n_weights,
                            const struct sketch_options *options, int64_t samples, struct sketch_sink **out) {
    enum status status = STATUS_OK;
    REQUIRE(samples > 0, "a pass has samples");
    check_options(options, weights, n_weights);
    struct sketch_sink *self = mem_new(1, sizeof *self);
    struct sketch_state *own = mem_new(1, sizeof *own);
    *self = (struct sketch_sink){.sink = {sketch_product, sketch_gain, sketch_table}, .samples = samples, .own = own};
    *own = (struct sketch_state){.backend = backend, .weights = weights, .n_weights = n_weights, .options = *options};
    own->group = mem_new((size_t)n_weights, sizeof *own->group);
    memcpy(own->group, options->group, (size_t)n_weights * sizeof *own->group);
    own->options.group = own->group;
    if (options->kind == SKETCH_NONE) own->options.dim = own->options.sketches = 0;
    if (options->shared && own->group[options->shared->index] < 0) own->options.shared = NULL;
    TRY(results_new(self));
    *out = self;
    self = NULL;
done:
    sketch_sink_free(self);
    return status;
}

void sketch_sink_free(struct sketch_sink *self) {
    if (!self) return;
    struct sketch_state *own = self->own;
    for (int64_t i = 0; i < own->n_weights; i++) {
        if (own->weights[i].sink == &self->sink) own->weights[i].sink = NULL;
        if (own->sums) backend_matrix_free(own->backend, &own->sums[i]);
    }
    struct view *views[] = {&own->norms, &own->sketches, &own->inner, &own->picked, &own->cross};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) backend_matrix_free(own->backend, views[i]);
    mem_buffer_free(self->sketches);
    free(self->norms);
    free(self->inner);
    free(own->host_cross);
    free(own->sums);
    free(own->group);
    free(own);
    free(self);
}

void sketch_sink_attach(struct sketch_sink *self) {
    for (int64_t i = 0; i < self->own->n_weights; i++)
        self->own->weights[i].sink = self->own->group[i] >= 0 ? &self->sink : NULL;
}

// ---- a pass ----

static enum status picked_begin(struct sketch_state *own, struct view tokens) {
    enum status status = STATUS_OK;
    REQUIRE(tokens.rows > 0, "a shared weight needs the tokens of the pass");
    if (own->picked.rows < tokens.rows) {
        backend_matrix_free(own->backend, &own->picked);
        TRY(backend_matrix_new(own->backend, DTYPE_F32, tokens.rows, own->options.shared->cols,
                               "per-sample gradients of a shared weight", &own->picked));
    }
    TRY(backend_run(own->backend, &(struct op_call){.op = OP_fill, .out = {own->picked}, .params.value = 0}));
    memset(own->host_cross, 0, (size_t)own->cross.rows * sizeof *own->host_cross);
    TRY(backend_write(own->backend, own->cross, own->host_cross));
done:
    return status;
}

enum status sketch_sink_begin(struct sketch_sink *self, struct view tokens) {
    enum status status = STATUS_OK;
    struct sketch_state *own = self->own;
    const struct sketch_options *o = &own->options;
    memset(self->norms, 0, (size_t)(self->samples * o->n_groups) * sizeof *self->norms);
    TRY(backend_write(own->backend, own->norms, self->norms));
    if (o->n_directions) {
        memset(self->inner, 0, (size_t)(self->samples * o->n_directions) * sizeof *self->inner);
        TRY(backend_write(own->backend, own->inner, self->inner));
    }
    if (o->kind != SKETCH_NONE)
        TRY(backend_run(own->backend, &(struct op_call){.op = OP_fill, .out = {own->sketches}, .params.value = 0}));
    own->tokens = tokens;
    if (o->shared) TRY(picked_begin(own, tokens));
    TRY(backend_sync(own->backend));
done:
    return status;
}

enum status sketch_sink_end(struct sketch_sink *self, int64_t n) {
    enum status status = STATUS_OK;
    struct sketch_state *own = self->own;
    const struct sketch_options *o = &own->options;
    REQUIRE(n > 0 && n <= self->samples, "the samples of the pass");
    TRY(backend_read(own->backend, view_rows(own->norms, 0, n), self->norms));
    if (o->n_directions) TRY(backend_read(own->backend, view_rows(own->inner, 0, n), self->inner));
    if (o->kind != SKETCH_NONE) TRY(backend_read(own->backend, view_rows(own->sketches, 0, n), self->sketches));
    if (o->shared) TRY(backend_read(own->backend, view_rows(own->cross, 0, n), own->host_cross));
    TRY(backend_sync(own->backend));
    for (int64_t s = 0; s < n && o->shared; s++)
        self->norms[s * o->n_groups + own->group[o->shared->index]] += own->host_cross[s];
done:
    return status;
}

enum status sketch_sink_sum(struct sketch_sink *self, const struct weight *weight, double *values) {
    enum status status = STATUS_OK;
    struct sketch_state *own = self->own;
    REQUIRE(own->options.sum && own->group[weight->index] >= 0, "the sum of this weight is kept");
    TRY(backend_read(own->backend, own->sums[weight->index], values));
    TRY(backend_sync(own->backend));
    for (int64_t i = 0; i < weight->rows * weight->cols; i++)
        if (!isfinite(values[i]))
            return status_set(STATUS_INVALID,
                              "sum of gradients: entry %lld of %s has left +-4096, or a gradient is not finite; use "
                              "fewer samples or a smaller gradient weight",
                              (long long)i, weight->name);
done:
    return status;
}
