#include "discquant/hessian.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void add_part(struct hessian *self, int64_t first, int64_t n) {
    int64_t cols = first + n;
#pragma omp parallel for if (n * cols > 1 << 14)
    for (int64_t i = 0; i < n; i++) {
        double *to = self->sum + (first + i) * self->n;
        const float *from = self->part + i * cols;
        for (int64_t j = 0; j <= first + i; j++) to[j] += (double)from[j];
    }
}

static enum status take(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x) {
    enum status status = STATUS_OK;
    struct hessian *self = (struct hessian *)tap;
    struct backend *backend = step_backend(step);
    REQUIRE(x.cols == self->n && weight->cols == self->n, "the inputs are the Hessian's");
    for (int64_t first = 0; first < self->n; first += HESSIAN_BLOCK) {
        int64_t n = self->n - first < HESSIAN_BLOCK ? self->n - first : HESSIAN_BLOCK;
        struct step_mark mark = step_mark(step);
        struct view product;
        TRY(step_take(step, DTYPE_F32, n, first + n, &product));
        TRY(backend_run(backend, &(struct op_call){.op = OP_matmul,
                                                   .in = {view_cols(x, first, n), view_cols(x, 0, first + n)},
                                                   .out = {product},
                                                   .params.matmul.transpose_a = true}));
        TRY(backend_floats_read(backend, product, self->part));
        add_part(self, first, n);
        step_release(step, mark);
    }
    self->rows += x.rows;
done:
    return status;
}

enum status hessian_new(int64_t n, const char *name, struct hessian **out) {
    enum status status = STATUS_OK;
    struct hessian *self = mem_new(1, sizeof *self);
    *self = (struct hessian){.tap.take = take, .n = n};
    void *sum = NULL, *part = NULL;
    TRY(mem_buffer_new(n * n * (int64_t)sizeof *self->sum, name, &sum));
    self->sum = sum;
    memset(sum, 0, (size_t)(n * n) * sizeof *self->sum);
    TRY(mem_buffer_new(HESSIAN_BLOCK * n * (int64_t)sizeof *self->part, name, &part));
    self->part = part;
    *out = self;
    self = NULL;
done:
    hessian_free(self);
    return status;
}

void hessian_free(struct hessian *self) {
    if (!self) return;
    mem_buffer_free(self->sum);
    mem_buffer_free(self->part);
    free(self);
}

enum status hessian_check(const struct hessian *self, const char *name) {
    for (int64_t i = 0; i < self->n; i++)
        for (int64_t j = 0; j <= i; j++)
            if (!isfinite(self->sum[i * self->n + j]))
                return status_set(STATUS_INVALID,
                                  "%s: the Hessian of its calibration inputs has a number that is not finite (inputs "
                                  "%lld and %lld); look for NaN or very large weights in the layers before it",
                                  name, (long long)i, (long long)j);
    return STATUS_OK;
}

double hessian_error(const struct hessian *self, const float *e, int64_t rows) {
    double sum = 0, *of_row = mem_new((size_t)rows, sizeof *of_row);
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
        const float *row = e + r * self->n;
        for (int64_t i = 0; i < self->n; i++) {
            const double *h = self->sum + i * self->n;
            double below = 0;
            for (int64_t j = 0; j < i; j++) below += h[j] * (double)row[j];
            of_row[r] += (double)row[i] * (2 * below + h[i] * (double)row[i]);
        }
    }
    for (int64_t r = 0; r < rows; r++) sum += of_row[r];
    free(of_row);
    return sum;
}
