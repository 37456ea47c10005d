#include "core/graph/weight.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

static struct view sample_rows(struct step *step, struct view v, int64_t sample) {
    int64_t n = step_options(step)->seq_len;
    return view_rows(v, sample * n, n);
}

// Whole samples in `rows` rows.
static int64_t sample_count(struct step *step, int64_t rows) {
    int64_t n = step_options(step)->seq_len;
    REQUIRE(rows % n == 0, "the sink sees whole samples");
    return rows / n;
}

// sums[first ..] += sums of squares of the equal parts of `a`.
static enum status add_squares(struct norm_sink *self, struct view a, int64_t first, int64_t parts) {
    return backend_run(self->backend, &(struct op_call){.op = OP_sum_squares,
                                                        .accumulate = true,
                                                        .in = {a},
                                                        .out = {view_rows(self->sums, first, parts)}});
}

static struct view shared_part(const struct norm_sink *self, int64_t sample) {
    return view_rows(self->shared_grad, sample * self->shared->rows, self->shared->rows);
}

static enum status norm_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                struct view x, int64_t first) {
    struct norm_sink *self = (struct norm_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    bool shared = weight == self->shared;
    struct view grad = {0};
    if (!shared) TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &grad));
    int64_t samples = sample_count(step, dy.rows), before = sample_count(step, first);
    for (int64_t b = 0; b < samples; b++) {
        if (shared) grad = shared_part(self, before + b);
        TRY(backend_run(self->backend, &(struct op_call){.op = OP_matmul,
                                                         .accumulate = shared,
                                                         .in = {sample_rows(step, dy, b), sample_rows(step, x, b)},
                                                         .out = {grad},
                                                         .params.matmul.transpose_a = true}));
        if (!shared) TRY(add_squares(self, grad, before + b, 1));
    }
    step_release(step, mark);
done:
    return status;
}

static enum status norm_gain(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                             struct view x, struct view rstd) {
    struct norm_sink *self = (struct norm_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows);
    struct view grad;
    TRY(step_take(step, DTYPE_F32, samples, weight->cols, &grad));
    TRY(backend_run(self->backend, &(struct op_call){.op = OP_rmsnorm_gain_grad, .in = {x, rstd, dy}, .out = {grad}}));
    TRY(add_squares(self, grad, 0, samples));
    step_release(step, mark);
done:
    return status;
}

static enum status norm_table(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                              struct view tokens) {
    struct norm_sink *self = (struct norm_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    bool shared = weight == self->shared;
    struct view grad = {0};
    if (!shared) TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &grad));
    for (int64_t b = 0; b < sample_count(step, dy.rows); b++) {
        if (shared)
            grad = shared_part(self, b);
        else
            TRY(backend_run(self->backend, &(struct op_call){.op = OP_fill, .out = {grad}, .params.value = 0}));
        TRY(backend_run(self->backend, &(struct op_call){.op = OP_embedding_grad,
                                                         .in = {sample_rows(step, dy, b), sample_rows(step, tokens, b)},
                                                         .out = {grad}}));
        if (!shared) TRY(add_squares(self, grad, b, 1));
    }
    step_release(step, mark);
done:
    return status;
}

enum status norm_sink_new(struct backend *backend, int64_t samples, const struct weight *shared,
                          struct norm_sink **out) {
    enum status status = STATUS_OK;
    struct norm_sink *self = mem_new(1, sizeof *self);
    *self = (struct norm_sink){
        .sink = {norm_product, norm_gain, norm_table}, .backend = backend, .samples = samples, .shared = shared};
    self->norms = mem_new((size_t)samples, sizeof *self->norms);
    TRY(backend_matrix_new(backend, DTYPE_F64, samples, 1, "norms", &self->sums));
    if (shared)
        TRY(backend_matrix_new(backend, DTYPE_F32, samples * shared->rows, shared->cols,
                               "per-sample gradients of a shared weight", &self->shared_grad));
    *out = self;
    self = NULL;
done:
    norm_sink_free(self);
    return status;
}

void norm_sink_free(struct norm_sink *self) {
    if (!self) return;
    backend_matrix_free(self->backend, &self->sums);
    backend_matrix_free(self->backend, &self->shared_grad);
    free(self->norms);
    free(self);
}

enum status norm_sink_begin(struct norm_sink *self) {
    memset(self->norms, 0, (size_t)self->samples * sizeof *self->norms);
    enum status status = backend_write(self->backend, self->sums, self->norms);
    if (status != STATUS_OK || !self->shared) return status;
    return backend_run(self->backend, &(struct op_call){.op = OP_fill, .out = {self->shared_grad}, .params.value = 0});
}

enum status norm_sink_end(struct norm_sink *self) {
    enum status status = STATUS_OK;
    if (self->shared) TRY(add_squares(self, self->shared_grad, 0, self->samples));
    TRY(backend_read(self->backend, self->sums, self->norms));
    TRY(backend_sync(self->backend));
done:
    return status;
}
