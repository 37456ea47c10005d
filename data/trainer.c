#include "data/trainer.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double trainer_rate(const struct trainer_options *o, int64_t done) {
    const double last = 0.1; // share of the rate that the cosine ends at
    if (done < o->warmup) return o->rate * (double)(done + 1) / (double)o->warmup;
    double progress = (double)(done - o->warmup) / (double)(o->steps > o->warmup ? o->steps - o->warmup : 1);
    return o->rate * (last + (1 - last) * 0.5 * (1 + cos(3.14159265358979323846 * fmin(progress, 1))));
}

// ---- the step ----

static enum status pass_body(struct step *step, void *context) {
    enum status status = STATUS_OK;
    struct trainer *self = context;
    const struct trainer_options *o = &self->options;
    struct value *hidden = NULL;
    step_begin(step, (struct step_options){.gradient = true, .seq_len = o->seq_len, .dtype = self->model->dtype});
    TRY(transformer_forward(self->model, step, self->tokens, &hidden));
    struct transformer_loss loss = {.targets = self->targets,
                                    .cross_entropy = self->loss,
                                    .gradient_weight = 1.0 / (double)(o->batch * (o->seq_len - 1))};
    TRY(transformer_loss(self->model, step, hidden, &loss));
    TRY(step_backward(step));
done:
    return status;
}

static enum status pass_run(struct trainer *self, const int32_t *tokens, double *loss) {
    enum status status = STATUS_OK;
    struct transformer *model = self->model;
    int64_t rows = self->tokens.rows, seq_len = self->options.seq_len;
    for (int64_t i = 0; i < rows; i++) self->host_targets[i] = (i + 1) % seq_len ? tokens[i + 1] : -1;
    TRY(adamw_zero(self->adamw));
    TRY(backend_write(model->backend, self->tokens, tokens));
    TRY(backend_write(model->backend, self->targets, self->host_targets));
    TRY(pass_body(self->step, self));
    for (int64_t i = 0; i < model->n_weights; i++)
        TRY(backend_run(model->backend, &(struct op_call){.op = OP_sum_squares,
                                                          .in = {model->weights[i].grad},
                                                          .out = {view_rows(self->squares, i, 1)}}));
    TRY(backend_read(model->backend, self->loss, self->host_loss));
    TRY(backend_read(model->backend, self->squares, self->host_squares));
    TRY(backend_sync(model->backend));
    double loss_sum = 0, squares = 0;
    for (int64_t i = 0; i < rows; i++) loss_sum += self->host_loss[i];
    for (int64_t i = 0; i < model->n_weights; i++) squares += self->host_squares[i];
    self->norm = sqrt(squares);
    *loss = loss_sum / (double)(self->options.batch * (seq_len - 1));
done:
    return status;
}

static enum status update(struct trainer *self) {
    enum status status = STATUS_OK;
    const struct trainer_options *o = &self->options;
    struct transformer *model = self->model;
    struct adamw_params adamw = {.rate = trainer_rate(o, self->done),
                                 .beta1 = 0.9,
                                 .beta2 = 0.95,
                                 .step = self->done + 1,
                                 .factor = o->clip > 0 && self->norm > o->clip ? o->clip / self->norm : 1};
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *w = &model->weights[i];
        adamw.decay = w->rows > 1 && w != model->embedding ? o->decay : 0;
        TRY(adamw_update(self->adamw, i, adamw));
    }
done:
    return status;
}

enum status trainer_step(struct trainer *self, const int32_t *tokens, double *loss) {
    enum status status = STATUS_OK;
    double before = 0;
    TRY(pass_run(self, tokens, &before));
    if (!isfinite(before) || !isfinite(self->norm))
        TRY(status_set(STATUS_INVALID,
                       "the training diverged at step %lld: loss %g, gradient norm %g; give a smaller --lr",
                       (long long)self->done + 1, before, self->norm));
    TRY(update(self));
    self->done++;
    *loss = before;
done:
    return status;
}

// ---- life ----

enum status trainer_new(struct transformer *model, struct step *step, const struct trainer_options *options,
                        struct trainer **out) {
    enum status status = STATUS_OK;
    struct backend *backend = model->backend;
    struct trainer *self = mem_new(1, sizeof *self);
    *self = (struct trainer){.model = model, .options = *options, .step = step};
    int64_t rows = options->batch * options->seq_len, n = model->n_weights;
    self->host_squares = mem_new((size_t)n, sizeof *self->host_squares);
    TRY(adamw_new(backend, model->weights, n, &self->adamw));
    TRY(mem_buffer_new(rows * (int64_t)sizeof *self->host_targets, "targets", (void **)&self->host_targets));
    TRY(mem_buffer_new(rows * (int64_t)sizeof *self->host_loss, "losses", (void **)&self->host_loss));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &self->tokens));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "targets", &self->targets));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &self->loss));
    TRY(backend_matrix_new(backend, DTYPE_F64, n, 1, "gradient norms", &self->squares));
    TRY(transformer_prepare(model, options->seq_len));
    TRY(step_plan(backend, pass_body, self, &self->activation_bytes));
    step_begin(step, (struct step_options){0});
    TRY(step_reserve(step, self->activation_bytes));
    *out = self;
    self = NULL;
done:
    trainer_free(self);
    return status;
}

void trainer_free(struct trainer *self) {
    if (!self) return;
    struct backend *backend = self->model->backend;
    adamw_free(self->adamw);
    struct view *views[] = {&self->tokens, &self->targets, &self->loss, &self->squares};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) backend_matrix_free(backend, views[i]);
    mem_buffer_free(self->host_targets);
    mem_buffer_free(self->host_loss);
    free(self->host_squares);
    free(self);
}

// ---- state ----

enum status trainer_save(const struct trainer *self, struct checkpoint *state) {
    checkpoint_add_integer(state, "done", self->done);
    return adamw_save(self->adamw, "", state);
}

enum status trainer_load(struct trainer *self, const struct checkpoint *state) {
    enum status status = STATUS_OK;
    int64_t done = 0;
    TRY(checkpoint_integer(state, "done", 0, self->options.steps, &done));
    TRY(adamw_load(self->adamw, "", state));
    self->done = done;
done:
    return status;
}
