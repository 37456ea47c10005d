#include "bench/perplexity.h"

#include "core/base/clock.h"
#include "core/base/progress.h"
#include "core/nn/evaluate.h"
#include "data/corpus.h"
#include "data/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct task {
    const struct program_common *common;
    const struct perplexity_settings *settings;
    struct model *model, *reference;
    struct corpus *corpus;
    struct run_folder *folder;
    int64_t seq_len, windows;
};

static void show_progress(void *context, int64_t done, int64_t total, double mean_loss) {
    (void)total;
    progress_update(context, done, "perplexity %.3f", exp(mean_loss));
}

static enum status log_windows(struct task *task, const struct evaluation *e) {
    enum status status = STATUS_OK;
    struct record *line = record_new();
    for (int64_t w = 0; w < e->windows; w++) {
        record_clear(line);
        record_integer(line, "window", w);
        record_number(line, "loss", e->loss[w]);
        if (e->kl) {
            record_number(line, "kl", e->kl[w]);
            record_number(line, "top1_agreement", e->agreement[w]);
            record_number(line, "loss_reference", e->reference_loss[w]);
        }
        TRY(run_folder_log(task->folder, line));
    }
done:
    record_free(line);
    return status;
}

static enum status summarize(struct task *task, const struct evaluation *e, double seconds) {
    struct record *result = run_folder_result(task->folder);
    double loss_se, kl_se, loss = evaluation_mean(e, e->loss, &loss_se);
    record_string(result, "task", "perplexity");
    record_integer(result, "windows", e->windows);
    record_integer(result, "seq_len", task->seq_len);
    record_number(result, "loss", loss);
    record_number(result, "loss_se", loss_se);
    record_number(result, "perplexity", exp(loss));
    record_number(result, "bits_per_token", loss / log(2));
    if (e->kl) {
        record_number(result, "kl", evaluation_mean(e, e->kl, &kl_se));
        record_number(result, "kl_se", kl_se);
        record_number(result, "top1_agreement", evaluation_mean(e, e->agreement, NULL));
        record_number(result, "perplexity_reference", exp(evaluation_mean(e, e->reference_loss, NULL)));
    }
    record_number(result, "seconds", seconds);
    record_number(result, "tokens_per_second", (double)e->tokens / seconds);
    char *text = record_text(result, 0);
    printf("%s\n", text);
    free(text);
    return log_windows(task, e);
}

static enum status work(struct task *task) {
    enum status status = STATUS_OK;
    const struct perplexity_settings *s = task->settings;
    struct evaluation *e = NULL;
    struct progress *progress = NULL;
    TRY(model_open(s->model, task->common->device, DTYPE_F32, NULL, &task->model));
    TRY(model_adapt(task->model, s->adapter));
    const struct transformer_config *config = model_folder_config(task->model->folder);
    task->seq_len = s->seq_len ? s->seq_len : config->max_positions;
    if (task->seq_len < 2) {
        status = status_set(STATUS_INVALID, "%s: a window needs two positions, the model has %lld", s->model,
                            (long long)task->seq_len);
        goto done;
    }
    TRY(transformer_prepare(task->model->transformer, task->seq_len));
    if (s->reference) {
        TRY(model_open(s->reference, task->common->device, DTYPE_F32, task->model, &task->reference));
        if (model_folder_config(task->reference->folder)->vocab != config->vocab) {
            status = status_set(STATUS_INVALID, "%s and %s have different vocabularies", s->model, s->reference);
            goto done;
        }
        TRY(transformer_prepare(task->reference->transformer, task->seq_len));
    }
    TRY(corpus_read(task->model->tokenizer, &s->data, 1, config->vocab, &task->corpus));
    TRY(corpus_windows(task->corpus, task->seq_len, &task->windows));
    if (s->windows > 0 && s->windows < task->windows) task->windows = s->windows;
    progress = progress_new("evaluating", "window", task->windows, 0);
    struct evaluate_options how = {.reference = task->reference ? task->reference->transformer : NULL,
                                   .batch = s->batch,
                                   .progress = show_progress,
                                   .progress_context = progress};
    double start = clock_seconds();
    TRY(evaluate(task->model->transformer, task->model->step, corpus_window(task->corpus, task->seq_len, 0),
                 task->windows, task->seq_len, &how, &e));
    progress_free(progress);
    progress = NULL;
    TRY(summarize(task, e, clock_seconds() - start));
done:
    progress_free(progress);
    evaluation_free(e);
    return status;
}

enum status perplexity_run(const struct program_common *common, const struct perplexity_settings *settings) {
    enum status status = STATUS_OK;
    struct task task = {.common = common, .settings = settings};
    struct record *about = record_new();
    record_string(about, "task", "perplexity");
    record_integer(about, "seq_len", settings->seq_len);
    record_integer(about, "windows", settings->windows);
    record_integer(about, "batch_size", settings->batch);
    TRY(record_digest(about, "model", settings->model));
    if (settings->adapter) TRY(record_digest(about, "adapter", settings->adapter));
    if (settings->reference) TRY(record_digest(about, "reference", settings->reference));
    TRY(record_digest(about, "data", settings->data));
    TRY(program_run_folder(common, about, &task.folder));
    status = run_folder_finish(task.folder, work(&task));
done:
    corpus_free(task.corpus);
    model_free(task.reference);
    model_free(task.model);
    run_folder_free(task.folder);
    record_free(about);
    return status;
}
