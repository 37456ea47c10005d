#include "discquant/qat.h"

#include "discquant/optimization.h"

enum status qat_start(struct rounding *rounding) {
    enum status status = STATUS_OK;
    struct transformer *model = rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        TRY(backend_run(model->backend, &(struct op_call){.op = OP_copy, .in = {w->stored}, .out = {w->x}}));
    }
    rounding->form = WEIGHT_STRAIGHT;
done:
    return status;
}

const struct method method_qat = {.name = "qat",
                                  .calibrates = true,
                                  .optimizes = true,
                                  .latent = true,
                                  .rate = 1e-3,
                                  .describe = optimization_describe,
                                  .work = optimization_work};
