#include "data/adapter.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/folder.h"
#include "data/json.h"
#include "data/record.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char CONFIG_NAME[] = "adapter_config.json", WEIGHTS_NAME[] = "adapter_model.safetensors";
static const char PREFIX[] = "base_model.model.";
static const char *const SUFFIXES[2] = {".lora_A.weight", ".lora_B.weight"};

// ---- saving ----

// The name of the module that `weight` is: its tensor's without ".weight".
static char *module_name(const struct weight *weight) {
    return mem_string_n(weight->name, strlen(weight->name) - strlen(".weight"));
}

static const char *last_part(const char *module) {
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

// Whether every matrix of this kind, in all layers, has an adapter.
static bool is_whole_kind(const struct transformer *model, const char *kind) {
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        char *module = module_name(weight);
        bool lacks = weight->is_linear && !weight->adapter[0] && strcmp(last_part(module), kind) == 0;
        free(module);
        if (lacks) return false;
    }
    return true;
}

static bool array_has(json_t *array, const char *text) {
    for (size_t i = 0; i < json_array_size(array); i++)
        if (strcmp(json_string_value(json_array_get(array, i)), text) == 0) return true;
    return false;
}

// Kinds of matrices ("q_proj") where all layers have them, else the modules one by one.
static json_t *target_modules(const struct transformer *model) {
    json_t *targets = json_array();
    for (int64_t i = 0; i < model->n_weights; i++) {
        if (!model->weights[i].adapter[0]) continue;
        char *module = module_name(&model->weights[i]);
        const char *name = is_whole_kind(model, last_part(module)) ? last_part(module) : module;
        if (!array_has(targets, name)) json_array_append_new(targets, json_string(name));
        free(module);
    }
    return targets;
}

static enum status config_write(const struct lora *lora, const char *base, const char *folder) {
    char *path = mem_format("%s/%s", folder, CONFIG_NAME), *text = NULL, *line = NULL;
    enum status status = STATUS_OK;
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:s, s:b, s:b, s:b, s:b, s:o}", "peft_type", "LORA", "task_type",
                  "CAUSAL_LM", "base_model_name_or_path", base, "r", (json_int_t)lora->rank, "lora_alpha", lora->alpha,
                  "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1,
                  "use_rslora", 0, "target_modules", target_modules(lora->model));
    REQUIRE(config, "memory is out");
    if (lora->alpha == floor(lora->alpha) && fabs(lora->alpha) < 1e15)
        json_object_set_new(config, "lora_alpha", json_integer((json_int_t)lora->alpha));
    text = json_dumps(config, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
    REQUIRE(text, "memory is out");
    line = mem_format("%s\n", text);
    TRY(whole_file_put(path, line, strlen(line)));
done:
    json_decref(config);
    free(line);
    free(text);
    free(path);
    return status;
}

// The second matrix is kept times scaling.
static enum status matrix_write(const struct lora *lora, int64_t i, struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    const struct weight *weight = &lora->weights[i];
    int64_t n = view_count(weight->stored), n_bytes = n * (int64_t)sizeof(float);
    void *buffer = NULL;
    TRY(mem_buffer_new(n_bytes, weight->name, &buffer));
    float *values = buffer;
    TRY(backend_floats_read(lora->model->backend, weight->stored, values));
    for (int64_t k = 0; i % 2 && k < n; k++) values[k] = (float)((double)values[k] / lora->scaling);
    TRY(safetensors_writer_put(writer, values, n_bytes));
done:
    mem_buffer_free(buffer);
    return status;
}

