#include "data/rotation.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char FILE_NAME[] = "rotation.safetensors";

// ---- reading

// An I8 tensor [rows, cols] of 1 and -1; rows = 0: a vector.
static enum status signs_find(const struct safetensors *file, const char *name, int64_t rows, int64_t cols,
                              const int8_t **out) {
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    if (!tensor) return status_set(STATUS_FORMAT, "%s: tensor '%s' is missing", safetensors_path(file), name);
    bool shape = tensor->rank == (rows ? 2 : 1) && tensor->shape[tensor->rank - 1] == cols &&
                 (!rows || tensor->shape[0] == rows);
    if (!shape || tensor->dtype != SAFETENSORS_I8)
        return status_set(STATUS_FORMAT, "%s: tensor '%s' must be I8 with %lld signs", safetensors_path(file), name,
                          (long long)((rows ? rows : 1) * cols));
    const int8_t *signs = (const int8_t *)tensor->data;
    for (int64_t i = 0; i < tensor->n_elements; i++)
        if (signs[i] != 1 && signs[i] != -1)
            return status_set(STATUS_FORMAT, "%s: tensor '%s' holds %d at element %lld; signs are 1 and -1",
                              safetensors_path(file), name, signs[i], (long long)i);
    *out = signs;
    return STATUS_OK;
}

static enum status side_read(const struct safetensors *file, const struct weight *weight, const char *side, int64_t n,
                             float *out) {
    const int8_t *signs = NULL;
    char *name = mem_format("%s.signs_%s", weight->name, side);
    enum status status = signs_find(file, name, 0, n, &signs);
    for (int64_t i = 0; i < n && status == STATUS_OK; i++) out[i] = signs[i];
    free(name);
    return status;
}

// The factors in the file are those that are built here.
static enum status factors_check(const struct safetensors *file, const struct hadamard *h) {
    enum status status = STATUS_OK;
    int8_t *own = mem_new(HADAMARD_FACTOR_MOST, HADAMARD_FACTOR_MOST);
    char *name = NULL;
    for (int f = 0; f < h->n_factors && status == STATUS_OK; f++) {
        int64_t m = h->factors[f];
        const int8_t *theirs = NULL;
        name = mem_format("hadamard.%lld", (long long)m);
        REQUIRE(hadamard_factor(m, own), "the factor is there");
        status = signs_find(file, name, m, m, &theirs);
        if (status == STATUS_OK && memcmp(theirs, own, (size_t)(m * m)) != 0)
            status = status_set(STATUS_FORMAT, "%s: '%s' is another Hadamard matrix than the one that is built here",
                                safetensors_path(file), name);
        free(name);
    }
    free(own);
    return status;
}

enum status rotation_open(const struct model_folder *folder, struct transformer *model, struct incoherence **out) {
    enum status status = STATUS_OK;
    struct incoherence *incoherence = NULL;
    struct safetensors *file = NULL;
    char *path = mem_format("%s/%s", model_folder_path(folder), FILE_NAME);
    float *signs = NULL;
    if (!file_exists(path))
        TRY(status_set(STATUS_FORMAT, "%s: is missing, and with it the rotations of the folder's weights", path));
    TRY(safetensors_open(path, &file));
    TRY(incoherence_new(model, model_folder_config(folder)->rotation, &incoherence));
    for (int64_t i = 0; i < incoherence->n_widths; i++) TRY(factors_check(file, incoherence->widths[i].matrix));
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *w = &model->weights[i];
        if (!w->rotation) continue;
        free(signs);
        signs = mem_new((size_t)(w->rows + w->cols), sizeof *signs);
        TRY(side_read(file, w, "in", w->cols, signs));
        TRY(side_read(file, w, "out", w->rows, signs + w->cols));
        TRY(incoherence_signs_set(incoherence, w, signs, signs + w->cols));
    }
    *out = incoherence;
    incoherence = NULL;
