#include "discquant/layerwise.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/nn/stream.h"
#include "discquant/layers_done.h"

#include <stdlib.h>
#include <string.h>

struct layerwise {
    struct run *run;
    struct layerwise_solver *solver;
    struct stream *stream;
    struct progress *progress;
    int64_t matrices; // done
    double since;     // time of the last line
    struct totals {
        double error;
        int64_t dead, fallbacks;
    } totals;
    char *fallbacks; // "name: what; name: what"
};

// ---- one matrix ----

static void matrix_close(struct layerwise_matrix *matrix) {
    mem_buffer_free(matrix->w);
    mem_buffer_free(matrix->scale);
    mem_buffer_free(matrix->x);
}

static enum status matrix_open(struct backend *backend, const struct weight *weight, struct layerwise_matrix *matrix) {
    enum status status = STATUS_OK;
    int64_t bytes = weight->rows * weight->cols * (int64_t)sizeof(float);
    void *w = NULL, *scale = NULL, *x = NULL;
    *matrix = (struct layerwise_matrix){.weight = weight};
    TRY(mem_buffer_new(bytes, weight->name, &w));
    matrix->w = w;
    TRY(mem_buffer_new(view_count(weight->scale) * (int64_t)sizeof(float), weight->name, &scale));
    matrix->scale = scale;
    TRY(mem_buffer_new(bytes, weight->name, &x));
    matrix->x = x;
    TRY(backend_floats_read(backend, weight->stored, w));
    TRY(backend_floats_read(backend, weight->scale, scale));
done:
    if (status != STATUS_OK) matrix_close(matrix);
    return status;
}

static enum status report(struct layerwise *self, const struct hessian *hessian, const struct layerwise_matrix *matrix,
                          struct record *line) {
    double now = clock_seconds(), error = matrix->error / (double)(hessian->rows * matrix->weight->rows);
    record_integer(line, "tokens", hessian->rows);
    record_number(line, "output_error", error);
    record_number(line, "seconds", now - self->since);
    self->totals.error += error;
    self->since = now;
    progress_update(self->progress, ++self->matrices, "%s", matrix->weight->name);
    return run_folder_log(self->run->folder, line);
}

static enum status round_matrix(struct layerwise *self, const struct hessian *hessian, struct weight *weight) {
    enum status status = STATUS_OK;
    struct backend *backend = self->run->model->backend;
    struct layerwise_matrix matrix;
    struct record *line = record_new();
    record_string(line, "matrix", weight->name);
    TRY(matrix_open(backend, weight, &matrix));
    status = self->solver->solve(self->solver, hessian, &matrix, line);
    if (status == STATUS_OK) status = report(self, hessian, &matrix, line);
    if (status == STATUS_OK) status = backend_floats_write(backend, weight->x, matrix.x);
    weight->form = self->solver->form;
    matrix_close(&matrix);
done:
    record_free(line);
    return status;
}

// ---- matrices that share their inputs ----

static void count_inputs(struct layerwise *self, const struct hessian *hessian, const char *name) {
    for (int64_t i = 0; i < hessian->n; i++) self->totals.dead += hessian->sum[i * (hessian->n + 1)] == 0;
    char *what = self->solver->fallback ? self->solver->fallback(self->solver) : NULL;
    if (!what) return;
    progress_say("%s: %s", name, what);
    char *all =
        mem_format("%s%s%s: %s", self->fallbacks ? self->fallbacks : "", self->fallbacks ? "; " : "", name, what);
    free(self->fallbacks);
    free(what);
    self->fallbacks = all;
    self->totals.fallbacks++;
}

static enum status inputs_take(struct layerwise *self, const struct hessian *hessian, const char *name) {
    enum status status = STATUS_OK;
    TRY(hessian_check(hessian, name));
    if (self->solver->prepare) TRY(self->solver->prepare(self->solver, hessian, name));
    count_inputs(self, hessian, name);
done:
    return status;
}

// `show` brings the inputs of the weights to their taps. They are the same for all; rotated ones have their own coordinates.
static enum status round_group(struct layerwise *self, struct weight *const *weights, int n,
                               enum status (*show)(struct stream *stream, enum layer_part part), enum layer_part part) {
    enum status status = STATUS_OK;
    struct hessian *hessians[3] = {NULL}, *hessian = NULL;
    for (int i = 0; i < n && weights[i]; i++) {
        if (i > 0 && !weights[i]->rotation) continue;
        TRY(hessian_new(weights[i]->cols, weights[i]->name, &hessians[i]));
        weights[i]->tap = &hessians[i]->tap;
    }
    TRY(show(self->stream, part));
    for (int i = 0; i < n && weights[i]; i++) {
        weights[i]->tap = NULL;
        if (hessians[i]) TRY(inputs_take(self, hessian = hessians[i], weights[i]->name));
        TRY(round_matrix(self, hessian, weights[i]));
    }
done:
    for (int i = 0; i < n && weights[i]; i++) {
        weights[i]->tap = NULL;
        hessian_free(hessians[i]);
    }
    return status;
}

