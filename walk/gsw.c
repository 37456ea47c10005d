// Gram-Schmidt walk in the null space of M (Harshaw, Savje, Spielman, Zhang 2019, in the limit of a hard constraint), as an
// engine and as the final phase of the others. With F the free set, H = (sum_F q_i q_i^T)^-1 and a pivot p:
//
//     u_i = -q_i . H q_p / P_pp,  u_p = 1,  P_pp = 1 - q_p . H q_p       Q u = 0
//     x <- x + a u with probability b / (a + b), x - b u else            a, b: as far as the box allows
//
// so the mean stays and at least one coordinate reaches a face; it leaves F, and H follows by a change of rank one. The pivot
// stays until it is rounded. Cov x <= I / 4. A pivot with P_pp = 0 is fixed by the constraints; when all are, x is a vertex of
// {x in [0,1]^n: M x = M y} and at most rank coordinates are left. Landing then gives up the last row of Q (the weakest
// direction of M), which frees one dimension, and so on.
//
// H drifts: the residual Q (x - y) is summed anew every few moves and corrected, and H is made anew where it was not small.
#include "walk/state.h"

#include "core/base/mem.h"
#include "walk/device.h"
#include "walk/rows.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#undef I // of <complex.h>

enum { PARTS = 64, CHECK_EVERY = 16, ALONE = 1 << 17 };
static const double FIXED = 1e-7;                 // a pivot with a smaller P_pp does not move
static const double DOUBTFUL = 1e-3;              // below it P_pp is computed with a new H
static const double SMALL = 2e-14, LARGE = 1e-11; // residuals: corrected above the first, H made anew above the second

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static const double *row_of(const struct walk_state *s, int64_t id) { return s->frame->q + id * s->frame->stride; }

// out = base + sign * sum_F (x_i - y_i) q_i
static enum status sum_free(struct walk_state *s, const double *base, double sign, double *out) {
    int64_t per_part = (s->n_free + PARTS - 1) / PARTS, width = s->width;
    s->rows_read += (double)s->n_free;
    if (s->device) {
        enum status status = device_sum_free(s, s->parts);
        if (status != STATUS_OK) return status;
        for (int64_t k = 0; k < width; k++) out[k] = base[k] + sign * s->parts[k];
        return STATUS_OK;
    }
    memset(s->parts, 0, (size_t)(PARTS * width) * 8);
#pragma omp parallel for schedule(dynamic) if (s->n_free * width > ALONE)
    for (int64_t p = 0; p < PARTS; p++)
        for (int64_t k = p * per_part; k < min_i64((p + 1) * per_part, s->n_free); k++)
            row_add(s->parts + p * width, s->x[s->free[k]] - s->y[s->free[k]], row_of(s, s->free[k]), width);
    if (out != base) memcpy(out, base, (size_t)width * 8);
    for (int64_t p = 0; p < PARTS; p++) row_add(out, sign, s->parts + p * width, width);
    return STATUS_OK;
}

// dots[k] = q_k . v for the free set
static enum status dot_free(struct walk_state *s, const double *v, double *dots) {
    s->rows_read += (double)s->n_free;
    if (s->device) return device_dot_free(s, v, dots);
    int64_t per_part = ((s->n_free + PARTS - 1) / PARTS + 3) / 4 * 4;
#pragma omp parallel for schedule(static) if (s->n_free * s->width > ALONE)
    for (int64_t p = 0; p < PARTS; p++) {
        int64_t end = min_i64((p + 1) * per_part, s->n_free);
        for (int64_t k = p * per_part; k < end; k += 4) {
            const double *rows[4];
            double out[4];
            int64_t count = min_i64(4, end - k);
            for (int64_t j = 0; j < 4; j++) rows[j] = row_of(s, s->free[k + min_i64(j, count - 1)]);
            rows_dot(rows, v, s->width, out);
            memcpy(dots + k, out, (size_t)count * 8);
        }
    }
    return STATUS_OK;
}

static double most_of(const double *v, int64_t n) {
    double most = 0;
    for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(v[k]));
    return most;
}

