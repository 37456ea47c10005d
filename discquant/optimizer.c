#include "discquant/optimizer.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

double optimizer_rate(const struct optimizer_options *o, int64_t done) {
    if (done < o->warmup) return o->rate * (double)done / (double)o->warmup;
    double progress = (double)(done - o->warmup) / (double)(o->steps > o->warmup ? o->steps - o->warmup : 1);
    return o->rate * 0.5 * (1 + cos(3.14159265358979323846 * fmin(progress, 1)));
}

// ---- gradient of one pass ----

static struct finish_terms terms_of(const struct optimizer *self) {
    const struct optimizer_options *o = &self->options;
    return finish_terms(&o->finish, self->done, o->steps, o->strength);
}

// From tokens to the KL of every row, and the gradient where the way back begins.
static enum status pass_forward(struct optimizer *self, struct step *step, int64_t windows) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    const struct optimizer_options *o = &self->options;
    int64_t rows = windows * o->seq_len;
    struct value *teacher, *hidden;
    struct view tokens = view_rows(self->tokens, 0, rows);
    step_begin(step, (struct step_options){.seq_len = o->seq_len, .dtype = model->dtype});
    transformer_set_form(model, WEIGHT_STORED);
    TRY(transformer_forward(model, step, tokens, &teacher));
    step_switch(step, (struct step_options){
                          .gradient = true, .recompute = o->recompute, .seq_len = o->seq_len, .dtype = model->dtype});
    transformer_set_form(model, terms_of(self).form);
    TRY(transformer_forward(model, step, tokens, &hidden));
    struct transformer_loss loss = {.teacher = teacher->data,
                                    .kl = view_rows(self->kl, 0, rows),
                                    .gradient_weight = 1.0 / (double)(o->batch * o->seq_len)};
    TRY(transformer_loss(model, step, hidden, &loss));
done:
    return status;
}

static enum status pass_body(struct step *step, void *context) {
    struct optimizer *self = context;
    enum status status = pass_forward(self, step, self->options.micro_batch);
    if (status == STATUS_OK) status = step_backward(step);
    transformer_set_form(self->rounding->model, WEIGHT_STORED);
    return status;
}

static enum status pass_run(struct optimizer *self, const int32_t *tokens, int64_t windows, double *kl_sum) {
    enum status status = STATUS_OK;
    struct backend *backend = self->rounding->model->backend;
    int64_t rows = windows * self->options.seq_len;
    TRY(backend_write(backend, view_rows(self->tokens, 0, rows), tokens));
    TRY(pass_forward(self, self->step, windows));
    TRY(backend_read(backend, view_rows(self->kl, 0, rows), self->host_kl));
    TRY(backend_sync(backend));
    for (int64_t i = 0; i < rows; i++) *kl_sum += self->host_kl[i];
    // The way back changes x.
    if (!isfinite(*kl_sum))
        TRY(status_set(STATUS_INVALID, "step %lld: the KL divergence is not finite; lower --lr",
                       (long long)self->done));
    TRY(step_backward(self->step));
done:
    transformer_set_form(self->rounding->model, WEIGHT_STORED);
    return status;
}

// ---- the step ----

static enum status weight_update(struct optimizer *self, const struct weight *w, struct view grad) {
    const struct optimizer_options *o = &self->options;
    struct finish_terms terms = terms_of(self);
    double step2 = self->rounding->step2; // 0: every weight is on the grid and has no gradient
    struct adamw_params adamw = {.rate = optimizer_rate(o, self->done),
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .decay = o->decay,
                                 .step = self->done + 1,
                                 .low = 0,
                                 .high = 1,
                                 .factor = step2 > 0 ? o->lambda / step2 : 0,
                                 .limit = o->clamp,
                                 .strength = terms.strength,
                                 .concave = terms.concave,
                                 .grid = &self->rounding->grid,
                                 .rng = {.seed = o->seed, .stream = RNG_ROUND + (uint64_t)w->index}};
    return backend_run(self->rounding->model->backend,
                       &(struct op_call){.op = OP_adamw,
                                         .in = {w->x, self->m[w->index], self->v[w->index], grad, w->stored, w->scale},
                                         .out = {w->x},
                                         .params.adamw = adamw});
}

static bool is_one_pass(const struct optimizer *self) { return self->options.micro_batch == self->options.batch; }

static enum status sink_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                struct view x, int64_t first) {
    (void)first;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view grad;
    TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &grad));
    TRY(weight_pull_back(step, weight, dy, x, grad, false));
    TRY(weight_update((struct optimizer *)sink, weight, grad));
    step_release(step, mark);
