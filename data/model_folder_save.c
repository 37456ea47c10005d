#include "core/base/mem.h"
#include "data/file.h"
#include "data/folder.h"
#include "data/json.h"
#include "data/model_folder.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_ELEMENTS = 1 << 16, CHUNK_BYTES = 8 * CHUNK_ELEMENTS, FOLDER_DEPTH_MAX = 8 };

// The dtypes of replaced tensors, and with them their order in the file, are known only when all have been made; until
// then their bytes wait in a spool: a file of the new folder that has no name any more.
struct save {
    const struct model_folder *folder;
    const struct model_folder_edit *edit;
    const char *to; // the folder being filled
    int spool;
    int64_t n_spool;
    char *chunk;         // [CHUNK_BYTES]
    bool dtypes_changed; // somewhere in the folder
    int64_t total_bytes; // of all tensors written
};

// One tensor of the file being written.
struct plan {
    const struct safetensors_tensor *tensor;
    int64_t spool_at; // -1: as it is in the source
    int64_t n_bytes;
};

static enum status spool_open(struct save *save) {
    char *path = mem_format("%s/spool", save->to);
    enum status status = STATUS_OK;
    save->spool = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (save->spool < 0)
        status = status_set(STATUS_IO, "%s: cannot create: %s", path, strerror(errno));
    else
        unlink(path);
    free(path);
    return status;
}

static enum status spool_put(struct save *save, const char *bytes, int64_t n_bytes) {
    while (n_bytes > 0) {
        ssize_t wrote = pwrite(save->spool, bytes, (size_t)n_bytes, (off_t)save->n_spool);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return status_set(STATUS_IO, "%s: cannot write: %s", save->to, strerror(errno));
        bytes += wrote;
        n_bytes -= wrote;
        save->n_spool += wrote;
    }
    return STATUS_OK;
}

// Whether every value survives the way to `dtype` and back, bit for bit. scratch has room for CHUNK_ELEMENTS elements.
static bool dtype_holds(enum dtype dtype, const float *values, int64_t n, void *scratch) {
    if (dtype == DTYPE_F32 || dtype == DTYPE_F64) return true;
    enum { PIECE = 1024 };
    float back[PIECE];
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        dtype_from_float(dtype, values + i, scratch, m);
        dtype_to_float(dtype, scratch, back, m);
        if (memcmp(back, values + i, (size_t)m * sizeof *back) != 0) return false;
    }
    return true;
}

// Makes the new values of plan->tensor and spools them in the dtype they need.
static enum status tensor_replace(struct save *save, const struct safetensors *file, struct plan *plan,
                                  struct safetensors_entry *entry) {
    enum status status = STATUS_OK;
    const struct safetensors_tensor *tensor = plan->tensor;
    int64_t n = tensor->n_elements, rows = tensor->rank == 2 ? tensor->shape[0] : 1;
    void *data = NULL;
    enum dtype dtype;
    if (tensor->rank < 1 || tensor->rank > 2 || !safetensors_dtype_is_float(tensor->dtype, &dtype))
        TRY(status_set(STATUS_INVALID, "%s: tensor '%s' (%s, %lld dimensions) cannot be replaced",
                       safetensors_path(file), tensor->name, safetensors_dtype_name(tensor->dtype),
                       (long long)tensor->rank));
    TRY(mem_buffer_new(n * (int64_t)sizeof(float), tensor->name, &data));
    TRY(safetensors_to_float(file, tensor, data));
    TRY(save->edit->replace(save->edit->self, tensor->name, rows, tensor->shape[tensor->rank - 1], data));
    if (safetensors_not_finite(data, n) >= 0)
        TRY(status_set(STATUS_INVALID, "%s: tensor '%s' would be saved with NaN or infinity", save->to, tensor->name));

    if (!dtype_holds(dtype, data, n, save->chunk)) dtype = DTYPE_F32;
    save->dtypes_changed = save->dtypes_changed || safetensors_dtype_of(dtype) != tensor->dtype;
    entry->dtype = safetensors_dtype_of(dtype);
    plan->spool_at = save->n_spool;
    plan->n_bytes = n * dtype_bytes(dtype);
    for (int64_t i = 0; i < n; i += CHUNK_ELEMENTS) {
        int64_t m = n - i < CHUNK_ELEMENTS ? n - i : CHUNK_ELEMENTS;
        dtype_from_float(dtype, (const float *)data + i, save->chunk, m);
        TRY(spool_put(save, save->chunk, m * dtype_bytes(dtype)));
    }
done:
    mem_buffer_free(data);
    return status;
}

