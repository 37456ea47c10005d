#include "discquant/optimization.h"

#include "discquant/batches.h"
#include "discquant/qat.h"
#include "discquant/rate_search.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/point.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct optimization {
    struct run *run;
    struct optimizer *optimizer;
    struct batches *batches;
    double rate;                  // learning rate; searched where settings->search
    double kl_sum, objective_sum; // of the steps since the last report
    int64_t kl_steps;
    struct relaxed {
        double kl_x, kl_rounded, integral; // validation, when x is done: before the first step on the rounded network
    } relaxed;
    int64_t steps_here; // taken by this process, and the time inside them
    double seconds_here;
};

// At the first step of the finish, and so again where a run goes on from a state before it.
static enum status relax(struct optimization *self, double kl_x, double kl_rounded, double integral) {
    self->relaxed = (struct relaxed){.kl_x = kl_x, .kl_rounded = kl_rounded, .integral = integral};
    if (!self->run->settings->keep_x) return STATUS_OK;
    char *path = run_folder_file(self->run->folder, POINT_FILE);
    enum status status = point_save(self->run->rounding, path);
    free(path);
    return status;
}

static double mean_of(double sum, int64_t n) { return n ? sum / (double)n : NAN; }

// The network at x itself, before it is rounded.
static enum status report_x(struct optimization *self, struct record *line, double kl_rounded) {
    enum status status = STATUS_OK;
    const struct optimizer *optimizer = self->optimizer;
    struct quality at_x;
    double integral = 0;
    TRY(run_measure(self->run, WEIGHT_INTERPOLATED, &at_x));
    TRY(rounding_fraction_integral(self->run->rounding, &integral));
    record_number(line, "kl_x", at_x.kl);
    record_number(line, "fraction_integral", integral);
    progress_say("step %lld: validation KL of x %.4f, rounded %.4f, %.1f %% integral", (long long)optimizer->done,
                 at_x.kl, kl_rounded, 100 * integral);
    if (optimizer->done == optimizer->options.finish.from) TRY(relax(self, at_x.kl, kl_rounded, integral));
done:
    return status;
}

static enum status report(struct optimization *self) {
    enum status status = STATUS_OK;
    const struct optimizer *optimizer = self->optimizer;
    bool latent = optimizer->options.latent;
    struct quality rounded;
    struct record *line = record_new();
    TRY(run_measure(self->run, self->run->rounding->form, &rounded));
    record_integer(line, "step", optimizer->done);
    record_number(line, "learning_rate", optimizer_rate(&optimizer->options, optimizer->done));
    record_number(line, "kl_calibration", mean_of(self->kl_sum, self->kl_steps));
    if (!objective_is_kl(&optimizer->options.objective))
        record_number(line, "objective_calibration", mean_of(self->objective_sum, self->kl_steps));
    if (latent)
        progress_say("step %lld: validation KL %.4f", (long long)optimizer->done, rounded.kl);
    else
        TRY(report_x(self, line, rounded.kl));
    record_number(line, "kl_rounded", rounded.kl);
    record_number(line, "perplexity_rounded", rounded.perplexity);
    record_number(line, "seconds", run_folder_seconds(self->run->folder));
    TRY(run_folder_log(self->run->folder, line));
    self->kl_sum = self->objective_sum = 0;
    self->kl_steps = 0;
done:
    record_free(line);
    return status;
}

// ---- state of an interrupted run ----

// Calls visit for x and the moments of every rounded matrix.
static enum status each_array(struct optimization *self, struct checkpoint *state,
                              enum status (*visit)(struct optimization *self, struct checkpoint *state,
                                                   const char *name, struct view view)) {
    enum status status = STATUS_OK;
    struct transformer *model = self->run->model->transformer;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        const struct view views[3] = {w->x, self->optimizer->m[i], self->optimizer->v[i]};
        for (int k = 0; k < 3; k++) {
            char name[32];
            snprintf(name, sizeof name, "%c.%lld", "xmv"[k], (long long)w -> index);
            TRY(visit(self, state, name, views[k]));
        }
    }
