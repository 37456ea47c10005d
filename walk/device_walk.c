// A walk on a device (device.h): the ops of a step, in the order of state.c.
#include "walk/device.h"

#include "core/base/mem.h"
#include "walk/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SUMS = 3 };

// G^-1 = half^T half in its first `rank` rows.
struct system {
    struct view half; // [size, size]
};

struct device_walk {
    struct device_matrix *matrix; // the frame's
    struct backend *backend;
    int64_t size;           // of systems: the rank, at least 1
    int64_t width;          // columns of Q that passes read: the frame's width, at least 8
    bool x_is_new;          // x of the host has numbers that the device lacks
    struct view q, columns; // [n, width], [n, size] of the matrix
    struct view list;       // [n, 1] I32
    struct view x, y, zeros, position, direction, points, taken; // [n, 1] but taken [1, 1]
    struct view c, rhs, half_way, sums;                          // [SUMS, width], [SUMS, size] twice, [SUMS, width]
    struct view weights;                                         // [SUMS, part_rows]
    struct view gram, start, before, factor;                     // [size, size]
    struct view diagonal, squares;                               // [size, 1], [part_rows, 1]
    struct view power[2], power_half, power_other;               // [1, size]
    struct system system, trial;
    int32_t *ids;  // [n] scratch of the host
    double *small; // [SUMS * width + size] scratch of the host
    double *block; // [size, size] scratch of the host
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

// ---- memory

static int views_of(struct device_walk *w, struct view **all) {
    struct view *const views[] = {&w->list,      &w->x,          &w->y,           &w->zeros,       &w->position,
                                  &w->direction, &w->points,     &w->taken,       &w->c,           &w->rhs,
                                  &w->half_way,  &w->sums,       &w->weights,     &w->gram,        &w->start,
                                  &w->before,    &w->factor,     &w->diagonal,    &w->squares,     &w->power[0],
                                  &w->power[1],  &w->power_half, &w->power_other, &w->system.half, &w->trial.half};
    memcpy(all, views, sizeof views);
    return (int)(sizeof views / sizeof *views);
}

void device_walk_free(struct device_walk *w) {
    struct view *views[32];
    if (!w) return;
    for (int i = 0, n = views_of(w, views); i < n; i++) backend_matrix_free(w->backend, views[i]);
    mem_buffer_free(w->ids);
    mem_buffer_free(w->small);
    mem_buffer_free(w->block);
    free(w);
}

static enum status take_views(struct device_walk *w, int64_t n) {
    enum status status = STATUS_OK;
    int64_t size = w->size, width = w->width, part = w->matrix->part_rows;
    const struct {
        struct view *view;
        int64_t rows, cols;
    } wanted[] = {{&w->x, n, 1},
                  {&w->y, n, 1},
                  {&w->zeros, n, 1},
                  {&w->position, n, 1},
                  {&w->direction, n, 1},
                  {&w->points, n, 1},
                  {&w->taken, 1, 1},
                  {&w->c, SUMS, width},
                  {&w->rhs, SUMS, size},
                  {&w->half_way, SUMS, size},
                  {&w->sums, SUMS, width},
                  {&w->weights, SUMS, part},
                  {&w->gram, size, size},
                  {&w->start, size, size},
                  {&w->before, size, size},
                  {&w->factor, size, size},
                  {&w->diagonal, size, 1},
                  {&w->squares, part, 1},
                  {&w->power[0], 1, size},
                  {&w->power[1], 1, size},
                  {&w->power_half, 1, size},
                  {&w->power_other, 1, size},
                  {&w->system.half, size, size},
                  {&w->trial.half, size, size}};
    TRY(backend_matrix_new(w->backend, DTYPE_I32, n, 1, "a list of coordinates", &w->list));
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        TRY(backend_matrix_new(w->backend, DTYPE_F64, wanted[i].rows, wanted[i].cols, "numbers of a walk",
                               wanted[i].view));
done:
    return status;
}

static enum status take_host(struct device_walk *w, int64_t n) {
    enum status status = STATUS_OK;
    void *p = NULL;
    TRY(mem_buffer_new(n * (int64_t)sizeof *w->ids, "a list of coordinates", &p));
    w->ids = p;
    TRY(mem_buffer_new((SUMS * w->width + w->size) * 8, "numbers of a walk", &p));
    w->small = p;
    TRY(mem_buffer_new(w->size * w->size * 8, "numbers of a walk", &p));
    w->block = p;
done:
    return status;
}

enum status device_walk_new(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct device_walk *w = mem_new(1, sizeof *w);
    w->matrix = s->frame->device, w->backend = w->matrix->backend;
    w->size = max_i64(s->rank, 1), w->width = max_i64(s->width, 8), w->x_is_new = true;
    w->q = view_cols(w->matrix->q, 0, w->width), w->columns = view_cols(w->q, 0, w->size);
    TRY(take_views(w, s->n));
    TRY(take_host(w, s->n));
    memset(w->small, 0, (size_t)(SUMS * w->width) * 8);
    TRY(backend_write(w->backend, w->c, w->small)); // zeros beyond `size` stay
    TRY(backend_write(w->backend, w->y, s->y));
    memset(s->direction, 0, (size_t)s->n * 8);
    TRY(backend_write(w->backend, w->zeros, s->direction));
    TRY(backend_sync(w->backend));
    s->device = w;
    w = NULL;
done:
    device_walk_free(w);
    return status;
}

// ---- pieces

static enum status copy(struct device_walk *w, struct view from, struct view to) {
    return backend_run(w->backend, &(struct op_call){.op = OP_rows_gather, .in = {from}, .out = {to}});
}

// y (+)= factor op(a) op(b)
static enum status product(struct device_walk *w, struct view a, struct view b, struct view y, bool ta, bool tb,
                           bool add) {
    return backend_run(
        w->backend,
        &(struct op_call){.op = OP_product, .accumulate = add, .in = {a, b}, .out = {y}, .params.scaled = {1, ta, tb}});
}

static enum status read_now(struct device_walk *w, struct view from, void *to) {
    enum status status = backend_read(w->backend, from, to);
    return status == STATUS_OK ? backend_sync(w->backend) : status;
}

// Rows `ids` of Q to the matrix' part; at most part_rows of them.
static enum status gather(struct device_walk *w, const int64_t *ids, int64_t n, struct view *out) {
    enum status status = STATUS_OK;
    struct view list = view_rows(w->list, 0, n);
    for (int64_t k = 0; k < n; k++) w->ids[k] = (int32_t)ids[k];
    *out = view_cols(view_rows(w->matrix->part, 0, n), 0, w->width);
    TRY(backend_write(w->backend, list, w->ids));
    TRY(backend_run(w->backend, &(struct op_call){.op = OP_rows_gather, .in = {w->q, list}, .out = {*out}}));
    TRY(backend_sync(w->backend)); // w->ids is free again
done:
    return status;
}

static enum status add_gram(struct device_walk *w, struct view rows, double factor) {
    return backend_run(w->backend, &(struct op_call){.op = OP_gram,
                                                     .accumulate = true,
                                                     .in = {view_cols(rows, 0, w->size)},
                                                     .out = {w->gram},
                                                     .params.scaled = {.factor = factor}});
}

static enum status add_rows_gram(struct device_walk *w, const int64_t *ids, int64_t n, double factor) {
    enum status status = STATUS_OK;
    int64_t most = w->matrix->part_rows;
    struct view rows;
    for (int64_t first = 0; first < n; first += most) {
        TRY(gather(w, ids + first, min_i64(most, n - first), &rows));
        TRY(add_gram(w, rows, factor));
    }
done:
    return status;
}

static enum status set_gram(struct device_walk *w, double diagonal) {
    memset(w->block, 0, (size_t)(w->size * w->size) * 8);
    for (int64_t k = 0; k < w->size; k++) w->block[k * (w->size + 1)] = diagonal;
    enum status status = backend_write(w->backend, w->gram, w->block);
    return status == STATUS_OK ? backend_sync(w->backend) : status;
}

// The diagonal of a [size, size] matrix, to w->small.
static enum status read_diagonal(struct device_walk *w, struct view a) {
    enum status status = STATUS_OK;
    struct view diagonal = {a.data, w->size, 1, a.stride + 1, a.dtype};
    TRY(copy(w, diagonal, w->diagonal));
    TRY(read_now(w, w->diagonal, w->small));
done:
    return status;
}

// ---- the Gram matrix

enum status device_trace(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    TRY(read_diagonal(w, w->gram));
    s->gram_trace = 1e-300;
    for (int64_t k = 0; k < s->rank; k++) s->gram_trace += w->small[k];
done:
    return status;
}

enum status device_gram(struct walk_state *s) {
    enum status status = STATUS_OK;
    TRY(set_gram(s->device, 0));
    TRY(add_rows_gram(s->device, s->free, s->n_free, 1));
    TRY(device_trace(s));
done:
    return status;
}

// Without constraints the one system there is, is that of an empty column.
enum status device_gram_without(struct walk_state *s, const int64_t *ids, int64_t n) {
    enum status status = STATUS_OK;
    TRY(set_gram(s->device, s->rank ? 1 : 0));
    TRY(add_rows_gram(s->device, ids, n, -1));
    TRY(device_trace(s));
done:
    return status;
}

enum status device_take_off(struct walk_state *s, const struct gram_sums *sums, int64_t first, int64_t end) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t most = w->matrix->part_rows;
    struct view rows, to = view_rows(w->sums, 0, sums->n);
    if (first == end) return STATUS_OK;
    for (int64_t at = first; at < end; at += most) {
        int64_t n = min_i64(most, end - at);
        TRY(gather(w, s->leave_ids + at, n, &rows));
        TRY(add_gram(w, rows, -1));
        for (int k = 0; k < sums->n; k++)
            TRY(backend_write(w->backend, view_cols(view_rows(w->weights, k, 1), 0, n), sums->weight[k] + at));
        TRY(product(w, view_cols(view_rows(w->weights, 0, sums->n), 0, n), rows, to, false, false, at > first));
    }
    TRY(read_now(w, to, w->small));
    for (int k = 0; k < sums->n; k++)
        for (int64_t j = 0; j < s->width; j++) sums->sum[k][j] += w->small[k * w->width + j];
done:
    return status;
}

