#include "spectra/taylor_pass.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { HOST_TOKENS = 2048, DEVICE_TOKENS = 16384 };

static struct view row_of(const struct taylor_passes *passes, int64_t direction, int64_t weight) {
    return view_rows(passes->directions->views[weight], direction, 1);
}

// Weights that a direction leaves alone need neither a tangent nor to be read again.
static enum status find_moves(struct taylor_passes *passes) {
    enum status status = STATUS_OK;
    const struct transformer *model = passes->model->transformer;
    void *host = NULL;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        int64_t n = weight->rows * weight->cols;
        TRY(mem_buffer_new(n * 4, weight->name, &host));
        for (int64_t d = 0; d < passes->directions->n; d++) {
            TRY(backend_floats_read(model->backend, row_of(passes, d, i), host));
            bool moves = false;
            for (int64_t e = 0; e < n; e++) moves = moves || ((const float *)host)[e] != 0;
            passes->moves[d * model->n_weights + i] = moves;
        }
        mem_buffer_free(host);
        host = NULL;
    }
done:
    mem_buffer_free(host);
    return status;
}

enum status taylor_passes_new(struct model *model, const struct directions *directions, const int32_t *tokens,
                              int64_t windows, int64_t seq_len, int64_t batch, struct taylor_passes **out) {
    REQUIRE(windows > 0 && seq_len > 1, "a window of two tokens at least");
    enum status status = STATUS_OK;
    struct backend *backend = model->transformer->backend;
    struct taylor_passes *passes = mem_new(1, sizeof *passes);
    int64_t tokens_most = backend->fns->host_memory ? HOST_TOKENS : DEVICE_TOKENS;
    if (!batch) batch = tokens_most / seq_len;
    if (batch < 1) batch = 1;
    if (batch > windows) batch = windows;
    *passes = (struct taylor_passes){.model = model,
                                     .directions = directions,
                                     .tokens = tokens,
                                     .windows = windows,
                                     .seq_len = seq_len,
                                     .batch = batch};
    int64_t rows = batch * seq_len;
    passes->moves = mem_new((size_t)(directions->n * model->transformer->n_weights), sizeof *passes->moves);
    passes->host_targets = mem_new((size_t)rows, sizeof *passes->host_targets);
    passes->host = mem_new((size_t)rows, sizeof *passes->host);
    TRY(transformer_prepare(model->transformer, seq_len));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &passes->on_device));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "targets", &passes->targets));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &passes->loss));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "tangents", &passes->tangent));
    TRY(find_moves(passes));
    *out = passes;
    passes = NULL;
done:
    taylor_passes_free(passes);
    return status;
}

void taylor_passes_free(struct taylor_passes *passes) {
    if (!passes) return;
    taylor_passes_aim(passes, -1);
    struct view *views[] = {&passes->on_device, &passes->targets, &passes->loss, &passes->tangent};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        backend_matrix_free(passes->model->transformer->backend, views[i]);
    free(passes->moves);
    free(passes->host_targets);
    free(passes->host);
    free(passes);
}

static enum status move_weight(struct taylor_passes *passes, int64_t direction, int64_t i, double t) {
    enum status status = STATUS_OK;
    struct weight *weight = &passes->model->transformer->weights[i];
    struct backend *backend = passes->model->transformer->backend;
    struct tensor_source source = model_folder_source(passes->model->folder);
    int64_t n = weight->rows * weight->cols;
    void *own = NULL, *along = NULL;
    TRY(mem_buffer_new(n * 4, weight->name, &own));
    TRY(mem_buffer_new(n * 4, weight->name, &along));
    TRY(source.read(source.self, weight->name, weight->rows, weight->cols, own, NULL));
    TRY(backend_floats_read(backend, row_of(passes, direction, i), along));
    float *w = own;
    const float *d = along;
    for (int64_t e = 0; e < n; e++) w[e] = (float)((double)w[e] + t * (double)d[e]);
    TRY(backend_floats_write(backend, weight->stored, w));
done:
    mem_buffer_free(own);
    mem_buffer_free(along);
    return status;
}

enum status taylor_passes_move(struct taylor_passes *passes, int64_t direction, double t) {
    enum status status = STATUS_OK;
    int64_t n = passes->model->transformer->n_weights;
    passes->moved = direction;
    passes->at = t;
    for (int64_t i = 0; i < n; i++)
        if (passes->moves[direction * n + i]) TRY(move_weight(passes, direction, i, t));
done:
    return status;
}

void taylor_passes_aim(struct taylor_passes *passes, int64_t direction) {
    struct transformer *model = passes->model->transformer;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *weight = &model->weights[i];
        weight->direction = (struct view){0};
        if (direction >= 0 && passes->moves[direction * model->n_weights + i])
            weight->direction = view_new(row_of(passes, direction, i).data, DTYPE_F32, weight->rows, weight->cols);
    }
}

// The last position of a window predicts nothing.
static enum status read_back(struct taylor_passes *passes, struct view rows, int64_t n, const char *what, double *out) {
    int64_t seq_len = passes->seq_len, each = seq_len - 1;
    struct backend *backend = passes->model->transformer->backend;
    enum status status = backend_read(backend, view_rows(rows, 0, n * seq_len), passes->host);
    if (status == STATUS_OK) status = backend_sync(backend);
    for (int64_t i = 0; status == STATUS_OK && i < n * each; i++) {
        out[i] = passes->host[i / each * seq_len + i % each];
        if (!isfinite(out[i]))
            status = status_set(STATUS_INVALID, "%s: a token's %s is not finite at t = %g of the way to %s",
                                model_folder_path(passes->model->folder), what, passes->at,
                                passes->directions->names[passes->moved]);
    }
    return status;
}

enum status taylor_passes_run(struct taylor_passes *passes, int64_t first, int64_t n, double *losses,
                              double *tangents) {
    REQUIRE(n <= passes->batch && first + n <= passes->windows, "windows of one batch");
    enum status status = STATUS_OK;
    struct transformer *model = passes->model->transformer;
    struct step *step = passes->model->step;
    struct value *hidden = NULL;
    int64_t rows = n * passes->seq_len;
    const int32_t *tokens = passes->tokens + first * passes->seq_len;
    for (int64_t i = 0; i < rows; i++) passes->host_targets[i] = (i + 1) % passes->seq_len ? tokens[i + 1] : -1;
    TRY(backend_write(model->backend, view_rows(passes->on_device, 0, rows), tokens));
    TRY(backend_write(model->backend, view_rows(passes->targets, 0, rows), passes->host_targets));
    step_begin(step, (struct step_options){.seq_len = passes->seq_len, .dtype = model->dtype});
    TRY(transformer_forward(model, step, view_rows(passes->on_device, 0, rows), &hidden));
    struct transformer_loss about = {.targets = view_rows(passes->targets, 0, rows),
                                     .cross_entropy = view_rows(passes->loss, 0, rows)};
    if (tangents) about.tangent = view_rows(passes->tangent, 0, rows);
    TRY(transformer_loss(model, step, hidden, &about));
    TRY(read_back(passes, passes->loss, n, "loss", losses));
    if (tangents) TRY(read_back(passes, passes->tangent, n, "derivative", tangents));
done:
    return status;
}