done:
    return status;
}

static enum status save_array(struct optimization *self, struct checkpoint *state, const char *name, struct view view) {
    return checkpoint_add_view(state, name, self->run->model->transformer->backend, view);
}

static enum status load_array(struct optimization *self, struct checkpoint *state, const char *name, struct view view) {
    return checkpoint_view(state, name, self->run->model->transformer->backend, view);
}

static enum status save_state(struct optimization *self) {
    enum status status = STATUS_OK;
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "step", self->optimizer->done);
    checkpoint_add_number(state, "rate", self->rate);
    checkpoint_add_number(state, "kl_sum", self->kl_sum);
    checkpoint_add_number(state, "objective_sum", self->objective_sum);
    checkpoint_add_integer(state, "kl_steps", self->kl_steps);
    checkpoint_add_doubles(state, "relaxed", &self->relaxed.kl_x, 3);
    TRY(each_array(self, state, save_array));
    TRY(run_folder_checkpoint_save(self->run->folder, state));
done:
    checkpoint_free(state);
    return status;
}

static enum status load_state(struct optimization *self, struct checkpoint *state) {
    enum status status = STATUS_OK;
    TRY(checkpoint_integer(state, "step", 0, self->run->settings->optimizer.steps, &self->optimizer->done));
    TRY(checkpoint_number(state, "kl_sum", &self->kl_sum));
    TRY(checkpoint_number(state, "objective_sum", &self->objective_sum));
    TRY(checkpoint_integer(state, "kl_steps", 0, INT64_MAX, &self->kl_steps));
    TRY(checkpoint_doubles(state, "relaxed", &self->relaxed.kl_x, 3));
    TRY(each_array(self, state, load_array));
done:
    return status;
}

// ---- the method ----

// What only x has.
static void describe_x(const struct run_settings *s, struct record *record) {
    const struct optimizer_options *o = &s->optimizer;
    record_string(record, "init", s->init == INIT_RANDOM ? "random" : "original");
    record_number(record, "lambda", o->lambda);
    record_number(record, "clamp", o->clamp);
    if (o->random) record_string(record, "direction", "random");
    if (o->finish.kind != FINISH_STRAIGHT_THROUGH) record_string(record, "finish", finish_kind_names[o->finish.kind]);
    if (o->finish.kind == FINISH_ANNEAL) record_number(record, "finish_concave", o->finish.concave);
    if (s->keep_x) record_bool(record, "keep_x", true);
    record_integer(record, "finish_from", o->finish.from);
    record_number(record, "finish_strength", o->finish.strength);
}

void optimization_describe(const struct run_settings *s, struct record *record) {
    const struct optimizer_options *o = &s->optimizer;
    char text[OBJECTIVE_TEXT];
    if (s->state != DTYPE_F32) record_string(record, "state_precision", "bf16");
    if (!o->latent) describe_x(s, record);
    if (!objective_is_kl(&o->objective)) record_string(record, "objective", objective_text(&o->objective, text));
    record_integer(record, "steps", o->steps);
    record_integer(record, "warmup", o->warmup);
    record_integer(record, "batch_size", o->batch);
    record_integer(record, "micro_batch", o->micro_batch);
    if (s->search)
        record_string(record, "lr", "search");
    else
        record_number(record, "lr", o->rate);
    record_number(record, "weight_decay", o->decay);
    record_integer(record, "report_every", s->report_every);
}

// x of an earlier run in the same folder.
static void forget_x(struct run *run) {
    char *path = run_folder_file(run->folder, POINT_FILE);
    if (path) remove(path);
    free(path);
}

enum status optimization_begin(struct run *run) {
    const struct run_settings *s = run->settings;
    if (s->optimizer.latent) return qat_start(run->rounding);
    return s->init == INIT_RANDOM ? rounding_random(run->rounding, run->common->seed)
                                  : rounding_to_nearest(run->rounding);
}