enum status device_keep_start(struct walk_state *s) { return copy(s->device, s->device->gram, s->device->start); }
enum status device_keep_before(struct walk_state *s) { return copy(s->device, s->device->gram, s->device->before); }
enum status device_back_to_start(struct walk_state *s) { return copy(s->device, s->device->start, s->device->gram); }

enum status device_gram_read(struct walk_state *s) {
    return s->rank ? read_now(s->device, s->device->gram, s->gram) : STATUS_OK;
}

// ---- systems

// Eigenvectors over the roots of their eigenvalues, strongest first, without those that solver_factor drops.
static enum status factor_eigen(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t size = w->size, rank = 0;
    TRY(read_now(w, w->gram, w->block));
    TRY(device_eigen(w->backend, w->block, size, w->small));
    for (int64_t k = 0; k < size; k++)
        if (w->small[k] > 1e-12 * w->small[0]) rank = k + 1;
    if (rank == size) rank = size - 1;
    for (int64_t k = 0; k < size; k++)
        for (int64_t j = 0; j < size; j++) w->block[k * size + j] *= k < rank ? 1 / sqrt(w->small[k]) : 0;
    TRY(backend_write(w->backend, w->trial.half, w->block));
    TRY(backend_sync(w->backend));
    s->trial.rank = rank;
done:
    return status;
}

