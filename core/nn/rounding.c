#include "core/nn/rounding.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdlib.h>

// Runs over the matrices that are rounded.
static struct weight *next_linear(struct transformer *model, int64_t *i) {
    while (*i < model->n_weights) {
        struct weight *weight = &model->weights[(*i)++];
        if (weight->is_linear) return weight;
    }
    return NULL;
}

static enum status grid_op(struct backend *backend, enum op op, const struct weight *w, struct view out) {
    struct op_call call = {.op = op, .in = {w->stored}, .out = {out}, .params.grid = w->grid};
    if (op != OP_grid_scale) call.in[1] = w->scale;
    return backend_run(backend, &call);
}

// Host copies of what decides the neighbours of one matrix.
struct host_weight {
    float *w, *scale, *x;
    int64_t groups, group_cols;
};

static void host_weight_close(struct host_weight *host) {
    mem_buffer_free(host->w);
    mem_buffer_free(host->scale);
    mem_buffer_free(host->x);
    *host = (struct host_weight){0};
}

static enum status host_weight_open(struct backend *backend, const struct weight *weight, struct host_weight *host) {
    enum status status = STATUS_OK;
    int64_t n = weight->rows * weight->cols;
    void *w = NULL, *scale = NULL, *x = NULL;
    *host =
        (struct host_weight){.groups = weight->scale.cols, .group_cols = grid_group_cols(weight->grid, weight->cols)};
    TRY(mem_buffer_new(n * 4, weight->name, &w));
    host->w = w;
    TRY(mem_buffer_new(weight->rows * host->groups * 4, weight->name, &scale));
    host->scale = scale;
    TRY(mem_buffer_new(n * 4, weight->name, &x));
    host->x = x;
    TRY(backend_floats_read(backend, weight->stored, w));
    TRY(backend_floats_read(backend, weight->scale, scale));
done:
    if (status != STATUS_OK) host_weight_close(host);
    return status;
}

enum { PIECE = 1 << 16 };

static struct neighbours host_neighbours(const struct weight *weight, const struct host_weight *host, int64_t i) {
    int64_t row = i / weight->cols, group = i % weight->cols / host->group_cols;
    return grid_neighbours(weight->grid, host->w[i], host->scale[row * host->groups + group]);
}

// Squared distances of n weights from their nearest neighbours; returns how many have no freedom.
static int64_t squared_errors(const struct weight *weight, const struct host_weight *host, int64_t first, int64_t n,
                              double *out) {
    int64_t fixed = 0;
#pragma omp parallel for reduction(+ : fixed)
    for (int64_t i = 0; i < n; i++) {
        struct neighbours near = host_neighbours(weight, host, first + i);
        double w = (double)host->w[first + i], below = w - (double)near.down, above = (double)near.up - w;
        double error = fabs(below) < fabs(above) ? below : above;
        out[i] = error * error;
        fixed += near.down == near.up;
    }
    return fixed;
}

// Adds one matrix to the totals; its error of round-to-nearest is 12 mean (nearest - w)^2, summed in the order of the weights.
static enum status rounding_count(struct rounding *rounding, const struct weight *weight, double *step2) {
    struct host_weight host;
    int64_t n = weight->rows * weight->cols;
    double squares = 0;
    rounding->weights += n;
    rounding->groups += view_count(weight->scale);
    if (rounding->model->backend->fns->plans_only) return STATUS_OK;
    enum status status = host_weight_open(rounding->model->backend, weight, &host);
    if (status != STATUS_OK) return status;
    for (int64_t i = 0; i < weight->rows * host.groups && status == STATUS_OK; i++)
        if (!isfinite(host.scale[i]))
            status = status_set(STATUS_FORMAT, "%s: row %lld is too large for a grid with fp16 scales", weight->name,
                                (long long)(i / host.groups));
    double *errors = mem_new(PIECE, sizeof *errors);
    for (int64_t i = 0; i < n && status == STATUS_OK; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        rounding->fixed += squared_errors(weight, &host, i, m, errors);
        for (int64_t k = 0; k < m; k++) squares += errors[k];
    }
    free(errors);
    *step2 = 12 * squares / (double)n;
    host_weight_close(&host);
    return status;
}

