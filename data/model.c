#include "data/model.h"

#include "core/base/mem.h"

#include <stdlib.h>

enum status model_open(const char *path, const char *device, const struct model *share, struct model **out) {
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
    TRY(transformer_new(backend, config, model_folder_source(model->folder), &model->transformer));
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
    transformer_free(model->transformer);
    backend_close(model->backend);
    tokenizer_free(model->tokenizer);
    model_folder_free(model->folder);
    free(model);
}
