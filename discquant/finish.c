#include "discquant/finish.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

const char *const finish_kind_names[] = {"straight-through", "nearest", "freeze", "anneal"};
const char finish_choice[] = "straight-through|nearest|freeze|anneal";

const struct finish_defaults finish_defaults[] = {
    [FINISH_STRAIGHT_THROUGH] = {.share = 0.3, .strength = 0.2},
    [FINISH_NEAREST] = {.share = 1, .strength = 1},
    [FINISH_FREEZE] = {.share = 0.3, .strength = 0.2},
    [FINISH_ANNEAL] = {.share = 0.5, .strength = 0.2, .concave = 4},
};

enum { TURNS = 32, BINS = 1 << 16 };
static const double share_per_turn = 0.1; // of the fractional x

struct finish_terms finish_terms(const struct finish *finish, int64_t done, int64_t steps, double strength) {
    struct finish_terms terms = {.form = WEIGHT_INTERPOLATED, .strength = strength};
    if (done < finish->from) return terms;
    double t = (double)(done - finish->from) / (double)(steps - finish->from);
    switch (finish->kind) {
    case FINISH_NEAREST:
    case FINISHES: break;
    case FINISH_STRAIGHT_THROUGH:
        terms.form = WEIGHT_ROUNDED;
        terms.strength = finish->strength;
        break;
    case FINISH_FREEZE: terms.strength = finish->strength; break;
    case FINISH_ANNEAL:
        terms.strength += t * (finish->strength - strength);
        terms.concave = t * finish->concave;
        break;
    }
    return terms;
}

// ---- freezing ----

static double distance(float x) { return x < 0.5f ? (double)x : 1 - (double)x; }
static int bin_of(float x) { return (int)(distance(x) * (2 * (BINS - 1))); }

struct freezing {
    const struct rounding *rounding;
    int64_t *counts; // [BINS] of fractional elements
    int most;        // bins up to this one are frozen
};

static void count(struct freezing *self, int64_t n, float *x, float *v) {
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i]) && x[i] > 0 && x[i] < 1) self->counts[bin_of(x[i])]++;
}

static void set(struct freezing *self, int64_t n, float *x, float *v) {
    for (int64_t i = 0; i < n; i++) {
        if (bin_of(x[i]) > self->most) continue;
        x[i] = x[i] > 0.5f ? 1 : 0;
        v[i] = INFINITY;
    }
}

static enum status each(struct freezing *self, const struct view *v_all, bool write,
                        void (*visit)(struct freezing *self, int64_t n, float *x, float *v)) {
    enum status status = STATUS_OK;
    const struct transformer *model = self->rounding->model;
    void *buffer = NULL;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *w = &model->weights[i];
        int64_t n = w->rows * w->cols;
        if (!w->grid) continue;
        TRY(mem_buffer_new(2 * n * (int64_t)sizeof(float), w->name, &buffer));
        float *x = buffer, *v = x + n;
        TRY(backend_floats_read(model->backend, w->x, x));
        TRY(backend_floats_read(model->backend, v_all[w->index], v));
        visit(self, n, x, v);
        if (write) TRY(backend_floats_write(model->backend, w->x, x));
        if (write) TRY(backend_floats_write(model->backend, v_all[w->index], v));
        mem_buffer_free(buffer);
        buffer = NULL;
    }
done:
    mem_buffer_free(buffer);
    return status;
}

// Turn number 1 .. TURNS that is due after `done` steps; 0 where none is.
static int64_t turn_after(const struct finish *finish, int64_t done, int64_t steps) {
    int64_t n = steps - finish->from, k = done - finish->from;
    if (k <= 0) return 0;
    int64_t turn = k * TURNS / n;
    return turn > (k - 1) * TURNS / n ? turn : 0;
}

enum status finish_freeze(const struct finish *finish, const struct rounding *rounding, const struct view *v,
                          int64_t done, int64_t steps) {
    enum status status = STATUS_OK;
    int64_t turn = finish->kind == FINISH_FREEZE ? turn_after(finish, done, steps) : 0, fractional = 0;
    if (!turn) return STATUS_OK;
    struct freezing self = {.rounding = rounding, .counts = mem_new(BINS, sizeof *self.counts)};
    TRY(each(&self, v, false, count));
    for (int i = 0; i < BINS; i++) fractional += self.counts[i];
    int64_t due = (int64_t)((turn < TURNS ? share_per_turn : 1) * (double)fractional) - self.counts[0];
    for (; due > 0; due -= self.counts[self.most]) self.most++;
    if (turn == TURNS) self.most = BINS - 1;
    TRY(each(&self, v, true, set));
done:
    free(self.counts);
    return status;
}
