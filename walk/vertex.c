#include "walk/vertex.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "walk/rows.h"
#include "walk/state.h"

#include <math.h>
#include <string.h>

enum { PARTS = 64, STAGES = 40, NEWTON_MOST = 30, HALVINGS = 20 };
static const double SHRINK = 1.0 / 3, NEWTON_DONE = 1e-7, RIDGE = 1e-3;

struct dual {
    struct walk_state *s; // x, free list (unclipped), Gram matrix, solver
    const double *c;
    double mu;
    double *v, *trial, *step; // [width]
    double value;             // of the convex function whose gradient is the residual
    double *parts;            // [PARTS, width]
    double *values;           // [PARTS]
    int64_t reads;
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

void vertex_closest_cost(const double *y, int64_t n, double *c) {
    for (int64_t i = 0; i < n; i++) c[i] = 1 - 2 * y[i];
}

// x(v), the residual sum q (x - y), and the value sum_i mu/2 ... of the dual at v. One read.
static void evaluate(struct dual *d, const double *v) {
    struct walk_state *s = d->s;
    const struct frame *f = s->frame;
    int64_t n = s->n, width = s->width, per_part = ((n + PARTS - 1) / PARTS + 3) / 4 * 4;
    memset(d->parts, 0, (size_t)(PARTS * width) * 8);
#pragma omp parallel for schedule(dynamic) if (n * width > 32768)
    for (int64_t p = 0; p < PARTS; p++) {
        double value = 0;
        int64_t end = min_i64((p + 1) * per_part, n);
        for (int64_t i = p * per_part; i < end; i += 4) {
            const double *rows[4];
            double dots[4], weight[4] = {0};
            int64_t count = min_i64(4, end - i);
            for (int64_t j = 0; j < 4; j++) {
                rows[j] = f->q + (i + min_i64(j, count - 1)) * f->stride;
            }
            rows_dot(rows, v, width, dots);
            for (int64_t j = 0; j < count; j++) {
                double y = s->y[i + j], slope = d->c[i + j] - dots[j];
                double x = fmin(fmax(y - slope / d->mu, 0), 1), away = x - y;
                s->x[i + j] = x;
                weight[j] = away;
                value -= slope * away + d->mu / 2 * away * away; // -min_x of the Lagrangian: convex in v
            }
            rows_add(d->parts + p * width, weight, rows, width);
        }
        d->values[p] = value;
    }
    memset(s->residual, 0, (size_t)width * 8);
    d->value = 0;
    for (int64_t p = 0; p < PARTS; p++) {
        row_add(s->residual, 1, d->parts + p * width, width);
        d->value += d->values[p];
    }
    d->reads++;
}

static void list_unclipped(struct walk_state *s) {
    s->n_free = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (s->x[i] > 0 && s->x[i] < 1) s->free[s->n_free++] = i;
}

static double size_of(const double *a, int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < n; k++) sum += a[k] * a[k];
    return sqrt(sum);
}

// Newton's method at this mu from v. The residual is the gradient of a convex function of v: steps that do not lower it enough
// are halved.
static enum status newton(struct dual *d, int64_t *steps) {
    enum status status = STATUS_OK;
    struct walk_state *s = d->s;
    evaluate(d, d->v);
    for (int step = 0; step < NEWTON_MOST; step++) {
        double left = size_of(s->residual, s->rank);
        if (left <= NEWTON_DONE) break;
        list_unclipped(s);
        TRY(walk_gram(s));
        // Too few unclipped coordinates leave the Jacobian singular; what is added vanishes with the residual.
        for (int64_t k = 0; k < s->rank; k++) s->gram[k * s->rank + k] += RIDGE * fmin(left, 1);
        TRY(solver_factor(&s->solver, s->gram));
        double before = d->value, slope = 0, length = d->mu;
        solver_solve(&s->solver, s->residual, d->step);
        for (int64_t k = 0; k < s->rank; k++) slope += d->step[k] * s->residual[k];
        for (int half = 0; half < HALVINGS; half++, length /= 2) {
            for (int64_t k = 0; k < s->width; k++) d->trial[k] = d->v[k] - length * d->step[k];
            evaluate(d, d->trial);
            if (d->value <= before - 1e-4 * length * slope + 1e-12 * fabs(before)) break;
        }
        memcpy(d->v, d->trial, (size_t)s->width * 8);
        ++*steps;
    }
done:
    return status;
}

