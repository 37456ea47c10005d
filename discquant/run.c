#include "discquant/run.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/nn/evaluate.h"
#include "discquant/adapters.h"
#include "discquant/method.h"
#include "discquant/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool run_calibrates(const struct run_settings *settings) {
    return settings->method->calibrates || settings->lora.rank > 0;
}

static const char *incoherence_name(enum rotation_kind kind) {
    static const char *const names[] = {"none", "hadamard", "hadamard-blocks", "hadamard-in"};
    return names[kind];
}

// ---- measuring ----

enum status run_measure(struct run *run, enum weight_form form, struct quality *out) {
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

// ---- saving ----

static enum status save_model(struct run *run) {
    enum status status = STATUS_OK;
    char *path = run_folder_file(run->folder, "model"), *codes = run_folder_file(run->folder, "codes.safetensors");
    char *plain = run_folder_file(run->folder, "model-hf");
    TRY(model_save_rounded(run->model, run->rounding, path));
    if (run->settings->incoherence != ROTATION_NONE) TRY(model_save_unrotated(run->model, run->rounding, plain));
    TRY(model_save_codes(run->rounding, codes));
    TRY(run_export(&run->settings->exports, run->common->out, true));
done:
    free(plain);
    free(path);
    free(codes);
    return status;
}

// Refuses exports that cannot hold the grid.
static enum status check_exports(const struct run_settings *s) {
    struct grid grid;
    enum status status = grid_new(&s->grid, &grid);
    if (status != STATUS_OK) return status;
    struct codebook book = codebook_of(&grid);
    for (int i = 0; i < EXPORT_FORMATS; i++)
        if (s->exports.wanted[i] && s->incoherence != ROTATION_NONE)
            return status_set(
                STATUS_UNSUPPORTED,
                "--export %s: has no place for rotated weights; leave out --incoherence, or use OUT/model-hf, "
                "the model rotated back",
                export_names[i]);
    return export_check(&s->exports, &book, s->model);
}

// ---- the run ----

// All that decides the result, so that --resume refuses anything else.
static enum status describe(const struct program_common *common, const struct run_settings *s, struct record *record) {
    enum status status = STATUS_OK;
    record_string(record, "method", s->method->name);
    record_grid(record, &s->grid);
    if (s->incoherence != ROTATION_NONE) record_string(record, "incoherence", incoherence_name(s->incoherence));
    record_integer(record, "seed", (int64_t)common->seed);
    record_integer(record, "seq_len", s->optimizer.seq_len);
    record_integer(record, "validation_samples", s->validation_samples);
    if (s->precision != DTYPE_F32) record_string(record, "precision", "bf16");
    if (s->method->describe) s->method->describe(s, record);
    if (s->lora.rank) adapters_describe(s, record);
    if (run_calibrates(s)) {
        record_integer(record, "samples", s->samples);
        TRY(record_digests(record, "calibration", s->calibration, s->n_calibration));
        if (s->n_second) record_number(record, "second_share", s->second_share);
        TRY(record_digests(record, "second_calibration", s->second, s->n_second));
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

// Windows of two texts, mixed.
static enum status open_mixture(struct run *run) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    int64_t vocab = model_folder_config(run->model->folder)->vocab, seq_len = s->optimizer.seq_len;
    struct corpus *first = NULL, *second = NULL;
    TRY(corpus_read(run->model->tokenizer, s->calibration, s->n_calibration, vocab, &first));
    TRY(corpus_read(run->model->tokenizer, s->second, s->n_second, vocab, &second));
    TRY(corpus_mix(first, second, s->second_share, seq_len, s->samples, &run->calibration));
    TRY(corpus_windows(run->calibration, seq_len, &run->calibration_windows));
done:
    corpus_free(first);
    corpus_free(second);
    return status;
}

static enum status open_corpora(struct run *run) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    TRY(transformer_prepare(run->model->transformer, s->optimizer.seq_len));
    TRY(open_corpus(run, &s->validation, 1, s->validation_samples, &run->validation, &run->validation_windows));
    if (run_calibrates(s) && s->n_second)
        TRY(open_mixture(run));
    else if (run_calibrates(s))
        TRY(open_corpus(run, s->calibration, s->n_calibration, s->samples, &run->calibration,
                        &run->calibration_windows));
done:
    return status;
}

static enum status summarize(struct run *run, const struct quality *nearest) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    struct record *result = run_folder_result(run->folder);
    struct quality rounded = *nearest;
    if (s->method->work) TRY(run_measure(run, run->rounding->form, &rounded));
    record_string(result, "method", s->method->name);
    record_grid(result, &s->grid);
    record_string(result, "incoherence", incoherence_name(s->incoherence));
    record_number(result, "bits_per_weight", run->rounding->bits_per_weight);
    record_integer(result, "weights_quantized", run->rounding->weights);
    record_integer(result, "weights_fixed", run->rounding->fixed);
    record_number(result, "delta2", run->rounding->step2);
    record_integer(result, "validation_windows", run->validation_windows);
    if (run->calibration) record_integer(result, "calibration_windows", run->calibration_windows);
    if (s->n_second)
        record_integer(result, "second_windows",
                       (int64_t)floor(s->second_share * (double)run->calibration_windows + 0.5));
    record_number(result, "kl", rounded.kl);
    record_number(result, "kl_se", rounded.kl_se);
    record_number(result, "perplexity", rounded.perplexity);
    record_number(result, "perplexity_original", rounded.perplexity_original);
    record_number(result, "top1_agreement", rounded.agreement);
    record_number(result, "fraction_integral", run->fraction_integral);
    record_number(result, "kl_rtn", nearest->kl);
    record_number(result, "perplexity_rtn", nearest->perplexity);
    record_number(result, "seconds", run_folder_seconds(run->folder));
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
    progress_say(
        "%s, %d bits, group %lld (%.2f bits per weight): KL %.4f (round to nearest %.4f), perplexity %.3f (%.3f, "
        "original %.3f)",
        grid_kind_name(s->grid.kind), s->grid.bits, (long long)s->grid.group_size, run->rounding->bits_per_weight,
        rounded.kl, nearest->kl, rounded.perplexity, nearest->perplexity, rounded.perplexity_original);
done:
    return status;
}

