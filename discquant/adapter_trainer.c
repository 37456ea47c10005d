#include "discquant/adapter_trainer.h"

#include "core/base/mem.h"
#include "discquant/optimizer.h"

#include <math.h>
#include <stdlib.h>

double adapter_trainer_rate(const struct adapter_trainer_options *o, int64_t done) {
    struct optimizer_options like = {.steps = o->steps, .warmup = o->warmup, .rate = o->rate};
    return optimizer_rate(&like, done);
}

// ---- gradient of one pass ----

// From tokens to the KL of every row, and the gradient where the way back begins.
static enum status pass_forward(struct adapter_trainer *self, struct step *step, int64_t windows) {
    enum status status = STATUS_OK;
    struct transformer *model = self->lora->model;
    const struct adapter_trainer_options *o = &self->options;
    int64_t rows = windows * o->seq_len;
    struct value *teacher, *hidden;
    struct view tokens = view_rows(self->tokens, 0, rows);
    step_begin(step, (struct step_options){.seq_len = o->seq_len, .dtype = model->dtype});
    transformer_set_form(model, WEIGHT_STORED);
    TRY(transformer_forward(model, step, tokens, &teacher));
    step_switch(step, (struct step_options){
                          .gradient = true, .recompute = o->recompute, .seq_len = o->seq_len, .dtype = model->dtype});
    transformer_set_form(model, o->form);
    TRY(transformer_forward(model, step, tokens, &hidden));
    struct transformer_loss loss = {.teacher = teacher->data,
                                    .kl = view_rows(self->kl, 0, rows),
                                    .gradient_weight = 1.0 / (double)(o->batch * o->seq_len)};
    TRY(transformer_loss(model, step, hidden, &loss));
done:
    return status;
}

static enum status pass_body(struct step *step, void *context) {
    struct adapter_trainer *self = context;
    enum status status = pass_forward(self, step, self->options.micro_batch);
    if (status == STATUS_OK) status = step_backward(step);
    transformer_set_form(self->lora->model, WEIGHT_STORED);
    return status;
}

static enum status pass_run(struct adapter_trainer *self, const int32_t *tokens, int64_t windows, double *kl_sum) {
    enum status status = STATUS_OK;
    struct backend *backend = self->lora->model->backend;
    int64_t rows = windows * self->options.seq_len;
    TRY(backend_write(backend, view_rows(self->tokens, 0, rows), tokens));
    TRY(pass_forward(self, self->step, windows));
    TRY(backend_read(backend, view_rows(self->kl, 0, rows), self->host_kl));
    TRY(backend_sync(backend));
    for (int64_t i = 0; i < rows; i++) *kl_sum += self->host_kl[i];
    TRY(step_backward(self->step));
done:
    transformer_set_form(self->lora->model, WEIGHT_STORED);
    return status;
}

// ---- the step ----

static enum status update(struct adapter_trainer *self) {
    enum status status = STATUS_OK;
    const struct adapter_trainer_options *o = &self->options;
    for (int64_t i = 0; i < self->lora->n_weights; i++) {
        double scaling = i % 2 ? self->lora->scaling : 1;
        TRY(adamw_update(self->adamw, i,
                         (struct adamw_params){.rate = scaling * adapter_trainer_rate(o, self->done),
                                               .beta1 = 0.9,
                                               .beta2 = 0.999,
                                               .decay = o->decay / scaling,
                                               .step = self->done + 1,
                                               .factor = scaling}));
    }
done:
    return status;
}

enum status adapter_trainer_step(struct adapter_trainer *self, const int32_t *tokens, double *kl) {
    enum status status = STATUS_OK;
    const struct adapter_trainer_options *o = &self->options;
    double kl_sum = 0;
    TRY(adamw_zero(self->adamw));
    for (int64_t first = 0; first < o->batch; first += o->micro_batch) {
        int64_t n = o->batch - first < o->micro_batch ? o->batch - first : o->micro_batch;
        TRY(pass_run(self, tokens + first * o->seq_len, n, &kl_sum));
    }
    if (!isfinite(kl_sum))
        TRY(status_set(STATUS_INVALID, "step %lld of the adapters: the KL divergence is not finite; lower --lora-lr",
                       (long long)self->done));
    TRY(update(self));
    self->done++;
    *kl = kl_sum / (double)(o->batch * o->seq_len);
done:
    return status;
}

// ---- life ----

enum status adapter_trainer_new(struct lora *lora, struct step *step, const struct adapter_trainer_options *options,
                                struct adapter_trainer **out) {
    REQUIRE(lora->scaling != 0, "an adapter times 0 has no gradient");
    enum status status = STATUS_OK;
    struct backend *backend = lora->model->backend;
    struct adapter_trainer *self = mem_new(1, sizeof *self);
    *self = (struct adapter_trainer){.lora = lora, .options = *options, .step = step};
    if (self->options.micro_batch <= 0 || self->options.micro_batch > options->batch)
        self->options.micro_batch = options->batch;
    int64_t rows = self->options.micro_batch * options->seq_len;
    void *host = NULL;
    TRY(mem_buffer_new(rows * (int64_t)sizeof *self->host_kl, "losses", &host));
    self->host_kl = host;
    TRY(adamw_new(backend, lora->weights, lora->n_weights, &self->adamw));
    TRY(backend_matrix_new(backend, DTYPE_I32, rows, 1, "tokens", &self->tokens));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "losses", &self->kl));
    TRY(transformer_prepare(lora->model, options->seq_len));
    TRY(step_plan(backend, pass_body, self, &self->activation_bytes));
    step_begin(step, (struct step_options){0});
    TRY(step_reserve(step, self->activation_bytes));
    *out = self;
    self = NULL;
done:
    adapter_trainer_free(self);
    return status;
}

void adapter_trainer_free(struct adapter_trainer *self) {
    if (!self) return;
    struct backend *backend = self->lora->model->backend;
    adamw_free(self->adamw);
    backend_matrix_free(backend, &self->tokens);
    backend_matrix_free(backend, &self->kl);
    mem_buffer_free(self->host_kl);
    free(self);
}

int64_t adapter_trainer_bytes(const struct adapter_trainer *self) {
    enum { ARRAYS = 4 };
    return ARRAYS * (int64_t)sizeof(float) * self->lora->parameters;
}

// ---- state ----

enum status adapter_trainer_save(const struct adapter_trainer *self, struct checkpoint *state) {
    checkpoint_add_integer(state, "lora.done", self->done);
    return adamw_save(self->adamw, "lora.", state);
}

enum status adapter_trainer_load(struct adapter_trainer *self, const struct checkpoint *state) {
    enum status status = STATUS_OK;
    int64_t done = 0;
    TRY(checkpoint_integer(state, "lora.done", 0, self->options.steps, &done));
    TRY(adamw_load(self->adamw, "lora.", state));
    self->done = done;
done:
    return status;
}