// Lower bound of min <c, x> over K from any v: sum_i min(0, c_i - q_i . v) + <v, Q y>.
static double lower_bound(const struct dual *d) {
    const struct frame *f = d->s->frame;
    double sum = 0;
    for (int64_t i = 0; i < f->n; i++) {
        double dot = row_dot(f->q + i * f->stride, d->v, f->width);
        sum += fmin(0, d->c[i] - dot) + d->s->y[i] * dot;
    }
    return sum;
}

static enum status descend(struct dual *d, struct vertex_result *r) {
    enum status status = STATUS_OK;
    struct walk_state *s = d->s;
    double largest = 0;
    for (int64_t i = 0; i < s->n; i++) largest = fmax(largest, fabs(d->c[i]));
    d->mu = largest > 0 ? 4 * largest : 1;
    for (int stage = 0; stage < STAGES; stage++, d->mu *= SHRINK) {
        TRY(newton(d, &r->newton_steps));
        list_unclipped(s);
        if (s->n_free <= s->rank) break;
    }
    double bound = lower_bound(d);
    // The unclipped coordinates take up what Newton left.
    memcpy(s->fixed, s->residual, (size_t)s->width * 8);
    for (int64_t k = 0; k < s->n_free; k++) {
        int64_t i = s->free[k];
        row_add(s->fixed, s->y[i] - s->x[i], s->frame->q + i * s->frame->stride, s->width);
    }
    TRY(walk_gram(s));
    TRY(solver_factor(&s->solver, s->gram));
    TRY(walk_settle(s));
    memcpy(s->residual, s->fixed, (size_t)s->width * 8);
    for (int64_t k = 0; k < s->n_free; k++) {
        int64_t i = s->free[k];
        row_add(s->residual, s->x[i] - s->y[i], s->frame->q + i * s->frame->stride, s->width);
    }
    int64_t kept;
    TRY(gsw_descend(s, d->c, &r->moves, &kept));
    // The multipliers of the vertex itself: c_i = q_i . v for its fractional coordinates.
    list_unclipped(s);
    TRY(walk_gram(s));
    TRY(solver_factor(&s->solver, s->gram));
    memset(d->trial, 0, (size_t)s->width * 8);
    for (int64_t k = 0; k < s->n_free; k++)
        row_add(d->trial, d->c[s->free[k]], s->frame->q + s->free[k] * s->frame->stride, s->width);
    solver_solve(&s->solver, d->trial, d->v);
    r->gap = -fmax(bound, lower_bound(d));
    d->reads += 2;
done:
    return status;
}

static enum status check(const double *y, const double *c, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!(y[i] >= 0 && y[i] <= 1))
            return status_set(STATUS_INVALID, "coordinate %lld of the start is %g; it must be in [0, 1]", (long long)i,
                              y[i]);
        if (!isfinite(c[i])) return status_set(STATUS_INVALID, "cost %lld is %g", (long long)i, c[i]);
    }
    return STATUS_OK;
}

enum status vertex_minimise(const struct frame *frame, const double *y, const double *c, double *x,
                            struct vertex_result *result) {
    enum status status = STATUS_OK;
    struct walk_options options = {0};
    struct vertex_result r = {0};
    struct dual d = {.c = c};
    void *p = NULL;
    double start = clock_seconds();
    TRY(check(y, c, frame->n));
    TRY(walk_state_new(frame, y, &options, false, false, false, &d.s));
    TRY(mem_buffer_new(((PARTS + 3) * frame->width + PARTS) * 8, "dual variables", &p));
    memset(p, 0, (size_t)((PARTS + 3) * frame->width + PARTS) * 8);
    d.v = p, d.trial = d.v + frame->width, d.step = d.trial + frame->width;
    d.parts = d.step + frame->width, d.values = d.parts + PARTS * frame->width;
    TRY(descend(&d, &r));
    for (int64_t i = 0; i < frame->n; i++) {
        x[i] = d.s->x[i];
        r.objective += c[i] * x[i];
        r.fractional += x[i] > 0 && x[i] < 1;
    }
    r.gap += r.objective;
    r.residual = frame_residual(frame, x, y, NULL);
    r.reads = (double)d.reads + 1 + d.s->rows_read / (double)frame->n;
    r.seconds = clock_seconds() - start;
    *result = r;
done:
    walk_state_free(d.s);
    mem_buffer_free(p);
    return status;
}