static enum status weights_write(const struct lora *lora, const char *folder) {
    enum status status = STATUS_OK;
    int64_t n = lora->n_weights;
    struct safetensors_writer *writer = NULL;
    struct safetensors_entry *entries = mem_new((size_t)n, sizeof *entries);
    int64_t(*shapes)[2] = mem_new((size_t)n, sizeof *shapes);
    char **names = mem_new((size_t)n, sizeof *names), *path = mem_format("%s/%s", folder, WEIGHTS_NAME);
    for (int64_t i = 0; i < n; i++) {
        shapes[i][0] = lora->weights[i].rows, shapes[i][1] = lora->weights[i].cols;
        names[i] = mem_format("%s%s", PREFIX, lora->weights[i].name);
        entries[i] = (struct safetensors_entry){names[i], SAFETENSORS_F32, 2, (const int64_t *)shapes[i]};
    }
    TRY(safetensors_writer_new(path, entries, n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) TRY(matrix_write(lora, i, writer));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    for (int64_t i = 0; i < n; i++) free(names[i]);
    free(names);
    free(shapes);
    free(entries);
    free(path);
    return status;
}

enum status adapter_save(const struct lora *lora, const char *base, const char *path) {
    enum status status = STATUS_OK;
    struct folder_writer *folder = NULL;
    TRY(folder_writer_new(path, true, CONFIG_NAME, &folder));
    TRY(config_write(lora, base, folder_writer_path(folder)));
    TRY(weights_write(lora, folder_writer_path(folder)));
    TRY(folder_writer_finish(folder));
done:
    folder_writer_free(folder);
    return status;
}

// ---- opening ----

// A key that must be absent, null, false or empty.
static enum status refuse_key(const json_t *config, const char *where, const char *key) {
    const json_t *value = json_object_get(config, key);
    bool is_nothing = !value || json_is_null(value) || json_is_false(value) ||
                      (json_is_object(value) && json_object_size(value) == 0) ||
                      (json_is_array(value) && json_array_size(value) == 0);
    if (is_nothing) return STATUS_OK;
    return status_set(STATUS_UNSUPPORTED, "%s: %s is set, but only plain LoRA matrices are understood", where, key);
}

static enum status config_read(const char *path, int64_t *rank, double *alpha) {
    static const char *const others[] = {"modules_to_save", "rank_pattern",      "alpha_pattern",
                                         "use_dora",        "fan_in_fan_out",    "target_parameters",
                                         "lora_bias",       "layer_replication", "trainable_token_indices",
                                         "use_qalora"};
    enum { LARGEST_RANK = 1 << 20 };
    enum status status = STATUS_OK;
    json_t *config = NULL;
    const char *type = NULL, *bias = NULL;
    bool by_root = false;
    TRY(json_read_file(path, &config));
    TRY(json_get_string(config, path, "peft_type", &type));
    if (strcmp(type, "LORA") != 0) TRY(status_set(STATUS_UNSUPPORTED, "%s: peft_type is %s, must be LORA", path, type));
    TRY(json_get_string_or(config, path, "bias", "none", &bias));
    if (strcmp(bias, "none") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: bias is %s, but the model has none", path, bias));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) TRY(refuse_key(config, path, others[i]));
    TRY(json_get_integer(config, path, "r", rank));
    TRY(json_get_number(config, path, "lora_alpha", alpha));
    TRY(json_get_bool_or(config, path, "use_rslora", false, &by_root));
    if (*rank < 1 || *rank > LARGEST_RANK)
        TRY(status_set(STATUS_FORMAT, "%s: r is %lld, must be from 1 to %d", path, (long long)*rank, LARGEST_RANK));
    if (by_root) *alpha *= sqrt((double)*rank);
done:
    json_decref(config);
    return status;
}

// The matrix inside the layers that the tensor belongs to and which of the two it is; NULL for any other tensor.
static struct weight *tensor_target(struct transformer *model, const char *name, int *which) {
    size_t n = strlen(name), prefix = strlen(PREFIX), suffix = strlen(SUFFIXES[0]);
    if (n <= prefix + suffix || strncmp(name, PREFIX, prefix) != 0) return NULL;
    for (*which = 0; *which < 2; (*which)++)
        if (strcmp(name + n - suffix, SUFFIXES[*which]) == 0) break;
    if (*which == 2) return NULL;
    char *matrix = mem_format("%.*s.weight", (int)(n - prefix - suffix), name + prefix);
    struct weight *weight = transformer_weight(model, matrix);
    free(matrix);
    return weight && weight->is_linear ? weight : NULL;
}

static enum status tensor_check(const struct safetensors *file, const struct safetensors_tensor *tensor, int64_t rows,
                                int64_t cols) {
    if (!safetensors_dtype_is_float(tensor->dtype, NULL))
        return status_set(STATUS_FORMAT, "%s: tensor '%s' is %s, must be a float", safetensors_path(file), tensor->name,
                          safetensors_dtype_name(tensor->dtype));
    if (tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == cols) return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: tensor '%s' must have the shape [%lld, %lld], r and the matrix say so",
                      safetensors_path(file), tensor->name, (long long)rows, (long long)cols);
}

static enum status tensor_read(const struct lora *lora, const struct safetensors *file,
                               const struct safetensors_tensor *tensor, const struct weight *weight, double factor) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    TRY(mem_buffer_new(tensor->n_elements * (int64_t)sizeof(float), tensor->name, &buffer));
    float *values = buffer;
    TRY(safetensors_to_float(file, tensor, values));
    for (int64_t i = 0; i < tensor->n_elements; i++) values[i] = (float)(factor * (double)values[i]);
    int64_t bad = safetensors_not_finite(values, tensor->n_elements);
    if (bad >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' holds %g at element %lld; weights must be finite",
                       safetensors_path(file), tensor->name, (double)values[bad], (long long)bad));
    TRY(backend_floats_write(lora->model->backend, weight->stored, values));
