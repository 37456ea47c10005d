#include "spectra/sampling.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum status sampling_describe(const struct sampling_settings *given, uint64_t seed, struct record *record) {
    enum status status = STATUS_OK;
    record_integer(record, "seed", (int64_t)seed);
    record_integer(record, "first_sample", given->first);
    record_integer(record, "samples", given->samples);
    record_integer(record, "seq_len", given->seq_len);
    record_integer(record, "batch", given->batch);
    record_string(record, "parameters", given->parameters == PARAMETERS_ALL ? "all" : "linear");
    record_string(record, "layers", given->layers_text);
    record_bool(record, "per_layer", given->per_layer);
    record_string(record, "sketch", sketch_names[given->sketch]);
    record_integer(record, "dim", given->dim);
    record_integer(record, "sketches", given->sketches);
    record_integer(record, "bits", given->bits);
    record_integer(record, "group_size", given->group_size);
    for (int i = 0; i < given->n_quantized && status == STATUS_OK; i++) {
        char *key = mem_format("quantized_%s", given->quantized_names[i]);
        status = record_digest(record, key, given->quantized[i]);
        free(key);
    }
    TRY(status);
    TRY(record_digests(record, "corpus", given->corpus, given->n_corpus));
    TRY(record_digest(record, "model", given->model));
done:
    return status;
}

// Digests of the files, one behind the other.
static char *corpus_digest(const struct record *described, int n) {
    char *all = mem_string("");
    for (int i = 0; i < n; i++) {
        char *key = mem_format("corpus_%d", i);
        char *longer =
            mem_format("%s%s%s", all, i ? ", " : "", json_string_value(json_object_get(record_json(described), key)));
        free(key);
        free(all);
        all = longer;
    }
    return all;
}

static enum status check_layers(const struct sampling_settings *given, const struct transformer *model) {
    for (int i = 0; i < given->layers.n; i++)
        if (given->layers.ranges[i].last >= model->config.layers)
            return status_set(STATUS_INVALID, "--layers %s: there is no layer %lld, %s has 0 to %lld",
                              given->layers_text, (long long)given->layers.ranges[i].last, given->model,
                              (long long)model->config.layers - 1);
    return STATUS_OK;
}

static enum status open_directions(struct sampling *sampling) {
    enum status status = STATUS_OK;
    const struct sampling_settings *given = sampling->given;
    TRY(directions_new(sampling->model, sampling->groups, &sampling->directions));
    if (given->bits) TRY(directions_add_nearest(sampling->directions, given->bits, given->group_size));
    for (int i = 0; i < given->n_quantized; i++)
        TRY(directions_add_folder(sampling->directions, given->quantized_names[i], given->quantized[i]));
done:
    return status;
}

enum status sampling_open(const struct sampling_settings *given, const struct program_common *common,
                          const struct record *described, struct sampling **out) {
    enum status status = STATUS_OK;
    struct sampling *s = mem_new(1, sizeof *s);
    char *corpus = corpus_digest(described, given->n_corpus);
    s->given = given;
    TRY(model_open(given->model, common->device, DTYPE_F32, NULL, &s->model));
    TRY(corpus_read(s->model->tokenizer, given->corpus, given->n_corpus, model_folder_config(s->model->folder)->vocab,
                    &s->corpus));
    TRY(check_layers(given, s->model->transformer));
    s->groups = groups_new(s->model->transformer, given->parameters, &given->layers, given->per_layer);
    TRY(open_directions(s));
    s->settings = collect_settings(
        s->model->transformer, s->groups, s->directions,
        &(struct settings_options){.model = json_string_value(json_object_get(record_json(described), "model")),
                                   .corpus = corpus,
                                   .seq_len = given->seq_len,
                                   .batch = given->batch,
                                   .seed = common->seed,
                                   .parameters = given->parameters,
                                   .sketch = given->sketch,
                                   .dim = given->dim,
                                   .sketches = given->sketches});
    s->options = (struct collect_options){.model = s->model,
                                          .corpus = s->corpus,
                                          .groups = s->groups,
                                          .directions = s->directions,
                                          .settings = s->settings,
                                          .first = given->first,
                                          .samples = given->samples,
                                          .recompute = given->recompute,
                                          .checkpoint_every = given->checkpoint_every};
    *out = s;
    s = NULL;
done:
    free(corpus);
    sampling_free(s);
    return status;
}

void sampling_free(struct sampling *sampling) {
    if (!sampling) return;
    directions_free(sampling->directions);
    groups_free(sampling->groups);
    settings_free(sampling->settings);
    corpus_free(sampling->corpus);
    model_free(sampling->model);
    free(sampling);
}

// The run folder's own state: how long the passes have taken.
struct keeper {
    struct run_folder *run;
    double earlier, begun;
};

static enum status keep(void *context, int64_t done) {
    struct keeper *keeper = context;
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "samples", done);
    checkpoint_add_number(state, "seconds_sampling", keeper->earlier + clock_seconds() - keeper->begun);
    enum status status = run_folder_checkpoint_save(keeper->run, state);
    checkpoint_free(state);
    return status;
}

enum status sampling_collect(struct sampling *sampling, struct run_folder *run, const char *folder, bool resume,
                             double *seconds) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    struct keeper keeper = {.run = run, .begun = clock_seconds()};
    struct collected collected;
    TRY(run_folder_checkpoint_load(run, &state));
    if (state) TRY(checkpoint_number(state, "seconds_sampling", &keeper.earlier));
    sampling->options.folder = folder;
    sampling->options.resume = resume;
    sampling->options.saved = keep;
    sampling->options.context = &keeper;
    TRY(collect(&sampling->options, &collected));
    *seconds = keeper.earlier + collected.seconds;
done:
    checkpoint_free(state);
    return status;
}
