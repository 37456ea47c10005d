// Reading a GGUF file of a Llama or Phi-3 model back as the tensors of the Hugging Face folder.
#include "core/base/mem.h"
#include "data/export_parts.h"
#include "data/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gguf_model {
    struct export_reader *reader;
    struct gguf *file;
    struct transformer_config config; // architecture and numbers of heads
};

// The place of the folder's tensor; a tied head is the embedding.
static struct gguf_place place_find(const struct gguf_model *model, const char *name) {
    struct gguf_place place = gguf_place_of(&model->config, name);
    if (strcmp(place.name, "output.weight") == 0 && !gguf_find(model->file, place.name))
        strcpy(place.name, "token_embd.weight");
    if (model->config.architecture != ARCHITECTURE_LLAMA) place.paired_heads = 0;
    return place;
}

static bool model_lacks(void *self, const char *name) { return !place_find(self, name).name[0]; }

static enum status model_read(void *self, const char *name, int64_t rows, int64_t cols, float *out, enum dtype *dtype) {
    struct gguf_model *model = self;
    struct gguf_place place = place_find(model, name);
    const struct gguf_tensor *tensor = place.name[0] ? gguf_find(model->file, place.name) : NULL;
    const char *path = gguf_path(model->file);
    if (!tensor) return status_set(STATUS_FORMAT, "%s: the tensor for '%s' is missing", path, name);
    struct gguf_type_facts facts = gguf_type_facts_of(tensor->type);
    if (!facts.name)
        return status_set(STATUS_UNSUPPORTED, "%s: '%s' has the type %lld, which is not read", path, tensor->name,
                          (long long)tensor->type);
    if (tensor->rows != rows || tensor->cols != cols || (place.paired_heads && rows % (2 * place.paired_heads)))
        return status_set(STATUS_FORMAT, "%s: '%s' is %lld x %lld, must be %lld x %lld", path, tensor->name,
                          (long long)tensor->rows, (long long)tensor->cols, (long long)rows, (long long)cols);
    int64_t row_bytes = cols / facts.weights * facts.bytes;
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++)
        gguf_to_float((enum gguf_type)tensor->type, tensor->data + i * row_bytes, cols,
                      out + gguf_row(&place, rows, i) * cols);
    int64_t bad = safetensors_not_finite(out, rows * cols);
    if (bad >= 0)
        return status_set(STATUS_FORMAT, "%s: '%s' holds %g; weights must be finite", path, tensor->name,
                          (double)out[bad]);
    if (dtype) *dtype = DTYPE_F32;
    model->reader->coded += facts.weights > 1;
    return STATUS_OK;
}

static enum status heads_read(const struct gguf *file, const char *arch, const char *key, int64_t *out) {
    uint32_t value = 0;
    char *full = mem_format("%s.attention.%s", arch, key);
    enum status status = gguf_u32(file, full, &value);
    if (status == STATUS_OK && (value < 1 || value > 1 << 14))
        status = status_set(STATUS_FORMAT, "%s: '%s' is %u", gguf_path(file), full, (unsigned)value);
    *out = value;
    free(full);
    return status;
}

enum status gguf_model_open(struct export_reader *reader, const char *path) {
    enum status status = STATUS_OK;
    struct gguf_model *model = mem_new(1, sizeof *model);
    char *arch = NULL;
    reader->gguf = model;
    reader->format = "gguf";
    reader->lacks = model_lacks;
    reader->source = (struct tensor_source){.self = model, .read = model_read};
    model->reader = reader;
    TRY(gguf_open(path, &model->file));
    TRY(gguf_string(model->file, "general.architecture", &arch));
    if (strcmp(arch, "llama") != 0 && strcmp(arch, "phi3") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: architecture '%.40s' is not read (llama, phi3)", path, arch));
    model->config.architecture = strcmp(arch, "phi3") == 0 ? ARCHITECTURE_PHI3 : ARCHITECTURE_LLAMA;
    TRY(heads_read(model->file, arch, "head_count", &model->config.heads));
    TRY(heads_read(model->file, arch, "head_count_kv", &model->config.kv_heads));
done:
    free(arch);
    return status;
}

void gguf_model_free(struct gguf_model *model) {
    if (!model) return;
    gguf_free(model->file);
    free(model);
}
