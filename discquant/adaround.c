// The method `adaround`: every matrix by discquant/soft_rounding.h on the Gram matrix of its inputs.
#include "discquant/layerwise.h"
#include "discquant/soft_rounding.h"

#include "core/base/mem.h"

struct adaround {
    struct layerwise_solver solver;
    struct run *run;
};

static enum status solve(struct layerwise_solver *solver, const struct hessian *hessian,
                         struct layerwise_matrix *matrix, struct record *line) {
    enum status status = STATUS_OK;
    struct adaround *self = (struct adaround *)solver;
    const struct weight *weight = matrix->weight;
    int64_t bytes = weight->rows * weight->cols * (int64_t)sizeof(float);
    struct soft_rounding_result result;
    void *down = NULL, *up = NULL;
    TRY(mem_buffer_new(bytes, weight->name, &down));
    TRY(mem_buffer_new(bytes, weight->name, &up));
    TRY(rounding_neighbours(self->run->rounding, weight, down, up));
    TRY(soft_rounding(hessian, matrix->w, down, up, weight->rows, &self->run->settings->soft, matrix->x, &result));
    matrix->error = result.error;
    record_number(line, "output_error_rtn", result.error_nearest / (double)(hessian->rows * weight->rows));
    record_integer(line, "rows_nearest", result.rows_nearest);
done:
    mem_buffer_free(down);
    mem_buffer_free(up);
    return status;
}

static void describe(const struct run_settings *s, struct record *record) {
    record_integer(record, "adaround_steps", s->soft.steps);
    record_number(record, "adaround_lr", s->soft.rate);
    record_number(record, "adaround_strength", s->soft.strength);
}

static enum status work(struct run *run) {
    struct adaround self = {.solver = {.form = WEIGHT_ROUNDED, .solve = solve}, .run = run};
    enum status status = layerwise_run(run, &self.solver);
    if (status != STATUS_OK) return status;
    describe(run->settings, run_folder_result(run->folder));
    return STATUS_OK;
}

const struct method method_adaround = {.name = "adaround", .calibrates = true, .describe = describe, .work = work};
