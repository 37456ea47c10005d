#include "discquant/rate_search.h"

#include "core/base/progress.h"
#include "core/nn/evaluate.h"
#include "discquant/batches.h"
#include "discquant/optimization.h"

#include <math.h>

enum { HELD_OUT_MOST = 32, STEPS_LEAST = 16, SHARE = 8, FURTHER = 3, DECADES = 2 };

struct search {
    struct run *run;
    struct optimizer_options options;
    int64_t held_out; // windows at the end of the calibration text
    double best, best_kl;
};

static enum status measure(struct search *self, double *kl) {
    struct run *run = self->run;
    struct transformer *model = run->model->transformer;
    int64_t seq_len = self->options.seq_len;
    struct evaluate_options options = {
        .form = run->rounding->form, .reference = model, .reference_form = WEIGHT_STORED};
    struct evaluation *e = NULL;
    // Windows of one text lie one after another only inside of a file.
    enum status status = STATUS_OK;
    double sum = 0;
    for (int64_t i = 0; i < self->held_out; i++) {
        const int32_t *window = corpus_window(run->calibration, seq_len, run->calibration_windows - self->held_out + i);
        TRY(evaluate(model, run->model->step, window, 1, seq_len, &options, &e));
        sum += evaluation_mean(e, e->kl, NULL);
        evaluation_free(e);
        e = NULL;
    }
    *kl = sum / (double)self->held_out;
done:
    evaluation_free(e);
    return status;
}

// The KL after a short run; infinite where it diverged.
static enum status short_run(struct search *self, double rate, double *kl) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    struct optimizer_options options = self->options;
    struct optimizer *optimizer = NULL;
    struct batches *batches = NULL;
    double step_kl = 0;
    bool diverged = false;
    options.rate = rate;
    TRY(optimization_begin(run));
    TRY(optimizer_new(run->rounding, run->model->step, &options, &optimizer));
    TRY(batches_new(&(struct batches_options){.corpus = run->calibration,
                                              .windows = run->calibration_windows - self->held_out,
                                              .seq_len = options.seq_len,
                                              .batch = options.batch,
                                              .seed = options.seed},
                    &batches));
    while (optimizer->done < options.steps && !diverged) {
        enum status step = optimizer_step(optimizer, batches_load(batches, optimizer->done), &step_kl);
        diverged = step == STATUS_INVALID;
        if (!diverged) TRY(step);
    }
    *kl = INFINITY;
    if (!diverged) TRY(measure(self, kl));
    if (!isfinite(*kl)) *kl = INFINITY;
done:
    batches_free(batches);
    optimizer_free(optimizer);
    return status;
}

static enum status try_rate(struct search *self, double rate) {
    enum status status = STATUS_OK;
    double kl = 0;
    struct record *line = record_new();
    TRY(short_run(self, rate, &kl));
    progress_say("learning rate %.3g: KL %.4f on held-out calibration windows", rate, kl);
    record_number(line, "lr_search", rate);
    record_number(line, "kl_held_out", kl);
    record_number(line, "seconds", run_folder_seconds(self->run->folder));
    TRY(run_folder_log(self->run->folder, line));
    if (kl < self->best_kl) self->best = rate, self->best_kl = kl;
done:
    record_free(line);
    return status;
}

// What the finish is counted in shrinks with the steps.
static struct optimizer_options short_options(const struct run *run) {
    struct optimizer_options o = run->settings->optimizer;
    int64_t steps = o.steps / SHARE < STEPS_LEAST ? STEPS_LEAST : o.steps / SHARE;
    double scale = (double)steps / (double)o.steps;
    o.warmup = (int64_t)(scale * (double)o.warmup);
    o.finish.from = (int64_t)ceil(scale * (double)o.finish.from);
    o.steps = steps;
    o.seed = run->common->seed;
    return o;
}

enum status rate_search(struct run *run, double *rate) {
    enum status status = STATUS_OK;
    struct search self = {.run = run, .options = short_options(run), .best_kl = INFINITY};
    double center = run->settings->method->rate, low = center, high = center;
    int64_t n = run->calibration_windows;
    if (n < 2)
        TRY(status_set(STATUS_INVALID, "--lr search: %lld calibration window leaves none to measure on; give more text",
                       (long long)n));
    self.held_out = n / SHARE < 1 ? 1 : n / SHARE > HELD_OUT_MOST ? HELD_OUT_MOST : n / SHARE;
    TRY(try_rate(&self, center));
    for (int i = 0; i < DECADES; i++) {
        TRY(try_rate(&self, low /= 10));
        TRY(try_rate(&self, high *= 10));
    }
    for (int i = 0; i < FURTHER && self.best == low; i++) TRY(try_rate(&self, low /= 10));
    for (int i = 0; i < FURTHER && self.best == high; i++) TRY(try_rate(&self, high *= 10));
    if (!isfinite(self.best_kl))
        TRY(status_set(STATUS_INVALID, "--lr search: every learning rate from %.3g to %.3g diverged", low, high));
    double best = self.best;
    TRY(try_rate(&self, best / sqrt(10)));
    TRY(try_rate(&self, best * sqrt(10)));
    *rate = self.best;
    record_number(run_folder_result(run->folder), "lr_search_kl", self.best_kl);
done:
    return status;
}
