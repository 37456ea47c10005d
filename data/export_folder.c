#include "core/base/mem.h"
#include "core/tensor/dtype.h"
#include "data/export_parts.h"
#include "data/folder.h"
#include "data/json.h"
#include "data/record.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- affine maps

enum status zero_points(const struct codebook *book, const struct coded_matrix *m, uint8_t *zeros) {
    for (int64_t i = 0; i < m->rows * m->groups; i++) {
        double zero = m->scale[i] == 0 ? (double)(1 << (book->bits - 1))
                                       : -(double)m->offset[i] / (double)m->scale[i] - (double)book->levels[0];
        bool whole = zero == rint(zero) && zero >= 0 && zero < (double)(1 << book->bits) &&
                     (m->scale[i] != 0 || m->offset[i] == 0);
        if (!whole)
            return status_set(STATUS_UNSUPPORTED,
                              "'%s': row %lld, group %lld: the offset is no whole multiple of the scale", m->name,
                              (long long)(i / m->groups), (long long)(i % m->groups));
        zeros[i] = (uint8_t)zero;
    }
    return STATUS_OK;
}

enum status scales_to_fp16(const struct coded_matrix *m, bool transposed, uint16_t *out) {
    for (int64_t row = 0; row < m->rows; row++) {
        for (int64_t g = 0; g < m->groups; g++) {
            float scale = m->scale[row * m->groups + g];
            uint16_t half = fp16_from_float(scale);
            if (fp16_to_float(half) != scale)
                return status_set(STATUS_UNSUPPORTED, "'%s': row %lld, group %lld: the scale %g is no fp16 number",
                                  m->name, (long long)row, (long long)g, (double)scale);
            out[transposed ? g * m->rows + row : row * m->groups + g] = half;
        }
    }
    return STATUS_OK;
}

// ---- config.json

static enum status json_put(const char *folder, const char *name, const json_t *value) {
    char *path = mem_format("%s/%s", folder, name), *text = record_json_text(value, 2);
    char *line = mem_format("%s\n", text);
    enum status status = whole_file_put(path, line, strlen(line));
    free(line);
    free(text);
    free(path);
    return status;
}

enum status config_rewrite(const char *folder, const char *torch_dtype, json_t *quantization) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/config.json", folder);
    json_t *root = NULL;
    TRY(json_read_file(path, &root));
    if (torch_dtype) {
        bool newer = json_object_get(root, "dtype") != NULL;
        json_object_set_new(root, newer ? "dtype" : "torch_dtype", json_string(torch_dtype));
    }
    if (quantization) json_object_set(root, "quantization_config", quantization);
    TRY(json_put(folder, "config.json", root));
done:
    json_decref(root);
    free(path);
    return status;
}

// ---- weights

// One tensor of a file being written: a part of a coded matrix, or one of the source as it is.
struct piece {
    const struct safetensors_tensor *tensor;
    int64_t matrix; // index into the codes; -1: none
    int part;
    int64_t n_bytes;
    bool of_codes;
};

struct pieces {
    struct piece *list;
    struct safetensors_entry *entries;
    int64_t (*shapes)[2];
    int64_t n;
};

static void pieces_free(struct pieces *pieces) {
    for (int64_t i = 0; i < pieces->n; i++) free((char *)pieces->entries[i].name);
    free(pieces->list);
    free(pieces->entries);
    free(pieces->shapes);
}

static char *part_name(const char *weight, const char *suffix) {
    size_t n = strlen(weight), cut = strlen(".weight");
    if (n > cut && strcmp(weight + n - cut, ".weight") == 0) n -= cut;
    return mem_format("%.*s%s", (int)n, weight, suffix);
}

static void pieces_make(const struct export_job *job, const struct packed_format *format,
                        const struct safetensors *file, struct pieces *out) {
    int64_t n_tensors = safetensors_n_tensors(file), room = n_tensors * PACKED_PARTS_MAX;
    const struct codebook *book = codes_book(job->codes);
    *out = (struct pieces){.list = mem_new((size_t)room, sizeof *out->list),
                           .entries = mem_new((size_t)room, sizeof *out->entries),
                           .shapes = mem_new((size_t)room, sizeof *out->shapes)};
    for (int64_t i = 0; i < n_tensors; i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        int64_t matrix = codes_find(job->codes, tensor->name);
        if (matrix < 0) {
            out->entries[out->n] =
                (struct safetensors_entry){mem_string(tensor->name), tensor->dtype, tensor->rank, tensor->shape};
            out->list[out->n++] = (struct piece){.tensor = tensor, .matrix = -1, .n_bytes = tensor->n_bytes};
            continue;
        }
        struct packed_part parts[PACKED_PARTS_MAX];
        struct codes_shape shape = codes_shape_at(job->codes, matrix);
        int n_parts = format->parts(book, shape.rows, shape.cols, parts);
        for (int p = 0; p < n_parts; p++, out->n++) {
            int64_t n = safetensors_dtype_bits(parts[p].dtype) / 8 * parts[p].shape[0];
            memcpy(out->shapes[out->n], parts[p].shape, sizeof parts[p].shape);
            if (parts[p].rank == 2) n *= parts[p].shape[1];
            out->entries[out->n] = (struct safetensors_entry){part_name(tensor->name, parts[p].suffix), parts[p].dtype,
                                                              parts[p].rank, out->shapes[out->n]};
            out->list[out->n] =
                (struct piece){.matrix = matrix, .part = p, .n_bytes = n, .of_codes = parts[p].of_codes};
        }
    }
}