static enum status tensor_write(struct save *save, struct safetensors_writer *writer, const struct plan *plan) {
    enum status status = STATUS_OK;
    if (plan->spool_at < 0) return safetensors_writer_put(writer, plan->tensor->data, plan->n_bytes);
    for (int64_t done_bytes = 0; done_bytes < plan->n_bytes; done_bytes += CHUNK_BYTES) {
        int64_t n = plan->n_bytes - done_bytes < CHUNK_BYTES ? plan->n_bytes - done_bytes : CHUNK_BYTES;
        TRY(file_read_at(save->spool, save->to, plan->spool_at + done_bytes, save->chunk, n));
        TRY(safetensors_writer_put(writer, save->chunk, n));
    }
done:
    return status;
}

static enum status weights_save(struct save *save, const struct safetensors *file, const char *name) {
    enum status status = STATUS_OK;
    int64_t n = safetensors_n_tensors(file), n_metadata = safetensors_n_metadata(file);
    char *path = mem_format("%s/%s", save->to, name);
    struct safetensors_writer *writer = NULL;
    struct plan *plans = mem_new((size_t)n, sizeof *plans);
    struct safetensors_entry *entries = mem_new((size_t)n, sizeof *entries);
    struct safetensors_pair *metadata = mem_new((size_t)n_metadata, sizeof *metadata);
    for (int64_t i = 0; i < n_metadata; i++) metadata[i] = safetensors_metadata(file, i);
    save->n_spool = 0;
    if (ftruncate(save->spool, 0) != 0) TRY(status_set(STATUS_IO, "%s: cannot write: %s", path, strerror(errno)));
    for (int64_t i = 0; i < n; i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        plans[i] = (struct plan){tensor, -1, tensor->n_bytes};
        entries[i] = (struct safetensors_entry){tensor->name, tensor->dtype, tensor->rank, tensor->shape};
        if (save->edit && save->edit->selects(save->edit->self, tensor->name))
            TRY(tensor_replace(save, file, &plans[i], &entries[i]));
        save->total_bytes += plans[i].n_bytes;
    }
    TRY(safetensors_writer_new(path, entries, n, metadata, n_metadata, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) TRY(tensor_write(save, writer, &plans[i]));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    free(metadata);
    free(entries);
    free(plans);
    free(path);
    return status;
}

// Written as Transformers writes it: two spaces, sorted keys, a newline at the end.
static enum status index_save(const struct save *save) {
    enum status status = STATUS_OK;
    char *name = model_folder_index_name(save->folder), *text = NULL, *line = NULL;
    char *from = mem_format("%s/%s", model_folder_path(save->folder), name), *to = mem_format("%s/%s", save->to, name);
    json_t *index = NULL;
    if (!save->dtypes_changed) {
        TRY(whole_file_copy(from, to));
        goto done;
    }
    TRY(json_read_file(from, &index));
    if (!json_is_object(json_object_get(index, "metadata"))) json_object_set_new(index, "metadata", json_object());
    json_object_set_new(json_object_get(index, "metadata"), "total_size", json_integer(save->total_bytes));
    text = json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
    if (!text) TRY(status_set(STATUS_NO_MEMORY, "%s: out of memory for the index", to));
    line = mem_format("%s\n", text);
    TRY(whole_file_put(to, line, strlen(line)));
done:
    json_decref(index);
    free(name);
    free(line);
    free(text);
    free(from);
    free(to);
    return status;
}

// Weights in another form or place: a copy of them beside the new ones would be the old model.
static bool holds_weights(const char *name) {
    static const char *const suffixes[] = {
        ".safetensors", ".safetensors.index.json", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data"};
    size_t n = strlen(name);
    if (strcmp(name, "rotation.safetensors") == 0) return false;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t m = strlen(suffixes[i]);
        if (n >= m && strcmp(name + n - m, suffixes[i]) == 0) return true;
    }
    return strncmp(name, "pytorch_model", 13) == 0;
}

static enum status others_copy(const char *from, const char *to, int depth);

static enum status other_copy(const char *from, const char *to, int depth) {
    struct stat about;
    if (stat(from, &about) != 0) return status_set(STATUS_IO, "%s: cannot read: %s", from, strerror(errno));
    if (S_ISREG(about.st_mode)) return whole_file_copy(from, to);
    if (!S_ISDIR(about.st_mode)) return status_set(STATUS_IO, "%s: cannot copy: neither file nor folder", from);
    if (depth == 0) return status_set(STATUS_INVALID, "%s: folders inside the model folder are too deep to copy", from);
    if (mkdir(to, 0777) != 0) return status_set(STATUS_IO, "%s: cannot create: %s", to, strerror(errno));
    return others_copy(from, to, depth - 1);
}

static enum status others_copy(const char *from, const char *to, int depth) {
    enum status status = STATUS_OK;
    char *inner_from = NULL, *inner_to = NULL;
    DIR *folder = opendir(from);
    if (!folder) return status_set(STATUS_IO, "%s: cannot list: %s", from, strerror(errno));
    for (struct dirent *entry; errno = 0, (entry = readdir(folder));) {
        if (entry->d_name[0] == '.' || holds_weights(entry->d_name)) continue;
        inner_from = mem_format("%s/%s", from, entry->d_name);
        inner_to = mem_format("%s/%s", to, entry->d_name);
        TRY(other_copy(inner_from, inner_to, depth));
        free(inner_from);
        free(inner_to);
        inner_from = inner_to = NULL;
    }
    if (errno) TRY(status_set(STATUS_IO, "%s: cannot list: %s", from, strerror(errno)));
    whole_file_sync_folder(to);
done:
    free(inner_from);
    free(inner_to);
    closedir(folder);
    return status;
}

enum status model_folder_copy_others(const struct model_folder *folder, const char *to) {
    return others_copy(model_folder_path(folder), to, FOLDER_DEPTH_MAX);
}

enum status model_folder_copy_index(const struct model_folder *folder, const char *to) {
    char *name = model_folder_index_name(folder), *out = mem_format("%s/%s", to, name);
    char *from = mem_format("%s/%s", model_folder_path(folder), name);
    enum status status = whole_file_copy(from, out);
    free(name);
    free(from);
    free(out);
    return status;
}

static bool lies_in(const char *inner, const char *outer) {
    size_t n = strlen(outer);
    return strncmp(inner, outer, n) == 0 && (inner[n] == '/' || inner[n] == 0);
}

// The folder must not be copied into itself, nor be deleted to make room for its own copy.
static enum status places_check(const struct model_folder *folder, const char *out_path) {
    enum status status = STATUS_OK;
    size_t n = strlen(out_path);
    while (n > 1 && out_path[n - 1] == '/') n--;
    char *target = mem_string_n(out_path, n), *source = realpath(model_folder_path(folder), NULL), *whole = NULL;
    char *slash = strrchr(target, '/');
    char *parent = !slash            ? mem_string(".")
                   : slash == target ? mem_string("/")
                                     : mem_string_n(target, (size_t)(slash - target));
    char *place = realpath(parent, NULL);
    if (!source) TRY(status_set(STATUS_IO, "%s: cannot read: %s", model_folder_path(folder), strerror(errno)));
    if (!place) TRY(status_set(STATUS_IO, "%s: cannot create: %s: %s", target, parent, strerror(errno)));
    whole = mem_format("%s/%s", strcmp(place, "/") == 0 ? "" : place, slash ? slash + 1 : target);
    if (lies_in(whole, source) || lies_in(source, whole))
        TRY(status_set(STATUS_INVALID,
                       "%s: cannot be written: it is, holds or lies in the model folder %s it is made from", target,
                       model_folder_path(folder)));
done:
    free(whole);
    free(place);
    free(parent);
    free(source);
    free(target);
    return status;
}

enum status model_folder_save(const struct model_folder *folder, const char *out_path,
                              const struct model_folder_edit *edit, bool overwrite) {
    enum status status = STATUS_OK;
    struct folder_writer *writer = NULL;
    struct save save = {.folder = folder, .edit = edit, .spool = -1};
    void *chunk = NULL;
    TRY(places_check(folder, out_path));
    TRY(mem_buffer_new(CHUNK_BYTES, "the copy of a model", &chunk));
    TRY(folder_writer_new(out_path, overwrite, "config.json", &writer));
    save.to = folder_writer_path(writer);
    save.chunk = chunk;
    TRY(spool_open(&save));
    for (int64_t i = 0; i < model_folder_n_files(folder); i++)
        TRY(weights_save(&save, model_folder_file(folder, i), model_folder_file_name(folder, i)));
    if (model_folder_is_sharded(folder)) TRY(index_save(&save));
    TRY(model_folder_copy_others(folder, save.to));
    if (edit && edit->finish) TRY(edit->finish(edit->self, save.to));
    TRY(folder_writer_finish(writer));
done:
    if (save.spool >= 0) close(save.spool);
    folder_writer_free(writer);
    mem_buffer_free(chunk);
    return status;
}