enum status device_factor(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    double smallest = INFINITY, largest = 0;
    TRY(copy(w, w->gram, w->factor));
    status = backend_run(w->backend, &(struct op_call){.op = OP_cholesky, .in = {w->factor}, .out = {w->factor}});
    if (status == STATUS_INVALID) return factor_eigen(s); // not positive definite; NaN fails there too
    if (status != STATUS_OK) return status;
    TRY(read_diagonal(w, w->factor));
    for (int64_t k = 0; k < w->size; k++) smallest = fmin(smallest, w->small[k]), largest = fmax(largest, w->small[k]);
    if (!(smallest > 1e-6 * largest)) return factor_eigen(s);
    TRY(backend_run(w->backend,
                    &(struct op_call){.op = OP_triangle_inverse, .in = {w->factor}, .out = {w->trial.half}}));
    s->trial.rank = s->rank;
done:
    return status;
}

void device_swap(struct walk_state *s) {
    struct system swap = s->device->system;
    s->device->system = s->device->trial, s->device->trial = swap;
}

enum status device_solve(struct walk_state *s, bool push) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t n = push ? 2 : 1;
    struct view b = view_rows(w->rhs, 0, n), t = view_rows(w->half_way, 0, n);
    memset(w->small, 0, (size_t)(n * w->size) * 8);
    memcpy(w->small, s->residual, (size_t)s->rank * 8);
    if (push) memcpy(w->small + w->size, s->noise, (size_t)s->rank * 8);
    TRY(backend_write(w->backend, b, w->small));
    TRY(product(w, b, w->system.half, t, false, true, false));
    TRY(product(w, t, w->system.half, view_cols(view_rows(w->c, 0, n), 0, w->size), false, false, false));
    TRY(backend_sync(w->backend)); // w->small is free again
