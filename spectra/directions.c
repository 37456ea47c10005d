#include "spectra/directions.h"

#include "core/base/mem.h"
#include "data/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum status directions_new(struct model *model, const struct groups *groups, struct directions **out) {
    struct directions *directions = mem_new(1, sizeof *directions);
    directions->model = model;
    directions->groups = groups;
    directions->views = mem_new((size_t)groups->n_weights, sizeof *directions->views);
    *out = directions;
    return STATUS_OK;
}

void directions_free(struct directions *directions) {
    if (!directions) return;
    for (int64_t i = 0; i < directions->groups->n_weights; i++)
        backend_matrix_free(directions->model->transformer->backend, &directions->views[i]);
    for (int64_t d = 0; d < directions->n; d++) {
        free(directions->names[d]);
        free(directions->labels[d]);
    }
    free(directions->names);
    free(directions->labels);
    free(directions->squares);
    free(directions->views);
    free(directions);
}

// The rounded values of one weight, [rows, cols] on the host.
typedef enum status read_rounded(void *context, const struct weight *weight, float *values);

// views[i] with one more row: the rounded values less the weight's own.
static enum status add_row(struct directions *directions, int64_t i, read_rounded *rounded, void *context,
                           double *square) {
    enum status status = STATUS_OK;
    struct backend *backend = directions->model->transformer->backend;
    struct weight *weight = &directions->model->transformer->weights[i];
    int64_t n = weight->rows * weight->cols, before = directions->n;
    void *rows = NULL, *own = NULL;
    struct view view = {0};
    TRY(mem_buffer_new((before + 1) * n * (int64_t)sizeof(float), "directions", &rows));
    TRY(mem_buffer_new(n * (int64_t)sizeof(float), weight->name, &own));
    float *row = (float *)rows + before * n;
    const float *w = own;
    TRY(backend_matrix_new(backend, DTYPE_F32, before + 1, n, "directions", &view));
    if (before) TRY(backend_floats_read(backend, directions->views[i], rows));
    TRY(backend_floats_read(backend, weight->stored, own));
    TRY(rounded(context, weight, row));
    for (int64_t e = 0; e < n; e++) {
        row[e] -= w[e];
        *square += (double)row[e] * (double)row[e];
    }
    TRY(backend_write(backend, view, rows));
    TRY(backend_sync(backend));
    backend_matrix_free(backend, &directions->views[i]);
    directions->views[i] = view;
    view = (struct view){0};
done:
    backend_matrix_free(backend, &view);
    mem_buffer_free(rows);
    mem_buffer_free(own);
    return status;
}

// Takes `label`.
static enum status add(struct directions *directions, const char *name, char *label, read_rounded *rounded,
                       void *context) {
    enum status status = STATUS_OK;
    double square = 0;
    for (int64_t i = 0; i < directions->groups->n_weights; i++)
        if (directions->groups->of[i] >= 0) TRY(add_row(directions, i, rounded, context, &square));
    if (!isfinite(square) || square == 0)
        TRY(status_set(STATUS_INVALID,
                       square == 0 ? "%s: is the model itself, so it is no direction"
                                   : "%s: has weights that are not finite",
                       name));
    size_t n = (size_t)directions->n + 1;
    directions->names = mem_resize(directions->names, n, sizeof *directions->names);
    directions->labels = mem_resize(directions->labels, n, sizeof *directions->labels);
    directions->squares = mem_resize(directions->squares, n, sizeof *directions->squares);
    directions->names[n - 1] = mem_string(name);
    directions->labels[n - 1] = label;
    directions->squares[n - 1] = square;
    directions->n++;
    label = NULL;
done:
    free(label);
    return status;
}

static enum status read_nearest(void *context, const struct weight *weight, float *values) {
    const struct rounding *rounding = context;
    if (weight->grid) return rounding_values(rounding, weight, values);
    return backend_floats_read(rounding->model->backend, weight->stored, values);
}

enum status directions_add_nearest(struct directions *directions, int bits, int64_t group_size) {
    enum status status = STATUS_OK;
    struct rounding *rounding = NULL;
    struct grid grid;
    TRY(grid_block(bits, group_size, &grid));
    TRY(rounding_new(directions->model->transformer, &grid, DTYPE_F32, &rounding));
    TRY(rounding_to_nearest(rounding));
    TRY(add(directions, "rtn", mem_format("rtn=bits %d group_size %lld", bits, (long long)group_size), read_nearest,
            rounding));
done:
    rounding_free(rounding);
    return status;
}

static enum status read_folder(void *context, const struct weight *weight, float *values) {
    struct tensor_source source = model_folder_source(context);
    return source.read(source.self, weight->name, weight->rows, weight->cols, values, NULL);
}

enum status directions_add_folder(struct directions *directions, const char *name, const char *path) {
    enum status status = STATUS_OK;
    struct model_folder *folder = NULL;
    struct record *record = record_new();
    TRY(record_digest(record, "digest", path));
    TRY(model_folder_open(path, &folder));
    TRY(rotation_same(directions->model->folder, folder));
    const char *digest = json_string_value(json_object_get(record_json(record), "digest"));
    TRY(add(directions, name, mem_format("%s=%s", name, digest), read_folder, folder));
done:
    model_folder_free(folder);
    record_free(record);
    return status;
}
