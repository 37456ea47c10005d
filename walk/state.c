#include "walk/state.h"

#include "core/base/mem.h"
#include "walk/device.h"
#include "walk/rows.h"
#include "walk/systems.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Sums of a pass are taken in PARTS parts of the free list. HEAVY: leverage above which a coordinate neither jumps nor goes
// into a block: at most 8 rank coordinates can have it.
enum { PARTS = 64, ALONE = 32768, BATCH = 256, REBUILD = 4 };
static const double HEAVY = 0.125, SETTLED = 2e-14, UNEVEN = 4;

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static const double *row_of(const struct walk_state *s, int64_t id) { return s->frame->q + id * s->frame->stride; }

static struct rng stream_of(const struct walk_state *s, uint64_t purpose) {
    return (struct rng){.seed = s->options->seed, .stream = purpose + s->options->walk};
}

double walk_uniform(const struct walk_state *s, uint64_t purpose, uint64_t index) {
    struct rng rng = stream_of(s, purpose);
    uint64_t bits = (uint64_t)rng_bits(rng, 2 * index) << 32 | rng_bits(rng, 2 * index + 1);
    return ((double)(bits >> 11) + 0.5) * 0x1p-53;
}

// ---- memory

static enum status take(void *out, int64_t count, int64_t size, const char *what) {
    void *p = NULL;
    enum status status = mem_buffer_new((count > 0 ? count : 1) * size, what, &p);
    if (status == STATUS_OK) memcpy(out, &p, sizeof p);
    return status;
}

static enum status take_vectors(struct walk_state *s) {
    enum status status = STATUS_OK;
    double **vectors[] = {&s->fixed, &s->residual, &s->noise, &s->correct, &s->push, &s->slow, &s->slow_pair};
    for (int i = 0; i < 7; i++) {
        TRY(take(vectors[i], s->width, 8, "vectors of the walk"));
        memset(*vectors[i], 0, (size_t)s->width * 8);
    }
    TRY(take(&s->parts, 2 * PARTS * s->width, 8, "sums of the walk"));
    TRY(take(&s->gram, s->rank * s->rank, 8, "Gram matrix"));
    TRY(take(&s->gram_start, s->rank * s->rank, 8, "Gram matrix"));
    TRY(take(&s->gram_before, s->rank * s->rank, 8, "Gram matrix"));
    TRY(solver_new(&s->solver, s->rank));
    TRY(solver_new(&s->trial, s->rank));
    TRY(gram_scratch_new(s->n, s->rank, &s->scratch));
done:
    return status;
}

static enum status take_lists(struct walk_state *s) {
    enum status status = STATUS_OK;
    const char *what = "coordinates of the walk";
    TRY(take(&s->x, s->n, 8, what));
    TRY(take(&s->free, s->n, 8, what));
    TRY(take(&s->held, s->n, 8, what));
    TRY(take(&s->leverage, s->n, 8, what));
    memcpy(s->leverage, s->frame->norm2, (size_t)s->n * 8);
    TRY(take(&s->position, s->n, 8, what));
    TRY(take(&s->direction, s->n, 8, what));
    if (!s->gaussian) TRY(take(&s->signs, s->n, 8, what));
    if (s->gaussian) TRY(take(&s->normals, s->n, 8, what));
    TRY(take(&s->leaving, s->n, sizeof *s->leaving, what));
    TRY(take(&s->leave_ids, s->n, 8, what));
    TRY(take(&s->leave_to, s->n, 8, what));
    for (int k = 0; k < 3; k++) TRY(take(&s->leave_weight[k], s->n, 8, what));
done:
    return status;
}

// y's integers are rounded already.
static enum status start(struct walk_state *s, bool on_device) {
    int64_t n_frozen = 0;
    for (int64_t i = 0; i < s->n; i++) {
        s->x[i] = s->y[i];
        if (s->y[i] > 0 && s->y[i] < 1)
            s->free[s->n_free++] = i;
        else
            s->leave_ids[n_frozen++] = i;
    }
    s->leverage_trace = (double)s->rank + 1e-300; // |q_i|^2 are the leverages where G = I
    s->leverage_free = s->n;
    return system_start(s, n_frozen, on_device);
}

enum status walk_state_new(const struct frame *frame, const double *y, const struct walk_options *options, bool noisy,
                           bool gaussian, bool on_device, struct walk_state **out) {
    enum status status = STATUS_OK;
    struct walk_state *s = mem_new(1, sizeof *s);
    s->frame = frame, s->y = y, s->options = options;
    s->n = frame->n, s->rank = frame->rank, s->width = frame->width;
    s->noisy = noisy, s->gaussian = gaussian;
    s->step = -1;
    TRY(take_vectors(s));
    TRY(take_lists(s));
    TRY(start(s, on_device && frame->device));
    *out = s;
    s = NULL;
done:
    walk_state_free(s);
    return status;
}

