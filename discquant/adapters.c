#include "discquant/adapters.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/adapter.h"
#include "data/json.h"
#include "discquant/adapter_trainer.h"
#include "discquant/batches.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct adapters {
    struct run *run;
    struct adapter_trainer *trainer;
    struct batches *batches;
    double kl_sum; // of the steps since the last report
    int64_t kl_steps;
};

void adapters_describe(const struct run_settings *s, struct record *record) {
    const struct lora_settings *l = &s->lora;
    record_integer(record, "lora_rank", l->rank);
    record_number(record, "lora_alpha", l->alpha);
    record_string(record, "lora_targets", l->targets);
    record_integer(record, "lora_steps", l->steps);
    record_number(record, "lora_lr", l->rate);
    record_bool(record, "lora_merge", l->merge);
    record_integer(record, "lora_batch_size", s->optimizer.batch);
    record_integer(record, "lora_micro_batch", s->optimizer.micro_batch);
    record_integer(record, "lora_report_every", s->report_every);
}

enum status adapters_attach(const struct run_settings *s, struct transformer *model, struct lora **out) {
    enum status status = STATUS_OK;
    struct lora *lora = NULL;
    char *why = NULL;
    if (s->lora.merge && model->config.rotation != ROTATION_NONE)
        TRY(status_set(STATUS_UNSUPPORTED,
                       "--lora-merge: %s holds rotated weights; start from the model it was made of", s->model));
    TRY(lora_new(model, s->lora.rank, s->lora.alpha, &lora));
    status = lora_add_named(lora, s->lora.targets);
    if (status == STATUS_INVALID) {
        why = mem_string(status_message());
        status = status_set(STATUS_INVALID, "--lora-targets: %s", why);
    }
    TRY(status);
    *out = lora;
    lora = NULL;
done:
    lora_free(lora);
    free(why);
    return status;
}

struct adapter_trainer_options adapters_options(const struct run_settings *s, enum weight_form form) {
    return (struct adapter_trainer_options){.steps = s->lora.steps,
                                            .warmup = s->lora.steps / 8,
                                            .batch = s->optimizer.batch,
                                            .seq_len = s->optimizer.seq_len,
                                            .micro_batch = s->optimizer.micro_batch,
                                            .rate = s->lora.rate,
                                            .form = form,
                                            .recompute = s->optimizer.recompute};
}

static enum status report(struct adapters *self, struct quality *out) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    struct adapter_trainer *trainer = self->trainer;
    struct quality quality;
    struct record *line = record_new();
    TRY(run_measure(run, trainer->options.form, &quality));
    record_string(line, "phase", "lora");
    record_integer(line, "step", trainer->done);
    record_number(line, "learning_rate", adapter_trainer_rate(&trainer->options, trainer->done));
    record_number(line, "kl_calibration", self->kl_steps ? self->kl_sum / (double)self->kl_steps : NAN);
    record_number(line, "kl", quality.kl);
    record_number(line, "perplexity", quality.perplexity);
    record_number(line, "seconds", run_folder_seconds(run->folder));
    TRY(run_folder_log(run->folder, line));
    progress_say("adapters, step %lld: validation KL %.4f, perplexity %.3f", (long long)trainer->done, quality.kl,
                 quality.perplexity);
    self->kl_sum = 0;
    self->kl_steps = 0;
    if (out) *out = quality;
done:
    record_free(line);
    return status;
}

// ---- state of an interrupted run ----

// Calls visit for what the rounded model is made of beside the original one.
static enum status each_array(struct run *run, struct checkpoint *state,
                              enum status (*visit)(struct checkpoint *state, const char *name, struct backend *backend,
                                                   struct view view)) {
    enum status status = STATUS_OK;
    struct transformer *model = run->model->transformer;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        const struct view views[2] = {w->x, w->scale};
        for (int k = 0; k < 2; k++) {
            char name[32];
            snprintf(name, sizeof name, "%s.%lld", k ? "scale" : "x", (long long)i);
            TRY(visit(state, name, model->backend, views[k]));
        }
    }
done:
    return status;
}

static enum status load_array(struct checkpoint *state, const char *name, struct backend *backend, struct view view) {
    return checkpoint_view(state, name, backend, view);
}

static enum status save_state(struct adapters *self) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    struct checkpoint *state = checkpoint_new();
    char *result = record_text(run_folder_result(run->folder), 0);
    TRY(adapter_trainer_save(self->trainer, state));
    checkpoint_add_integer(state, "lora.form", (int64_t)self->trainer->options.form);
    checkpoint_add_number(state, "lora.kl_sum", self->kl_sum);
    checkpoint_add_integer(state, "lora.kl_steps", self->kl_steps);
    checkpoint_add_integer(state, "lora.result_bytes", (int64_t)strlen(result));
    checkpoint_add_bytes(state, "lora.result", result, (int64_t)strlen(result));
    TRY(each_array(run, state, checkpoint_add_view));
    TRY(run_folder_checkpoint_save(run->folder, state));
done:
    checkpoint_free(state);
    free(result);
    return status;
}

