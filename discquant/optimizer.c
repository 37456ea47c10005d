#include "discquant/optimizer.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double optimizer_rate(const struct optimizer_options *o, int64_t done) {
    if (done < o->warmup) return o->rate * (double)done / (double)o->warmup;
    double progress = (double)(done - o->warmup) / (double)(o->steps > o->warmup ? o->steps - o->warmup : 1);
    return o->rate * 0.5 * (1 + cos(3.14159265358979323846 * fmin(progress, 1)));
}

// ---- gradient of one pass ----

static enum status fill_zero(struct backend *backend, struct view v) {
    return backend_run(backend, &(struct op_call){.op = OP_fill, .out = {v}, .params.value = 0});
}

static struct finish_terms terms_of(const struct optimizer *self) {
    const struct optimizer_options *o = &self->options;
    return finish_terms(&o->finish, self->done, o->steps, o->strength);
}

static enum weight_form student_form(const struct optimizer *self) {
    return self->options.latent ? WEIGHT_STRAIGHT : terms_of(self).form;
}

static void matches_set(struct optimizer *self, bool teaches) {
    const struct optimizer_options *o = &self->options;
    if (self->layers) self->layers->teaches = teaches, self->layers->weight = o->objective.layer / (double)o->batch;
    if (self->matrices)
        self->matrices->teaches = teaches, self->matrices->weight = o->objective.linear / (double)o->batch;
}