void walk_state_free(struct walk_state *s) {
    if (!s) return;
    void *buffers[] = {s->gram_start,
                       s->x,
                       s->leverage,
                       s->free,
                       s->held,
                       s->position,
                       s->direction,
                       s->signs,
                       s->normals,
                       s->gram,
                       s->gram_before,
                       s->fixed,
                       s->residual,
                       s->noise,
                       s->correct,
                       s->push,
                       s->slow,
                       s->slow_pair,
                       s->parts,
                       s->leaving,
                       s->leave_ids,
                       s->leave_to,
                       s->leave_weight[0],
                       s->leave_weight[1],
                       s->leave_weight[2],
                       s->gsw.inverse,
                       s->gsw.c,
                       s->gsw.fixed,
                       s->walked_ids,
                       s->walked};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) mem_buffer_free(buffers[i]);
    solver_free(&s->solver);
    solver_free(&s->trial);
    device_walk_free(s->device);
    gram_scratch_free(s->scratch);
    free(s);
}

// ---- a pass

// 64 steps of signs of a coordinate: two words of the block that coordinates 2k and 2k + 1 share.
static uint64_t sign_word(struct rng rng, int64_t n, int64_t id, int64_t step) {
    uint64_t at = 2 * ((uint64_t)(step / 64) * (uint64_t)n + (uint64_t)id);
    return (uint64_t)rng_bits(rng, at) << 32 | rng_bits(rng, at + 1);
}

static double sign_of(uint64_t word, int64_t step) { return (word >> (step % 64)) & 1 ? 1 : -1; }

// The noise that the noise sums hold, for the coming pass.
static double next_noise(const struct walk_state *s, int64_t id) {
    if (s->device) { // which keeps the noise
        struct rng rng = stream_of(s, WALK_RNG_NOISE);
        return s->gaussian ? rng_normal(rng, (uint64_t)s->step * (uint64_t)s->n + (uint64_t)id)
                           : sign_of(sign_word(rng, s->n, id, s->step), s->step);
    }
    return s->gaussian ? s->normals[id] : sign_of(s->signs[id], s->step);
}

// Noise of this pass; draws that of the next one.
static double turn_noise(struct walk_state *s, struct rng rng, int64_t id, double *next) {
    int64_t t = s->step;
    double now = 0;
    if (s->gaussian) {
        if (t >= 0) now = s->normals[id];
        s->normals[id] = *next = rng_normal(rng, (uint64_t)(t + 1) * (uint64_t)s->n + (uint64_t)id);
        return now;
    }
    if (t >= 0) now = sign_of(s->signs[id], t);
    if ((t + 1) % 64 == 0) s->signs[id] = sign_word(rng, s->n, id, t + 1);
    *next = sign_of(s->signs[id], t + 1);
    return now;
}

// Positions first .. end - 1 of the free list; returns their least ratio.
static inline __attribute__((always_inline)) double pass_part(struct walk_state *s, int64_t first, int64_t end,
                                                              bool noisy, double step, double *t_sum, double *z_sum) {
    double least = INFINITY;
    struct rng rng = stream_of(s, WALK_RNG_NOISE);
    for (int64_t k = first; k < end; k += 4) {
        const double *rows[4];
        int64_t count = min_i64(4, end - k);
        for (int64_t j = 0; j < 4; j++) {
            rows[j] = row_of(s, s->free[k + min_i64(j, count - 1)]);
        }
        double t_dot[4], z_dot[4] = {0}, t_weight[4] = {0}, z_weight[4] = {0};
        if (noisy)
            rows_dot2(rows, s->correct, s->push, s->width, t_dot, z_dot);
        else
            rows_dot(rows, s->correct, s->width, t_dot);
        for (int64_t j = 0; j < count; j++) {
            int64_t id = s->free[k + j];
            double d = s->x[id] - t_dot[j], h = 0;
            if (noisy) h = turn_noise(s, rng, id, &z_weight[j]) - z_dot[j];
            double distance = face_distance(d);
            if (noisy && distance >= 0) {
                double ratio = distance / (fabs(h) + 1e-300);
                least = ratio < least ? ratio : least; // fmin is a call
            }
            s->position[k + j] = d;
            s->direction[k + j] = h;
            t_weight[j] = d + step * h - s->y[id];
        }
        rows_add(t_sum, t_weight, rows, s->width);
        if (noisy) rows_add(z_sum, z_weight, rows, s->width);
    }
    return least;
}

