#include "discquant/block_rounding.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>

enum { MATRICES_MOST = 7 };

struct block {
    struct grad_sink sink;
    struct rounding *rounding;
    struct step *step;
    const struct stream *inputs, *targets;
    struct block_rounding_options options;
    struct weight *weights[MATRICES_MOST];
    struct view m[MATRICES_MOST], v[MATRICES_MOST],
        best[MATRICES_MOST]; // gradient and its square of a step; x that is kept
    int n;
    struct view x, target; // [batch * seq_len, C]
    struct view squares, error;
    double *host_error; // [batch * seq_len]
    int64_t *order, epoch;
    int64_t done;
};

static enum status copy(struct block *self, struct view from, struct view to) {
    return backend_run(self->rounding->model->backend, &(struct op_call){.op = OP_copy, .in = {from}, .out = {to}});
}

static double rate_of(const struct block *self) {
    const struct block_rounding_options *o = &self->options;
    double first = o->rate > 0 ? o->rate : 1 / (double)o->steps;
    return first * (1 - (double)self->done / (double)o->steps);
}

// AdamW without memory: its step is the gradient divided by the root of its square.
static enum status sign_step(struct block *self, struct weight *weight, struct view grad) {
    int k = 0;
    while (self->weights[k] != weight) k++;
    struct adamw_params adamw = {
        .rate = rate_of(self),
        .eps = 1e-20,
        .step = self->done + 1,
        .low = 0,
        .high = 1,
        .factor = 1,
        .rng = {.seed = self->options.seed, .stream = RNG_ROUND + (uint64_t)weight->index},
    };
    return backend_run(self->rounding->model->backend,
                       &(struct op_call){.op = OP_adamw,
                                         .in = {weight->x, self->m[k], self->v[k], grad},
                                         .out = {weight->x},
                                         .params.adamw = adamw});
}

static enum status sink_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                struct view x, int64_t first) {
    (void)first;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    struct view grad;
    TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &grad));
    TRY(weight_pull_back(step, weight, dy, x, grad, false));
    TRY(sign_step((struct block *)sink, weight, grad));
    step_release(step, mark);
done:
    return status;
}

// Sample k of the steps is window order_e[k mod N] of epoch e = k / N.
static enum status batch_load(struct block *self) {
    enum status status = STATUS_OK;
    int64_t n = self->inputs->options.windows, seq_len = self->inputs->options.seq_len;
    for (int64_t i = 0; i < self->options.batch; i++) {
        int64_t k = self->done * self->options.batch + i;
        if (k / n != self->epoch) {
            self->epoch = k / n;
            uint64_t instance = (uint64_t)self->inputs->layer << 20 | ((uint64_t)self->epoch & 0xFFFFF);
            rng_permutation((struct rng){.seed = self->options.seed, .stream = RNG_ORDER + instance}, self->order, n);
        }
        int64_t window = self->order[k % n];
        TRY(copy(self, stream_windows(self->inputs, window, 1), view_rows(self->x, i * seq_len, seq_len)));
        TRY(copy(self, stream_windows(self->targets, window, 1), view_rows(self->target, i * seq_len, seq_len)));
    }
done:
    return status;
}

// Forward: relative squared error of the batch, and its gradient at the outputs.
static enum status forward(struct block *self, double *error) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    struct backend *backend = model->backend;
    struct value *y;
    struct view dy;
    step_begin(self->step, (struct step_options){
                               .gradient = true, .seq_len = self->inputs->options.seq_len, .dtype = model->dtype});
    TRY(transformer_layer(model, self->step, self->inputs->layer, step_input(self->step, self->x), &y));
    TRY(step_seed(self->step, y, &dy));
    TRY(backend_run(backend, &(struct op_call){.op = OP_sum_squares, .in = {self->target}, .out = {self->squares}}));
    TRY(backend_run(backend, &(struct op_call){.op = OP_output_error,
                                               .in = {y->data, self->target, self->squares},
                                               .out = {dy, self->error},
                                               .params.factor = 1}));
    TRY(backend_read(backend, self->error, self->host_error));
    TRY(backend_sync(backend));
    *error = 0;
    for (int64_t i = 0; i < self->error.rows; i++) *error += self->host_error[i];
    if (!isfinite(*error))
        status = status_set(STATUS_INVALID, "layer %lld: the error of its outputs is not finite at step %lld",
                            (long long)self->inputs->layer, (long long)self->done);