// The losses at the end of the network, and the gradient of their part of the objective, where the way back begins.
static enum status pass_losses(struct optimizer *self, struct step *step, struct value *teacher, struct value *hidden) {
    const struct optimizer_options *o = &self->options;
    struct transformer *model = self->rounding->model;
    int64_t rows = hidden->data.rows;
    struct transformer_loss loss = {.teacher = teacher->data,
                                    .kl = view_rows(self->kl, 0, rows),
                                    .gradient_weight = o->objective.kl / (double)(o->batch * o->seq_len)};
    if (self->targets.rows) {
        loss.targets = view_rows(self->targets, 0, rows);
        loss.cross_entropy = view_rows(self->cross_entropy, 0, rows);
        loss.truth_weight = o->objective.truth / (double)(o->batch * (o->seq_len - 1));
    }
    enum status status = transformer_loss(model, step, hidden, &loss);
    if (status != STATUS_OK || loss.gradient_weight != 0 || loss.truth_weight != 0) return status;
    struct view grad;
    status = step_seed(step, hidden, &grad);
    return status == STATUS_OK ? fill_zero(model->backend, grad) : status;
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
    matches_set(self, true);
    TRY(transformer_forward(model, step, tokens, &teacher));
    matches_set(self, false);
    step_switch(step, (struct step_options){
                          .gradient = true, .recompute = o->recompute, .seq_len = o->seq_len, .dtype = model->dtype});
    transformer_set_form(model, student_form(self));
    TRY(transformer_forward(model, step, tokens, &hidden));
    TRY(pass_losses(self, step, teacher, hidden));
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

// Sums over the passes of a step.
struct losses {
    double kl, cross_entropy; // over positions
    double layers, matrices;  // over windows
};

static enum status losses_add(struct optimizer *self, struct view values, double *sum) {
    enum status status = STATUS_OK;
    struct backend *backend = self->rounding->model->backend;
    TRY(backend_read(backend, values, self->host_losses));
    TRY(backend_sync(backend));
    for (int64_t i = 0; i < values.rows; i++) *sum += self->host_losses[i];
done:
    return status;
}

static enum status tokens_write(struct optimizer *self, const int32_t *tokens, int64_t rows) {
    enum status status = STATUS_OK;
    struct backend *backend = self->rounding->model->backend;
    TRY(backend_write(backend, view_rows(self->tokens, 0, rows), tokens));
    if (self->targets.rows) {
        int64_t seq_len = self->options.seq_len;
        for (int64_t i = 0; i < rows; i++) self->host_targets[i] = (i + 1) % seq_len ? tokens[i + 1] : -1;
        TRY(backend_write(backend, view_rows(self->targets, 0, rows), self->host_targets));
    }
done:
    return status;
}

static enum status pass_run(struct optimizer *self, const int32_t *tokens, int64_t windows, struct losses *sums) {
    enum status status = STATUS_OK;
    int64_t rows = windows * self->options.seq_len;
    TRY(tokens_write(self, tokens, rows));
    TRY(pass_forward(self, self->step, windows));
    TRY(losses_add(self, view_rows(self->kl, 0, rows), &sums->kl));
    if (self->targets.rows) TRY(losses_add(self, view_rows(self->cross_entropy, 0, rows), &sums->cross_entropy));
    // The way back changes x.
    if (!isfinite(sums->kl))
        TRY(status_set(STATUS_INVALID, "step %lld: the KL divergence is not finite; lower --lr",
                       (long long)self->done));
    TRY(step_backward(self->step));
    double sum = 0;
    if (self->layers) {
        TRY(output_match_sum(self->layers, windows, &sum));
        sums->layers += sum;
    }
    if (self->matrices) {
        TRY(output_match_sum(self->matrices, windows, &sum));
        sums->matrices += sum;
    }
done:
    transformer_set_form(self->rounding->model, WEIGHT_STORED);
    return status;
}

// ---- the step ----

static struct adamw_params adamw_of(const struct optimizer *self, const struct weight *w) {
    const struct optimizer_options *o = &self->options;
    struct finish_terms terms = terms_of(self);
    double step2 = self->rounding->step2; // 0: every weight is on the grid and has no gradient
    struct adamw_params adamw = {.rate = optimizer_rate(o, self->done),
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .decay = o->decay,
                                 .step = self->done + 1,
                                 .low = -INFINITY,
                                 .high = INFINITY,
                                 .factor = 1,
                                 .grid = &self->rounding->grid,
                                 .rng = {.seed = o->seed, .stream = RNG_ROUND + (uint64_t)w->index}};
    if (o->latent) return adamw;
    adamw.low = 0, adamw.high = 1;
    adamw.factor = step2 > 0 ? o->lambda / step2 : 0;
    adamw.limit = o->clamp;
    adamw.strength = terms.strength;
    adamw.concave = terms.concave;
    adamw.random = o->random;
    adamw.pull = (struct rng){.seed = o->seed, .stream = RNG_DIRECTION + (uint64_t)w->index};
    return adamw;
}

static enum status weight_update(struct optimizer *self, const struct weight *w, struct view grad) {
    struct op_call call = {.op = OP_adamw,
                           .in = {w->x, self->m[w->index], self->v[w->index], grad, w->stored, w->scale},
                           .out = {w->x},
                           .params.adamw = adamw_of(self, w)};
    if (self->options.latent || self->options.random) call.in[4] = call.in[5] = (struct view){0};
    return backend_run(self->rounding->model->backend, &call);
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

enum status optimizer_step(struct optimizer *self, const int32_t *tokens, double *kl) {
    enum status status = STATUS_OK;
    const struct optimizer_options *o = &self->options;
    struct transformer *model = self->rounding->model;
    const struct objective *a = &o->objective;
    struct losses sums = {0};
    for (int64_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].grad.rows) TRY(fill_zero(model->backend, model->weights[i].grad));
    for (int64_t first = 0; first < o->batch; first += o->micro_batch) {
        int64_t n = o->batch - first < o->micro_batch ? o->batch - first : o->micro_batch;
        TRY(pass_run(self, tokens + first * o->seq_len, n, &sums));
    }
    if (!is_one_pass(self)) TRY(update(self));
    self->done++;
    if (!o->latent) TRY(finish_freeze(&o->finish, self->rounding, self->v, self->done, o->steps));
    *kl = sums.kl / (double)(o->batch * o->seq_len);
    self->objective = a->kl * *kl + a->truth * sums.cross_entropy / (double)(o->batch * (o->seq_len - 1)) +
                      (a->layer * sums.layers + a->linear * sums.matrices) / (double)o->batch;
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

static enum status host_new(int64_t bytes, void *out) {
    void *buffer = NULL;
    enum status status = mem_buffer_new(bytes, "losses", &buffer);
    if (status == STATUS_OK) memcpy(out, &buffer, sizeof buffer);
    return status;
}

// What a pass of micro_batch windows needs besides the step's memory.
static enum status pass_new(struct optimizer *self) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    const struct optimizer_options *o = &self->options;
    int64_t rows = o->micro_batch * o->seq_len;
    TRY(host_new(rows * 8, &self->host_losses));
    TRY(backend_matrix_new(model->backend, DTYPE_I32, rows, 1, "tokens", &self->tokens));
    TRY(backend_matrix_new(model->backend, DTYPE_F64, rows, 1, "losses", &self->kl));
    if (o->objective.truth > 0) {
        TRY(host_new(rows * 4, &self->host_targets));
        TRY(backend_matrix_new(model->backend, DTYPE_I32, rows, 1, "targets", &self->targets));
        TRY(backend_matrix_new(model->backend, DTYPE_F64, rows, 1, "losses", &self->cross_entropy));
    }
    if (o->objective.layer > 0) TRY(output_match_new(model, MATCH_LAYERS, o->micro_batch, o->seq_len, &self->layers));
    if (o->objective.linear > 0)
        TRY(output_match_new(model, MATCH_MATRICES, o->micro_batch, o->seq_len, &self->matrices));
done:
    return status;
}

enum status optimizer_new(struct rounding *rounding, struct step *step, const struct optimizer_options *options,
                          struct optimizer **out) {
    enum status status = STATUS_OK;
    struct transformer *model = rounding->model;
    struct optimizer *self = mem_new(1, sizeof *self);
    *self = (struct optimizer){.sink.product = sink_product, .rounding = rounding, .options = *options, .step = step};
    struct optimizer_options *o = &self->options;
    if (o->micro_batch <= 0 || o->micro_batch > o->batch) o->micro_batch = o->batch;
    if (!(o->objective.kl > 0 || o->objective.truth > 0 || o->objective.layer > 0 || o->objective.linear > 0))
        o->objective.kl = 1;
    self->m = mem_new((size_t)model->n_weights, sizeof *self->m);
    self->v = mem_new((size_t)model->n_weights, sizeof *self->v);
    TRY(moments_new(self));
    TRY(pass_new(self));
    TRY(transformer_prepare(model, o->seq_len));
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
    struct view *views[] = {&self->tokens, &self->kl, &self->targets, &self->cross_entropy};
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) backend_matrix_free(model->backend, views[i]);
    output_match_free(self->layers);
    output_match_free(self->matrices);
    free(self->m);
    free(self->v);
    mem_buffer_free(self->host_losses);
    mem_buffer_free(self->host_targets);
    free(self);
}