static enum status piece_put(const struct export_job *job, const struct packed_format *format,
                             const struct piece *piece, struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    struct coded_matrix matrix = {0};
    void *bytes = NULL;
    if (piece->matrix < 0) return safetensors_writer_put(writer, piece->tensor->data, piece->n_bytes);
    TRY(codes_read(job->codes, piece->matrix, piece->of_codes, &matrix));
    TRY(mem_buffer_new(piece->n_bytes, matrix.name, &bytes));
    TRY(format->fill(format, codes_book(job->codes), &matrix, piece->part, bytes));
    TRY(safetensors_writer_put(writer, bytes, piece->n_bytes));
done:
    mem_buffer_free(bytes);
    coded_matrix_free(&matrix);
    return status;
}

static enum status weights_write(const struct export_job *job, const struct packed_format *format, int64_t file,
                                 const char *folder, json_t *map, int64_t *total_bytes) {
    enum status status = STATUS_OK;
    const char *name = model_folder_file_name(job->folder, file);
    char *path = mem_format("%s/%s", folder, name);
    struct safetensors_writer *writer = NULL;
    struct pieces pieces;
    pieces_make(job, format, model_folder_file(job->folder, file), &pieces);
    for (int64_t i = 0; i < pieces.n; i++) {
        json_object_set_new(map, pieces.entries[i].name, json_string(name));
        *total_bytes += pieces.list[i].n_bytes;
    }
    TRY(safetensors_writer_new(path, pieces.entries, pieces.n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) TRY(piece_put(job, format, &pieces.list[i], writer));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    pieces_free(&pieces);
    free(path);
    return status;
}

enum status packed_folder_write(const struct export_job *job, const struct packed_format *format) {
    enum status status = STATUS_OK;
    struct folder_writer *writer = NULL;
    json_t *map = json_object(), *index = json_object();
    int64_t total_bytes = 0;
    TRY(folder_writer_new(job->out, job->overwrite, "config.json", &writer));
    const char *to = folder_writer_path(writer);
    for (int64_t i = 0; i < model_folder_n_files(job->folder); i++)
        TRY(weights_write(job, format, i, to, map, &total_bytes));
    if (model_folder_is_sharded(job->folder)) {
        json_object_set_new(index, "metadata", json_pack("{s:I}", "total_size", (json_int_t)total_bytes));
        json_object_set(index, "weight_map", map);
        TRY(json_put(to, "model.safetensors.index.json", index));
    }
    TRY(model_folder_copy_others(job->folder, to));
    TRY(config_rewrite(to, format->torch_dtype, format->quantization));
    if (format->config_name) TRY(json_put(to, format->config_name, format->quantization));
    TRY(folder_writer_finish(writer));
done:
    folder_writer_free(writer);
    json_decref(map);
    json_decref(index);
    return status;
}

// The dequantized folder: the run's model, with a config.json that names the dtype its matrices have now.
enum status hf_write(const struct export_job *job) {
    enum status status = STATUS_OK;
    bool wide = false;
    struct folder_writer *writer = NULL;
    for (int64_t i = 0; i < codes_count(job->codes); i++) {
        const struct safetensors_tensor *tensor =
            model_folder_find(job->folder, codes_shape_at(job->codes, i).name, NULL);
        wide = wide || (tensor && tensor->dtype == SAFETENSORS_F32);
    }
    TRY(folder_writer_new(job->out, job->overwrite, "config.json", &writer));
    const char *to = folder_writer_path(writer);
    for (int64_t i = 0; i < model_folder_n_files(job->folder); i++) {
        const char *name = model_folder_file_name(job->folder, i);
        char *from = mem_format("%s/%s", model_folder_path(job->folder), name), *path = mem_format("%s/%s", to, name);
        status = whole_file_copy(from, path);
        free(from);
        free(path);
        if (status != STATUS_OK) goto done;
    }
    TRY(model_folder_copy_others(job->folder, to));
    if (model_folder_is_sharded(job->folder)) TRY(model_folder_copy_index(job->folder, to));
    if (wide) TRY(config_rewrite(to, "float32", NULL));
    TRY(folder_writer_finish(writer));
done:
    folder_writer_free(writer);
    return status;
}
