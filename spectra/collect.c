#include "spectra/collect.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/window_pass.h"
#include "data/file.h"
#include "spectra/store.h"
#include "spectra/sums.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const sketch_names[] = {"none", "rotation", "gaussian", "rademacher", NULL};

static const double seconds_between = 5, share_of_time = 0.05;

struct collector {
    const struct collect_options *options;
    const struct settings *settings;
    int64_t *order; // [windows of the corpus]
    struct window_pass *pass;
    struct sketch_sink *sink;
    struct store *store;
    struct sums *before; // over the samples of earlier parts of the run
    struct sums *sums;   // over all
    char *records_path, *sums_path;
    int32_t *tokens; // [batch, seq_len]
    double saved_at; // clock
    double saving;   // seconds that the last state took
    int64_t saved;   // samples
    double loss_sum;
};

// ---- settings ----

static char **copied(char *const *names, int64_t n) {
    char **copy = mem_new((size_t)n + 1, sizeof *copy);
    for (int64_t i = 0; i < n; i++) copy[i] = mem_string(names[i]);
    return copy;
}

struct settings *collect_settings(const struct transformer *model, const struct groups *groups,
                                  const struct directions *directions, const struct settings_options *options) {
    struct settings *s = mem_new(1, sizeof *s);
    bool sketched = options->sketch != SKETCH_NONE;
    *s = (struct settings){.model = mem_string(options->model),
                           .corpus = mem_string(options->corpus),
                           .dtype = mem_string(model->dtype == DTYPE_BF16 ? "BF16" : "F32"),
                           .seq_len = options->seq_len,
                           .batch = options->batch ? options->batch : window_pass_windows(options->seq_len),
                           .seed = options->seed,
                           .parameters = mem_string(options->parameters == PARAMETERS_ALL ? "all" : "linear"),
                           .sketch = mem_string(sketch_names[options->sketch]),
                           .dim = sketched ? options->dim : 0,
                           .sketches = sketched ? options->sketches : 0,
                           .n_groups = groups->n,
                           .groups = copied(groups->names, groups->n)};
    s->weights = mem_new((size_t)groups->n_weights + 1, sizeof *s->weights);
    for (int64_t i = 0; i < groups->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        if (groups->of[i] < 0) continue;
        s->weights[s->n_weights++] = (struct settings_weight){
            .name = mem_string(weight->name), .elements = weight->rows * weight->cols, .group = groups->of[i]};
    }
    if (directions) s->n_directions = directions->n;
    s->directions = copied(directions ? directions->labels : NULL, s->n_directions);
    return s;
}

// ---- opening ----

static enum sketch_kind kind_of(const struct settings *settings) {
    for (int k = SKETCH_NONE; sketch_names[k]; k++)
        if (strcmp(settings->sketch, sketch_names[k]) == 0) return (enum sketch_kind)k;
    REQUIRE(false, "a kind of sketch");
    return SKETCH_NONE;
}

static enum status open_order(struct collector *c) {
    const struct collect_options *o = c->options;
    int64_t windows = 0;
    enum status status = corpus_windows(o->corpus, c->settings->seq_len, &windows);
    if (status != STATUS_OK) return status;
    if (o->first < 0 || o->samples < 1 || o->first > windows - o->samples)
        return status_set(STATUS_INVALID,
                          "%s: has %lld windows of %lld tokens, %lld are needed: take fewer --samples or a "
                          "shorter --seq-len",
                          o->corpus->name, (long long)windows, (long long)c->settings->seq_len,
                          (long long)(o->first + o->samples));
    c->order = corpus_order(windows, c->settings->seed);
    return STATUS_OK;
}

static const struct weight *shared_weight(const struct collect_options *options) {
    const struct transformer *model = options->model->transformer;
    bool counts = options->groups->of[model->embedding - model->weights] >= 0;
    return counts && model->head == model->embedding ? model->embedding : NULL;
}