// ---- H

// H of the leading kept x kept block of the Gram matrix; without its null space where there is one.
static enum status build(struct gsw *g) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    int64_t kept = g->kept;
    double *values = NULL, *vectors = NULL;
    TRY(walk_gram(s));
    if (s->device) TRY(device_gram_read(s));
    g->since_built = 0;
    for (int64_t k = 0; k < kept; k++) memcpy(g->inverse + k * kept, s->gram + k * s->rank, (size_t)kept * 8);
    if (kept == 0) goto done;
    bool sound = LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (int)kept, g->inverse, (int)kept) == 0;
    double least = INFINITY, largest = 0;
    for (int64_t k = 0; k < kept && sound; k++) {
        least = fmin(least, g->inverse[k * kept + k]), largest = fmax(largest, g->inverse[k * kept + k]);
    }
    if (sound && least > 1e-6 * largest &&
        LAPACKE_dpotri(LAPACK_COL_MAJOR, 'U', (int)kept, g->inverse, (int)kept) == 0) {
        for (int64_t i = 0; i < kept; i++)
            for (int64_t j = 0; j < i; j++) g->inverse[j * kept + i] = g->inverse[i * kept + j];
        goto done;
    }
    values = mem_new((size_t)kept, 8), vectors = mem_new((size_t)(kept * kept), 8);
    for (int64_t k = 0; k < kept; k++) memcpy(vectors + k * kept, s->gram + k * s->rank, (size_t)kept * 8);
    TRY(symmetric_eigen(vectors, kept, values));
    memset(g->inverse, 0, (size_t)(kept * kept) * 8);
    for (int64_t k = 0; k < kept && values[k] > 1e-12 * values[0]; k++)
        cblas_dger(CblasRowMajor, (int)kept, (int)kept, 1 / values[k], vectors + k * kept, 1, vectors + k * kept, 1,
                   g->inverse, (int)kept);
done:
    free(values);
    free(vectors);
    return status;
}

// c = H q, and 1 - q . c
static double apply(const struct gsw *g, const double *q, double *c) {
    int64_t kept = g->kept;
    memset(c, 0, (size_t)g->s->width * 8);
    if (kept == 0) return 1;
    cblas_dsymv(CblasRowMajor, CblasLower, (int)kept, 1, g->inverse, (int)kept, q, 1, 0, c, 1);
    return 1 - cblas_ddot((int)kept, q, 1, c, 1);
}

// The row leaves the Gram matrix. False where what stays is nearly singular: H must be made anew.
static bool remove_row(struct gsw *g, const double *q) {
    int64_t kept = g->kept;
    double share = apply(g, q, g->t);
    if (share < DOUBTFUL) return false;
    if (kept) cblas_dger(CblasRowMajor, (int)kept, (int)kept, 1 / share, g->t, 1, g->t, 1, g->inverse, (int)kept);
    return true;
}

// The weakest constraint is given up: H of the leading block.
static void drop_constraint(struct gsw *g) {
    int64_t old = g->kept, kept = old - 1;
    double corner = g->inverse[old * old - 1], *last = g->t;
    memcpy(last, g->inverse + kept * old, (size_t)kept * 8);
    for (int64_t i = 0; i < kept; i++)
        for (int64_t j = 0; j < kept; j++)
            g->inverse[i * kept + j] = g->inverse[i * old + j] - last[i] * last[j] / corner;
    g->kept = kept;
    g->since_built++;
    memset(g->fixed, 0, (size_t)g->s->n);
}

// ---- moves

// Q (x - y) anew; corrected where rounding and drift show.
static enum status check(struct gsw *g) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    g->since_checked = 0;
    for (int round = 0; round < 3; round++) {
        TRY(sum_free(s, s->fixed, 1, s->residual));
        double most = most_of(s->residual, g->kept);
        if (most <= SMALL) break;
        if (most > LARGE && g->since_built > 0) TRY(build(g));
        apply(g, s->residual, g->t);
        TRY(dot_free(s, g->t, s->position));
        for (int64_t k = 0; k < s->n_free; k++) {
            double *x = &s->x[s->free[k]];
            *x = fmin(fmax(*x - s->position[k], 0), 1);
        }
    }
