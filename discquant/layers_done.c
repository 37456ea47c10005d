#include "discquant/layers_done.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

struct weight *layers_done_next(struct transformer *model, int64_t end, int64_t *i) {
    const struct weight *stop = end < model->config.layers ? model->layers[end].attention_norm : model->final_norm;
    while (&model->weights[*i] < stop) {
        struct weight *weight = &model->weights[(*i)++];
        if (weight->is_linear) return weight;
    }
    return NULL;
}

enum status layers_done_save(struct transformer *model, int64_t layers, struct checkpoint *state) {
    enum status status = STATUS_OK;
    int64_t i = 0;
    char name[32];
    checkpoint_add_integer(state, "layers", layers);
    for (struct weight *w; (w = layers_done_next(model, layers, &i));) {
        snprintf(name, sizeof name, "x.%lld", (long long)w->index);
        TRY(checkpoint_add_view(state, name, model->backend, w->x));
    }
done:
    return status;
}

enum status layers_done_load(struct transformer *model, const struct checkpoint *state, enum weight_form form,
                             int64_t *layers) {
    enum status status = STATUS_OK;
    int64_t i = 0, n = 0;
    char name[32];
    TRY(checkpoint_integer(state, "layers", 0, model->config.layers, &n));
    for (struct weight *w; (w = layers_done_next(model, n, &i));) {
        snprintf(name, sizeof name, "x.%lld", (long long)w->index);
        TRY(checkpoint_view(state, name, model->backend, w->x));
        w->form = form;
    }
    *layers = n;
done:
    return status;
}

enum status layers_done_tokens(const struct run *run, int32_t **out) {
    int64_t seq_len = run->settings->optimizer.seq_len, windows = run->calibration_windows;
    void *tokens = NULL;
    enum status status =
        mem_buffer_new(windows * seq_len * (int64_t)sizeof(int32_t), "tokens of the calibration windows", &tokens);
    if (status != STATUS_OK) return status;
    // They lie file behind file, with tails between them that belong to none.
    for (int64_t i = 0; i < windows; i++)
        memcpy((int32_t *)tokens + i * seq_len, corpus_window(run->calibration, seq_len, i),
               (size_t)seq_len * sizeof(int32_t));
    *out = tokens;
    return STATUS_OK;
}
