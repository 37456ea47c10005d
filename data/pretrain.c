#include "data/pretrain.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/base/rng.h"
#include "core/nn/evaluate.h"
#include "data/bpe_learner.h"
#include "data/documents.h"
#include "data/model_writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PRETRAIN_BOS = 1 }; // <s> of every learnt tokenizer

struct run {
    const struct program_common *common;
    const struct pretrain_settings *settings;
    struct run_folder *folder;
    char *tokenizer_json;
    struct tokenizer *tokenizer;
    struct document_stream corpus, validation;
    int64_t n_validation; // windows measured
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct trainer *trainer;
    struct windows {
        int64_t n, epoch, offset; // windows per epoch; current epoch, -1 = none, and its first token
        int64_t *order;           // [n] its permutation
        int32_t *batch;           // [batch, seq_len]
    } windows;
    struct pretrain_documents documents;
    double loss_sum; // of the steps since the last report
    int64_t loss_steps;
    double loss_training; // mean at the last report
    double seconds;       // spent in steps by this process
    int64_t steps;        // taken by this process
};

// ---- text ----

static enum status document_learn(void *self, const char *where, const char *text, int64_t n_bytes) {
    (void)where;
    return bpe_learner_add(self, text, n_bytes);
}

static enum status learn_tokenizer(struct run *run) {
    enum status status = STATUS_OK;
    const struct pretrain_settings *s = run->settings;
    struct bpe_learner *learner = bpe_learner_new();
    for (int i = 0; i < s->n_corpus; i++) TRY(documents_each(s->corpus[i], document_learn, learner));
    TRY(bpe_learner_finish(learner, s->vocab_size, &run->tokenizer_json));
    TRY(tokenizer_parse(run->tokenizer_json, (int64_t)strlen(run->tokenizer_json), "the learnt tokenizer",
                        &run->tokenizer));
done:
    bpe_learner_free(learner);
    return status;
}

static enum status stream_check(const struct document_stream *stream, const char *path, int64_t seq_len) {
    if (stream->n_tokens >= seq_len) return STATUS_OK;
    return status_set(STATUS_INVALID,
                      "%s: its %lld tokens are fewer than one window of %lld; give more text or a shorter --seq-len",
                      path, (long long)stream->n_tokens, (long long)seq_len);
}

static enum status open_text(struct run *run) {
    enum status status = STATUS_OK;
    const struct pretrain_settings *s = run->settings;
    int64_t seq_len = s->trainer.seq_len;
    struct windows *windows = &run->windows;
    TRY(learn_tokenizer(run));
    TRY(documents_encode(run->tokenizer, s->corpus, s->n_corpus, &run->corpus));
    TRY(documents_encode(run->tokenizer, &s->validation, 1, &run->validation));
    TRY(stream_check(&run->corpus, s->corpus[0], seq_len));
    TRY(stream_check(&run->validation, s->validation, seq_len));
    run->n_validation = run->validation.n_tokens / seq_len;
    if (s->validation_samples > 0 && s->validation_samples < run->n_validation)
        run->n_validation = s->validation_samples;
    windows->n = run->corpus.n_tokens / seq_len; // one less, so that there is room for an offset
    if (windows->n > 1) windows->n--;
    windows->epoch = -1;
    TRY(mem_buffer_new(windows->n * (int64_t)sizeof *windows->order, "the order of windows", (void **)&windows->order));
    TRY(mem_buffer_new(s->trainer.batch * seq_len * (int64_t)sizeof *windows->batch, "a batch",
                       (void **)&windows->batch));
done:
    return status;
}

static void epoch_begin(struct run *run, int64_t epoch) {
    struct windows *w = &run->windows;
    int64_t seq_len = run->settings->trainer.seq_len, room = run->corpus.n_tokens - w->n * seq_len;
    int64_t offsets = room < seq_len ? room + 1 : seq_len;
    struct rng order = {.seed = run->common->seed, .stream = RNG_ORDER + (uint64_t)epoch};
    struct rng offset = {.seed = run->common->seed, .stream = RNG_ORDER + (UINT64_C(1) << 31) + (uint64_t)epoch};
    w->epoch = epoch;
    w->offset = (int64_t)((uint64_t)rng_bits(offset, 0) * (uint64_t)offsets >> 32);
    rng_permutation(order, w->order, w->n);
}