static void pass_here(struct walk_state *s, bool noisy, double step) {
    int64_t per_part = ((s->n_free + PARTS - 1) / PARTS + 3) / 4 * 4, width = s->width;
    double least = INFINITY;
    memset(s->parts, 0, (size_t)(2 * PARTS * width) * 8);
#pragma omp parallel for schedule(dynamic) reduction(min : least) if (s->n_free * (width + 8) > ALONE)
    for (int64_t p = 0; p < PARTS; p++) {
        int64_t first = p * per_part, end = min_i64(first + per_part, s->n_free);
        if (first >= end) continue;
        double *sums = s->parts + 2 * p * width;
        double ratio = noisy ? pass_part(s, first, end, true, step, sums, sums + width)
                             : pass_part(s, first, end, false, step, sums, sums);
        least = fmin(least, ratio);
    }
    memcpy(s->residual, s->fixed, (size_t)width * 8);
    if (noisy) memset(s->noise, 0, (size_t)width * 8);
    for (int64_t p = 0; p < PARTS; p++) {
        row_add(s->residual, 1, s->parts + 2 * p * width, width);
        if (noisy) row_add(s->noise, 1, s->parts + (2 * p + 1) * width, width);
    }
    s->least_ratio = least;
}

enum status walk_pass(struct walk_state *s, bool noisy, double step) {
    enum status status = STATUS_OK;
    if (s->device)
        TRY(device_pass(s, noisy, step));
    else
        pass_here(s, noisy, step);
    s->step_size = step;
    s->step++;
    s->rows_read += (double)s->n_free;
done:
    return status;
}

// ---- leaving

// Coordinates on which a constraint rests do not jump: they are held, or stay. Exact leverages are computed only where
// |q_i|^2 |G^-1| does not already show that they are small.
static enum status spare_heavy(struct walk_state *s) {
    enum status status = STATUS_OK;
    int64_t at[BATCH], ids[BATCH], kept = 0;
    double leverage[BATCH];
    bool removed = false;
    TRY(system_inverse_norm(s, 2, &s->inverse_norm));
    double scale = 1.5 * s->inverse_norm;
    for (int64_t first = 0; first < s->n_leaving;) {
        int64_t count = 0;
        for (; first < s->n_leaving && count < BATCH; first++) {
            const struct leaver *l = &s->leaving[first];
            if (l->kind == LEAVE_JUMP && s->frame->norm2[s->free[l->at]] * scale > HEAVY) at[count++] = first;
        }
        if (count == 0) break;
        for (int64_t k = 0; k < count; k++) ids[k] = s->free[s->leaving[at[k]].at];
        TRY(system_leverages(s, ids, count, leverage));
        s->rows_read += (double)count;
        for (int64_t k = 0; k < count; k++) {
            struct leaver *l = &s->leaving[at[k]];
            if (leverage[k] <= HEAVY) continue;
            l->kind = LEAVE_HOLD;
            if (l->may_stay) l->at = -1, removed = true;
        }
    }
    for (int64_t k = 0; k < s->n_leaving && removed; k++)
        if (s->leaving[k].at >= 0) s->leaving[kept++] = s->leaving[k];
    if (removed) s->n_leaving = kept;
done:
    return status;
}

// Where they go, and what they change.
static void draw(struct walk_state *s) {
    int64_t held = 0, others = 0;
    for (int64_t k = 0; k < s->n_leaving; k++) held += s->leaving[k].kind == LEAVE_HOLD;
    s->n_leaving_held = held, others = held, held = 0;
    for (int64_t k = 0; k < s->n_leaving; k++)
        s->leaving[k].slot = s->leaving[k].kind == LEAVE_HOLD ? held++ : others++;
#pragma omp parallel for schedule(static) if (s->n_leaving > 4096)
    for (int64_t k = 0; k < s->n_leaving; k++) {
        int64_t id = s->free[s->leaving[k].at], slot = s->leaving[k].slot;
        double x = s->x[id], to = x;
        switch (s->leaving[k].kind) {
        case LEAVE_JUMP: to = walk_uniform(s, WALK_RNG_JUMP, (uint64_t)id) < x ? 1 : 0; break;
        case LEAVE_CLAMP: to = x < 0.5 ? 0 : 1; break;
        case LEAVE_HERE:
        case LEAVE_HOLD: break;
        }
        s->leave_ids[slot] = id;
        s->leave_to[slot] = to;
        s->leave_weight[0][slot] = to - x;
        s->leave_weight[1][slot] = to - s->y[id];
        s->leave_weight[2][slot] = s->noisy ? -next_noise(s, id) : 0;
    }
}