done:
    return status;
}

static enum status steps_take(struct block *self, struct block_rounding_result *result) {
    enum status status = STATUS_OK;
    for (; self->done < self->options.steps; self->done++) {
        double error;
        TRY(batch_load(self));
        TRY(forward(self, &error));
        if (self->done == 0) result->error_first = error;
        if (self->done == 0 || error < result->error) {
            result->error = error;
            result->step = self->done;
            for (int k = 0; k < self->n; k++) TRY(copy(self, self->weights[k]->x, self->best[k]));
        }
        TRY(step_backward(self->step));
    }
    for (int k = 0; k < self->n; k++) TRY(copy(self, self->best[k], self->weights[k]->x));
done:
    return status;
}

static enum status matrix_open(struct block *self, struct weight *weight) {
    enum status status = STATUS_OK;
    struct backend *backend = self->rounding->model->backend;
    int k = self->n++;
    struct view *views[] = {&self->m[k], &self->v[k], &self->best[k]};
    self->weights[k] = weight;
    for (int i = 0; i < 3; i++) {
        TRY(backend_matrix_new(backend, weight->x.dtype, weight->rows, weight->cols, weight->name, views[i]));
        TRY(backend_run(backend, &(struct op_call){.op = OP_fill, .out = {*views[i]}, .params.value = 0}));
    }
    weight->form = WEIGHT_ROUNDED;
    weight->sink = &self->sink;
done:
    return status;
}

static enum status block_open(struct block *self) {
    enum status status = STATUS_OK;
    struct transformer *model = self->rounding->model;
    struct backend *backend = model->backend;
    const struct layer *layer = &model->layers[self->inputs->layer];
    struct weight *const all[MATRICES_MOST] = {layer->qkv[0],     layer->qkv[1],     layer->qkv[2], layer->o,
                                               layer->gate_up[0], layer->gate_up[1], layer->down};
    int64_t windows = self->inputs->options.windows;
    if (self->options.batch > windows) self->options.batch = windows;
    int64_t rows = self->options.batch * self->inputs->options.seq_len;
    void *host = NULL;
    self->order = mem_new((size_t)windows, sizeof *self->order);
    self->epoch = -1;
    for (int i = 0; i < MATRICES_MOST; i++)
        if (all[i]) TRY(matrix_open(self, all[i]));
    TRY(backend_matrix_new(backend, model->dtype, rows, model->config.hidden, "inputs of a layer", &self->x));
    TRY(backend_matrix_new(backend, model->dtype, rows, model->config.hidden, "outputs of a layer", &self->target));
    TRY(backend_matrix_new(backend, DTYPE_F64, 1, 1, "a sum of squares", &self->squares));
    TRY(backend_matrix_new(backend, DTYPE_F64, rows, 1, "errors of a layer", &self->error));
    TRY(mem_buffer_new(rows * (int64_t)sizeof(double), "errors of a layer", &host));
    self->host_error = host;
done:
    return status;
}

static void block_close(struct block *self) {
    struct backend *backend = self->rounding->model->backend;
    for (int k = 0; k < self->n; k++) {
        backend_matrix_free(backend, &self->m[k]);
        backend_matrix_free(backend, &self->v[k]);
        backend_matrix_free(backend, &self->best[k]);
        self->weights[k]->sink = NULL;
    }
    backend_matrix_free(backend, &self->x);
    backend_matrix_free(backend, &self->target);
    backend_matrix_free(backend, &self->squares);
    backend_matrix_free(backend, &self->error);
    mem_buffer_free(self->host_error);
    free(self->order);
}

enum status block_rounding(struct rounding *rounding, struct step *step, const struct stream *inputs,
                           const struct stream *targets, const struct block_rounding_options *options,
                           struct block_rounding_result *result) {
    REQUIRE(targets->layer == inputs->layer + 1, "targets are the outputs of the layer");
    struct block self = {.sink.product = sink_product,
                         .rounding = rounding,
                         .step = step,
                         .inputs = inputs,
                         .targets = targets,
                         .options = *options};
    enum status status = block_open(&self);
    if (status == STATUS_OK) status = steps_take(&self, result);
    block_close(&self);
    return status;
}
