#include "walk/device.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PART_NUMBERS = 1 << 21, PART_LEAST = 256 };

enum status device_matrix_new(struct backend *backend, const double *a, int64_t n, int64_t stride,
                              struct device_matrix **out) {
    enum status status = STATUS_OK;
    struct device_matrix *d = mem_new(1, sizeof *d);
    *d = (struct device_matrix){.backend = backend, .n = n, .stride = stride};
    if (n > INT32_MAX || stride > ROWS_PASS_COLS) {
        status =
            status_set(STATUS_INVALID,
                       "%lld constraints on %lld coordinates: --device %s takes at most %d of the former and 2^31 of "
                       "the latter; take --device cpu",
                       (long long)stride, (long long)n, backend->fns->name, ROWS_PASS_COLS);
        goto done;
    }
    d->part_rows = PART_NUMBERS / stride > PART_LEAST ? PART_NUMBERS / stride : PART_LEAST;
    if (d->part_rows > n) d->part_rows = n;
    TRY(backend_matrix_new(backend, DTYPE_F64, n, stride, "the matrix of constraints", &d->q));
    TRY(backend_matrix_new(backend, DTYPE_F64, d->part_rows, stride, "rows of the constraints", &d->part));
    TRY(backend_matrix_new(backend, DTYPE_F64, d->part_rows, stride, "rows of the constraints", &d->products));
    TRY(backend_write(backend, d->q, a));
    *out = d;
    d = NULL;
done:
    device_matrix_free(d);
    return status;
}

void device_matrix_free(struct device_matrix *d) {
    if (!d) return;
    struct view *const views[] = {&d->q, &d->part, &d->products};
    for (int i = 0; i < 3; i++) backend_matrix_free(d->backend, views[i]);
    free(d);
}

enum status device_matrix_gram(struct device_matrix *d, int64_t m, double *gram) {
    enum status status = STATUS_OK;
    struct view g = {0};
    TRY(backend_matrix_new(d->backend, DTYPE_F64, m, m, "Gram matrix", &g));
    TRY(backend_run(
        d->backend,
        &(struct op_call){.op = OP_gram, .in = {view_cols(d->q, 0, m)}, .out = {g}, .params.scaled = {.factor = 1}}));
    TRY(backend_read(d->backend, g, gram));
    TRY(backend_sync(d->backend));
done:
    backend_matrix_free(d->backend, &g);
    return status;
}

enum status device_matrix_transform(struct device_matrix *d, const double *map, int64_t m) {
    enum status status = STATUS_OK;
    struct view on_device = {0};
    TRY(backend_matrix_new(d->backend, DTYPE_F64, m, m, "a map of directions", &on_device));
    TRY(backend_write(d->backend, on_device, map));
    for (int64_t first = 0; first < d->n; first += d->part_rows) {
        int64_t rows = d->n - first < d->part_rows ? d->n - first : d->part_rows;
        struct view a = view_cols(view_rows(d->q, first, rows), 0, m);
        struct view to = view_cols(view_rows(d->part, 0, rows), 0, m);
        TRY(backend_run(
            d->backend,
            &(struct op_call){.op = OP_product, .in = {a, on_device}, .out = {to}, .params.scaled = {.factor = 1}}));
        TRY(backend_run(d->backend, &(struct op_call){.op = OP_rows_gather, .in = {to}, .out = {a}}));
    }
    TRY(backend_sync(d->backend)); // `map` is the caller's
done:
    backend_matrix_free(d->backend, &on_device);
    return status;
}

enum status device_matrix_read(struct device_matrix *d, double *a) {
    enum status status = STATUS_OK;
    TRY(backend_read(d->backend, d->q, a));
    TRY(backend_sync(d->backend));
done:
    return status;
}

enum status device_eigen(struct backend *backend, double *gram, int64_t size, double *values) {
    enum status status = STATUS_OK;
    struct view a = {0}, v = {0};
    double *rows = NULL;
    if (size == 0) return STATUS_OK;
    rows = mem_new((size_t)(size * size + size), 8);
    TRY(backend_matrix_new(backend, DTYPE_F64, size, size, "eigenvectors", &a));
    TRY(backend_matrix_new(backend, DTYPE_F64, size, 1, "eigenvalues", &v));
    TRY(backend_write(backend, a, gram));
    TRY(backend_run(backend, &(struct op_call){.op = OP_eigh, .in = {a}, .out = {v}}));
    TRY(backend_read(backend, a, rows));
    TRY(backend_read(backend, v, rows + size * size));
    TRY(backend_sync(backend));
    for (int64_t k = 0; k < size; k++) { // rising to falling
        values[k] = rows[size * size + size - 1 - k];
        memcpy(gram + k * size, rows + (size - 1 - k) * size, (size_t)size * 8);
    }
done:
    backend_matrix_free(backend, &a);
    backend_matrix_free(backend, &v);
    free(rows);
    return status;
}

enum status device_inverse_triangle(struct backend *backend, const double *gram, int64_t m, int64_t size, double *map) {
    enum status status = STATUS_OK;
    struct view a = {0}, inverse = {0};
    double *block = NULL;
    if (size == 0) return STATUS_OK;
    block = mem_new((size_t)(size * size), 8);
    for (int64_t i = 0; i < size; i++) memcpy(block + i * size, gram + i * m, (size_t)size * 8);
    TRY(backend_matrix_new(backend, DTYPE_F64, size, size, "a factor", &a));
    TRY(backend_matrix_new(backend, DTYPE_F64, size, size, "a factor", &inverse));
    TRY(backend_write(backend, a, block));
    TRY(backend_run(backend, &(struct op_call){.op = OP_cholesky, .in = {a}, .out = {a}}));
    TRY(backend_run(backend, &(struct op_call){.op = OP_triangle_inverse, .in = {a}, .out = {inverse}}));
    TRY(backend_read(backend, inverse, block));
    TRY(backend_sync(backend));
    for (int64_t i = 0; i < size; i++) // R^-1 is the transpose of L^-1
        for (int64_t j = 0; j < size; j++) map[i * m + j] = block[j * size + i];
done:
    backend_matrix_free(backend, &a);
    backend_matrix_free(backend, &inverse);
    free(block);
    return status;
}