// Holds the jumps whose leverage in the trial system is above `most`: what stays would rest on them.
static enum status hold_heavy(struct walk_state *s, double most, int64_t *n_held) {
    enum status status = STATUS_OK;
    int64_t count = 0;
    double *leverage = s->leave_weight[0]; // drawn anew afterwards, as leave_ids is
    for (int64_t k = 0; k < s->n_leaving; k++)
        if (s->leaving[k].kind == LEAVE_JUMP) s->leave_ids[count++] = s->free[s->leaving[k].at];
    system_swap(s);
    status = system_leverages(s, s->leave_ids, count, leverage);
    system_swap(s);
    TRY(status);
    s->rows_read += (double)count;
    *n_held = count = 0;
    for (int64_t k = 0; k < s->n_leaving; k++) {
        struct leaver *l = &s->leaving[k];
        if (l->kind != LEAVE_JUMP || leverage[count++] <= most) continue;
        l->kind = LEAVE_HOLD;
        ++*n_held;
    }
done:
    return status;
}

// Fewer jumps: those above `most` are held, or every second one where none is above or where the trial system has a null space, in
// which leverages say nothing. leap, which has no correction under way, gives up the whole block. *any: there was a jump.
static enum status thin_out(struct walk_state *s, double most, bool *any) {
    enum status status = STATUS_OK;
    int64_t kept = 0, jumps = 0, heavy = 0;
    bool block = !s->noisy;
    if (!block && s->trial.rank == s->solver.rank) TRY(hold_heavy(s, most, &heavy));
    for (int64_t k = 0; k < s->n_leaving; k++) {
        struct leaver *l = &s->leaving[k];
        bool jumps_now = l->kind == LEAVE_JUMP;
        if (jumps_now && (block || (heavy == 0 && jumps % 2 == 0))) l->kind = LEAVE_HOLD;
        jumps += jumps_now;
        if (!block || l->kind != LEAVE_HOLD) s->leaving[kept++] = *l;
    }
    s->n_leaving = kept;
    *any = jumps + heavy > 0;
done:
    return status;
}

// gram, trial solver and the sums of change, made for a set of leavers whose jumps the others can carry: tau is the largest
// eigenvalue of sum_J q q^T in units of what stays. The choice does not look at how jumps fall.
static enum status choose(struct walk_state *s, struct gram_sums *sums) {
    enum status status = STATUS_OK;
    bool any = false;
    TRY(system_keep(s, KEEP_START));
    for (double most = HEAVY;; most /= 2) {
        draw(s);
        for (int k = 0; k < sums->n; k++) memset(sums->sum[k], 0, (size_t)s->width * 8);
        TRY(system_take_off(s, sums, 0, s->n_leaving_held));
        TRY(system_keep(s, KEEP_BEFORE));
        TRY(system_take_off(s, sums, s->n_leaving_held, s->n_leaving));
        TRY(system_factor(s));
        double norm = 1;
        if (s->n_leaving > s->n_leaving_held) TRY(system_trial_norm(s, 6, &norm));
        s->tau = norm - 1;
        bool carried = s->trial.rank == s->solver.rank && s->tau <= s->tau_most;
        if (carried) s->spread = fmax(s->spread, s->tau);
        if (carried) return STATUS_OK;
        TRY(thin_out(s, most, &any));
        if (!any) return STATUS_OK;
        s->guards++;
        TRY(system_back(s));
    }
done:
    return status;
}

static void commit(struct walk_state *s) {
    int64_t kept = 0, next = 0;
    for (int64_t k = 0; k < s->n_leaving; k++) {
        s->x[s->leave_ids[k]] = s->leave_to[k];
        if (k < s->n_leaving_held) s->held[s->n_held++] = s->leave_ids[k], s->total_held++;
    }
    for (int64_t k = 0; k < s->n_free; k++) {
        if (next < s->n_leaving && s->leaving[next].at == k)
            next++;
        else
            s->free[kept++] = s->free[k];
    }
    s->n_free = kept;
    s->n_leaving = 0;
}

