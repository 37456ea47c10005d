#include "data/point.h"

#include "core/base/mem.h"
#include "data/safetensors_writer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char kind[] = "discquant x";

// ---- writing ----

static enum status tensor_put(const struct rounding *rounding, struct view view, struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    int64_t bytes = view_count(view) * (int64_t)sizeof(float);
    void *host = NULL;
    TRY(mem_buffer_new(bytes, "a tensor", &host));
    TRY(backend_floats_read(rounding->model->backend, view, host));
    TRY(safetensors_writer_put(writer, host, bytes));
done:
    mem_buffer_free(host);
    return status;
}

// x and scales of every rounded matrix, in turn.
struct listing {
    struct safetensors_entry *entries;
    struct view *views;
    int64_t (*shapes)[2];
    char **names;
    int64_t n;
};

static void listing_add(struct listing *list, struct view view, char *name) {
    int64_t i = list->n++, *shape = list->shapes[i];
    shape[0] = view.rows, shape[1] = view.cols;
    list->views[i] = view, list->names[i] = name;
    list->entries[i] = (struct safetensors_entry){name, SAFETENSORS_F32, 2, shape};
}

static struct listing listing_of(const struct transformer *model) {
    size_t most = 2 * (size_t)model->n_weights;
    struct listing list = {.entries = mem_new(most, sizeof *list.entries),
                           .views = mem_new(most, sizeof *list.views),
                           .shapes = mem_new(most, sizeof *list.shapes),
                           .names = mem_new(most, sizeof *list.names)};
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        listing_add(&list, w->x, mem_string(w->name));
        listing_add(&list, w->scale, mem_format("%s.scale", w->name));
    }
    return list;
}

static void listing_free(struct listing *list) {
    for (int64_t i = 0; i < list->n; i++) free(list->names[i]);
    free(list->names);
    free(list->entries);
    free(list->views);
    free(list->shapes);
}

enum status point_save(const struct rounding *rounding, const char *path) {
    enum status status = STATUS_OK;
    struct safetensors_writer *writer = NULL;
    struct listing list = listing_of(rounding->model);
    char *bits = mem_format("%d", rounding->grid.bits),
         *group_size = mem_format("%lld", (long long)rounding->grid.group_size);
    const struct safetensors_pair about[] = {{"kind", kind},
                                             {"grid", grid_kind_name(rounding->grid.kind)},
                                             {"bits", bits},
                                             {"group_size", group_size},
                                             {"scale_search", scale_search_name(rounding->grid.search)}};
    TRY(safetensors_writer_new(path, list.entries, list.n, about, sizeof about / sizeof *about, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) TRY(tensor_put(rounding, list.views[i], writer));
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    listing_free(&list);
    free(bits);
    free(group_size);
    return status;
}

// ---- reading ----

struct point {
    struct safetensors *file;
};

static const char *about_value(const struct point *point, const char *key) {
    for (int64_t i = 0; i < safetensors_n_metadata(point->file); i++) {
        struct safetensors_pair pair = safetensors_metadata(point->file, i);
        if (strcmp(pair.key, key) == 0) return pair.value;
    }
    return NULL;
}

enum status point_open(const char *path, struct point **out) {
    enum status status = STATUS_OK;
    struct point *point = mem_new(1, sizeof *point);
    TRY(safetensors_open(path, &point->file));
    const char *found = about_value(point, "kind");
    if (!found || strcmp(found, kind) != 0)
        TRY(status_set(STATUS_FORMAT, "%s: is no x of a rounding; discquant --keep-x writes one", path));
    *out = point;
    point = NULL;
done:
    point_free(point);
    return status;
}

void point_free(struct point *point) {
    if (!point) return;
    safetensors_free(point->file);
    free(point);
}

static enum status about_integer(const struct point *point, const char *key, int64_t *out) {
    const char *text = about_value(point, key);
    char *end = NULL;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || errno)
        return status_set(STATUS_FORMAT, "%s: __metadata__ has no integer '%s'", safetensors_path(point->file), key);
    *out = value;
    return STATUS_OK;
}

enum status point_grid(const struct point *point, struct grid *out) {
    enum status status = STATUS_OK;
    int64_t bits, group_size;
    TRY(about_integer(point, "bits", &bits));
    TRY(about_integer(point, "group_size", &group_size));
    const char *name = about_value(point, "grid"), *search = about_value(point, "scale_search");
    struct grid_options options = {.bits = bits > 0 && bits <= 8 ? (int)bits : 1, .group_size = group_size};
    bool known = name && search && grid_kind_named(name, &options.kind) && scale_search_named(search, &options.search);
    if (!known || group_size == 0)
        TRY(status_set(STATUS_FORMAT, "%s: __metadata__ names no grid that is known here",
                       safetensors_path(point->file)));
    TRY(grid_new(&options, out));
done:
    return status;
}

static enum status tensor_get(const struct point *point, const char *name, int64_t rows, int64_t cols, float *out) {
    const struct safetensors_tensor *tensor = safetensors_find(point->file, name);
    if (!tensor || tensor->dtype != SAFETENSORS_F32 || tensor->rank != 2 || tensor->shape[0] != rows ||
        tensor->shape[1] != cols)
        return status_set(STATUS_INVALID, "%s: has no '%s' of %lld x %lld floats: it is of another model or grid",
                          safetensors_path(point->file), name, (long long)rows, (long long)cols);
    return safetensors_to_float(point->file, tensor, out);
}

static enum status check_scales(const struct point *point, const struct rounding *rounding, const struct weight *w) {
    enum status status = STATUS_OK;
    int64_t n = view_count(w->scale);
    char *name = mem_format("%s.scale", w->name);
    void *buffer = NULL;
    TRY(mem_buffer_new(2 * n * (int64_t)sizeof(float), name, &buffer));
    float *here = buffer, *there = here + n;
    TRY(backend_floats_read(rounding->model->backend, w->scale, here));
    TRY(tensor_get(point, name, w->scale.rows, w->scale.cols, there));
    if (memcmp(here, there, (size_t)n * sizeof *here) != 0)
        TRY(status_set(STATUS_INVALID, "%s: '%s' differs from the scales of this model on this grid",
                       safetensors_path(point->file), name));
done:
    mem_buffer_free(buffer);
    free(name);
    return status;
}

static enum status read_weight(const struct point *point, const struct rounding *rounding, const struct weight *w,
                               double *x) {
    enum status status = STATUS_OK;
    int64_t n = w->rows * w->cols;
    void *buffer = NULL;
    TRY(check_scales(point, rounding, w));
    TRY(mem_buffer_new(n * (int64_t)sizeof(float), w->name, &buffer));
    const float *values = buffer;
    TRY(tensor_get(point, w->name, w->rows, w->cols, buffer));
    for (int64_t i = 0; i < n; i++) {
        if (!(values[i] >= 0 && values[i] <= 1))
            TRY(status_set(STATUS_FORMAT, "%s: '%s' has %g at [%lld, %lld], outside [0, 1]",
                           safetensors_path(point->file), w->name, (double)values[i], (long long)(i / w->cols),
                           (long long)(i % w->cols)));
        x[i] = (double)values[i];
    }
done:
    mem_buffer_free(buffer);
    return status;
}

enum status point_read(const struct point *point, const struct rounding *rounding, double *x) {
    enum status status = STATUS_OK;
    const struct transformer *model = rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        if (!w->grid) continue;
        TRY(read_weight(point, rounding, w, x));
        x += w->rows * w->cols;
    }
done:
    return status;
}