// The figures of the rounding, which an earlier process measured.
static enum status result_load(struct run *run, const struct checkpoint *state) {
    enum { LARGEST = 1 << 24 };
    enum status status = STATUS_OK;
    int64_t n_bytes = 0;
    char *text = NULL;
    json_t *result = NULL;
    TRY(checkpoint_integer(state, "lora.result_bytes", 1, LARGEST, &n_bytes));
    text = mem_new((size_t)n_bytes, 1);
    TRY(checkpoint_bytes(state, "lora.result", text, n_bytes));
    TRY(json_read_buffer(text, n_bytes, "the checkpoint's result", &result));
    record_update(run_folder_result(run->folder), result);
done:
    json_decref(result);
    free(text);
    return status;
}

enum status adapters_resume(struct run *run, struct checkpoint **out) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    int64_t form = 0;
    *out = NULL;
    if (!run->settings->lora.rank) return STATUS_OK;
    TRY(run_folder_checkpoint_load(run->folder, &state));
    if (!state || !checkpoint_has(state, "lora.done")) goto done;
    TRY(checkpoint_integer(state, "lora.form", WEIGHT_ROUNDED, WEIGHT_STRAIGHT, &form));
    TRY(each_array(run, state, load_array));
    TRY(result_load(run, state));
    run->rounding->form = (enum weight_form)form;
    *out = state;
    state = NULL;
done:
    checkpoint_free(state);
    return status;
}

static enum status load_state(struct adapters *self, const struct checkpoint *state) {
    enum status status = STATUS_OK;
    TRY(adapter_trainer_load(self->trainer, state));
    TRY(checkpoint_number(state, "lora.kl_sum", &self->kl_sum));
    TRY(checkpoint_integer(state, "lora.kl_steps", 0, INT64_MAX, &self->kl_steps));
done:
    return status;
}

// ---- the phase ----

// Batches go on in the order of the calibration windows where those of the rounding ended.
static enum status start(struct adapters *self) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    struct transformer *model = run->model->transformer;
    const struct run_settings *s = run->settings;
    struct adapter_trainer_options options = adapters_options(s, run->rounding->form);
    TRY(adapters_attach(s, model, &run->model->lora));
    TRY(lora_start(run->model->lora, run->common->seed));
    TRY(adapter_trainer_new(run->model->lora, run->model->step, &options, &self->trainer));
    TRY(batches_new(&(struct batches_options){.corpus = run->calibration,
                                              .windows = run->calibration_windows,
                                              .seq_len = options.seq_len,
                                              .batch = options.batch,
                                              .seed = run->common->seed},
                    &self->batches));
done:
    return status;
}

static enum status train(struct adapters *self) {
    enum status status = STATUS_OK;
    const struct run_settings *s = self->run->settings;
    const int64_t steps = s->lora.steps;
    struct adapter_trainer *trainer = self->trainer;
    struct progress *progress = progress_new("adapters", "step", steps, trainer->done);
    while (trainer->done < steps) {
        double kl = 0;
        TRY(adapter_trainer_step(trainer, batches_load(self->batches, s->optimizer.steps + trainer->done), &kl));
        self->kl_sum += kl;
        self->kl_steps++;
        int64_t done = trainer->done;
        progress_update(progress, done, "KL %.4f", kl);
        if (s->report_every && done % s->report_every == 0 && done < steps) TRY(report(self, NULL));
        if (done % s->checkpoint_every == 0 && done < steps) TRY(save_state(self));
    }
done:
    progress_free(progress);
    return status;
}

static enum status save(const struct run *run) {
    enum status status = STATUS_OK;
    const struct model *model = run->model;
    const char *plain = run->settings->incoherence == ROTATION_NONE ? "model" : "model-hf";
    char *base = run_folder_file(run->folder, plain), *adapter = run_folder_file(run->folder, "adapter");
    char *merged = run_folder_file(run->folder, "merged");
    TRY(adapter_save(model->lora, base, adapter));
    if (run->settings->lora.merge) TRY(model_save_merged(model, run->rounding, model->lora, merged));
done:
    free(base);
    free(adapter);
    free(merged);
    return status;
}

static enum status summarize(struct adapters *self) {
    struct run *run = self->run;
    const struct lora *lora = run->model->lora;
    struct record *result = run_folder_result(run->folder);
    struct quality quality;
    enum status status = report(self, &quality);
    if (status != STATUS_OK) return status;
    record_integer(result, "lora_rank", lora->rank);
    record_number(result, "lora_alpha", lora->alpha);
    record_integer(result, "lora_steps", self->trainer->done);
    record_integer(result, "lora_parameters", lora->parameters);
    record_number(result, "kl_lora", quality.kl);
    record_number(result, "kl_lora_se", quality.kl_se);
    record_number(result, "perplexity_lora", quality.perplexity);
    record_number(result, "top1_agreement_lora", quality.agreement);
    record_number(result, "seconds", run_folder_seconds(run->folder));
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
    return STATUS_OK;
}

enum status adapters_work(struct run *run, const struct checkpoint *state) {
    enum status status = STATUS_OK;
    struct adapters self = {.run = run};
    TRY(start(&self));
    TRY(state ? load_state(&self, state) : save_state(&self));
    TRY(train(&self));
    TRY(save(run));
    TRY(summarize(&self));
done:
    batches_free(self.batches);
    adapter_trainer_free(self.trainer);
    return status;
}
