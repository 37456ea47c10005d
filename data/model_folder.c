#include "data/model_folder.h"

#include "core/base/mem.h"
#include "data/config.h"
#include "data/file.h"
#include "data/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Rotated weights have names that other software does not look for: read as plain ones they are garbage.
static const char *const SINGLE_NAMES[] = {"model.safetensors", "rotated.safetensors"};

struct model_folder {
    char *path;
    struct transformer_config config;
    bool sharded;
    int64_t n_files;
    char **names;               // [n_files]
    struct safetensors **files; // [n_files]
};

static const char *single_name(const struct model_folder *folder) {
    return SINGLE_NAMES[folder->config.rotation != ROTATION_NONE];
}

char *model_folder_index_name(const struct model_folder *folder) {
    return mem_format("%s.index.json", single_name(folder));
}

static char *path_in(const struct model_folder *folder, const char *name) {
    return mem_format("%s/%s", folder->path, name);
}

static bool has_suffix(const char *name, const char *suffix) {
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static int64_t name_find(const struct model_folder *folder, const char *name) {
    for (int64_t i = 0; i < folder->n_files; i++)
        if (strcmp(folder->names[i], name) == 0) return i;
    return -1;
}

static enum status file_add(struct model_folder *folder, const char *name) {
    char *path = path_in(folder, name);
    struct safetensors *file = NULL;
    enum status status = safetensors_open(path, &file);
    free(path);
    if (status != STATUS_OK) return status;
    folder->names = mem_resize(folder->names, (size_t)folder->n_files + 1, sizeof *folder->names);
    folder->files = mem_resize(folder->files, (size_t)folder->n_files + 1, sizeof *folder->files);
    folder->names[folder->n_files] = mem_string(name);
    folder->files[folder->n_files++] = file;
    return STATUS_OK;
}

// A shard is a plain name in the folder: an index must not make us read, or a saved copy write, anywhere else.
static enum status shard_name_check(const char *where, const char *tensor, const json_t *value) {
    if (!json_is_string(value))
        return status_set(STATUS_FORMAT, "%s: weight_map: '%s' is %s, must be a file name", where, tensor,
                          json_kind(value));
    const char *name = json_string_value(value);
    if (name[0] != '.' && !strpbrk(name, "/\\") && has_suffix(name, ".safetensors") && strlen(name) < 256)
        return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: weight_map: '%s' lies in '%s', which is no plain .safetensors name", where,
                      tensor, name);
}

// Every tensor of the map is in its shard, and every tensor of a shard is in the map.
static enum status shards_check(const struct model_folder *folder, const char *where, json_t *map) {
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value) {
        int64_t i = name_find(folder, json_string_value(value));
        if (!safetensors_find(folder->files[i], tensor))
            return status_set(STATUS_FORMAT, "%s: tensor '%s' is not in %s, where the index says it is", where, tensor,
                              folder->names[i]);
    }
    for (int64_t i = 0; i < folder->n_files; i++) {
        for (int64_t t = 0; t < safetensors_n_tensors(folder->files[i]); t++) {
            tensor = safetensors_at(folder->files[i], t)->name;
            const char *assigned = json_string_value(json_object_get(map, tensor));
            if (!assigned || strcmp(assigned, folder->names[i]) != 0)
                return status_set(STATUS_FORMAT, "%s: tensor '%s' is in %s, but the index does not say so", where,
                                  tensor, folder->names[i]);
        }
    }
    return STATUS_OK;
}

static enum status shards_open(struct model_folder *folder, const char *index_path) {
    enum status status = STATUS_OK;
    json_t *index = NULL, *map = NULL, *value;
    char *single = path_in(folder, single_name(folder));
    const char *tensor;
    TRY(json_read_file(index_path, &index));
    TRY(json_get_object(index, index_path, "weight_map", &map));
    if (json_object_size(map) == 0) TRY(status_set(STATUS_FORMAT, "%s: weight_map is empty", index_path));
    json_object_foreach(map, tensor, value) {
        TRY(shard_name_check(index_path, tensor, value));
        if (name_find(folder, json_string_value(value)) < 0) TRY(file_add(folder, json_string_value(value)));
    }
    if (name_find(folder, single_name(folder)) < 0 && file_exists(single))
        TRY(status_set(STATUS_FORMAT, "%s: holds both %s and an index of other files; remove one", folder->path,
                       single_name(folder)));
    TRY(shards_check(folder, index_path, map));
done:
    json_decref(index);
    free(single);
    return status;
}

enum status model_folder_read_config(const char *path, struct transformer_config *out) {
    enum status status = STATUS_OK;
    char *config_path = mem_format("%s/config.json", path);
    if (!folder_exists(path)) TRY(status_set(STATUS_IO, "%s: no such folder", path));
    if (!file_exists(config_path))
        TRY(status_set(STATUS_FORMAT, "%s: is no model folder: it has no config.json", path));
    TRY(config_read_file(config_path, out));
done:
    free(config_path);
    return status;
}