done:
    incoherence_free(incoherence);
    safetensors_free(file);
    free(signs);
    free(path);
    return status;
}

// ---- writing

struct tensors {
    struct safetensors_entry *entries;
    int8_t **data;
    int64_t (*shapes)[2];
    int64_t n;
};

// Takes name and data.
static void tensor_add(struct tensors *t, char *name, int64_t rows, int64_t cols, int8_t *data) {
    t->shapes[t->n][0] = rows ? rows : cols;
    t->shapes[t->n][1] = cols;
    t->data[t->n] = data;
    t->entries[t->n] = (struct safetensors_entry){name, SAFETENSORS_I8, rows ? 2 : 1, t->shapes[t->n]};
    t->n++;
}

static void tensors_free(struct tensors *t) {
    for (int64_t i = 0; i < t->n; i++) {
        free((char *)(uintptr_t)t->entries[i].name);
        free(t->data[i]);
    }
    free(t->entries);
    free(t->data);
    free(t->shapes);
}

static int8_t *signs_of(const float *signs, int64_t n) {
    int8_t *out = mem_new((size_t)n, 1);
    for (int64_t i = 0; i < n; i++) out[i] = signs[i] < 0 ? -1 : 1;
    return out;
}

static enum status weights_add(const struct incoherence *incoherence, struct tensors *t) {
    enum status status = STATUS_OK;
    float *signs = NULL;
    for (int64_t i = 0; i < incoherence->model->n_weights; i++) {
        const struct weight *w = &incoherence->model->weights[i];
        if (!w->rotation) continue;
        free(signs);
        signs = mem_new((size_t)(w->rows + w->cols), sizeof *signs);
        TRY(incoherence_signs_get(incoherence, w, signs, signs + w->cols));
        tensor_add(t, mem_format("%s.signs_in", w->name), 0, w->cols, signs_of(signs, w->cols));
        tensor_add(t, mem_format("%s.signs_out", w->name), 0, w->rows, signs_of(signs + w->cols, w->rows));
    }
done:
    free(signs);
    return status;
}

static void factors_add(const struct incoherence *incoherence, struct tensors *t) {
    bool added[HADAMARD_FACTOR_MOST + 1] = {false};
    for (int64_t i = 0; i < incoherence->n_widths; i++) {
        const struct hadamard *h = incoherence->widths[i].matrix;
        for (int f = 0; f < h->n_factors; f++) {
            int64_t m = h->factors[f];
            if (added[m]) continue;
            int8_t *entries = mem_new((size_t)(m * m), 1);
            REQUIRE(hadamard_factor(m, entries), "the factor is there");
            tensor_add(t, mem_format("hadamard.%lld", (long long)m), m, m, entries);
            added[m] = true;
        }
    }
}

