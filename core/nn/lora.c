#include "core/nn/lora.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SUFFIX = sizeof ".weight" - 1 };

enum status lora_new(struct transformer *model, int64_t rank, double alpha, struct lora **out) {
    REQUIRE(rank > 0, "an adapter has a rank");
    struct lora *lora = mem_new(1, sizeof *lora);
    *lora = (struct lora){.model = model, .rank = rank, .alpha = alpha, .scaling = alpha / (double)rank};
    lora->weights = mem_new(2 * (size_t)model->n_weights, sizeof *lora->weights);
    *out = lora;
    return STATUS_OK;
}

void lora_free(struct lora *lora) {
    if (!lora) return;
    struct backend *backend = lora->model->backend;
    for (int64_t i = 0; i < lora->model->n_weights; i++) {
        struct weight *weight = &lora->model->weights[i];
        if (weight->adapter[0]) weight->adapter[0] = weight->adapter[1] = NULL;
    }
    for (int64_t i = 0; i < lora->n_weights; i++) {
        struct weight *weight = &lora->weights[i];
        struct view *views[] = {&weight->stored, &weight->grad, &weight->direction};
        for (size_t k = 0; k < sizeof views / sizeof *views; k++) backend_matrix_free(backend, views[k]);
        free(weight->name);
    }
    free(lora->weights);
    free(lora);
}

static enum status add_matrix(struct lora *lora, const struct weight *of, char letter, int64_t rows, int64_t cols) {
    struct weight *weight = &lora->weights[lora->n_weights];
    *weight = (struct weight){
        .name = mem_format("%.*s.lora_%c.weight", (int)(strlen(of->name) - NAME_SUFFIX), of->name, letter),
        .rows = rows,
        .cols = cols,
        .index = lora->model->n_weights + 2 * of->index + (letter == 'B'),
        .file_dtype = DTYPE_F32,
    };
    lora->n_weights++;
    lora->parameters += rows * cols;
    return backend_matrix_new(lora->model->backend, DTYPE_F32, rows, cols, weight->name, &weight->stored);
}

enum status lora_add(struct lora *lora, struct weight *weight) {
    REQUIRE(weight->is_linear && !weight->adapter[0], "a matrix inside a layer has one adapter");
    enum status status = STATUS_OK;
    struct weight *a = &lora->weights[lora->n_weights], *b = a + 1;
    TRY(add_matrix(lora, weight, 'A', lora->rank, weight->cols));
    TRY(add_matrix(lora, weight, 'B', weight->rows, lora->rank));
    weight->adapter[0] = a;
    weight->adapter[1] = b;
done:
    return status;
}

// Whether `name` [length] is the weight's module or ends it after a dot.
static bool is_named(const struct weight *weight, const char *name, size_t length) {
    size_t n = strlen(weight->name) - NAME_SUFFIX;
    if (length == 0 || length > n || strncmp(weight->name + n - length, name, length) != 0) return false;
    return length == n || weight->name[n - length - 1] == '.';
}

static enum status refuse_name(const struct transformer *model, const char *name, size_t length) {
    char there[512] = "";
    size_t n = 0;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        if (!weight->is_linear || strncmp(weight->name, "model.layers.0.", strlen("model.layers.0.")) != 0) continue;
        const char *last = strrchr(weight->name, '.'), *dot = last;
        while (dot[-1] != '.') dot--;
        n += (size_t)snprintf(there + n, sizeof there - n, "%s%.*s", n ? ", " : "", (int)(last - dot), dot);
    }
    return status_set(STATUS_INVALID, "'%.*s' is no matrix inside the model's layers; there are %s", (int)length, name,
                      there);
}

enum status lora_add_named(struct lora *lora, const char *names) {
    enum status status = STATUS_OK;
    struct transformer *model = lora->model;
    bool all = !names || strcmp(names, "all") == 0;
    for (int64_t i = 0; all && i < model->n_weights; i++)
        if (model->weights[i].is_linear && !model->weights[i].adapter[0]) TRY(lora_add(lora, &model->weights[i]));
    for (const char *name = names; !all && name;) {
        size_t length = strcspn(name, ",");
        int64_t found = 0;
        for (int64_t i = 0; i < model->n_weights; i++) {
            struct weight *weight = &model->weights[i];
            if (!weight->is_linear || !is_named(weight, name, length)) continue;
            found++;
            if (!weight->adapter[0]) TRY(lora_add(lora, weight));
        }
        if (!found) TRY(refuse_name(model, name, length));
        name = name[length] ? name + length + 1 : NULL;
    }
done:
    return status;
}

enum status lora_start(struct lora *lora, uint64_t seed) {
    enum status status = STATUS_OK;
    struct transformer *model = lora->model;
    void *buffer = NULL;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *const *adapter = model->weights[i].adapter;
        if (!adapter[0]) continue;
        int64_t n = adapter[0]->rows * adapter[0]->cols;
        TRY(mem_buffer_new(n * (int64_t)sizeof(float), adapter[0]->name, &buffer));
        float *a = buffer, bound = 1 / sqrtf((float)adapter[0]->cols);
        rng_uniform_fill((struct rng){.seed = seed, .stream = RNG_ADAPTER + (uint64_t)i}, 0, a, n);
        for (int64_t k = 0; k < n; k++) a[k] = bound * (2 * a[k] - 1);
        TRY(backend_floats_write(model->backend, adapter[0]->stored, a));
        TRY(backend_run(model->backend,
                        &(struct op_call){.op = OP_fill, .out = {adapter[1]->stored}, .params.value = 0}));
        mem_buffer_free(buffer);
        buffer = NULL;
    }
done:
    mem_buffer_free(buffer);
    return status;
}

enum status lora_merge(const struct lora *lora, const struct weight *weight, float *w) {
    if (!weight->adapter[0]) return STATUS_OK;
    enum status status = STATUS_OK;
    int64_t rows = weight->rows, cols = weight->cols, rank = lora->rank;
    void *a_buffer = NULL, *b_buffer = NULL;
    TRY(mem_buffer_new(rank * cols * (int64_t)sizeof(float), weight->adapter[0]->name, &a_buffer));
    TRY(mem_buffer_new(rows * rank * (int64_t)sizeof(float), weight->adapter[1]->name, &b_buffer));
    const float *a = a_buffer, *b = b_buffer;
    TRY(backend_floats_read(lora->model->backend, weight->adapter[0]->stored, a_buffer));
    TRY(backend_floats_read(lora->model->backend, weight->adapter[1]->stored, b_buffer));
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = w[r * cols + c];
            for (int64_t k = 0; k < rank; k++) sum += (double)b[r * rank + k] * (double)a[k * cols + c];
            w[r * cols + c] = (float)sum;
        }
done:
    mem_buffer_free(a_buffer);
    mem_buffer_free(b_buffer);
    return status;
}
