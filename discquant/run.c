#include "discquant/run.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/nn/evaluate.h"
#include "data/corpus.h"
#include "data/model.h"
#include "discquant/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct run {
    const struct program_common *common;
    const struct run_settings *settings;
    struct model *model;
    struct rounding *rounding;
    struct optimizer *optimizer; // METHOD_DISCQUANT
    struct corpus *calibration, *validation;
    int64_t calibration_windows, validation_windows;
    struct run_folder *folder;
    int64_t *order; // permutation of the calibration windows, of `epoch`
    int64_t epoch;
    int32_t *batch; // [batch, seq_len]
    double kl_sum;  // of the steps since the last report
    int64_t kl_steps;
    struct relaxed {
        double kl_x, kl_rounded, integral; // validation, when x is done: before the first step on the rounded network
    } relaxed;
    struct memory_plan memory;
    int64_t steps_here; // taken by this process, and the time inside them
    double seconds_here;
};

struct quality {
    double kl, perplexity, perplexity_original, agreement, kl_se;
};

// ---- measuring ----

static enum status measure(struct run *run, enum weight_form form, struct quality *out) {
    struct transformer *model = run->model->transformer;
    struct evaluate_options options = {.form = form, .reference = model, .reference_form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    enum status status =
        evaluate(model, run->model->step, corpus_window(run->validation, run->settings->optimizer.seq_len, 0),
                 run->validation_windows, run->settings->optimizer.seq_len, &options, &e);
    if (status != STATUS_OK) return status;
    out->kl = evaluation_mean(e, e->kl, &out->kl_se);
    out->perplexity = exp(evaluation_mean(e, e->loss, NULL));
    out->perplexity_original = exp(evaluation_mean(e, e->reference_loss, NULL));
    out->agreement = evaluation_mean(e, e->agreement, NULL);
    evaluation_free(e);
    return STATUS_OK;
}

static enum status report(struct run *run) {
    enum status status = STATUS_OK;
    struct optimizer *optimizer = run->optimizer;
    struct quality at_x, rounded;
    double integral = 0;
    struct record *line = record_new();
    TRY(measure(run, WEIGHT_INTERPOLATED, &at_x));
    TRY(measure(run, WEIGHT_ROUNDED, &rounded));
    TRY(rounding_fraction_integral(run->rounding, &integral));
    record_integer(line, "step", optimizer->done);
    record_number(line, "learning_rate", optimizer_rate(&optimizer->options, optimizer->done));
    record_number(line, "kl_calibration", run->kl_steps ? run->kl_sum / (double)run->kl_steps : NAN);
    record_number(line, "kl_x", at_x.kl);
    record_number(line, "kl_rounded", rounded.kl);
    record_number(line, "perplexity_rounded", rounded.perplexity);
    record_number(line, "fraction_integral", integral);
    record_number(line, "seconds", run_folder_seconds(run->folder));
    TRY(run_folder_log(run->folder, line));
    progress_say("step %lld: validation KL of x %.4f, rounded %.4f, %.1f %% integral", (long long)optimizer->done,
                 at_x.kl, rounded.kl, 100 * integral);
    run->kl_sum = 0;
    run->kl_steps = 0;
    if (optimizer->done == optimizer->options.finish_from)
        run->relaxed = (struct relaxed){.kl_x = at_x.kl, .kl_rounded = rounded.kl, .integral = integral};
done:
    record_free(line);
    return status;
}

// ---- calibration batches ----

// Sample k of the run is window order_e[k mod N] of epoch e = k / N; every epoch has its own permutation.
static void load_batch(struct run *run, int64_t step) {
    const struct optimizer_options *o = &run->settings->optimizer;
    int64_t n = run->calibration_windows;
    for (int64_t i = 0; i < o->batch; i++) {
        int64_t k = step * o->batch + i;
        if (k / n != run->epoch) {
            run->epoch = k / n;
            rng_permutation((struct rng){.seed = run->common->seed, .stream = RNG_ORDER + (uint64_t)run->epoch},
                            run->order, n);
        }
        memcpy(run->batch + i * o->seq_len, corpus_window(run->calibration, o->seq_len, run->order[k % n]),
               (size_t)o->seq_len * sizeof *run->batch);
    }
}

// ---- state of an interrupted run ----

// Calls visit for x and the moments of every rounded matrix.
static enum status each_array(struct run *run, struct checkpoint *state,
                              enum status (*visit)(struct run *run, struct checkpoint *state, const char *name,
                                                   struct view view)) {
    enum status status = STATUS_OK;
    struct transformer *model = run->model->transformer;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        const struct view views[3] = {w->x, run->optimizer->m[i], run->optimizer->v[i]};
        for (int k = 0; k < 3; k++) {
            char name[32];
            snprintf(name, sizeof name, "%c.%lld", "xmv"[k], (long long)w -> index);
            TRY(visit(run, state, name, views[k]));
        }
    }
done:
    return status;
}

static enum status save_array(struct run *run, struct checkpoint *state, const char *name, struct view view) {
    return checkpoint_add_view(state, name, run->model->transformer->backend, view);
}

