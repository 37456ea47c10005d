#include "discquant/plan.h"

#include "core/nn/evaluate.h"
#include "core/nn/incoherence.h"
#include "data/model_folder.h"
#include "discquant/adapter_trainer.h"
#include "discquant/adapters.h"
#include "discquant/method.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A GPU's context and code, the workspaces of cuBLAS and cuSOLVER, scratch of kernels, rounding of the allocator's blocks.
enum { RESERVE_BYTES = 1 << 30 };

struct planning {
    const struct run_settings *settings;
    struct backend *backend;
    struct transformer *model;
    struct incoherence *incoherence;
    struct step *step;
    struct rounding *rounding;
    struct optimizer *optimizer; // methods that have one
};

static int64_t bytes_of(struct view v) { return view_count(v) * dtype_bytes(v.dtype); }

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static enum status precision_check(const struct planning *planning) {
    const struct run_settings *s = planning->settings;
    if (planning->backend->fns->bf16 || (s->precision == DTYPE_F32 && s->state == DTYPE_F32)) return STATUS_OK;
    return status_set(STATUS_UNSUPPORTED, "%s bf16: the device %s computes in fp32 only; leave it out",
                      s->precision == DTYPE_F32 ? "--state-precision" : "--precision", planning->backend->fns->name);
}

