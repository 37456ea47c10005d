#include "walk/systems.h"

#include "core/base/mem.h"
#include "walk/device.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 256, ALONE = 32768 };

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static struct gram_rows rows_of(const struct walk_state *s) {
    return (struct gram_rows){s->frame->q, s->n, s->frame->stride, s->rank};
}

static size_t gram_bytes(const struct walk_state *s) { return (size_t)(s->rank * s->rank) * 8; }

enum status system_trace(struct walk_state *s) {
    if (s->device) return device_trace(s);
    s->gram_trace = 1e-300;
    for (int64_t k = 0; k < s->rank; k++) s->gram_trace += s->gram[k * s->rank + k];
    return STATUS_OK;
}

enum status walk_gram(struct walk_state *s) {
    enum status status = STATUS_OK;
    if (s->device) {
        TRY(device_gram(s));
    } else {
        memset(s->gram, 0, gram_bytes(s));
        gram_add(s->gram, 1, rows_of(s), s->free, s->n_free, NULL, s->scratch);
    }
    s->gram_built = s->n_free;
    s->rows_read += (double)s->n_free;
    TRY(system_trace(s));
done:
    return status;
}

enum status walk_rebuild(struct walk_state *s) {
    enum status status = STATUS_OK;
    TRY(walk_gram(s));
    TRY(system_factor(s));
    system_swap(s);
done:
    return status;
}

// The frame is orthonormal, so few rows are taken off the identity.
enum status system_start(struct walk_state *s, int64_t n_frozen, bool on_device) {
    enum status status = STATUS_OK;
    if (on_device) TRY(device_walk_new(s));
    if (n_frozen > s->n / 2) return walk_rebuild(s);
    if (on_device) {
        TRY(device_gram_without(s, s->leave_ids, n_frozen));
    } else {
        memset(s->gram, 0, gram_bytes(s));
        for (int64_t k = 0; k < s->rank; k++) s->gram[k * s->rank + k] = 1;
        gram_add(s->gram, -1, rows_of(s), s->leave_ids, n_frozen, NULL, s->scratch);
    }
    s->rows_read += (double)n_frozen;
    s->gram_built = s->n_free;
    TRY(system_trace(s));
    TRY(system_factor(s));
    system_swap(s);
done:
    return status;
}

enum status system_keep(struct walk_state *s, enum system_kept which) {
    if (s->device) return which == KEEP_START ? device_keep_start(s) : device_keep_before(s);
    memcpy(which == KEEP_START ? s->gram_start : s->gram_before, s->gram, gram_bytes(s));
    return STATUS_OK;
}

enum status system_back(struct walk_state *s) {
    if (s->device) return device_back_to_start(s);
    memcpy(s->gram, s->gram_start, gram_bytes(s));
    return STATUS_OK;
}

enum status system_take_off(struct walk_state *s, const struct gram_sums *sums, int64_t first, int64_t end) {
    s->rows_read += (double)(end - first);
    if (s->device) return device_take_off(s, sums, first, end);
    struct gram_sums part = *sums;
    for (int k = 0; k < sums->n; k++) part.weight[k] += first;
    gram_add(s->gram, -1, rows_of(s), s->leave_ids + first, end - first, &part, s->scratch);
    return STATUS_OK;
}

enum status system_factor(struct walk_state *s) {
    return s->device ? device_factor(s) : solver_factor(&s->trial, s->gram);
}

void system_swap(struct walk_state *s) {
    struct solver swap = s->solver;
    s->solver = s->trial, s->trial = swap;
    if (s->device) device_swap(s);
}

enum status system_inverse_norm(struct walk_state *s, int steps, double *out) {
    if (s->device) return device_inverse_norm(s, s->slow, steps, out);
    *out = solver_norm(&s->solver, NULL, s->slow, steps);
    return STATUS_OK;
}

enum status system_trial_norm(struct walk_state *s, int steps, double *out) {
    if (s->device) return device_trial_norm(s, s->slow_pair, steps, out);
    *out = solver_norm(&s->trial, s->gram_before, s->slow_pair, steps);
    return STATUS_OK;
}

enum status system_solve(struct walk_state *s, bool push) {
    if (s->device) return device_solve(s, push);
    solver_solve(&s->solver, s->residual, s->correct);
    if (push) solver_solve(&s->solver, s->noise, s->push);
    return STATUS_OK;
}

enum status system_leverages(struct walk_state *s, const int64_t *ids, int64_t n, double *out) {
    if (s->device) return device_leverages(s, ids, n, out);
    int64_t blocks = (n + BATCH - 1) / BATCH, width = s->width, stride = s->frame->stride;
#pragma omp parallel if (n > BATCH && n * width > ALONE)
    {
        double *rows = mem_new((size_t)(BATCH * width), 8);
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < blocks; b++) {
            int64_t first = b * BATCH, count = min_i64(BATCH, n - first);
            for (int64_t k = 0; k < count; k++)
                memcpy(rows + k * width, s->frame->q + ids[first + k] * stride, (size_t)width * 8);
            solver_leverage(&s->solver, rows, count, width, out + first);
        }
        free(rows);
    }
    return STATUS_OK;
}

enum status walk_residual(struct walk_state *s, double *most) {
    s->rows_read += (double)s->n;
    if (s->device) return device_residual(s, most);
    *most = frame_residual(s->frame, s->x, s->y, s->residual);
    return STATUS_OK;
}