static enum status load_array(struct run *run, struct checkpoint *state, const char *name, struct view view) {
    return checkpoint_view(state, name, run->model->transformer->backend, view);
}

static enum status save_state(struct run *run) {
    enum status status = STATUS_OK;
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "step", run->optimizer->done);
    checkpoint_add_number(state, "kl_sum", run->kl_sum);
    checkpoint_add_integer(state, "kl_steps", run->kl_steps);
    checkpoint_add_doubles(state, "relaxed", &run->relaxed.kl_x, 3);
    TRY(each_array(run, state, save_array));
    TRY(run_folder_checkpoint_save(run->folder, state));
done:
    checkpoint_free(state);
    return status;
}

static enum status load_state(struct run *run) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    TRY(run_folder_checkpoint_load(run->folder, &state));
    if (!state) goto done;
    TRY(checkpoint_integer(state, "step", 0, run->settings->optimizer.steps, &run->optimizer->done));
    TRY(checkpoint_number(state, "kl_sum", &run->kl_sum));
    TRY(checkpoint_integer(state, "kl_steps", 0, INT64_MAX, &run->kl_steps));
    TRY(checkpoint_doubles(state, "relaxed", &run->relaxed.kl_x, 3));
    TRY(each_array(run, state, load_array));
done:
    checkpoint_free(state);
    return status;
}

// ---- methods ----

static enum status optimize(struct run *run) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    struct progress *progress = NULL;
    struct optimizer_options options = s->optimizer;
    options.seed = run->common->seed;
    TRY(s->init == INIT_RANDOM ? rounding_random(run->rounding, run->common->seed)
                               : rounding_to_nearest(run->rounding));
    TRY(optimizer_new(run->rounding, run->model->step, &options, &run->optimizer));
    TRY(load_state(run));
    if (run->optimizer->done == 0 && s->optimizer.finish_from == 0) TRY(report(run));
    progress = progress_new("rounding", "step", s->optimizer.steps, run->optimizer->done);
    while (run->optimizer->done < s->optimizer.steps) {
        double kl = 0;
        load_batch(run, run->optimizer->done);
        double start = clock_seconds();
        TRY(optimizer_step(run->optimizer, run->batch, &kl));
        run->seconds_here += clock_seconds() - start;
        run->steps_here++;
        run->kl_sum += kl;
        run->kl_steps++;
        int64_t done = run->optimizer->done;
        progress_update(progress, done, "KL %.4f", kl);
        if ((s->report_every && done % s->report_every == 0) || done == s->optimizer.finish_from) TRY(report(run));
        if (done % s->checkpoint_every == 0 && done < s->optimizer.steps) TRY(save_state(run));
    }
done:
    progress_free(progress);
    return status;
}

// ---- saving ----

static enum status save_model(struct run *run) {
    char *path = run_folder_file(run->folder, "model");
    enum status status = model_save_rounded(run->model, run->rounding, path);
    free(path);
    return status;
}

// ---- the run ----

// All that decides the result, so that --resume refuses anything else.
static enum status describe(const struct program_common *common, const struct run_settings *s, struct record *record) {
    enum status status = STATUS_OK;
    const struct optimizer_options *o = &s->optimizer;
    record_string(record, "method", s->method == METHOD_RTN ? "rtn" : "discquant");
    record_integer(record, "bits", s->bits);
    record_integer(record, "group_size", s->group_size);
    record_integer(record, "seed", (int64_t)common->seed);
    record_integer(record, "seq_len", o->seq_len);
    record_integer(record, "validation_samples", s->validation_samples);
    if (s->precision != DTYPE_F32) record_string(record, "precision", "bf16");
    if (s->method == METHOD_DISCQUANT) {
        if (s->state != DTYPE_F32) record_string(record, "state_precision", "bf16");
        record_string(record, "init", s->init == INIT_RANDOM ? "random" : "original");
        record_integer(record, "samples", s->samples);
        record_integer(record, "steps", o->steps);
        record_integer(record, "warmup", o->warmup);
        record_integer(record, "batch_size", o->batch);
        record_integer(record, "micro_batch", o->micro_batch);
        record_number(record, "lambda", o->lambda);
        record_number(record, "clamp", o->clamp);
        record_number(record, "lr", o->rate);
        record_number(record, "weight_decay", o->decay);
        record_integer(record, "finish_from", o->finish_from);
        record_number(record, "finish_strength", o->finish_strength);
        record_integer(record, "report_every", s->report_every);
        TRY(record_digests(record, "calibration", s->calibration, s->n_calibration));
    }
    TRY(record_digest(record, "model", s->model));
    TRY(record_digest(record, "validation", s->validation));
done:
    return status;
}

// Reads a text and counts its windows, at most `most` of them (0 = all).
static enum status open_corpus(struct run *run, const char *const *paths, int n_paths, int64_t most,
                               struct corpus **corpus, int64_t *windows) {
    enum status status = STATUS_OK;
    TRY(corpus_read(run->model->tokenizer, paths, n_paths, model_folder_config(run->model->folder)->vocab, corpus));
    TRY(corpus_windows(*corpus, run->settings->optimizer.seq_len, windows));
    if (most > 0 && most < *windows) *windows = most;
done:
    return status;
}

