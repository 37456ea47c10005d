#include "core/nn/incoherence.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- construction

static int width_order(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

// The different widths of matrices inside the layers, ascending; free() the list.
static int64_t widths_list(const struct transformer *model, int64_t **out) {
    int64_t *list = mem_new(2 * (size_t)model->n_weights, sizeof *list), n = 0, kept = 0;
    for (int64_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].is_linear) list[n++] = model->weights[i].cols, list[n++] = model->weights[i].rows;
    qsort(list, (size_t)n, sizeof *list, width_order);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || list[i] != list[i - 1]) list[kept++] = list[i];
    *out = list;
    return kept;
}

static enum status widths_make(struct incoherence *incoherence) {
    enum status status = STATUS_OK;
    int64_t *list = NULL, n = widths_list(incoherence->model, &list);
    char missing[200] = "";
    size_t at = 0;
    incoherence->widths = mem_new((size_t)n, sizeof *incoherence->widths);
    for (int64_t i = 0; i < n; i++) {
        struct rotation_width *width = &incoherence->widths[incoherence->n_widths];
        status = hadamard_new(list[i], incoherence->kind == ROTATION_HADAMARD_BLOCKS, &width->matrix);
        if (status == STATUS_OK)
            width->identity = hadamard_identity(list[i]), incoherence->n_widths++;
        else if (at < sizeof missing - 24)
            at += (size_t)snprintf(missing + at, sizeof missing - at, "%s%lld", at ? ", " : "", (long long)list[i]);
    }
    status = STATUS_OK;
    if (at)
        status = status_set(
            STATUS_UNSUPPORTED,
            "no Hadamard matrix of the width %s can be built; hadamard-blocks rotates in smaller blocks", missing);
    free(list);
    return status;
}

static struct rotation_width *width_of(struct incoherence *incoherence, int64_t n) {
    struct rotation_width *width = incoherence->widths;
    while (width->matrix->n != n) width++;
    return width;
}

static enum status tables_make(struct backend *backend, struct rotation_width *width) {
    const struct hadamard *h = width->matrix;
    if (!h->n_factors) return STATUS_OK;
    enum status status =
        backend_matrix_new(backend, DTYPE_I32, h->table_rows, h->words, "factors of Hadamard matrices", &width->tables);
    return status == STATUS_OK ? backend_write(backend, width->tables, h->tables) : status;
}

static enum status side_make(struct incoherence *incoherence, int64_t n, bool identity, struct rotation_side *side) {
    struct backend *backend = incoherence->model->backend;
    const struct rotation_width *width = width_of(incoherence, n);
    side->matrix = identity ? width->identity : width->matrix;
    if (!identity) side->tables = width->tables;
    enum status status = backend_matrix_new(backend, DTYPE_F32, 1, n, "signs of a rotation", &side->signs);
    if (status != STATUS_OK) return status;
    return backend_run(backend, &(struct op_call){.op = OP_fill, .out = {side->signs}, .params.value = 1});
}

enum status incoherence_new(struct transformer *model, enum rotation_kind kind, struct incoherence **out) {
    enum status status = STATUS_OK;
    struct incoherence *incoherence = mem_new(1, sizeof *incoherence);
    *incoherence = (struct incoherence){.model = model, .kind = kind};
    incoherence->rotations = mem_new((size_t)model->n_weights, sizeof *incoherence->rotations);
    TRY(widths_make(incoherence));
    for (int64_t i = 0; i < incoherence->n_widths; i++) TRY(tables_make(model->backend, &incoherence->widths[i]));
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *weight = &model->weights[i];
        struct rotation *rotation = &incoherence->rotations[i];
        if (!weight->is_linear) continue;
        REQUIRE(!weight->rotation, "a matrix is rotated once");
        TRY(side_make(incoherence, weight->cols, false, &rotation->in));
        TRY(side_make(incoherence, weight->rows, kind == ROTATION_HADAMARD_IN, &rotation->out));
        weight->rotation = rotation;
    }
    *out = incoherence;
    incoherence = NULL;
done:
    incoherence_free(incoherence);
    return status;
}

void incoherence_free(struct incoherence *incoherence) {
    if (!incoherence) return;
    struct transformer *model = incoherence->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct rotation *rotation = &incoherence->rotations[i];
        if (model->weights[i].rotation == rotation) model->weights[i].rotation = NULL;
        backend_matrix_free(model->backend, &rotation->in.signs);
        backend_matrix_free(model->backend, &rotation->out.signs);
    }
    for (int64_t i = 0; i < incoherence->n_widths; i++) {
        backend_matrix_free(model->backend, &incoherence->widths[i].tables);
        hadamard_free(incoherence->widths[i].matrix);
        hadamard_free(incoherence->widths[i].identity);
    }
    free(incoherence->widths);
    free(incoherence->rotations);
    free(incoherence);
}