done:
    return status;
}

static double length_of(const double *v, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += v[k] * v[k];
    return sqrt(sum);
}

// solver_norm without scaling between the steps: few, and none beyond 1e12.
static enum status norm(struct device_walk *w, const struct system *system, const struct view *other, double *v,
                        int steps, double *out) {
    enum status status = STATUS_OK;
    int64_t size = w->size;
    double length = length_of(v, size);
    if (!(length > 1e-150)) {
        for (int64_t k = 0; k < size; k++) v[k] = 1 + (double)(k * 7919 % 101) / 101;
        length = length_of(v, size);
    }
    for (int64_t k = 0; k < size; k++) v[k] /= length;
    TRY(backend_write(w->backend, w->power[0], v));
    for (int step = 0; step < steps; step++) {
        struct view from = w->power[step % 2], to = w->power[1 - step % 2];
        if (other) TRY(product(w, from, *other, w->power_other, false, false, false));
        TRY(product(w, other ? w->power_other : from, system->half, w->power_half, false, true, false));
        TRY(product(w, w->power_half, system->half, to, false, false, false));
    }
    TRY(backend_read(w->backend, w->power[(steps + 1) % 2], w->small));
    TRY(backend_read(w->backend, w->power[steps % 2], v));
    TRY(backend_sync(w->backend));
    double before = length_of(w->small, size);
    *out = before > 0 ? length_of(v, size) / before : 0;
done:
    return status;
}

enum status device_inverse_norm(struct walk_state *s, double *vector, int steps, double *out) {
    *out = 0;
    if (s->rank == 0) return STATUS_OK;
    return norm(s->device, &s->device->system, NULL, vector, steps, out);
}

enum status device_trial_norm(struct walk_state *s, double *vector, int steps, double *out) {
    *out = 0;
    if (s->rank == 0) return STATUS_OK;
    return norm(s->device, &s->device->trial, &s->device->before, vector, steps, out);
}

enum status device_leverages(struct walk_state *s, const int64_t *ids, int64_t n, double *out) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t most = w->matrix->part_rows;
    struct view rows;
    for (int64_t first = 0; first < n; first += most) {
        int64_t count = min_i64(most, n - first);
        struct view products = view_cols(view_rows(w->matrix->products, 0, count), 0, w->size);
        struct view squares = view_rows(w->squares, 0, count);
        TRY(gather(w, ids + first, count, &rows));
        TRY(product(w, view_cols(rows, 0, w->size), w->system.half, products, false, true, false));
        TRY(backend_run(w->backend, &(struct op_call){.op = OP_row_squares, .in = {products}, .out = {squares}}));
        TRY(backend_read(w->backend, squares, out + first));
    }
    TRY(backend_sync(w->backend));
done:
    return status;
}

// ---- passes

static enum status pass_ops(struct walk_state *s, bool noisy, double step) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t k = s->n_free, terms = noisy ? 2 : 1;
    struct view list = view_rows(w->list, 0, k), d = view_rows(w->position, 0, k), h = {0}, none = {0};
    struct rng rng = {.seed = s->options->seed, .stream = WALK_RNG_NOISE + s->options->walk};
    if (noisy) h = view_rows(w->direction, 0, k);
    TRY(backend_run(w->backend, &(struct op_call){.op = OP_rows_pass,
                                                  .in = {w->q, list, w->x, w->y, view_rows(w->c, 0, terms)},
                                                  .out = {d, noisy ? h : none, view_rows(w->sums, 0, terms)},
                                                  .params.rows_pass = {step, s->step, s->gaussian, rng}}));
    TRY(backend_run(w->backend, &(struct op_call){.op = OP_box_step,
                                                  .in = {d, noisy ? h : none, list, w->x},
                                                  .out = {view_rows(w->points, 0, k), w->taken},
                                                  .params.box_step = {step, s->limited}}));