static enum status round_layer(struct layerwise *self) {
    enum status status = STATUS_OK;
    struct layer *layer = &self->run->model->transformer->layers[self->stream->layer];
    TRY(round_group(self, layer->qkv, 3, stream_enter, LAYER_ATTENTION));
    TRY(round_group(self, &layer->o, 1, stream_inner, LAYER_ATTENTION));
    TRY(stream_leave(self->stream, LAYER_ATTENTION));
    TRY(round_group(self, layer->gate_up, 2, stream_enter, LAYER_MLP));
    TRY(round_group(self, &layer->down, 1, stream_inner, LAYER_MLP));
    TRY(stream_leave(self->stream, LAYER_MLP));
done:
    return status;
}

// ---- state of an interrupted run ----

static enum status save_state(struct layerwise *self) {
    enum status status = STATUS_OK;
    struct checkpoint *state = checkpoint_new();
    int64_t bytes = self->fallbacks ? (int64_t)strlen(self->fallbacks) : 0;
    checkpoint_add_integer(state, "matrices", self->matrices);
    checkpoint_add_number(state, "error", self->totals.error);
    checkpoint_add_integer(state, "dead", self->totals.dead);
    checkpoint_add_integer(state, "fallbacks", self->totals.fallbacks);
    checkpoint_add_integer(state, "fallback_bytes", bytes);
    checkpoint_add_bytes(state, "fallback_layers", self->fallbacks ? self->fallbacks : "", bytes);
    TRY(layers_done_save(self->run->model->transformer, self->stream->layer, state));
    TRY(run_folder_checkpoint_save(self->run->folder, state));
done:
    checkpoint_free(state);
    return status;
}

static enum status load_state(struct layerwise *self) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    int64_t layers = 0, bytes = 0;
    TRY(run_folder_checkpoint_load(self->run->folder, &state));
    if (!state) goto done;
    TRY(checkpoint_integer(state, "matrices", 0, INT64_MAX, &self->matrices));
    TRY(checkpoint_number(state, "error", &self->totals.error));
    TRY(checkpoint_integer(state, "dead", 0, INT64_MAX, &self->totals.dead));
    TRY(checkpoint_integer(state, "fallbacks", 0, INT64_MAX, &self->totals.fallbacks));
    TRY(checkpoint_integer(state, "fallback_bytes", 0, INT64_MAX - 1, &bytes));
    if (bytes > 0) {
        self->fallbacks = mem_new((size_t)bytes + 1, 1);
        TRY(checkpoint_bytes(state, "fallback_layers", self->fallbacks, bytes));
    }
    TRY(layers_done_load(self->run->model->transformer, state, self->solver->form, &layers));
    while (self->stream->layer < layers) TRY(stream_layer(self->stream));
done:
    checkpoint_free(state);
    return status;
}

// ---- the run ----

static enum status start(struct layerwise *self) {
    enum status status = STATUS_OK;
    const struct run *run = self->run;
    struct stream_options options = {.windows = run->calibration_windows, .seq_len = run->settings->optimizer.seq_len};
    int32_t *tokens = NULL;
    TRY(stream_new(run->model->transformer, run->model->step, &options, &self->stream));
    TRY(layers_done_tokens(run, &tokens));
    TRY(stream_start(self->stream, tokens));
    TRY(load_state(self));
done:
    mem_buffer_free(tokens);
    return status;
}

static void summarize(const struct layerwise *self) {
    struct record *result = run_folder_result(self->run->folder);
    record_integer(result, "calibration_windows", self->run->calibration_windows);
    record_number(result, "output_error", self->totals.error);
    record_integer(result, "dead_inputs", self->totals.dead);
    record_integer(result, "fallbacks", self->totals.fallbacks);
    if (self->fallbacks) record_string(result, "fallback_layers", self->fallbacks);
}

static int64_t count_matrices(struct transformer *model) {
    int64_t i = 0, n = 0;
    while (layers_done_next(model, model->config.layers, &i)) n++;
    return n;
}

enum status layerwise_run(struct run *run, struct layerwise_solver *solver) {
    enum status status = STATUS_OK;
    struct transformer *model = run->model->transformer;
    struct layerwise self = {.run = run, .solver = solver, .since = clock_seconds()};
    transformer_set_form(model, WEIGHT_STORED);
    TRY(start(&self));
    self.progress = progress_new("rounding", "matrix", count_matrices(model), self.matrices);
    while (self.stream->layer < model->config.layers) {
        TRY(round_layer(&self));
        if (self.stream->layer % run->settings->checkpoint_layers == 0 && self.stream->layer < model->config.layers)
            TRY(save_state(&self));
    }
    run->rounding->form = solver->form;
    summarize(&self);
done:
    transformer_set_form(model, WEIGHT_STORED);
    progress_free(self.progress);
    stream_free(self.stream);
    free(self.fallbacks);
    return status;
}
