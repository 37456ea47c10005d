#include "data/model.h"

#include "core/base/mem.h"
#include "data/codes.h"
#include "data/adapter.h"

#include <stdio.h>
#include <stdlib.h>

enum status model_open(const char *path, const char *device, enum dtype dtype, const struct model *share,
                       struct model **out) {
    enum status status = STATUS_OK;
    struct model *model = mem_new(1, sizeof *model);
    TRY(model_folder_open(path, &model->folder));
    TRY(tokenizer_open(path, &model->tokenizer));
    const struct transformer_config *config = model_folder_config(model->folder);
    if (tokenizer_vocab_size(model->tokenizer) > config->vocab) {
        status =
            status_set(STATUS_FORMAT, "%s: tokenizer.json has ids up to %d, but the model's vocabulary has %lld rows",
                       path, tokenizer_vocab_size(model->tokenizer) - 1, (long long)config->vocab);
        goto done;
    }
    struct backend *backend = share ? share->backend : NULL;
    if (!backend) {
        TRY(backend_open(device, &model->backend));
        backend = model->backend;
    }
    TRY(transformer_new(backend, config, dtype, model_folder_source(model->folder), &model->transformer));
    TRY(step_new(backend, &model->step));
    *out = model;
    model = NULL;
done:
    model_free(model);
    return status;
}

void model_free(struct model *model) {
    if (!model) return;
    step_free(model->step);
    lora_free(model->lora);
    transformer_free(model->transformer);
    backend_close(model->backend);
    tokenizer_free(model->tokenizer);
    model_folder_free(model->folder);
    free(model);
}

enum status model_adapt(struct model *model, const char *path) {
    return path ? adapter_open(path, model->transformer, &model->lora) : STATUS_OK;
}

static bool is_rounded(void *self, const char *name) {
    const struct rounding *rounding = self;
    const struct weight *weight = transformer_weight(rounding->model, name);
    return weight && weight->grid;
}

static enum status put_rounded(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    const struct rounding *rounding = self;
    const struct weight *weight = transformer_weight(rounding->model, name);
    REQUIRE(weight && weight->rows == rows && weight->cols == cols, "the folder's tensors are the model's");
    return rounding_values(rounding, weight, data);
}

enum status model_save_rounded(const struct model *model, const struct rounding *rounding, const char *path) {
    REQUIRE(rounding->model == model->transformer, "the rounding is the model's");
    struct model_folder_edit edit = {.self = (void *)rounding, .selects = is_rounded, .replace = put_rounded};
    return model_folder_save(model->folder, path, &edit, true);
}

struct merge {
    const struct rounding *rounding;
    const struct lora *lora;
};

static bool is_merged(void *self, const char *name) {
    const struct merge *merge = self;
    return is_rounded((void *)(uintptr_t)merge->rounding, name);
}

static enum status put_merged(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    const struct merge *merge = self;
    enum status status = put_rounded((void *)(uintptr_t)merge->rounding, name, rows, cols, data);
    if (status == STATUS_OK) status = lora_merge(merge->lora, transformer_weight(merge->rounding->model, name), data);
    return status;
}

enum status model_save_merged(const struct model *model, const struct rounding *rounding, const struct lora *lora,
                              const char *path) {
    REQUIRE(rounding->model == model->transformer && lora->model == model->transformer, "all are of one model");
    struct merge merge = {rounding, lora};
    struct model_folder_edit edit = {.self = &merge, .selects = is_merged, .replace = put_merged};
    return model_folder_save(model->folder, path, &edit, true);
}

// The matrices on the grid, in the order of the network.
struct coded {
    const struct rounding *rounding;
    const struct weight **weights;
};

static enum status coded_scales(void *self, int64_t i, float *scales) {
    const struct coded *coded = self;
    return rounding_scales(coded->rounding, coded->weights[i], scales);
}

static enum status coded_codes(void *self, int64_t i, uint8_t *codes) {
    const struct coded *coded = self;
    return rounding_codes(coded->rounding, coded->weights[i], codes);
}

enum status model_save_codes(const struct rounding *rounding, const char *path) {
    enum status status = STATUS_OK;
    const struct transformer *model = rounding->model;
    struct codebook book = codebook_of(&rounding->grid);
    struct coded coded = {rounding, mem_new((size_t)model->n_weights, sizeof *coded.weights)};
    struct codes_shape *shapes = mem_new((size_t)model->n_weights, sizeof *shapes);
    int64_t n = 0;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        if (w->rotation) {
            remove(path); // an earlier run's
            goto done;
        }
        shapes[n] = (struct codes_shape){w->name, w->rows, w->cols};
        coded.weights[n++] = w;
    }
    TRY(codes_write(path, &book, shapes, n, (struct codes_source){&coded, coded_scales, coded_codes}));
done:
    free(coded.weights);
    free(shapes);
    return status;
}