done:
    return status;
}

// A pivot that can move, with g->c and g->pivot_share; pivot = -1 where there is none.
static enum status choose_pivot(struct gsw *g) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    bool sure = false; // all were found fixed with an H that has just been made
    for (;;) {
        if (g->pivot < 0) {
            int64_t first = (int64_t)(walk_uniform(s, WALK_RNG_PIVOT, g->draws++) * (double)s->n_free);
            for (int64_t k = 0; k < s->n_free && g->pivot < 0; k++) {
                int64_t id = s->free[(first + k) % s->n_free];
                if (!g->fixed[id]) g->pivot = id;
            }
        }
        if (g->pivot < 0 && (sure || s->n_free == 0)) return STATUS_OK;
        if (g->pivot < 0) {
            sure = true;
            if (g->since_built == 0) return STATUS_OK;
            TRY(build(g));
            memset(g->fixed, 0, (size_t)s->n);
            continue;
        }
        const double *q = row_of(s, g->pivot);
        g->pivot_share = apply(g, q, g->c);
        if (g->pivot_share < DOUBTFUL && g->since_built > 0) {
            TRY(build(g));
            g->pivot_share = apply(g, q, g->c);
        }
        if (g->pivot_share > FIXED) return STATUS_OK;
        g->fixed[g->pivot] = 1;
        g->pivot = -1;
    }
done:
    return status;
}

// u = -P_F cost into s->direction; false where cost is constant on the face, up to rounding.
static bool downhill(struct gsw *g) {
    struct walk_state *s = g->s;
    double *u = s->direction, *z = s->noise, most = 0;
    memset(z, 0, (size_t)s->width * 8);
    for (int64_t k = 0; k < s->n_free; k++) row_add(z, g->cost[s->free[k]], row_of(s, s->free[k]), s->width);
    apply(g, z, g->c);
    if (dot_free(s, g->c, u) != STATUS_OK) return false; // on a device alone, where nobody goes downhill
    for (int64_t k = 0; k < s->n_free; k++) {
        u[k] -= g->cost[s->free[k]];
        most = fmax(most, fabs(u[k]));
    }
    return most > 1e-9 * g->cost_size;
}

// The direction with u = 1 at the pivot into s->direction.
static enum status along_pivot(struct gsw *g) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    double *u = s->direction;
    TRY(dot_free(s, g->c, u));
    for (int64_t k = 0; k < s->n_free; k++) u[k] = s->free[k] == g->pivot ? 1 : -u[k] / g->pivot_share;
done:
    return status;
}

// Along u or against it, as far as the box allows; whoever reaches a face leaves.
static enum status move(struct gsw *g, bool only_up) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    double *u = s->direction, up = INFINITY, down = INFINITY;
    for (int64_t k = 0; k < s->n_free; k++) {
        double x = s->x[s->free[k]], size = fmax(fabs(u[k]), 1e-300), above = (1 - x) / size, below = x / size;
        up = fmin(up, u[k] > 0 ? above : below);
        down = fmin(down, u[k] > 0 ? below : above);
    }
    bool rises = only_up || walk_uniform(s, WALK_RNG_PIVOT, g->draws++) * (up + down) < down || up + down == 0;
    double length = rises ? up : down, sign = rises ? 1 : -1;
    bool rebuild = false;
    int64_t kept = 0;
    for (int64_t k = 0; k < s->n_free; k++) {
        int64_t id = s->free[k];
        double x = s->x[id], v = sign * u[k], room = v > 0 ? 1 - x : x;
        bool arrives = room <= fabs(v) * length * (1 + 1e-13);
        s->x[id] = arrives ? (v > 0 ? 1 : 0) : fmin(fmax(x + length * v, 0), 1);
        s->free[kept++] = id;
        if (!arrives || (room > 0 && v == 0)) continue;
        kept--;
        row_add(s->fixed, s->x[id] - s->y[id], row_of(s, id), s->width);
        if (id == g->pivot) g->pivot = -1;
        if (!rebuild) rebuild = !remove_row(g, row_of(s, id));
    }
    s->n_free = kept;
    g->moves++, g->since_built++, g->since_checked++;
    bool delicate = g->pivot_share < DOUBTFUL;
    if (rebuild) TRY(build(g));
    if (delicate || g->since_checked >= CHECK_EVERY) TRY(check(g));