// The first document that begins inside of the window cut at `at`; `at` where none does.
static int64_t window_begin(const struct document_stream *corpus, int64_t at, int64_t seq_len) {
    int64_t last = corpus->n_tokens - seq_len < at + seq_len - 1 ? corpus->n_tokens - seq_len : at + seq_len - 1;
    for (int64_t i = at; i <= last; i++)
        if (corpus->tokens[i] == PRETRAIN_BOS) return i;
    return at;
}

// Sample k of the run is window order_e[k mod n] of epoch e = k / n. Every second one is moved to a document's beginning: a
// story cut in two has lost what its end speaks of, and yet a model must know what to make of one.
static void load_batch(struct run *run, int64_t step) {
    struct windows *w = &run->windows;
    int64_t batch = run->settings->trainer.batch, seq_len = run->settings->trainer.seq_len;
    for (int64_t i = 0; i < batch; i++) {
        int64_t k = step * batch + i;
        if (k / w->n != w->epoch) epoch_begin(run, k / w->n);
        int64_t begin = w->offset + w->order[k % w->n] * seq_len;
        if (k % 2) begin = window_begin(&run->corpus, begin, seq_len);
        memcpy(w->batch + i * seq_len, run->corpus.tokens + begin, (size_t)seq_len * sizeof *w->batch);
    }
}

// ---- model ----

static enum status open_model(struct run *run) {
    enum status status = STATUS_OK;
    const struct pretrain_settings *s = run->settings;
    struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                        .hidden = s->hidden,
                                        .intermediate = s->intermediate,
                                        .layers = s->layers,
                                        .heads = s->heads,
                                        .kv_heads = s->kv_heads,
                                        .head_dim = s->hidden / s->heads,
                                        .vocab = tokenizer_vocab_size(run->tokenizer),
                                        .max_positions = s->trainer.seq_len,
                                        .rms_eps = 1e-5,
                                        .tied = s->tied,
                                        .rope = {.theta = 10000},
                                        .bos = PRETRAIN_BOS};
    struct trainer_start start = {.seed = run->common->seed, .config = &config};
    TRY(backend_open(run->common->device, &run->backend));
    TRY(step_new(run->backend, &run->step));
    TRY(transformer_new(run->backend, &config, DTYPE_F32, trainer_start(&start), &run->model));
    TRY(trainer_new(run->model, run->step, &s->trainer, &run->trainer));
done:
    return status;
}

// To the values that the saved dtype holds.
static enum status round_weights(struct run *run) {
    enum status status = STATUS_OK;
    enum dtype dtype = run->settings->dtype;
    float *values = NULL;
    void *rounded = NULL;
    for (int64_t i = 0; i < run->model->n_weights && dtype != DTYPE_F32; i++) {
        const struct weight *w = &run->model->weights[i];
        int64_t n = w->rows * w->cols;
        TRY(mem_buffer_new(n * (int64_t)sizeof *values, w->name, (void **)&values));
        TRY(mem_buffer_new(n * dtype_bytes(dtype), w->name, &rounded));
        TRY(backend_read(run->backend, w->stored, values));
        TRY(backend_sync(run->backend));
        dtype_from_float(dtype, values, rounded, n);
        dtype_to_float(dtype, rounded, values, n);
        TRY(backend_write(run->backend, w->stored, values));
        TRY(backend_sync(run->backend));
        mem_buffer_free(values);
        mem_buffer_free(rounded);
        values = NULL, rounded = NULL;
    }
done:
    mem_buffer_free(values);
    mem_buffer_free(rounded);
    return status;
}

// ---- measuring ----