// The sink and the pass, of `windows` windows.
static enum status open_pass(struct collector *c, int64_t windows, bool sum) {
    enum status status = STATUS_OK;
    const struct collect_options *o = c->options;
    const struct settings *s = c->settings;
    struct transformer *model = o->model->transformer;
    struct sketch_options sketch = {.kind = kind_of(s),
                                    .dim = s->dim,
                                    .sketches = s->sketches,
                                    .seed = s->seed,
                                    .n_groups = o->groups->n,
                                    .group = o->groups->of,
                                    .shared = shared_weight(o),
                                    .sum = sum};
    if (o->directions && o->directions->n) {
        sketch.n_directions = o->directions->n;
        sketch.directions = o->directions->views;
    }
    void *tokens = NULL;
    struct window_pass_options pass = {.seq_len = s->seq_len, .windows = windows, .recompute = o->recompute};
    TRY(window_pass_new(model, o->model->step, &pass, &c->pass));
    TRY(mem_buffer_new(windows * s->seq_len * (int64_t)sizeof *c->tokens, "tokens", &tokens));
    c->tokens = tokens;
    TRY(sketch_sink_new(model->backend, model->weights, model->n_weights, &sketch, windows, &c->sink));
    sketch_sink_attach(c->sink);
done:
    return status;
}

static enum status open_files(struct collector *c) {
    enum status status = STATUS_OK;
    const struct collect_options *o = c->options;
    TRY(sums_new(c->settings, &c->sums));
    if (o->resume && file_exists(c->sums_path)) {
        TRY(sums_read(c->sums_path, c->settings, o->first, &c->before));
        return store_resume(c->records_path, c->settings, o->first, o->samples, c->before->samples, &c->store);
    }
    // A state of an earlier run must not stand beside records that begin anew.
    if (unlink(c->sums_path) != 0 && errno != ENOENT)
        return status_set(STATUS_IO, "%s: cannot remove: %s", c->sums_path, strerror(errno));
    TRY(store_create(c->records_path, c->settings, o->first, o->samples, &c->store));
done:
    return status;
}

static void close_all(struct collector *c) {
    sketch_sink_free(c->sink);
    window_pass_free(c->pass);
    store_free(c->store);
    sums_free(c->before);
    sums_free(c->sums);
    mem_buffer_free(c->tokens);
    free(c->order);
    free(c->records_path);
    free(c->sums_path);
}

// ---- passes ----

static enum status begin_sink(void *context, struct window_pass *pass) {
    return sketch_sink_begin(((struct collector *)context)->sink, pass->tokens);
}

static enum status not_finite(const char *what, int64_t sample) {
    return status_set(STATUS_INVALID, "the %s of sample %lld is not finite: the model or the text is broken", what,
                      (long long)sample);
}

static enum status check_sample(const struct collector *c, int64_t place, int64_t sample) {
    const struct settings *s = c->settings;
    for (int64_t g = 0; g < s->n_groups; g++)
        if (!isfinite(c->sink->norms[place * s->n_groups + g])) return not_finite("gradient", sample);
    for (int64_t d = 0; d < s->n_directions; d++)
        if (!isfinite(c->sink->inner[place * s->n_directions + d])) return not_finite("inner product", sample);
    return STATUS_OK;
}

// Samples first .. first + n - 1, which stand at `place` and behind it in a pass of the given size.
static enum status run_pass(struct collector *c, int64_t first, int64_t place, int64_t n) {
    enum status status = STATUS_OK;
    int64_t seq_len = c->settings->seq_len;
    for (int64_t k = 0; k < n; k++)
        memcpy(c->tokens + (place + k) * seq_len, corpus_window(c->options->corpus, seq_len, c->order[first + k]),
               (size_t)seq_len * sizeof *c->tokens);
    status = window_pass_run(c->pass, c->tokens, place, n, begin_sink, c);
    for (int64_t k = 0; k < n && status == STATUS_INVALID; k++)
        if (!isfinite(c->pass->losses[place + k])) return not_finite("loss", first + k);
    TRY(status);
    TRY(sketch_sink_end(c->sink, c->pass->options.windows));
    for (int64_t k = 0; k < n; k++) TRY(check_sample(c, place + k, first + k));
done:
    return status;
}

static enum status append_pass(struct collector *c, int64_t first, int64_t place, int64_t n) {
    const struct settings *s = c->settings;
    int64_t sketch = s->n_groups * s->sketches * s->dim;
    enum status status = STATUS_OK;
    for (int64_t k = 0; k < n && status == STATUS_OK; k++) {
        int64_t b = place + k;
        struct store_record record = {.sample = first + k,
                                      .loss = c->pass->losses[b],
                                      .norms = c->sink->norms + b * s->n_groups,
                                      .inner = s->n_directions ? c->sink->inner + b * s->n_directions : NULL,
                                      .sketches = sketch ? c->sink->sketches + b * sketch : NULL};
        c->loss_sum += record.loss;
        status = store_append(c->store, &record);
    }
    return status;
}