done:
    return status;
}

static enum status update(struct optimizer *self) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].grid) TRY(weight_update(self, &model->weights[i], model->weights[i].grad));
done:
    return status;
}

static enum status fill_zero(struct backend *backend, struct view v) {
    return backend_run(backend, &(struct op_call){.op = OP_fill, .out = {v}, .params.value = 0});
}

enum status optimizer_step(struct optimizer *self, const int32_t *tokens, double *kl) {
    enum status status = STATUS_OK;
    const struct optimizer_options *o = &self->options;
    struct transformer *model = self->rounding->model;
    double kl_sum = 0;
    for (int64_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].grad.rows) TRY(fill_zero(model->backend, model->weights[i].grad));
    for (int64_t first = 0; first < o->batch; first += o->micro_batch) {
        int64_t n = o->batch - first < o->micro_batch ? o->batch - first : o->micro_batch;
        TRY(pass_run(self, tokens + first * o->seq_len, n, &kl_sum));
    }
    if (!is_one_pass(self)) TRY(update(self));
    self->done++;
    TRY(finish_freeze(&o->finish, self->rounding, self->v, self->done, o->steps));
    *kl = kl_sum / (double)(o->batch * o->seq_len);
done:
    return status;
}

// ---- life ----

static enum status moments_new(struct optimizer *self) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        enum dtype dtype = w->x.dtype;
        if (!is_one_pass(self)) TRY(backend_matrix_new(model->backend, dtype, w->rows, w->cols, "gradient", &w->grad));
        TRY(backend_matrix_new(model->backend, dtype, w->rows, w->cols, "first moment", &self->m[i]));
        TRY(backend_matrix_new(model->backend, dtype, w->rows, w->cols, "second moment", &self->v[i]));
        TRY(fill_zero(model->backend, self->m[i]));
        TRY(fill_zero(model->backend, self->v[i]));
        w->sink = is_one_pass(self) ? &self->sink : &accumulate_sink;
    }
done:
    return status;
}

enum status optimizer_new(struct rounding *rounding, struct step *step, const struct optimizer_options *options,
                          struct optimizer **out) {
    enum status status = STATUS_OK;
    struct transformer *model = rounding->model;
    struct optimizer *self = mem_new(1, sizeof *self);
    *self = (struct optimizer){.sink.product = sink_product, .rounding = rounding, .options = *options, .step = step};
    if (self->options.micro_batch <= 0 || self->options.micro_batch > options->batch)
        self->options.micro_batch = options->batch;
    int64_t rows = self->options.micro_batch * options->seq_len;
    self->m = mem_new((size_t)model->n_weights, sizeof *self->m);
    self->v = mem_new((size_t)model->n_weights, sizeof *self->v);
    void *host = NULL;
    TRY(mem_buffer_new(rows * 8, "losses", &host));
    self->host_kl = host;
    TRY(moments_new(self));
    TRY(backend_matrix_new(model->backend, DTYPE_I32, rows, 1, "tokens", &self->tokens));
    TRY(backend_matrix_new(model->backend, DTYPE_F64, rows, 1, "losses", &self->kl));
    TRY(transformer_prepare(model, options->seq_len));
    TRY(step_plan(model->backend, pass_body, self, &self->activation_bytes));
    step_begin(step, (struct step_options){0});
    TRY(step_reserve(step, self->activation_bytes));
    *out = self;
    self = NULL;
done:
    optimizer_free(self);
    return status;
}

static int64_t bytes_of(struct view v) { return view_count(v) * dtype_bytes(v.dtype); }

int64_t optimizer_planned_bytes(const struct optimizer *self) {
    const struct transformer *model = self->rounding->model;
    int64_t bytes = self->activation_bytes;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        const struct view views[] = {w->stored, w->scale, w->x, w->grad, self->m[i], self->v[i]};
        for (size_t k = 0; k < sizeof views / sizeof *views; k++) bytes += bytes_of(views[k]);
    }
    return bytes;
}

void optimizer_free(struct optimizer *self) {
    if (!self) return;
    struct transformer *model = self->rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        backend_matrix_free(model->backend, &self->m[i]);
        backend_matrix_free(model->backend, &self->v[i]);
        if (!model->weights[i].grid) continue;
        backend_matrix_free(model->backend, &model->weights[i].grad);
        model->weights[i].sink = NULL;
    }
    backend_matrix_free(model->backend, &self->tokens);
    backend_matrix_free(model->backend, &self->kl);
    free(self->m);
    free(self->v);
    mem_buffer_free(self->host_kl);
    free(self);
}
