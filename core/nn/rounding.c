#include "core/nn/rounding.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/quant/grid_fit.h"

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
    struct op_call call = {.op = op, .in = {w->stored, w->scale}, .out = {out}, .params.grid = w->grid};
    return backend_run(backend, &call);
}

// Host copies of what decides the neighbours of one matrix.
struct host_weight {
    float *w, *scale, *x;
    int64_t group_cols, groups, scale_cols;
};

static void host_weight_close(struct host_weight *host) {
    mem_buffer_free(host->w);
    mem_buffer_free(host->scale);
    mem_buffer_free(host->x);
    *host = (struct host_weight){0};
}

// With the stored weights; x and the scales have room only.
static enum status host_weight_new(struct backend *backend, const struct weight *weight, struct host_weight *host) {
    enum status status = STATUS_OK;
    int64_t n = weight->rows * weight->cols;
    void *w = NULL, *scale = NULL, *x = NULL;
    *host = (struct host_weight){.group_cols = grid_group_cols(weight->grid, weight->cols),
                                 .groups = grid_groups(weight->grid, weight->cols),
                                 .scale_cols = weight->scale.cols};
    TRY(mem_buffer_new(n * 4, weight->name, &w));
    host->w = w;
    TRY(mem_buffer_new(weight->rows * host->scale_cols * 4, weight->name, &scale));
    host->scale = scale;
    TRY(mem_buffer_new(n * 4, weight->name, &x));
    host->x = x;
    TRY(backend_floats_read(backend, weight->stored, w));
done:
    if (status != STATUS_OK) host_weight_close(host);
    return status;
}

static enum status host_weight_open(struct backend *backend, const struct weight *weight, struct host_weight *host) {
    enum status status = STATUS_OK;
    TRY(host_weight_new(backend, weight, host));
    TRY(backend_floats_read(backend, weight->scale, host->scale));
done:
    if (status != STATUS_OK) host_weight_close(host);
    return status;
}

// Scale and offset of weight i.
static float map_of(const struct weight *weight, const struct host_weight *host, int64_t i, float *offset) {
    const float *row = host->scale + i / weight->cols * host->scale_cols;
    int64_t group = i % weight->cols / host->group_cols;
    *offset = weight->grid->has_offset ? row[host->groups + group] : 0;
    return row[group];
}

enum { PIECE = 1 << 16 };

static struct neighbours host_neighbours(const struct weight *weight, const struct host_weight *host, int64_t i) {
    float offset, scale = map_of(weight, host, i, &offset);
    return grid_neighbours(weight->grid, host->w[i], scale, offset);
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

// Its error of round-to-nearest is 12 mean (nearest - w)^2, summed in the order of the weights.
static double rounding_count(struct rounding *rounding, const struct weight *weight, const struct host_weight *host) {
    int64_t n = weight->rows * weight->cols;
    double squares = 0, *errors = mem_new(PIECE, sizeof *errors);
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        rounding->fixed += squared_errors(weight, host, i, m, errors);
        for (int64_t k = 0; k < m; k++) squares += errors[k];
    }
    free(errors);
    return 12 * squares / (double)n;
}

// Scales of one matrix, and its share of the totals.
static enum status rounding_fit(struct rounding *rounding, const struct weight *weight) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    struct host_weight host = {0};
    if (backend->fns->plans_only) return STATUS_OK;
    TRY(host_weight_new(backend, weight, &host));
    TRY(grid_fit(weight->grid, weight->name, host.w, weight->rows, weight->cols, host.scale));
    rounding->step2 += rounding_count(rounding, weight, &host);
    TRY(backend_floats_write(backend, weight->scale, host.scale));
done:
    host_weight_close(&host);
    return status;
}

enum status rounding_new(struct transformer *model, const struct grid *grid, enum dtype x, struct rounding **out) {
    enum status status = STATUS_OK;
    struct rounding *rounding = mem_new(1, sizeof *rounding);
    *rounding = (struct rounding){.model = model, .grid = *grid, .form = WEIGHT_ROUNDED};
    int64_t i = 0, matrices = 0;
    double bits = 0;
    for (struct weight *w; (w = next_linear(model, &i));) {
        int64_t n = w->rows * w->cols;
        TRY(grid_check(grid, w->name, w->cols));
        w->grid = &rounding->grid;
        TRY(backend_matrix_new(model->backend, DTYPE_F32, w->rows, grid_scale_cols(grid, w->cols), w->name, &w->scale));
        TRY(backend_matrix_new(model->backend, x, w->rows, w->cols, w->name, &w->x));
        TRY(rounding_fit(rounding, w));
        rounding->weights += n;
        rounding->groups += w->rows * grid_groups(grid, w->cols);
        bits += grid_bits_per_weight(grid, w->rows, w->cols) * (double)n;
        matrices++;
    }
    rounding->step2 /= (double)matrices;
    rounding->bits_per_weight = bits / (double)rounding->weights;
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
    rounding->form = WEIGHT_ROUNDED;
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

enum status rounding_values(const struct rounding *rounding, const struct weight *weight, float *values) {
    enum status status = STATUS_OK;
    struct backend *backend = rounding->model->backend;
    struct view rounded = {0};
    struct op_call call = {
        .op = OP_grid_round, .in = {weight->stored, weight->scale, weight->x}, .params.grid = weight->grid};
    if (rounding->form == WEIGHT_STRAIGHT) {
        call.op = OP_grid_nearest;
        call.in[0] = weight->x;
        call.in[2] = (struct view){0};
    }
    TRY(backend_matrix_new(backend, DTYPE_F32, weight->rows, weight->cols, weight->name, &rounded));
    call.out[0] = rounded;
    TRY(backend_run(backend, &call));
    TRY(backend_floats_read(backend, rounded, values));
done:
    backend_matrix_free(backend, &rounded);
    return status;
}

enum status rounding_codes(const struct rounding *rounding, const struct weight *weight, uint8_t *codes) {
    enum status status = STATUS_OK;
    struct host_weight host = {0};
    TRY(host_weight_open(rounding->model->backend, weight, &host));
    TRY(rounding_values(rounding, weight, host.x));
#pragma omp parallel for
    for (int64_t i = 0; i < weight->rows * weight->cols; i++) {
        float offset, scale = map_of(weight, &host, i, &offset);
        int code = grid_code(weight->grid, host.x[i], scale, offset);
        REQUIRE(grid_value(weight->grid, code, scale, offset) == host.x[i], "a rounded weight lies on its grid");
        codes[i] = (uint8_t)code;
    }
done:
    host_weight_close(&host);
    return status;
}

enum status rounding_scales(const struct rounding *rounding, const struct weight *weight, float *scale) {
    return backend_floats_read(rounding->model->backend, weight->scale, scale);
}

enum status rounding_set_latent(struct rounding *rounding, const struct weight *weight, float *latent) {
    enum status status = backend_floats_write(rounding->model->backend, weight->x, latent);
    if (status == STATUS_OK) rounding->form = WEIGHT_STRAIGHT;
    return status;
}