done:
    mem_buffer_free(buffer);
    return status;
}

// Every tensor has its place, and its partner.
static enum status tensors_check(struct lora *lora, const struct safetensors *file) {
    enum status status = STATUS_OK;
    int64_t n = safetensors_n_tensors(file);
    if (n == 0) TRY(status_set(STATUS_FORMAT, "%s: holds no adapter", safetensors_path(file)));
    for (int64_t i = 0; i < n; i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        int which = 0;
        const struct weight *weight = tensor_target(lora->model, tensor->name, &which);
        if (!weight)
            TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' belongs to no matrix inside the model's layers",
                           safetensors_path(file), tensor->name));
        TRY(tensor_check(file, tensor, which ? weight->rows : lora->rank, which ? lora->rank : weight->cols));
        char *partner = mem_string(tensor->name);
        memcpy(partner + strlen(partner) - strlen(SUFFIXES[0]), SUFFIXES[!which], strlen(SUFFIXES[0]));
        if (!safetensors_find(file, partner))
            status = status_set(STATUS_FORMAT, "%s: tensor '%s' is missing", safetensors_path(file), partner);
        free(partner);
        TRY(status);
    }
done:
    return status;
}

static enum status tensors_read(struct lora *lora, const struct safetensors *file) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        int which = 0;
        struct weight *weight = tensor_target(lora->model, tensor->name, &which);
        if (!weight->adapter[0]) TRY(lora_add(lora, weight));
        TRY(tensor_read(lora, file, tensor, weight->adapter[which], which ? lora->scaling : 1));
    }
done:
    return status;
}

enum status adapter_open(const char *path, struct transformer *model, struct lora **out) {
    enum status status = STATUS_OK;
    struct lora *lora = NULL;
    struct safetensors *file = NULL;
    char *config = mem_format("%s/%s", path, CONFIG_NAME), *weights = mem_format("%s/%s", path, WEIGHTS_NAME);
    int64_t rank = 0;
    double alpha = 0;
    if (!folder_exists(path)) TRY(status_set(STATUS_IO, "%s: no such folder", path));
    if (!file_exists(config))
        TRY(status_set(STATUS_FORMAT, "%s: is no adapter folder: it has no %s", path, CONFIG_NAME));
    TRY(config_read(config, &rank, &alpha));
    TRY(safetensors_open(weights, &file));
    TRY(lora_new(model, rank, alpha, &lora));
    TRY(tensors_check(lora, file));
    TRY(tensors_read(lora, file));
    *out = lora;
    lora = NULL;
done:
    lora_free(lora);
    safetensors_free(file);
    free(config);
    free(weights);
    return status;
}
