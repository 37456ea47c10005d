// The method `signround`: layer after layer by discquant/block_rounding.h.
//
//     OUT/metrics.jsonl  a line per layer: layer, output_error_rtn (relative squared error of the layer's outputs at the start), output_error
//                        (of what is kept), step (it was found at), seconds
//     OUT/result.json    output_error: the mean over layers; calibration_windows
#include "discquant/block_rounding.h"
#include "discquant/layers_done.h"
#include "discquant/method.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"

struct signround {
    struct run *run;
    struct stream *inputs, *targets; // through the rounded and the original network
    double error;                    // sum over layers
    double since;                    // time of the last line
};

static enum status save_state(struct signround *self) {
    enum status status = STATUS_OK;
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_number(state, "error", self->error);
    TRY(layers_done_save(self->run->model->transformer, self->inputs->layer, state));
    TRY(run_folder_checkpoint_save(self->run->folder, state));
done:
    checkpoint_free(state);
    return status;
}

static enum status load_state(struct signround *self) {
    enum status status = STATUS_OK;
    struct transformer *model = self->run->model->transformer;
    struct checkpoint *state = NULL;
    int64_t layers = 0;
    TRY(run_folder_checkpoint_load(self->run->folder, &state));
    if (!state) goto done;
    TRY(checkpoint_number(state, "error", &self->error));
    TRY(layers_done_load(model, state, WEIGHT_STORED, &layers));
    while (self->targets->layer < layers) TRY(stream_layer(self->targets));
    transformer_set_form(model, WEIGHT_ROUNDED);
    while (self->inputs->layer < layers) TRY(stream_layer(self->inputs));
    transformer_set_form(model, WEIGHT_STORED);
done:
    checkpoint_free(state);
    return status;
}

static enum status start(struct signround *self) {
    enum status status = STATUS_OK;
    const struct run *run = self->run;
    struct stream_options options = {.windows = run->calibration_windows, .seq_len = run->settings->optimizer.seq_len};
    int32_t *tokens = NULL;
    TRY(stream_new(run->model->transformer, run->model->step, &options, &self->inputs));
    TRY(stream_new(run->model->transformer, run->model->step, &options, &self->targets));
    TRY(layers_done_tokens(run, &tokens));
    TRY(stream_start(self->inputs, tokens));
    TRY(stream_start(self->targets, tokens));
    TRY(load_state(self));
done:
    mem_buffer_free(tokens);
    return status;
}

static enum status round_layer(struct signround *self) {
    enum status status = STATUS_OK;
    struct run *run = self->run;
    struct block_rounding_options options = run->settings->block;
    struct block_rounding_result result;
    struct record *line = record_new();
    options.batch = run->settings->optimizer.batch;
    options.seed = run->common->seed;
    TRY(stream_layer(self->targets));
    TRY(block_rounding(run->rounding, run->model->step, self->inputs, self->targets, &options, &result));
    record_integer(line, "layer", self->inputs->layer);
    TRY(stream_layer(self->inputs));
    double now = clock_seconds();
    record_number(line, "output_error_rtn", result.error_first);
    record_number(line, "output_error", result.error);
    record_integer(line, "step", result.step);
    record_number(line, "seconds", now - self->since);
    TRY(run_folder_log(run->folder, line));
    self->since = now;
    self->error += result.error;
done:
    record_free(line);
    return status;
}

static void describe(const struct run_settings *s, struct record *record) {
    record_integer(record, "batch_size", s->optimizer.batch);
    record_integer(record, "signround_steps", s->block.steps);
    record_number(record, "signround_lr", s->block.rate);
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    struct transformer *model = run->model->transformer;
    struct signround self = {.run = run, .since = clock_seconds()};
    struct progress *progress = NULL;
    int64_t layers = model->config.layers, every = run->settings->checkpoint_layers;
    transformer_set_form(model, WEIGHT_STORED);
    TRY(start(&self));
    progress = progress_new("rounding", "layer", layers, self.inputs->layer);
    while (self.inputs->layer < layers) {
        TRY(round_layer(&self));
        progress_update(progress, self.inputs->layer, "error %.4f", self.error / (double)self.inputs->layer);
        if (self.inputs->layer % every == 0 && self.inputs->layer < layers) TRY(save_state(&self));
    }
    describe(run->settings, run_folder_result(run->folder));
    record_integer(run_folder_result(run->folder), "calibration_windows", run->calibration_windows);
    record_number(run_folder_result(run->folder), "output_error", self.error / (double)layers);
done:
    transformer_set_form(model, WEIGHT_STORED);
    progress_free(progress);
    stream_free(self.inputs);
    stream_free(self.targets);
    return status;
}

const struct method method_signround = {.name = "signround", .calibrates = true, .describe = describe, .work = work};