// Step memory of one evaluation pass, interpolated form against the original.
static enum status evaluation_bytes(const struct planning *planning, int64_t *bytes) {
    enum status status = STATUS_OK;
    int64_t seq_len = planning->settings->optimizer.seq_len, most = 1 << 14;
    int64_t windows = larger(1, most / seq_len);
    struct evaluate_options options = {
        .form = WEIGHT_ROUNDED, .reference = planning->model, .reference_form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    struct step *step = NULL;
    int32_t *tokens = calloc((size_t)(windows * seq_len), sizeof *tokens);
    REQUIRE(tokens, "out of memory for the tokens of a pass");
    TRY(step_new(planning->backend, &step));
    TRY(evaluate(planning->model, step, tokens, windows, seq_len, &options, &e));
    *bytes = step_peak_bytes(step);
done:
    evaluation_free(e);
    step_free(step);
    free(tokens);
    return status;
}

static enum status network_open(struct planning *planning, const char *path) {
    enum status status = STATUS_OK;
    const struct run_settings *s = planning->settings;
    struct transformer_config config;
    struct grid grid;
    TRY(model_folder_read_config(path, &config));
    TRY(grid_new(&s->grid, &grid));
    TRY(transformer_new(planning->backend, &config, s->precision, (struct tensor_source){0}, &planning->model));
    enum rotation_kind rotation = config.rotation != ROTATION_NONE ? config.rotation : s->incoherence;
    if (rotation != ROTATION_NONE) TRY(incoherence_new(planning->model, rotation, &planning->incoherence));
    TRY(rounding_new(planning->model, &grid, s->state, &planning->rounding));
    TRY(transformer_prepare(planning->model, s->optimizer.seq_len));
    TRY(step_new(planning->backend, &planning->step));
    if (s->method->optimizes)
        TRY(optimizer_new(planning->rounding, planning->step, &s->optimizer, &planning->optimizer));
done:
    return status;
}

static void count_arrays(const struct planning *planning, struct memory_plan *plan) {
    for (int64_t i = 0; i < planning->model->n_weights; i++) {
        const struct weight *w = &planning->model->weights[i];
        plan->weights += bytes_of(w->stored);
        plan->scales += bytes_of(w->scale);
        plan->x += bytes_of(w->x);
        plan->gradients += bytes_of(w->grad);
        if (planning->optimizer)
            plan->moments += bytes_of(planning->optimizer->m[i]) + bytes_of(planning->optimizer->v[i]);
    }
}

// The phase after the rounding, whose optimizer is gone by then.
static enum status adapters_count(struct planning *planning, struct memory_plan *plan) {
    enum status status = STATUS_OK;
    const struct run_settings *s = planning->settings;
    struct lora *lora = NULL;
    struct adapter_trainer *trainer = NULL;
    struct adapter_trainer_options options = adapters_options(s, WEIGHT_ROUNDED);
    TRY(adapters_attach(s, planning->model, &lora));
    TRY(adapter_trainer_new(lora, planning->step, &options, &trainer));
    plan->adapters = adapter_trainer_bytes(trainer);
    plan->activations = larger(plan->activations, trainer->activation_bytes);
done:
    adapter_trainer_free(trainer);
    lora_free(lora);
    return status;
}

enum status memory_plan_make(const struct program_common *common, const struct run_settings *settings,
                             struct memory_plan *out) {
    enum status status = STATUS_OK;
    struct planning planning = {.settings = settings};
    struct memory_plan plan = {0};
    int64_t activations = 0, evaluation = 0;
    TRY(backend_plan(common->device, &planning.backend));
    TRY(precision_check(&planning));
    TRY(network_open(&planning, settings->model));
    count_arrays(&planning, &plan);
    if (planning.optimizer) activations = planning.optimizer->activation_bytes;
    plan.tables = backend_bytes_peak(planning.backend) - plan.weights - plan.scales - plan.x - plan.gradients -
                  plan.moments - activations;
    TRY(evaluation_bytes(&planning, &evaluation));
    plan.activations = larger(activations, evaluation);
    int64_t rows = planning.optimizer ? planning.optimizer->tokens.rows : 1 << 14;
    plan.logits = transformer_logits_bytes(planning.model, settings->precision, rows);
    plan.reserve = planning.backend->fns->host_memory ? 0 : RESERVE_BYTES;
    if (settings->lora.rank) TRY(adapters_count(&planning, &plan));
    *out = plan;
done:
    optimizer_free(planning.optimizer);
    rounding_free(planning.rounding);
    step_free(planning.step);
    incoherence_free(planning.incoherence);
    transformer_free(planning.model);
    backend_close(planning.backend);
    return status;
}

int64_t memory_plan_total(const struct memory_plan *plan) {
    return plan->weights + plan->scales + plan->x + plan->gradients + plan->moments + plan->activations +
           plan->adapters + plan->tables + plan->reserve;
}

static const char *precision_name(enum dtype dtype) { return dtype == DTYPE_BF16 ? "bf16" : "fp32"; }

void memory_plan_print(const struct memory_plan *plan, const struct program_common *common,
                       const struct run_settings *settings) {
    const struct optimizer_options *o = &settings->optimizer;
    const struct {
        const char *name;
        int64_t bytes;
        const char *what;
    } rows[] = {
        {"weights", plan->weights, precision_name(settings->precision)},
        {"scales", plan->scales, "fp32"},
        {"x", plan->x, precision_name(settings->state)},
        {"gradients", plan->gradients,
         plan->gradients ? precision_name(settings->state) : "none kept: updated on the way back"},
        {"moments", plan->moments, precision_name(settings->state)},
        {"activations", plan->activations, o->recompute ? "layers recomputed" : "layers kept"},
        {"  logits", plan->logits, "of these, some rows at a time"},
        {"adapters", plan->adapters, plan->adapters ? "fp32, with gradients and moments" : "none"},
        {"tables", plan->tables,
         o->objective.layer > 0 || o->objective.linear > 0 ? "positions, tokens, losses, the original model's outputs"
                                                           : "positions, tokens, losses"},
        {"reserve", plan->reserve, "context and libraries of the device"},
        {"total", memory_plan_total(plan), ""},
    };
    printf("device %s, %lld windows of %lld tokens, %lld per pass\n", common->device, (long long)o->batch,
           (long long)o->seq_len,
           (long long)(o->micro_batch > 0 && o->micro_batch < o->batch ? o->micro_batch : o->batch));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        printf("%-12s %16lld bytes %9.3f GB", rows[i].name, (long long)rows[i].bytes, (double)rows[i].bytes / 1e9);
        printf(*rows[i].what ? "  %s\n" : "\n", rows[i].what);
    }
}

enum status memory_plan_check(const struct memory_plan *plan, const char *device) {
    enum status status = STATUS_OK;
    struct backend *backend = NULL;
    TRY(backend_open(device, &backend));
    int64_t total = memory_plan_total(plan), available = backend_bytes_free(backend);
    if (available >= 0 && total > available)
        status = status_set(STATUS_NO_MEMORY,
                            "--device %s: the run needs %.1f GB of memory and %.1f GB are there; --plan shows what for",
                            device, (double)total / 1e9, (double)available / 1e9);
done:
    backend_close(backend);
    return status;
}