static enum status round_weights(struct run *run) {
    enum status status = STATUS_OK;
    const struct method *method = run->settings->method;
    struct quality nearest;
    TRY(rounding_to_nearest(run->rounding));
    TRY(run_measure(run, WEIGHT_ROUNDED, &nearest));
    if (method->work) TRY(method->work(run));
    TRY(save_model(run));
    TRY(summarize(run, &nearest));
done:
    return status;
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    const struct run_settings *s = run->settings;
    struct checkpoint *adapters = NULL;
    struct grid grid;
    TRY(model_open(s->model, run->common->device, s->precision, NULL, &run->model));
    if (s->incoherence != ROTATION_NONE) TRY(model_rotate(run->model, s->incoherence, run->common->seed));
    TRY(step_reserve(run->model->step, run->activation_bytes));
    TRY(open_corpora(run));
    TRY(grid_new(&s->grid, &grid));
    TRY(rounding_new(run->model->transformer, &grid, s->state, &run->rounding));
    TRY(adapters_resume(run, &adapters));
    if (!adapters) TRY(round_weights(run));
    if (s->lora.rank) TRY(adapters_work(run, adapters));
done:
    checkpoint_free(adapters);
    return status;
}

enum status discquant_run(const struct program_common *common, const struct run_settings *settings) {
    enum status status = STATUS_OK;
    struct run run = {.common = common, .settings = settings, .fraction_integral = 1};
    struct memory_plan memory;
    struct record *about = record_new();
    TRY(memory_plan_make(common, settings, &memory));
    if (settings->plan) {
        memory_plan_print(&memory, common, settings);
        goto done;
    }
    TRY(memory_plan_check(&memory, common->device));
    TRY(check_exports(settings));
    run.activation_bytes = memory.activations;
    TRY(describe(common, settings, about));
    TRY(program_run_folder(common, about, &run.folder));
    if (run_folder_is_done(run.folder)) goto done;
    status = run_folder_finish(run.folder, work(&run));
done:
    rounding_free(run.rounding);
    corpus_free(run.calibration);
    corpus_free(run.validation);
    run_folder_free(run.folder);
    model_free(run.model);
    record_free(about);
    return status;
}