// ---- signs

enum status incoherence_signs_set(struct incoherence *incoherence, struct weight *weight, const float *in,
                                  const float *out) {
    enum status status = STATUS_OK;
    struct backend *backend = incoherence->model->backend;
    const struct rotation *rotation = &incoherence->rotations[weight->index];
    TRY(backend_write(backend, rotation->in.signs, in));
    TRY(backend_write(backend, rotation->out.signs, out));
    TRY(backend_sync(backend));
done:
    return status;
}

enum status incoherence_signs_get(const struct incoherence *incoherence, const struct weight *weight, float *in,
                                  float *out) {
    enum status status = STATUS_OK;
    struct backend *backend = incoherence->model->backend;
    const struct rotation *rotation = &incoherence->rotations[weight->index];
    TRY(backend_read(backend, rotation->in.signs, in));
    TRY(backend_read(backend, rotation->out.signs, out));
    TRY(backend_sync(backend));
done:
    return status;
}

static void signs_draw(struct rng rng, uint64_t first_word, float *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = rng_bits(rng, first_word + (uint64_t)i / 32) >> i % 32 & 1 ? -1.0f : 1.0f;
}

// ---- weights

// n lines of w, `apart` numbers from one to the next and `step` numbers inside of one, through a side.
static void lines_apply(const struct hadamard *h, bool back, const float *signs, float *w, int64_t n, int64_t apart,
                        int64_t step) {
    enum { PART = 16 };
#pragma omp parallel for
    for (int64_t first = 0; first < n; first += PART) {
        double *x = mem_new((size_t)h->n, sizeof *x);
        for (int64_t i = first; i < n && i < first + PART; i++) {
            float *line = w + i * apart;
            for (int64_t k = 0; k < h->n; k++) x[k] = (double)line[k * step];
            hadamard_apply(h, back, signs, x);
            for (int64_t k = 0; k < h->n; k++) line[k * step] = (float)x[k];
        }
        free(x);
    }
}

enum status incoherence_apply(const struct incoherence *incoherence, const struct weight *weight, bool back, float *w) {
    enum status status = STATUS_OK;
    const struct rotation *rotation = &incoherence->rotations[weight->index];
    int64_t rows = weight->rows, cols = weight->cols;
    float *signs = mem_new((size_t)(rows + cols), sizeof *signs);
    TRY(incoherence_signs_get(incoherence, weight, signs, signs + cols));
    lines_apply(rotation->in.matrix, back, signs, w, rows, cols, 1);
    lines_apply(rotation->out.matrix, back, signs + cols, w, cols, 1, cols);
done:
    free(signs);
    return status;
}

static enum status weight_rotate(struct incoherence *incoherence, struct weight *weight, uint64_t seed) {
    enum status status = STATUS_OK;
    struct backend *backend = incoherence->model->backend;
    int64_t rows = weight->rows, cols = weight->cols;
    struct rng rng = {.seed = seed, .stream = RNG_INCOHERENCE + (uint64_t)weight->index};
    float *signs = mem_new((size_t)(rows + cols), sizeof *signs);
    void *w = NULL;
    signs_draw(rng, 0, signs, cols);
    signs_draw(rng, (uint64_t)(cols + 31) / 32, signs + cols, rows);
    for (int64_t i = 0; i < rows && incoherence->kind == ROTATION_HADAMARD_IN; i++) signs[cols + i] = 1;
    TRY(incoherence_signs_set(incoherence, weight, signs, signs + cols));
    TRY(mem_buffer_new(rows * cols * 4, weight->name, &w));
    TRY(backend_floats_read(backend, weight->stored, w));
    TRY(incoherence_apply(incoherence, weight, false, w));
    TRY(backend_floats_write(backend, weight->stored, w));
done:
    free(signs);
    mem_buffer_free(w);
    return status;
}

enum status incoherence_rotate(struct incoherence *incoherence, uint64_t seed) {
    enum status status = STATUS_OK;
    struct transformer *model = incoherence->model;
    for (int64_t i = 0; i < model->n_weights && !model->backend->fns->plans_only; i++)
        if (model->weights[i].is_linear) TRY(weight_rotate(incoherence, &model->weights[i], seed));
done:
    return status;
}