static enum status measure(struct run *run, double *loss) {
    struct evaluate_options options = {.form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    enum status status = evaluate(run->model, run->step, run->validation.tokens, run->n_validation,
                                  run->settings->trainer.seq_len, &options, &e);
    if (status == STATUS_OK) *loss = evaluation_mean(e, e->loss, NULL);
    evaluation_free(e);
    return status;
}

// Validation documents on their own, as a source of documents sees them; those longer than a window are left out.
static enum status measure_documents(struct run *run) {
    enum status status = STATUS_OK;
    enum { DOCUMENTS_MAX = 1000 };
    const struct document_stream *text = &run->validation;
    struct evaluate_options options = {.form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    struct pretrain_documents *sum = &run->documents;
    double squares = 0;
    for (int64_t at = 0, end; at < text->n_tokens && sum->n < DOCUMENTS_MAX; at = end) {
        for (end = at + 1; end < text->n_tokens && text->tokens[end] != PRETRAIN_BOS;) end++;
        if (end - at < 2 || end - at > run->settings->trainer.seq_len) continue;
        TRY(evaluate(run->model, run->step, text->tokens + at, 1, end - at, &options, &e));
        double nats = e->loss[0] * (double)(end - at - 1);
        evaluation_free(e);
        sum->n++;
        sum->nats += nats;
        squares += nats * nats;
    }
    double n = (double)sum->n;
    sum->nats /= n;
    sum->nats_se = sqrt((squares / n - sum->nats * sum->nats) / (n - 1));
done:
    return status;
}

static double tokens_per_second(const struct run *run) {
    const struct trainer_options *o = &run->settings->trainer;
    return run->seconds > 0 ? (double)(run->steps * o->batch * o->seq_len) / run->seconds : NAN;
}

static enum status report(struct run *run) {
    enum status status = STATUS_OK;
    const struct trainer_options *o = &run->settings->trainer;
    int64_t done = run->trainer->done;
    double validation = 0;
    struct record *line = record_new();
    TRY(measure(run, &validation));
    if (run->loss_steps) run->loss_training = run->loss_sum / (double)run->loss_steps;
    run->loss_sum = 0;
    run->loss_steps = 0;
    record_integer(line, "step", done);
    record_integer(line, "epoch", done * o->batch / run->windows.n);
    record_number(line, "learning_rate", trainer_rate(o, done));
    record_number(line, "gradient_norm", run->trainer->norm);
    record_number(line, "loss_training", run->loss_training);
    record_number(line, "loss_validation", validation);
    record_number(line, "seconds", run_folder_seconds(run->folder));
    TRY(run_folder_log(run->folder, line));
    progress_say("step %lld: loss %.4f, validation %.4f (perplexity %.3f), %.0f tokens/s", (long long)done,
                 run->loss_training, validation, exp(validation), tokens_per_second(run));
done:
    record_free(line);
    return status;
}

// ---- training ----

static enum status save_state(struct run *run) {
    enum status status = STATUS_OK;
    struct checkpoint *state = checkpoint_new();
    TRY(trainer_save(run->trainer, state));
    checkpoint_add_number(state, "loss_sum", run->loss_sum);
    checkpoint_add_integer(state, "loss_steps", run->loss_steps);
    checkpoint_add_number(state, "loss_training", run->loss_training);
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
    TRY(trainer_load(run->trainer, state));
    TRY(checkpoint_number(state, "loss_sum", &run->loss_sum));
    TRY(checkpoint_integer(state, "loss_steps", 0, INT64_MAX, &run->loss_steps));
    TRY(checkpoint_number(state, "loss_training", &run->loss_training));
done:
    checkpoint_free(state);
    return status;
}

static enum status train(struct run *run) {
    enum status status = STATUS_OK;
    const struct pretrain_settings *s = run->settings;
    struct trainer *trainer = run->trainer;
    struct progress *progress = NULL;
    TRY(load_state(run));
    progress = progress_new("training", "step", s->trainer.steps, trainer->done);
    while (trainer->done < s->trainer.steps) {
        double loss = 0, start = clock_seconds();
        load_batch(run, trainer->done);
        TRY(trainer_step(trainer, run->windows.batch, &loss));
        run->seconds += clock_seconds() - start;
        run->steps++;
        run->loss_sum += loss;
        run->loss_steps++;
        progress_update(progress, trainer->done, "loss %.4f, %.0f tokens/s", loss, tokens_per_second(run));
        bool last = trainer->done == s->trainer.steps;
        if (last || (s->report_every && trainer->done % s->report_every == 0)) TRY(report(run));
        if (!last && trainer->done % s->checkpoint_every == 0) TRY(save_state(run));
    }
done:
    progress_free(progress);
    return status;
}

// ---- results ----

static enum status save_model(struct run *run, double loss_validation) {
    struct pretrain_facts facts = {.common = run->common,
                                   .settings = run->settings,
                                   .model = run->model,
                                   .corpus_documents = run->corpus.n_documents,
                                   .corpus_tokens = run->corpus.n_tokens,
                                   .corpus_bytes = run->corpus.n_bytes,
                                   .validation_tokens = run->n_validation * run->settings->trainer.seq_len,
                                   .loss_training = run->loss_training,
                                   .loss_validation = loss_validation,
                                   .documents = run->documents};
    char *card = pretrain_card(&facts), *path = run_folder_file(run->folder, "model");
    struct model_writer_options options = {
        .dtype = run->settings->dtype, .tokenizer = run->tokenizer_json, .readme = card};
    enum status status = model_write(run->model, path, &options);
    free(card);
    free(path);
    return status;
}

static void summarize(struct run *run, double loss_validation) {
    const struct trainer_options *o = &run->settings->trainer;
    struct record *result = run_folder_result(run->folder);
    int64_t parameters = transformer_parameters(run->model), tokens = o->steps * o->batch * o->seq_len;
    record_integer(result, "parameters", parameters);
    record_integer(result, "vocab_size", run->model->config.vocab);
    record_integer(result, "corpus_documents", run->corpus.n_documents);
    record_integer(result, "corpus_tokens", run->corpus.n_tokens);
    record_integer(result, "corpus_bytes", run->corpus.n_bytes);
    record_integer(result, "tokens_trained", tokens);
    record_number(result, "epochs", (double)(o->steps * o->batch) / (double)run->windows.n);
    record_integer(result, "validation_windows", run->n_validation);
    record_number(result, "loss_training", run->loss_training);
    record_number(result, "loss_validation", loss_validation);
    record_number(result, "perplexity_validation", exp(loss_validation));
    record_integer(result, "validation_documents", run->documents.n);
    record_number(result, "nats_per_document", run->documents.nats);
    record_number(result, "nats_per_document_se", run->documents.nats_se);
    record_number(result, "seconds", run_folder_seconds(run->folder));
    if (run->steps) record_number(result, "tokens_per_second", tokens_per_second(run));
    record_integer(result, "planned_bytes", 4 * 4 * parameters + run->trainer->activation_bytes);
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
    progress_say("%lld parameters: training loss %.4f, validation loss %.4f, perplexity %.3f", (long long)parameters,
                 run->loss_training, loss_validation, exp(loss_validation));
}

// ---- the run ----

// All that decides the result, so that --resume refuses anything else.
static enum status describe(const struct program_common *common, const struct pretrain_settings *s,
                            struct record *record) {
    enum status status = STATUS_OK;
    record_integer(record, "seed", (int64_t)common->seed);
    record_integer(record, "vocab_size", s->vocab_size);
    record_integer(record, "hidden", s->hidden);
    record_integer(record, "intermediate", s->intermediate);
    record_integer(record, "layers", s->layers);
    record_integer(record, "heads", s->heads);
    record_integer(record, "kv_heads", s->kv_heads);
    record_bool(record, "tied", s->tied);
    record_integer(record, "steps", s->trainer.steps);
    record_integer(record, "batch_size", s->trainer.batch);
    record_integer(record, "seq_len", s->trainer.seq_len);
    record_number(record, "lr", s->trainer.rate);
    record_integer(record, "warmup", s->trainer.warmup);
    record_number(record, "clip", s->trainer.clip);
    record_number(record, "weight_decay", s->trainer.decay);
    record_string(record, "dtype", s->dtype == DTYPE_BF16 ? "bfloat16" : "float32");
    record_integer(record, "validation_samples", s->validation_samples);
    record_integer(record, "report_every", s->report_every);
    TRY(record_digests(record, "corpus", s->corpus, s->n_corpus));
    TRY(record_digest(record, "validation", s->validation));
done:
    return status;
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    double loss_validation = 0;
    TRY(open_text(run));
    TRY(open_model(run));
    TRY(train(run));
    TRY(round_weights(run));
    TRY(measure(run, &loss_validation));
    TRY(measure_documents(run));
    TRY(save_model(run, loss_validation));
    summarize(run, loss_validation);
done:
    return status;
}

enum status pretrain(const struct program_common *common, const struct pretrain_settings *settings) {
    enum status status = STATUS_OK;
    struct run run = {.common = common, .settings = settings, .loss_training = NAN};
    struct record *about = record_new();
    TRY(describe(common, settings, about));
    TRY(program_run_folder(common, about, &run.folder));
    if (run_folder_is_done(run.folder)) {
        progress_say("%s: this run is finished", common->out);
        goto done;
    }
    status = run_folder_finish(run.folder, work(&run));
done:
    trainer_free(run.trainer);
    transformer_free(run.model);
    step_free(run.step);
    backend_close(run.backend);
    tokenizer_free(run.tokenizer);
    document_stream_free(&run.corpus);
    document_stream_free(&run.validation);
    mem_buffer_free(run.windows.order);
    mem_buffer_free(run.windows.batch);
    run_folder_free(run.folder);
    free(run.tokenizer_json);
    record_free(about);
    return status;
}