static enum status open_corpora(struct run *run) {
    enum status status = STATUS_OK;
    void *batch = NULL;
    const struct run_settings *s = run->settings;
    TRY(transformer_prepare(run->model->transformer, s->optimizer.seq_len));
    TRY(open_corpus(run, &s->validation, 1, s->validation_samples, &run->validation, &run->validation_windows));
    if (s->method == METHOD_RTN) goto done;
    TRY(open_corpus(run, s->calibration, s->n_calibration, s->samples, &run->calibration, &run->calibration_windows));
    run->order = mem_new((size_t)run->calibration_windows, sizeof *run->order);
    TRY(mem_buffer_new(s->optimizer.batch * s->optimizer.seq_len * (int64_t)sizeof *run->batch, "a batch of tokens",
                       &batch));
    run->batch = batch;
    run->epoch = -1;
done:
    return status;
}

static enum status summarize(struct run *run, const struct quality *nearest) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    struct record *result = run_folder_result(run->folder);
    struct quality rounded = *nearest;
    if (s->method == METHOD_DISCQUANT) TRY(measure(run, WEIGHT_ROUNDED, &rounded));
    record_string(result, "method", s->method == METHOD_RTN ? "rtn" : "discquant");
    record_integer(result, "bits", s->bits);
    record_integer(result, "group_size", s->group_size);
    record_number(result, "bits_per_weight", run->rounding->bits_per_weight);
    record_integer(result, "weights_quantized", run->rounding->weights);
    record_integer(result, "weights_fixed", run->rounding->fixed);
    record_number(result, "delta2", run->rounding->step2);
    record_integer(result, "validation_windows", run->validation_windows);
    record_number(result, "kl", rounded.kl);
    record_number(result, "kl_se", rounded.kl_se);
    record_number(result, "perplexity", rounded.perplexity);
    record_number(result, "perplexity_original", rounded.perplexity_original);
    record_number(result, "top1_agreement", rounded.agreement);
    if (s->method == METHOD_DISCQUANT) {
        record_number(result, "kl_x", run->relaxed.kl_x);
        record_number(result, "kl_x_rounded", run->relaxed.kl_rounded);
    }
    record_number(result, "fraction_integral", s->method == METHOD_RTN ? 1 : run->relaxed.integral);
    record_number(result, "kl_rtn", nearest->kl);
    record_number(result, "perplexity_rtn", nearest->perplexity);
    record_number(result, "seconds", run_folder_seconds(run->folder));
    if (run->steps_here)
        record_number(result, "tokens_per_second",
                      (double)(run->steps_here * s->optimizer.batch * s->optimizer.seq_len) / run->seconds_here);
    if (run->optimizer) record_integer(result, "planned_bytes", optimizer_planned_bytes(run->optimizer));
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
    progress_say("%d bits, group %lld (%.2f bits per weight): KL %.4f (round to nearest %.4f), perplexity %.3f (%.3f, "
                 "original %.3f)",
                 s->bits, (long long)s->group_size, run->rounding->bits_per_weight, rounded.kl, nearest->kl,
                 rounded.perplexity, nearest->perplexity, rounded.perplexity_original);
done:
    return status;
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    struct quality nearest;
    struct grid grid;
    TRY(model_open(s->model, run->common->device, s->precision, NULL, &run->model));
    TRY(step_reserve(run->model->step, run->memory.activations));
    TRY(open_corpora(run));
    TRY(grid_block(s->bits, s->group_size, &grid));
    TRY(rounding_new(run->model->transformer, &grid, s->state, &run->rounding));
    TRY(rounding_to_nearest(run->rounding));
    TRY(measure(run, WEIGHT_ROUNDED, &nearest));
    if (s->method == METHOD_DISCQUANT) TRY(optimize(run));
    TRY(save_model(run));
    TRY(summarize(run, &nearest));
done:
    return status;
}

enum status discquant_run(const struct program_common *common, const struct run_settings *settings) {
    enum status status = STATUS_OK;
    struct run run = {.common = common, .settings = settings, .relaxed = {NAN, NAN, NAN}};
    struct record *about = record_new();
    TRY(memory_plan_make(common, settings, &run.memory));
    if (settings->plan) {
        memory_plan_print(&run.memory, common, settings);
        goto done;
    }
    TRY(memory_plan_check(&run.memory, common->device));
    TRY(describe(common, settings, about));
    TRY(program_run_folder(common, about, &run.folder));
    if (run_folder_is_done(run.folder)) goto done;
    status = run_folder_finish(run.folder, work(&run));
done:
    optimizer_free(run.optimizer);
    rounding_free(run.rounding);
    corpus_free(run.calibration);
    corpus_free(run.validation);
    run_folder_free(run.folder);
    model_free(run.model);
    free(run.order);
    mem_buffer_free(run.batch);
    record_free(about);
    return status;
}