static enum status start(struct optimization *self) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    const struct run_settings *s = run->settings;
    struct checkpoint *state = NULL;
    struct optimizer_options options = s->optimizer;
    options.seed = run->common->seed;
    TRY(run_folder_checkpoint_load(run->folder, &state));
    if (state)
        TRY(checkpoint_number(state, "rate", &options.rate));
    else if (s->search)
        TRY(rate_search(run, &options.rate));
    self->rate = options.rate;
    TRY(optimization_begin(run));
    TRY(optimizer_new(run->rounding, run->model->step, &options, &self->optimizer));
    TRY(batches_new(&(struct batches_options){.corpus = run->calibration,
                                              .windows = run->calibration_windows,
                                              .seq_len = options.seq_len,
                                              .batch = options.batch,
                                              .seed = options.seed},
                    &self->batches));
    if (state) TRY(load_state(self, state));
    if (self->optimizer->done == 0) forget_x(run);
    if (self->optimizer->done == 0 && options.finish.from == 0) TRY(report(self));
done:
    checkpoint_free(state);
    return status;
}

static enum status take_step(struct optimization *self, double *kl) {
    double begin = clock_seconds();
    enum status status = optimizer_step(self->optimizer, batches_load(self->batches, self->optimizer->done), kl);
    if (status != STATUS_OK) return status;
    self->seconds_here += clock_seconds() - begin;
    self->steps_here++;
    self->kl_sum += *kl;
    self->objective_sum += self->optimizer->objective;
    self->kl_steps++;
    return STATUS_OK;
}

static enum status optimize(struct optimization *self) {
    enum status status = STATUS_OK;
    const struct run_settings *s = self->run->settings;
    const int64_t steps = s->optimizer.steps;
    struct progress *progress = progress_new("rounding", "step", steps, self->optimizer->done);
    while (self->optimizer->done < steps) {
        double kl = 0;
        TRY(take_step(self, &kl));
        int64_t done = self->optimizer->done;
        progress_update(progress, done, "KL %.4f", kl);
        if ((s->report_every && done % s->report_every == 0) || done == s->optimizer.finish.from) TRY(report(self));
        if (done % s->checkpoint_every == 0 && done < steps) TRY(save_state(self));
    }
done:
    progress_free(progress);
    return status;
}

static enum status summarize_x(const struct optimization *self, struct record *result) {
    double integral = 0;
    enum status status = rounding_fraction_integral(self->run->rounding, &integral);
    if (status != STATUS_OK) return status;
    record_number(result, "kl_x", self->relaxed.kl_x);
    record_number(result, "kl_x_rounded", self->relaxed.kl_rounded);
    record_number(result, "fraction_integral_end", integral);
    self->run->fraction_integral = self->relaxed.integral;
    return STATUS_OK;
}

static enum status summarize(const struct optimization *self) {
    const struct optimizer_options *o = &self->run->settings->optimizer;
    struct record *result = run_folder_result(self->run->folder);
    enum status status = o->latent ? STATUS_OK : summarize_x(self, result);
    record_number(result, "lr", self->rate);
    if (self->steps_here)
        record_number(result, "tokens_per_second",
                      (double)(self->steps_here * o->batch * o->seq_len) / self->seconds_here);
    record_integer(result, "planned_bytes", optimizer_planned_bytes(self->optimizer));
    return status;
}

enum status optimization_work(struct run *run) {
    enum status status = STATUS_OK;
    struct optimization self = {.run = run, .relaxed = {NAN, NAN, NAN}};
    TRY(start(&self));
    TRY(optimize(&self));
    TRY(summarize(&self));
done:
    batches_free(self.batches);
    optimizer_free(self.optimizer);
    return status;
}

const struct method method_discquant = {.name = "discquant",
                                        .calibrates = true,
                                        .optimizes = true,
                                        .rate = 0.1,
                                        .describe = optimization_describe,
                                        .work = optimization_work};