// Where G is far from a multiple of the identity, because constraints rest on few coordinates, |q_i|^2 says little of the
// leverages: they are computed, each time the free set has become smaller by a fifth.
static enum status refresh_leverages(struct walk_state *s) {
    enum status status = STATUS_OK;
    bool uneven = s->inverse_norm * s->gram_trace > UNEVEN * (double)s->rank;
    if (!uneven || (double)s->n_free > 0.8 * (double)s->leverage_free) return STATUS_OK;
    double *out = s->leave_weight[0]; // nobody is leaving
    TRY(system_leverages(s, s->free, s->n_free, out));
    for (int64_t k = 0; k < s->n_free; k++) s->leverage[s->free[k]] = out[k];
    s->rows_read += (double)s->n_free;
    s->leverage_trace = s->gram_trace;
    s->leverage_free = s->n_free;
done:
    return status;
}

enum status walk_leave(struct walk_state *s) {
    enum status status = STATUS_OK;
    TRY(spare_heavy(s));
    if (s->n_leaving == 0) return STATUS_OK;
    double *change[3] = {s->correct, s->push, s->parts}; // of the coming pass: free to use
    struct gram_sums sums = {.n = s->noisy ? 3 : 2};
    for (int k = 0; k < 3; k++) sums.weight[k] = s->leave_weight[k], sums.sum[k] = change[k];
    TRY(choose(s, &sums));
    row_add(s->residual, 1, change[0], s->width);
    row_add(s->fixed, 1, change[1], s->width);
    if (s->noisy) row_add(s->noise, 1, change[2], s->width);
    system_swap(s);
    commit(s);
    TRY(system_trace(s));
    if (s->n_free * REBUILD < s->gram_built) TRY(walk_rebuild(s));
    TRY(refresh_leverages(s));
done:
    return status;
}

enum status walk_prepare(struct walk_state *s) { return system_solve(s, s->noisy); }

void walk_release(struct walk_state *s) {
    if (s->n_held == 0) return;
    int64_t *list = s->leave_ids, n = 0, k = 0;
    unsigned char *is_held = mem_new((size_t)s->n, 1);
    for (int64_t j = 0; j < s->n_held; j++) {
        int64_t id = s->held[j];
        is_held[id] = 1;
        row_add(s->fixed, s->y[id] - s->x[id], row_of(s, id), s->width);
    }
    for (int64_t i = 0; i < s->n; i++) {
        bool is_free = k < s->n_free && s->free[k] == i;
        if (is_free) k++;
        if (is_free || is_held[i]) list[n++] = i;
    }
    memcpy(s->free, list, (size_t)n * sizeof *list);
    s->n_free = n, s->n_held = 0;
    free(is_held);
}

static double most_of(const double *v, int64_t n) {
    double most = 0;
    for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(v[k]));
    return most;
}

enum status walk_settle(struct walk_state *s) {
    enum status status = STATUS_OK;
    for (int round = 0; round < 20 && walk_fractional(s) > 0; round++) {
        if (most_of(s->residual, s->rank) <= SETTLED) break;
        if (s->n_held > 0 && (s->n_free < 2 * s->rank || s->solver.rank < s->rank)) { // too few to carry the correction
            walk_release(s);
            TRY(walk_rebuild(s));
        }
        TRY(system_solve(s, false));
        int64_t step = s->step;
        TRY(walk_pass(s, false, 0));
        s->step = step;
        for (int64_t k = 0; k < s->n_free; k++) {
            double d = s->position[k];
            s->x[s->free[k]] = d;
            if (d > 0 && d < 1) continue;
            s->leaving[s->n_leaving++] = (struct leaver){.at = k, .kind = LEAVE_CLAMP};
            if (d < 0 || d > 1) s->repairs++;
        }
        if (s->n_leaving == 0 && round >= 3) break;
        bool noisy = s->noisy; // the noise sums are no longer of use
        s->noisy = false;
        status = walk_leave(s);
        s->noisy = noisy;
        TRY(status);
    }
done:
    return status;
}

enum status walk_mark_new(struct walk_state *s, int64_t n) {
    enum status status = STATUS_OK;
    TRY(take(&s->walked_ids, n, 8, "coordinates of the walk"));
    TRY(take(&s->walked, n, 8, "coordinates of the walk"));
    s->n_walked = n;
done:
    return status;
}

enum status walk_resume(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct rng rng = stream_of(s, WALK_RNG_NOISE);
    for (int64_t k = 0; k < s->n_free && s->step >= 0; k++) {
        int64_t id = s->free[k];
        if (s->signs) s->signs[id] = sign_word(rng, s->n, id, s->step);
        if (s->normals) s->normals[id] = rng_normal(rng, (uint64_t)s->step * (uint64_t)s->n + (uint64_t)id);
    }
    if (s->device) TRY(device_resume(s));
    TRY(system_trace(s));
    TRY(system_factor(s));
    system_swap(s);
done:
    return status;
}