static enum status folder_open(const char *path, bool with_config, struct model_folder **out) {
    enum status status = STATUS_OK;
    struct model_folder *folder = mem_new(1, sizeof *folder);
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    folder->path = mem_string_n(path, length);
    char *index_name = NULL, *index_path = NULL;
    if (with_config) TRY(model_folder_read_config(folder->path, &folder->config));
    index_name = model_folder_index_name(folder);
    index_path = path_in(folder, index_name);
    folder->sharded = file_exists(index_path);
    if (folder->sharded)
        TRY(shards_open(folder, index_path));
    else
        TRY(file_add(folder, single_name(folder)));
    *out = folder;
    folder = NULL;
done:
    model_folder_free(folder);
    free(index_name);
    free(index_path);
    return status;
}

enum status model_folder_open(const char *path, struct model_folder **out) { return folder_open(path, true, out); }

enum status model_folder_open_tensors(const char *path, struct model_folder **out) {
    return folder_open(path, false, out);
}

void model_folder_free(struct model_folder *folder) {
    if (!folder) return;
    for (int64_t i = 0; i < folder->n_files; i++) {
        safetensors_free(folder->files[i]);
        free(folder->names[i]);
    }
    free(folder->files);
    free(folder->names);
    free(folder->path);
    free(folder);
}

const char *model_folder_path(const struct model_folder *folder) { return folder->path; }
const struct transformer_config *model_folder_config(const struct model_folder *folder) { return &folder->config; }
bool model_folder_is_sharded(const struct model_folder *folder) { return folder->sharded; }
int64_t model_folder_n_files(const struct model_folder *folder) { return folder->n_files; }

const char *model_folder_file_name(const struct model_folder *folder, int64_t i) {
    REQUIRE(i >= 0 && i < folder->n_files, "no such file");
    return folder->names[i];
}

const struct safetensors *model_folder_file(const struct model_folder *folder, int64_t i) {
    REQUIRE(i >= 0 && i < folder->n_files, "no such file");
    return folder->files[i];
}

const struct safetensors_tensor *model_folder_find(const struct model_folder *folder, const char *name,
                                                   const struct safetensors **file) {
    for (int64_t i = 0; i < folder->n_files; i++) {
        const struct safetensors_tensor *tensor = safetensors_find(folder->files[i], name);
        if (!tensor) continue;
        if (file) *file = folder->files[i];
        return tensor;
    }
    return NULL;
}

static enum status shape_check(const struct safetensors *file, const struct safetensors_tensor *tensor, int64_t rows,
                               int64_t cols) {
    if (tensor->rank == 2 && tensor->shape[0] == rows && tensor->shape[1] == cols) return STATUS_OK;
    if (tensor->rank == 1 && rows == 1 && tensor->shape[0] == cols) return STATUS_OK;
    char shape[200] = "";
    int n = 0;
    for (int64_t i = 0; i < tensor->rank && i < 6; i++)
        n += snprintf(shape + n, sizeof shape - (size_t)n, i ? ", %lld" : "%lld", (long long)tensor->shape[i]);
    if (rows == 1)
        return status_set(STATUS_FORMAT, "%s: tensor '%s' has the shape [%s%s], must be [%lld]", safetensors_path(file),
                          tensor->name, shape, tensor->rank > 6 ? ", …" : "", (long long)cols);
    return status_set(STATUS_FORMAT, "%s: tensor '%s' has the shape [%s%s], must be [%lld, %lld]",
                      safetensors_path(file), tensor->name, shape, tensor->rank > 6 ? ", …" : "", (long long)rows,
                      (long long)cols);
}

static enum status source_read(void *self, const char *name, int64_t rows, int64_t cols, float *out,
                               enum dtype *dtype) {
    enum status status = STATUS_OK;
    const struct model_folder *folder = self;
    const struct safetensors *file = NULL;
    const struct safetensors_tensor *tensor = model_folder_find(folder, name, &file);
    if (!tensor) TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' is missing", folder->path, name));
    TRY(shape_check(file, tensor, rows, cols));
    TRY(safetensors_to_float(file, tensor, out));
    int64_t bad = safetensors_not_finite(out, tensor->n_elements);
    if (bad >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' holds %g at element %lld; weights must be finite",
                       safetensors_path(file), name, (double)out[bad], (long long)bad));
    if (dtype) safetensors_dtype_is_float(tensor->dtype, dtype);
done:
    return status;
}

struct tensor_source model_folder_source(const struct model_folder *folder) {
    return (struct tensor_source){.self = (void *)(uintptr_t)folder, .read = source_read};
}