done:
    return status;
}

// Checkpoints are written each time as many rows have been read as `every` passes over all coordinates have.
static enum status save(struct gsw *g) {
    struct walk_state *s = g->s;
    int64_t every = walk_save_every(s);
    if (every == 0 || s->rows_read - g->rows_saved < (double)every * (double)s->n) return STATUS_OK;
    g->rows_saved = s->rows_read;
    return walk_save(s);
}

static enum status run(struct gsw *g, int64_t stop, bool landing) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    while (s->n_free > stop) {
        if (g->cost && s->n_free > s->rank && downhill(g)) {
            g->pivot_share = 1;
            TRY(move(g, true));
            continue;
        }
        TRY(choose_pivot(g));
        if (g->pivot >= 0) {
            TRY(along_pivot(g));
            TRY(move(g, false));
        } else {
            if (!landing || g->kept == 0) break;
            drop_constraint(g);
        }
        TRY(save(g));
    }
    TRY(check(g));
done:
    return status;
}

enum status gsw_open(struct walk_state *s) {
    enum status status = STATUS_OK;
    struct gsw *g = &s->gsw;
    void *inverse = NULL, *vectors = NULL, *fixed = NULL;
    g->s = s;
    if (g->inverse) return STATUS_OK;
    TRY(mem_buffer_new(s->rank * s->rank * 8, "an inverse Gram matrix", &inverse));
    TRY(mem_buffer_new(2 * s->width * 8, "vectors of the walk", &vectors));
    TRY(mem_buffer_new((s->n + 7) / 8 * 8, "pivots of the walk", &fixed));
    g->inverse = inverse, g->c = vectors, g->t = g->c + s->width, g->fixed = fixed;
    inverse = vectors = fixed = NULL;
done:
    mem_buffer_free(inverse);
    mem_buffer_free(vectors);
    mem_buffer_free(fixed);
    return status;
}

static enum status start(struct gsw *g, const double *cost) {
    enum status status = STATUS_OK;
    struct walk_state *s = g->s;
    g->kept = s->rank, g->pivot = -1, g->pivot_share = 0;
    g->since_built = g->since_checked = g->moves = 0;
    g->cost = cost, g->cost_size = 0;
    g->rows_saved = s->rows_read;
    memset(g->fixed, 0, (size_t)(s->n + 7) / 8 * 8);
    for (int64_t i = 0; cost && i < s->n; i++) g->cost_size = fmax(g->cost_size, fabs(cost[i]));
    walk_release(s);
    TRY(sum_free(s, s->residual, -1, s->fixed));
    TRY(build(g));
    TRY(check(g));
    g->active = true;
done:
    return status;
}

static enum status walk(struct walk_state *s, const double *cost, int64_t stop, bool landing, int64_t *moves,
                        int64_t *kept) {
    enum status status = STATUS_OK;
    struct gsw *g = &s->gsw;
    TRY(gsw_open(s));
    if (!g->active) TRY(start(g, cost));
    TRY(run(g, stop, landing));
    g->active = false;
    *moves = g->moves;
    *kept = g->kept;
done:
    return status;
}

enum status gsw_run(struct walk_state *s, int64_t stop, bool landing, int64_t *moves, int64_t *kept) {
    return walk(s, NULL, stop, landing, moves, kept);
}

enum status gsw_descend(struct walk_state *s, const double *cost, int64_t *moves, int64_t *kept) {
    return walk(s, cost, 0, false, moves, kept);
}