// ---- states ----

static enum status add_up(struct collector *c) {
    enum status status = STATUS_OK;
    const struct transformer *model = c->options->model->transformer;
    int64_t counted = 0;
    for (int64_t i = 0; i < model->n_weights; i++)
        if (c->options->groups->of[i] >= 0)
            TRY(sketch_sink_sum(c->sink, &model->weights[i], c->sums->values[counted++]));
    c->sums->samples = c->store->n;
    if (!c->before) goto done;
    c->sums->samples -= c->before->samples;
    TRY(sums_add(c->sums, c->before));
done:
    return status;
}

// Records first, so that the sums never stand for samples that are not there.
static enum status save(struct collector *c) {
    enum status status = STATUS_OK;
    double begun = clock_seconds();
    TRY(add_up(c));
    TRY(store_sync(c->store));
    TRY(sums_write(c->sums, c->sums_path, c->options->first));
    if (c->options->saved) TRY(c->options->saved(c->options->context, c->store->n));
    c->saved = c->store->n;
    c->saved_at = clock_seconds();
    c->saving = c->saved_at - begun;
done:
    return status;
}

static bool wants_saving(const struct collector *c) {
    if (c->store->n == c->options->samples) return true;
    if (c->options->checkpoint_every) return c->store->n - c->saved >= c->options->checkpoint_every;
    double since = clock_seconds() - c->saved_at;
    return since > seconds_between && c->saving < share_of_time * since;
}

static enum status collect_all(struct collector *c) {
    enum status status = STATUS_OK;
    const struct collect_options *o = c->options;
    int64_t batch = c->settings->batch, end = o->first + o->samples, begun = c->store->n;
    struct progress *progress = progress_new("gradients", "sample", o->samples, c->store->n);
    c->saved = c->store->n;
    c->saved_at = clock_seconds();
    while (c->store->n < o->samples) {
        int64_t first = o->first + c->store->n, place = first % batch, n = batch - place;
        if (n > end - first) n = end - first;
        TRY(run_pass(c, first, place, n));
        TRY(append_pass(c, first, place, n));
        progress_update(progress, c->store->n, "loss %.4f", c->loss_sum / (double)(c->store->n - begun));
        if (wants_saving(c)) TRY(save(c));
    }
done:
    progress_free(progress);
    return status;
}

enum status collect(const struct collect_options *options, struct collected *out) {
    enum status status = STATUS_OK;
    struct collector c = {.options = options, .settings = options->settings};
    double begun = clock_seconds();
    c.records_path = mem_format("%s/records", options->folder);
    c.sums_path = mem_format("%s/sums", options->folder);
    TRY(open_order(&c));
    TRY(open_files(&c));
    int64_t before = c.store->n;
    if (before < options->samples) {
        TRY(open_pass(&c, c.settings->batch, true));
        TRY(collect_all(&c));
    }
    int64_t samples = c.store->n - before;
    *out = (struct collected){.samples = samples,
                              .seconds = clock_seconds() - begun,
                              .mean_loss = samples ? c.loss_sum / (double)samples : NAN};
done:
    close_all(&c);
    return status;
}

// ---- noise ----

enum status collect_noise(const struct collect_options *options, int64_t n, double *share) {
    enum status status = STATUS_OK;
    struct collector c = {.options = options, .settings = options->settings};
    struct store_record record;
    int64_t numbers = c.settings->n_groups * c.settings->sketches * c.settings->dim;
    double difference = 0, size = 0;
    REQUIRE(numbers > 0, "there are sketches");
    c.records_path = mem_format("%s/records", options->folder);
    TRY(open_order(&c));
    TRY(store_open(c.records_path, &c.store));
    TRY(settings_same(c.store->settings, c.records_path, c.settings, "this run"));
    if (n > c.store->n) n = c.store->n;
    TRY(open_pass(&c, 1, false));
    for (int64_t i = 0; i < n; i++) {
        TRY(run_pass(&c, c.store->first + i, 0, 1));
        TRY(store_read(c.store, i, &record));
        for (int64_t e = 0; e < numbers; e++) {
            double was = (double)record.sketches[e], d = (double)c.sink->sketches[e] - was;
            difference += d * d;
            size += was * was;
        }
    }
    *share = size > 0 ? difference / size : 0;
done:
    close_all(&c);
    return status;
}
