#include "data/model.h"

#include "core/base/mem.h"
#include "data/codes.h"
#include "data/adapter.h"

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
    if (config->rotation != ROTATION_NONE) TRY(rotation_open(model->folder, model->transformer, &model->incoherence));
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
    incoherence_free(model->incoherence);
    transformer_free(model->transformer);
    backend_close(model->backend);
    tokenizer_free(model->tokenizer);
    model_folder_free(model->folder);
    free(model);
}

enum status model_adapt(struct model *model, const char *path) {
    return path ? adapter_open(path, model->transformer, &model->lora) : STATUS_OK;
}

enum status model_rotate(struct model *model, enum rotation_kind kind, uint64_t seed) {
    enum status status = STATUS_OK;
    if (model->incoherence)
        TRY(status_set(STATUS_INVALID, "%s: its weights are rotated already; leave out --incoherence",
                       model_folder_path(model->folder)));
    TRY(incoherence_new(model->transformer, kind, &model->incoherence));
    TRY(incoherence_rotate(model->incoherence, seed));
done:
    return status;
}

// What is saved, as the functions of an edit see it.
struct saving {
    const struct model *model;
    const struct rounding *rounding;
    const struct lora *lora; // merged: its adapters
};

static bool is_rounded(void *self, const char *name) {
    const struct rounding *rounding = ((const struct saving *)self)->rounding;
    const struct weight *weight = transformer_weight(rounding->model, name);
    return weight && weight->grid;
}

static enum status put_rounded(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    const struct rounding *rounding = ((const struct saving *)self)->rounding;
    const struct weight *weight = transformer_weight(rounding->model, name);
    REQUIRE(weight && weight->rows == rows && weight->cols == cols, "the folder's tensors are the model's");
    return rounding_values(rounding, weight, data);
}

static enum status put_unrotated(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    const struct saving *saving = self;
    enum status status = put_rounded(self, name, rows, cols, data);
    const struct weight *weight = transformer_weight(saving->model->transformer, name);
    return status == STATUS_OK ? incoherence_apply(saving->model->incoherence, weight, true, data) : status;
}

static enum status mark_rotated(void *self, const char *path) {
    const struct incoherence *incoherence = ((const struct saving *)self)->model->incoherence;
    return incoherence ? rotation_save(incoherence, path) : STATUS_OK;
}

enum status model_save_rounded(const struct model *model, const struct rounding *rounding, const char *path) {
    REQUIRE(rounding->model == model->transformer, "the rounding is the model's");
    struct saving saving = {.model = model, .rounding = rounding};
    struct model_folder_edit edit = {&saving, is_rounded, put_rounded, mark_rotated};
    return model_folder_save(model->folder, path, &edit, true);
}

enum status model_save_unrotated(const struct model *model, const struct rounding *rounding, const char *path) {
    REQUIRE(rounding->model == model->transformer && model->incoherence, "the rounding of a rotated model");
    REQUIRE(model_folder_config(model->folder)->rotation == ROTATION_NONE, "the folder is a plain one");
    struct saving saving = {.model = model, .rounding = rounding};
    struct model_folder_edit edit = {.self = &saving, .selects = is_rounded, .replace = put_unrotated};
    return model_folder_save(model->folder, path, &edit, true);
}

static enum status put_merged(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    const struct saving *saving = self;
    enum status status = (saving->model->incoherence ? put_unrotated : put_rounded)(self, name, rows, cols, data);
    if (status == STATUS_OK) status = lora_merge(saving->lora, transformer_weight(saving->rounding->model, name), data);
    return status;
}

enum status model_save_merged(const struct model *model, const struct rounding *rounding, const struct lora *lora,
                              const char *path) {
    REQUIRE(rounding->model == model->transformer && lora->model == model->transformer, "all are of one model");
    if (model_folder_config(model->folder)->rotation != ROTATION_NONE)
        return status_set(STATUS_UNSUPPORTED,
                          "--lora-merge: %s holds rotated weights; start from the model it was made of",
                          model_folder_path(model->folder));
    struct saving saving = {model, rounding, lora};
    struct model_folder_edit edit = {.self = &saving, .selects = is_rounded, .replace = put_merged};
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
        shapes[n] = (struct codes_shape){w->name, w->rows, w->cols};
        coded.weights[n++] = w;
    }
    TRY(codes_write(path, &book, shapes, n, (struct codes_source){&coded, coded_scales, coded_codes}));
done:
    free(coded.weights);
    free(shapes);
    return status;
}
