#include "data/adamw.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

static enum status fill_zero(struct backend *backend, struct view v) {
    return backend_run(backend, &(struct op_call){.op = OP_fill, .out = {v}, .params.value = 0});
}

enum status adamw_new(struct backend *backend, struct weight *weights, int64_t n, struct adamw **out) {
    enum status status = STATUS_OK;
    struct adamw *self = mem_new(1, sizeof *self);
    *self = (struct adamw){.backend = backend, .weights = weights, .n = n};
    self->m = mem_new((size_t)n, sizeof *self->m);
    self->v = mem_new((size_t)n, sizeof *self->v);
    for (int64_t i = 0; i < n; i++) {
        struct weight *w = &weights[i];
        TRY(backend_matrix_new(backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
        TRY(backend_matrix_new(backend, DTYPE_F32, w->rows, w->cols, "first moment", &self->m[i]));
        TRY(backend_matrix_new(backend, DTYPE_F32, w->rows, w->cols, "second moment", &self->v[i]));
        TRY(fill_zero(backend, self->m[i]));
        TRY(fill_zero(backend, self->v[i]));
        w->sink = &accumulate_sink;
    }
    *out = self;
    self = NULL;
done:
    adamw_free(self);
    return status;
}

void adamw_free(struct adamw *self) {
    if (!self) return;
    for (int64_t i = 0; i < self->n; i++) {
        backend_matrix_free(self->backend, &self->m[i]);
        backend_matrix_free(self->backend, &self->v[i]);
        backend_matrix_free(self->backend, &self->weights[i].grad);
        self->weights[i].sink = NULL;
    }
    free(self->m);
    free(self->v);
    free(self);
}

enum status adamw_zero(const struct adamw *self) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < self->n; i++) TRY(fill_zero(self->backend, self->weights[i].grad));
done:
    return status;
}

enum status adamw_update(const struct adamw *self, int64_t i, struct adamw_params params) {
    struct weight *w = &self->weights[i];
    params.eps = 1e-8;
    params.low = -INFINITY;
    params.high = INFINITY;
    return backend_run(self->backend, &(struct op_call){.op = OP_adamw,
                                                        .in = {w->stored, self->m[i], self->v[i], w->grad},
                                                        .out = {w->stored},
                                                        .params.adamw = params});
}

// ---- state ----

enum { ARRAYS = 3 };

// The k-th array of weight i and its name in a checkpoint; free with free().
static struct view state_array(const struct adamw *self, const char *prefix, int64_t i, int k, char **name) {
    const struct view arrays[ARRAYS] = {self->weights[i].stored, self->m[i], self->v[i]};
    *name = mem_format("%s%c.%lld", prefix, "wmv"[k], (long long)i);
    return arrays[k];
}

// Every array to or from a checkpoint; the other is NULL.
static enum status state_move(const struct adamw *self, const char *prefix, struct checkpoint *to,
                              const struct checkpoint *from) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < ARRAYS * self->n && status == STATUS_OK; i++) {
        char *name;
        struct view array = state_array(self, prefix, i / ARRAYS, (int)(i % ARRAYS), &name);
        status = to ? checkpoint_add_view(to, name, self->backend, array)
                    : checkpoint_view(from, name, self->backend, array);
        free(name);
    }
    return status;
}

enum status adamw_save(const struct adamw *self, const char *prefix, struct checkpoint *state) {
    return state_move(self, prefix, state, NULL);
}

enum status adamw_load(struct adamw *self, const char *prefix, const struct checkpoint *state) {
    return state_move(self, prefix, NULL, state);
}
