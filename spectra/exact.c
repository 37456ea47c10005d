#include "spectra/exact.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/nn/window_pass.h"

#include <stdlib.h>
#include <string.h>

struct exact {
    int64_t samples, weights;
    float *rows;    // [samples, weights]
    int64_t *first; // [weights of the model] where a weight's entries begin in a row, -1: it does not count
};

// Where a pass stands: its places first_place … have the samples from `first` on.
struct taker {
    struct exact *exact;
    int64_t first, place, n;
};

static enum status take(void *context, const struct rows_tile *tile) {
    const struct taker *taker = context;
    const struct exact *exact = taker->exact;
    int64_t cols = tile->weight->cols, n = tile->rows * cols;
    int64_t at = exact->first[tile->weight->index] + tile->row * cols;
    for (int64_t b = 0; b < tile->samples; b++) {
        int64_t k = tile->first + b - taker->place;
        if (k < 0 || k >= taker->n) continue;
        float *to = exact->rows + (taker->first + k) * exact->weights + at;
        const float *from = tile->grad + b * n;
        for (int64_t e = 0; e < n; e++) to[e] = tile->add ? to[e] + from[e] : from[e];
    }
    return STATUS_OK;
}

static enum status run_passes(const struct collect_options *o, struct exact *exact, struct window_pass *pass,
                              struct rows_sink *sink, struct taker *taker, int32_t *tokens) {
    enum status status = STATUS_OK;
    int64_t windows = 0, seq_len = o->settings->seq_len, batch = o->settings->batch, *order = NULL;
    struct progress *progress = progress_new("exact gradients", "sample", o->samples, 0);
    TRY(corpus_windows(o->corpus, seq_len, &windows));
    REQUIRE(o->first <= windows - o->samples, "the samples have been collected");
    order = corpus_order(windows, o->settings->seed);
    for (int64_t done = 0; done < exact->samples; done += taker->n) {
        int64_t place = (o->first + done) % batch;
        *taker = (struct taker){.exact = exact, .first = done, .place = place, .n = batch - place};
        if (taker->n > exact->samples - done) taker->n = exact->samples - done;
        for (int64_t k = 0; k < taker->n; k++)
            memcpy(tokens + (place + k) * seq_len, corpus_window(o->corpus, seq_len, order[o->first + done + k]),
                   (size_t)seq_len * sizeof *tokens);
        rows_sink_begin(sink);
        TRY(window_pass_run(pass, tokens, place, taker->n, NULL, NULL));
        progress_update(progress, done + taker->n, NULL);
    }
done:
    progress_free(progress);
    free(order);
    return status;
}

static void set_sinks(const struct collect_options *o, struct grad_sink *sink) {
    for (int64_t i = 0; i < o->groups->n_weights; i++)
        o->model->transformer->weights[i].sink = o->groups->of[i] >= 0 ? sink : NULL;
}

enum status exact_new(const struct collect_options *options, struct exact **out) {
    enum status status = STATUS_OK;
    const struct transformer *model = options->model->transformer;
    bool tied = model->head == model->embedding && options->groups->of[model->embedding - model->weights] >= 0;
    int64_t batch = options->settings->batch, seq_len = options->settings->seq_len, bytes = 0;
    struct exact *exact = mem_new(1, sizeof *exact);
    struct window_pass *pass = NULL;
    struct rows_sink *sink = NULL;
    struct taker taker = {.exact = exact};
    void *rows = NULL, *tokens = NULL;
    *exact = (struct exact){.samples = options->samples, .weights = options->groups->parameters};
    exact->first = mem_new((size_t)options->groups->n_weights, sizeof *exact->first);
    for (int64_t i = 0, at = 0; i < options->groups->n_weights; i++) {
        exact->first[i] = options->groups->of[i] < 0 ? -1 : at;
        if (options->groups->of[i] >= 0) at += model->weights[i].rows * model->weights[i].cols;
    }
    if (__builtin_mul_overflow(exact->samples, exact->weights, &bytes) || bytes > INT64_MAX / 8)
        TRY(status_set(STATUS_NO_MEMORY, "%lld gradients of %lld numbers fit nowhere", (long long)exact->samples,
                       (long long)exact->weights));
    TRY(mem_buffer_new(bytes * (int64_t)sizeof(float), "the gradients themselves", &rows));
    exact->rows = rows;
    TRY(mem_buffer_new(batch * seq_len * (int64_t)sizeof(int32_t), "tokens", &tokens));
    TRY(window_pass_new(options->model->transformer, options->model->step,
                        &(struct window_pass_options){.seq_len = seq_len, .windows = batch}, &pass));
    sink = rows_sink_new(batch, tied ? model->embedding : NULL, take, &taker);
    set_sinks(options, &sink->sink);
    TRY(run_passes(options, exact, pass, sink, &taker, tokens));
    *out = exact;
    exact = NULL;
done:
    set_sinks(options, NULL);
    window_pass_free(pass);
    rows_sink_free(sink);
    mem_buffer_free(tokens);
    exact_free(exact);
    return status;
}

void exact_free(struct exact *exact) {
    if (!exact) return;
    mem_buffer_free(exact->rows);
    free(exact->first);
    free(exact);
}

struct sketch_rows exact_rows(const struct exact *exact) {
    return (struct sketch_rows){.at = exact->rows,
                                .samples = exact->samples,
                                .sketches = 1,
                                .dim = exact->weights,
                                .sample_stride = exact->weights,
                                .sketch_stride = exact->weights};
}
