#include "data/export_parts.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/file.h"

#include <stdlib.h>
#include <string.h>

const char *const export_names[EXPORT_FORMATS] = {"hf", "gptq", "compressed-tensors", "gguf"};

enum status export_set_parse(const char *list, struct export_set *out) {
    struct export_set set = {0};
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        int i = 0;
        while (i < EXPORT_FORMATS && (strlen(export_names[i]) != n || strncmp(export_names[i], at, n) != 0)) i++;
        if (i == EXPORT_FORMATS)
            return status_set(STATUS_INVALID, "--export '%.*s': must be hf, gptq, compressed-tensors or gguf",
                              (int)(n > 60 ? 60 : n), at);
        set.wanted[i] = true;
        at += n;
        if (!*at) break;
    }
    *out = set;
    return STATUS_OK;
}

char *export_place(const char *run, enum export_format format) {
    if (format == EXPORT_GGUF) return mem_format("%s/export.gguf", run);
    return mem_format("%s/export-%s", run, export_names[format]);
}

// Every coded matrix is a tensor of the folder with that shape.
static enum status codes_belong(const struct codes *codes, const struct model_folder *folder) {
    for (int64_t i = 0; i < codes_count(codes); i++) {
        struct codes_shape s = codes_shape_at(codes, i);
        const struct safetensors_tensor *tensor = model_folder_find(folder, s.name, NULL);
        if (!tensor || tensor->rank != 2 || tensor->shape[0] != s.rows || tensor->shape[1] != s.cols)
            return status_set(STATUS_FORMAT, "%s: '%s' is no matrix of %s with that shape", codes_path(codes), s.name,
                              model_folder_path(folder));
    }
    return STATUS_OK;
}

static enum status one_export(const struct export_job *job, enum export_format format) {
    static enum status (*const writers[EXPORT_FORMATS])(const struct export_job *job) = {hf_write, gptq_write,
                                                                                         packed_write, gguf_write};
    enum status status = STATUS_OK;
    struct export_difference same;
    TRY(writers[format](job));
    TRY(export_compare(job->out, model_folder_path(job->folder), &same));
    progress_say("%s: %lld tensors, %lld of them as integers, read back and equal", job->out, (long long)same.tensors,
                 (long long)same.coded);
done:
    return status;
}

enum status run_export(const struct export_set *set, const char *run, bool overwrite) {
    enum status status = STATUS_OK;
    const struct export_set none = {0};
    if (memcmp(set, &none, sizeof none) == 0) return STATUS_OK;
    char *model = mem_format("%s/model", run), *codes_file = mem_format("%s/codes.safetensors", run), *out = NULL;
    struct model_folder *folder = NULL;
    struct codes *codes = NULL;
    TRY(model_folder_open(model, &folder));
    TRY(codes_open(codes_file, &codes));
    TRY(codes_belong(codes, folder));
    TRY(export_check(set, codes_book(codes), model));
    for (int format = 0; format < EXPORT_FORMATS; format++) {
        if (!set->wanted[format]) continue;
        out = export_place(run, (enum export_format)format);
        struct export_job job = {.folder = folder, .codes = codes, .out = out, .overwrite = overwrite};
        TRY(one_export(&job, (enum export_format)format));
        free(out);
        out = NULL;
    }
done:
    free(out);
    codes_free(codes);
    model_folder_free(folder);
    free(codes_file);
    free(model);
    return status;
}

// ---- reading back

enum status export_open(const char *path, struct export_reader **out) {
    struct export_reader *reader = mem_new(1, sizeof *reader);
    enum status status = folder_exists(path) ? folder_reader_open(reader, path) : gguf_model_open(reader, path);
    if (status == STATUS_OK) {
        *out = reader;
        reader = NULL;
    }
    export_free(reader);
    return status;
}

void export_free(struct export_reader *reader) {
    if (!reader) return;
    folder_reader_free(reader->folder);
    gguf_model_free(reader->gguf);
    free(reader);
}

const char *export_format_name(const struct export_reader *reader) { return reader->format; }
struct tensor_source export_source(struct export_reader *reader) {
    return reader->source;
}

static enum status tensor_compare(struct export_reader *reader, const struct safetensors *file,
                                  const struct safetensors_tensor *tensor, const char *path) {
    enum status status = STATUS_OK;
    void *want = NULL, *got = NULL;
    int64_t rows = tensor->rank == 2 ? tensor->shape[0] : 1, n = tensor->n_elements, different = INT64_MAX;
    if (tensor->rank < 1 || tensor->rank > 2)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: tensor '%s' has %lld dimensions", safetensors_path(file), tensor->name,
                       (long long)tensor->rank));
    TRY(mem_buffer_new(n * 4, tensor->name, &want));
    TRY(mem_buffer_new(n * 4, tensor->name, &got));
    TRY(safetensors_to_float(file, tensor, want));
    TRY(reader->source.read(reader->source.self, tensor->name, rows, tensor->shape[tensor->rank - 1], got, NULL));
    const float *a = want, *b = got;
#pragma omp parallel for reduction(min : different)
    for (int64_t i = 0; i < n; i++)
        if (!(a[i] == b[i]) && i < different) different = i;
    if (different < n)
        TRY(status_set(STATUS_FORMAT, "%s: '%s' differs at element %lld: %.9g, but %.9g in %s", path, tensor->name,
                       (long long)different, (double)b[different], (double)a[different], safetensors_path(file)));
done:
    mem_buffer_free(want);
    mem_buffer_free(got);
    return status;
}

enum status export_compare(const char *path, const char *against, struct export_difference *out) {
    enum status status = STATUS_OK;
    struct export_reader *reader = NULL;
    struct model_folder *folder = NULL;
    struct export_difference same = {0};
    TRY(export_open(path, &reader));
    TRY(model_folder_open_tensors(against, &folder));
    for (int64_t f = 0; f < model_folder_n_files(folder); f++) {
        const struct safetensors *file = model_folder_file(folder, f);
        for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
            if (reader->lacks && reader->lacks(reader->source.self, safetensors_at(file, i)->name)) {
                same.skipped++;
                continue;
            }
            TRY(tensor_compare(reader, file, safetensors_at(file, i), path));
            same.tensors++;
            same.values += safetensors_at(file, i)->n_elements;
        }
    }
    same.coded = reader->coded;
    *out = same;
done:
    model_folder_free(folder);
    export_free(reader);
    return status;
}
