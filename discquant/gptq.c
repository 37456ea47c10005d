// The method `gptq`: every matrix rounded with error feedback (discquant/feedback.h) on the Gram matrix of its inputs.
#include "discquant/feedback.h"
#include "discquant/layerwise.h"

#include "core/base/mem.h"

struct gptq {
    struct layerwise_solver solver;
    struct backend *backend;
    struct feedback_options options;
    struct feedback *feedback; // of the inputs in hand
};

static enum status prepare(struct layerwise_solver *solver, const struct hessian *hessian, const char *name) {
    struct gptq *self = (struct gptq *)solver;
    feedback_free(self->feedback);
    self->feedback = NULL;
    return feedback_new(self->backend, hessian, name, &self->options, &self->feedback);
}

static enum status solve(struct layerwise_solver *solver, const struct hessian *hessian,
                         struct layerwise_matrix *matrix, struct record *line) {
    (void)hessian;
    const struct gptq *self = (struct gptq *)solver;
    const struct weight *weight = matrix->weight;
    record_number(line, "damping", self->feedback->damping);
    record_integer(line, "dead_inputs", self->feedback->dead);
    return feedback_round(self->feedback, weight->grid, matrix->w, matrix->scale, weight->rows, matrix->x,
                          &matrix->error);
}

static char *fallback(const struct layerwise_solver *solver) {
    const struct gptq *self = (const struct gptq *)solver;
    if (!self->feedback->raised) return NULL;
    return mem_format("damping raised from %g to %g, the Hessian was singular", self->options.damping,
                      self->feedback->damping);
}

static void describe(const struct run_settings *s, struct record *record) {
    record_number(record, "damping", s->feedback.damping);
    record_bool(record, "activation_order", s->feedback.ordered);
}

static enum status work(struct run *run) {
    struct gptq self = {.solver = {.form = WEIGHT_STRAIGHT, .prepare = prepare, .solve = solve, .fallback = fallback},
                        .backend = run->model->backend,
                        .options = run->settings->feedback};
    enum status status = layerwise_run(run, &self.solver);
    feedback_free(self.feedback);
    if (status != STATUS_OK) return status;
    describe(run->settings, run_folder_result(run->folder));
    return STATUS_OK;
}

const struct method method_gptq = {.name = "gptq", .calibrates = true, .describe = describe, .work = work};