static enum status signs_write(const struct incoherence *incoherence, const char *path) {
    enum status status = STATUS_OK;
    size_t most = 2 * (size_t)incoherence->model->n_weights + HADAMARD_FACTORS * (size_t)incoherence->n_widths;
    struct tensors t = {mem_new(most, sizeof *t.entries), mem_new(most, sizeof *t.data),
                        mem_new(most, sizeof *t.shapes), 0};
    struct safetensors_writer *writer = NULL;
    char *file = mem_format("%s/%s", path, FILE_NAME);
    TRY(weights_add(incoherence, &t));
    factors_add(incoherence, &t);
    TRY(safetensors_writer_new(file, t.entries, t.n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
        TRY(safetensors_writer_put(writer, t.data[i], t.shapes[i][0] * (t.entries[i].rank == 2 ? t.shapes[i][1] : 1)));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    tensors_free(&t);
    free(file);
    return status;
}

static json_t *rotation_object(const struct incoherence *incoherence) {
    json_t *rotation = json_object(), *matrices = json_object();
    for (int64_t i = 0; i < incoherence->n_widths; i++) {
        const struct hadamard *h = incoherence->widths[i].matrix;
        char *made_of = hadamard_describe(h), width[32];
        snprintf(width, sizeof width, "%lld", (long long)h->n);
        json_object_set_new(matrices, width, json_string(made_of));
        free(made_of);
    }
    static const char *const transforms[] = {"none", "hadamard", "hadamard-blocks", "hadamard-in"};
    json_object_set_new(rotation, "transform", json_string(transforms[incoherence->kind]));
    json_object_set_new(rotation, "file", json_string(FILE_NAME));
    json_object_set_new(rotation, "matrices", matrices);
    return rotation;
}

static void string_prefix(json_t *value, const char *prefix) {
    const char *text = json_string_value(value);
    if (!text || strncmp(text, prefix, strlen(prefix)) == 0) return;
    char *marked = mem_format("%s%s", prefix, text);
    json_string_set(value, marked);
    free(marked);
}

static enum status config_mark(const struct incoherence *incoherence, const char *path) {
    enum status status = STATUS_OK;
    char *file = mem_format("%s/config.json", path), *text = NULL, *line = NULL;
    json_t *config = NULL, *architectures;
    TRY(json_read_file(file, &config));
    string_prefix(json_object_get(config, "model_type"), "rotated_");
    architectures = json_object_get(config, "architectures");
    for (size_t i = 0; i < json_array_size(architectures); i++)
        string_prefix(json_array_get(architectures, i), "Rotated");
    json_object_set_new(config, "rotation", rotation_object(incoherence));
    text = json_dumps(config, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    if (!text) TRY(status_set(STATUS_NO_MEMORY, "%s: out of memory for the configuration", file));
    line = mem_format("%s\n", text);
    TRY(whole_file_put(file, line, strlen(line)));
done:
    json_decref(config);
    free(line);
    free(text);
    free(file);
    return status;
}

static enum status rename_in(const char *path, const char *from, const char *to) {
    enum status status = STATUS_OK;
    char *old = mem_format("%s/%s", path, from), *new = mem_format("%s/%s", path, to);
    if (file_exists(old) && rename(old, new) != 0)
        status = status_set(STATUS_IO, "%s: cannot rename: %s", old, strerror(errno));
    free(old);
    free(new);
    return status;
}

enum status rotation_save(const struct incoherence *incoherence, const char *path) {
    enum status status = STATUS_OK;
    TRY(rename_in(path, "model.safetensors", "rotated.safetensors"));
    TRY(rename_in(path, "model.safetensors.index.json", "rotated.safetensors.index.json"));
    TRY(signs_write(incoherence, path));
    TRY(config_mark(incoherence, path));
done:
    return status;
}

// ---- comparing

enum status rotation_same(const struct model_folder *a, const struct model_folder *b) {
    enum status status = STATUS_OK;
    enum rotation_kind kind = model_folder_config(a)->rotation;
    struct safetensors *files[2] = {NULL, NULL};
    const struct model_folder *folders[2] = {a, b};
    bool same = kind == model_folder_config(b)->rotation;
    for (int i = 0; i < 2 && same && kind != ROTATION_NONE; i++) {
        char *path = mem_format("%s/%s", model_folder_path(folders[i]), FILE_NAME);
        status = safetensors_open(path, &files[i]);
        free(path);
        TRY(status);
    }
    for (int64_t i = 0; files[0] && same && i < safetensors_n_tensors(files[0]); i++) {
        const struct safetensors_tensor *x = safetensors_at(files[0], i), *y = safetensors_find(files[1], x->name);
        same = y && y->n_bytes == x->n_bytes && memcmp(x->data, y->data, (size_t)x->n_bytes) == 0;
    }
    if (!same)
        status = status_set(STATUS_INVALID,
                            "%s: its weights are stored in other coordinates than those of %s "
                            "(incoherence processing), so they cannot be compared one by one",
                            model_folder_path(b), model_folder_path(a));
done:
    for (int i = 0; i < 2; i++) safetensors_free(files[i]);
    return status;
}