enum status rounding_new(struct transformer *model, const struct grid *grid, enum dtype x, struct rounding **out) {
    enum status status = STATUS_OK;
    struct rounding *rounding = mem_new(1, sizeof *rounding);
    *rounding = (struct rounding){.model = model, .grid = *grid};
    int64_t i = 0, matrices = 0;
    for (struct weight *w; (w = next_linear(model, &i));) {
        double step2 = 0;
        w->grid = &rounding->grid;
        TRY(backend_matrix_new(model->backend, DTYPE_F32, w->rows, grid_groups(grid, w->cols), w->name, &w->scale));
        TRY(backend_matrix_new(model->backend, x, w->rows, w->cols, w->name, &w->x));
        TRY(grid_op(model->backend, OP_grid_scale, w, w->scale));
        TRY(rounding_count(rounding, w, &step2));
        rounding->step2 += step2;
        matrices++;
    }
    rounding->step2 /= (double)matrices;
    rounding->bits_per_weight = grid->bits + 16.0 * (double)rounding->groups / (double)rounding->weights;
    *out = rounding;
    rounding = NULL;
done:
    rounding_free(rounding);
    return status;
}

void rounding_free(struct rounding *rounding) {
    if (!rounding) return;
    struct transformer *model = rounding->model;
    for (int64_t i = 0; i < model->n_weights; i++) {
        struct weight *w = &model->weights[i];
        if (w->grid != &rounding->grid) continue;
        backend_matrix_free(model->backend, &w->scale);
        backend_matrix_free(model->backend, &w->x);
        w->grid = NULL;
        w->form = WEIGHT_STORED;
    }
    free(rounding);
}

enum status rounding_to_nearest(struct rounding *rounding) {
    enum status status = STATUS_OK;
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(rounding->model, &i));)
        TRY(grid_op(rounding->model->backend, OP_grid_offset, w, w->x));
done:
    return status;
}

enum status rounding_random(struct rounding *rounding, uint64_t seed) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    struct host_weight host = {0};
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(rounding->model, &i));) {
        int64_t n = w->rows * w->cols;
        TRY(host_weight_open(backend, w, &host));
        struct rng rng = {.seed = seed, .stream = RNG_INIT + (uint64_t)w->index};
#pragma omp parallel for
        for (int64_t first = 0; first < n; first += PIECE) {
            int64_t end = n - first < PIECE ? n : first + PIECE;
            rng_uniform_fill(rng, (uint64_t)first, host.x + first, end - first);
            for (int64_t k = first; k < end; k++) {
                struct neighbours near = host_neighbours(w, &host, k);
                if (near.down == near.up) host.x[k] = 0;
            }
        }
        TRY(backend_floats_write(backend, w->x, host.x));
        host_weight_close(&host);
    }
done:
    host_weight_close(&host);
    return status;
}

enum status rounding_set(struct rounding *rounding, const double *x) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    void *buffer = NULL;
    int64_t i = 0;
    for (struct weight *w; (w = next_linear(rounding->model, &i));) {
        int64_t n = w->rows * w->cols;
        TRY(mem_buffer_new(n * 4, w->name, &buffer));
        float *host = buffer;
        for (int64_t k = 0; k < n; k++) host[k] = (float)x[k];
        x += n;
        TRY(backend_floats_write(backend, w->x, host));
        mem_buffer_free(buffer);
        buffer = NULL;
    }
done:
    mem_buffer_free(buffer);
    return status;
}

enum status rounding_neighbours(const struct rounding *rounding, const struct weight *weight, float *down, float *up) {
    struct host_weight host;
    enum status status = host_weight_open(rounding->model->backend, weight, &host);
    if (status != STATUS_OK) return status;
#pragma omp parallel for
    for (int64_t i = 0; i < weight->rows * weight->cols; i++) {
        struct neighbours near = host_neighbours(weight, &host, i);
        down[i] = near.down;
        up[i] = near.up;
    }
    host_weight_close(&host);
    return STATUS_OK;
}

enum status rounding_fraction_integral(const struct rounding *rounding, double *fraction) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    int64_t i = 0, integral = 0;
    void *host = NULL;
    for (struct weight *w; (w = next_linear(rounding->model, &i));) {
        int64_t n = w->rows * w->cols;
        TRY(mem_buffer_new(n * 4, w->name, &host));
        TRY(backend_floats_read(backend, w->x, host));
        const float *x = host;
        for (int64_t k = 0; k < n; k++) integral += x[k] <= 0.01f || x[k] >= 0.99f;
        mem_buffer_free(host);
        host = NULL;
    }
    *fraction = (double)integral / (double)rounding->weights;
done:
    mem_buffer_free(host);
    return status;
}

enum status rounding_values(const struct rounding *rounding, const struct weight *weight, float *out) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    struct view rounded = {0};
    TRY(backend_matrix_new(backend, DTYPE_F32, weight->rows, weight->cols, weight->name, &rounded));
    TRY(backend_run(backend, &(struct op_call){.op = OP_grid_round,
                                               .in = {weight->stored, weight->scale, weight->x},
                                               .out = {rounded},
                                               .params.grid = weight->grid}));
    TRY(backend_floats_read(backend, rounded, out));
done:
    backend_matrix_free(backend, &rounded);
    return status;
}