done:
    return status;
}

static enum status write_list(struct walk_state *s) {
    struct device_walk *w = s->device;
    int64_t k = s->n_free;
#pragma omp parallel for schedule(static) if (k > 65536)
    for (int64_t j = 0; j < k; j++) w->ids[j] = (int32_t)s->free[j];
    return backend_write(w->backend, view_rows(w->list, 0, k), w->ids);
}

enum status device_pass(struct walk_state *s, bool noisy, double step) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t k = s->n_free, terms = noisy ? 2 : 1;
    if (k == 0) return STATUS_OK;
    TRY(write_list(s));
    if (w->x_is_new) TRY(backend_write(w->backend, w->x, s->x));
    w->x_is_new = false;
    TRY(pass_ops(s, noisy, step));
    TRY(backend_read(w->backend, view_rows(w->sums, 0, terms), w->small));
    TRY(backend_read(w->backend, w->taken, &s->least_ratio));
    TRY(backend_read(w->backend, view_rows(w->points, 0, k), s->position));
    TRY(backend_sync(w->backend));
    for (int64_t j = 0; j < s->width; j++) s->residual[j] = s->fixed[j] + w->small[j];
    if (noisy) memcpy(s->noise, w->small + w->width, (size_t)s->width * 8);
done:
    return status;
}

// d = x - q . c of the listed rows, or of all, to w->position, and the sum of (d - y) q to w->small.
static enum status plain_pass(struct device_walk *w, struct view list, struct view x, struct view y, const double *c,
                              int64_t k) {
    enum status status = STATUS_OK;
    struct view none = {0}, c_view = view_rows(w->c, 0, 1), sums = view_rows(w->sums, 0, 1);
    TRY(backend_write(w->backend, c_view, c));
    TRY(backend_run(w->backend, &(struct op_call){.op = OP_rows_pass,
                                                  .in = {w->q, list, x, y, c_view},
                                                  .out = {view_rows(w->position, 0, k), none, sums},
                                                  .params.rows_pass = {.time = -1}}));
    TRY(read_now(w, sums, w->small));
done:
    return status;
}

static enum status sum_of(struct walk_state *s, struct view list, int64_t k, double *out) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    memset(w->small, 0, (size_t)w->width * 8);
    TRY(backend_write(w->backend, w->x, s->x));
    TRY(plain_pass(w, list, w->x, w->y, w->small, k));
    memcpy(out, w->small, (size_t)s->width * 8);
done:
    return status;
}

enum status device_sum_free(struct walk_state *s, double *out) {
    enum status status = STATUS_OK;
    memset(out, 0, (size_t)s->width * 8);
    if (s->n_free == 0) return STATUS_OK;
    TRY(write_list(s));
    TRY(sum_of(s, view_rows(s->device->list, 0, s->n_free), s->n_free, out));
done:
    return status;
}

enum status device_dot_free(struct walk_state *s, const double *v, double *dots) {
    enum status status = STATUS_OK;
    struct device_walk *w = s->device;
    int64_t k = s->n_free;
    if (k == 0) return STATUS_OK;
    memset(w->small, 0, (size_t)w->width * 8);
    memcpy(w->small, v, (size_t)s->width * 8);
    TRY(write_list(s));
    TRY(plain_pass(w, view_rows(w->list, 0, k), w->zeros, w->zeros, w->small, k));
    TRY(read_now(w, view_rows(w->position, 0, k), dots));
    for (int64_t j = 0; j < k; j++) dots[j] = -dots[j];
done:
    return status;
}

enum status device_residual(struct walk_state *s, double *most) {
    enum status status = STATUS_OK;
    struct view all = {0};
    TRY(sum_of(s, all, s->n, s->residual));
    *most = 0;
    for (int64_t k = 0; k < s->rank; k++) *most = fmax(*most, fabs(s->residual[k]));
done:
    return status;
}

enum status device_resume(struct walk_state *s) {
    return s->rank ? backend_write(s->device->backend, s->device->gram, s->gram) : STATUS_OK;
}
