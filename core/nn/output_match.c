#include "core/nn/output_match.h"

#include "core/base/mem.h"

#include <stdlib.h>

struct match_tap {
    struct output_tap tap;
    struct output_match *match;
    struct output_tap **place; // that points to the tap
    struct view teacher;       // [windows seq_len, cols]
    struct view squares;       // F64 [windows, 1] of the teacher
    struct view error;         // F64 [windows seq_len, 1]
};

static enum status match_take(struct output_tap *tap, struct step *step, struct view y) {
    enum status status = STATUS_OK;
    struct match_tap *self = (struct match_tap *)tap;
    struct backend *backend = step_backend(step);
    if (!self->match->teaches) return STATUS_OK;
    struct view to = view_rows(self->teacher, 0, y.rows);
    TRY(backend_run(backend, &(struct op_call){.op = OP_copy, .in = {y}, .out = {to}}));
    TRY(backend_run(backend, &(struct op_call){.op = OP_sum_squares,
                                               .in = {to},
                                               .out = {view_rows(self->squares, 0, y.rows / self->match->seq_len)}}));
done:
    return status;
}

static enum status match_pull(struct output_tap *tap, struct step *step, struct view y, struct view dy) {
    const struct match_tap *self = (struct match_tap *)tap;
    const struct output_match *match = self->match;
    return backend_run(step_backend(step),
                       &(struct op_call){.op = OP_output_error,
                                         .accumulate = true,
                                         .in = {y, view_rows(self->teacher, 0, y.rows),
                                                view_rows(self->squares, 0, y.rows / match->seq_len)},
                                         .out = {dy, view_rows(self->error, 0, y.rows)},
                                         .params.factor = match->weight / (double)match->n});
}

static enum status tap_add(struct output_match *match, struct output_tap **place, int64_t cols) {
    enum status status = STATUS_OK;
    struct backend *backend = match->model->backend;
    struct match_tap *self = &match->taps[match->n++];
    int64_t rows = match->windows * match->seq_len;
    REQUIRE(!*place, "an output has one tap");
    *self = (struct match_tap){.tap = {match_take, match_pull}, .match = match, .place = place};
    *place = &self->tap;
    TRY(backend_matrix_new(backend, match->model->dtype, rows, cols, "the original model's outputs", &self->teacher));
    TRY(backend_matrix_new(backend, DTYPE_F64, match->windows, 1, "norms of outputs", &self->squares));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "errors of outputs", &self->error));
done:
    return status;
}

enum status output_match_new(struct transformer *model, enum match_kind kind, int64_t windows, int64_t seq_len,
                             struct output_match **out) {
    enum status status = STATUS_OK;
    struct output_match *match = mem_new(1, sizeof *match);
    void *host = NULL;
    *match = (struct output_match){.model = model, .kind = kind, .windows = windows, .seq_len = seq_len};
    match->taps =
        mem_new((size_t)(kind == MATCH_LAYERS ? model->config.layers : model->n_weights), sizeof *match->taps);
    TRY(mem_buffer_new(windows * seq_len * (int64_t)sizeof(double), "errors of outputs", &host));
    match->host = host;
    if (kind == MATCH_LAYERS) {
        for (int64_t l = 0; l < model->config.layers; l++)
            TRY(tap_add(match, &model->layers[l].output, model->config.hidden));
    } else {
        for (int64_t i = 0; i < model->n_weights; i++) {
            struct weight *w = &model->weights[i];
            if (w->is_linear) TRY(tap_add(match, &w->output, w->rows));
        }
    }
    *out = match;
    match = NULL;
done:
    output_match_free(match);
    return status;
}

void output_match_free(struct output_match *match) {
    if (!match) return;
    for (int64_t i = 0; i < match->n; i++) {
        struct match_tap *self = &match->taps[i];
        *self->place = NULL;
        backend_matrix_free(match->model->backend, &self->teacher);
        backend_matrix_free(match->model->backend, &self->squares);
        backend_matrix_free(match->model->backend, &self->error);
    }
    mem_buffer_free(match->host);
    free(match->taps);
    free(match);
}

enum status output_match_sum(struct output_match *match, int64_t windows, double *sum) {
    enum status status = STATUS_OK;
    int64_t rows = windows * match->seq_len;
    double total = 0;
    for (int64_t i = 0; i < match->n; i++) {
        TRY(backend_read(match->model->backend, view_rows(match->taps[i].error, 0, rows), match->host));
        TRY(backend_sync(match->model->backend));
        for (int64_t k = 0; k < rows; k++) total += match->host[k];
    }
    *sum = total / (double)match->n;
done:
    return status;
}
