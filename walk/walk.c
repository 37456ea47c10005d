#include "walk/walk.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "walk/state.h"

#include <math.h>
#include <string.h>

struct engine {
    const char *name;
    bool keeps, unbiased;
    bool noisy, gaussian;
    double step_size;
    enum status (*run)(struct walk_state *s, const struct engine *engine, int64_t stop, struct walk_result *result);
};

static enum status run_bulk(struct walk_state *s, const struct engine *engine, int64_t stop,
                            struct walk_result *result) {
    enum status status = STATUS_OK;
    if (!s->gsw.active) TRY(bulk_run(s, engine->name, stop));
    result->steps = s->rounds;
    // Where constraints rest on few coordinates, many are held; one at a time they can be rounded all the same.
    if (s->gsw.active || (walk_fractional(s) > stop && engine->keeps))
        TRY(gsw_run(s, stop, false, &result->finish_moves, &result->constraints_kept));
done:
    return status;
}

static enum status run_gsw(struct walk_state *s, const struct engine *engine, int64_t stop,
                           struct walk_result *result) {
    (void)engine;
    return gsw_run(s, stop, false, &result->steps, &result->constraints_kept);
}

static enum status run_each(struct walk_state *s, const struct engine *engine, int64_t stop,
                            struct walk_result *result) {
    (void)stop, (void)result;
    for (int64_t k = 0; k < s->n_free; k++) {
        int64_t i = s->free[k];
        double threshold = engine->unbiased ? walk_uniform(s, WALK_RNG_JUMP, (uint64_t)i) : 0.5;
        s->x[i] = threshold < s->x[i] ? 1 : 0;
    }
    s->n_free = 0;
    return STATUS_OK;
}

static const struct engine engines[] = {
    {"zone", true, true, true, false, 0.1, run_bulk},       {"leap", true, true, false, false, 0.1, run_bulk},
    {"gsw", true, true, false, false, 0.1, run_gsw},        {"clamp", true, false, true, true, 0.1, run_bulk},
    {"slack", false, false, true, true, 0.05, run_bulk},    {"independent", false, true, false, false, 0.1, run_each},
    {"nearest", false, false, false, false, 0.1, run_each},
};
enum { ENGINES = sizeof engines / sizeof *engines };

const char *const walk_engines[] = {"zone", "leap", "gsw", "clamp", "slack", "independent", "nearest", NULL};

static const struct engine *engine_named(const char *name) {
    for (int i = 0; i < ENGINES; i++)
        if (strcmp(engines[i].name, name ? name : "zone") == 0) return &engines[i];
    return NULL;
}

bool walk_engine_keeps(const char *engine) {
    const struct engine *e = engine_named(engine);
    return e && e->keeps;
}

bool walk_engine_unbiased(const char *engine) {
    const struct engine *e = engine_named(engine);
    return e && e->unbiased;
}

static enum status check_options(const struct walk_options *o) {
    if (!engine_named(o->engine))
        return status_set(STATUS_INVALID,
                          "there is no walk '%s'; there are zone, leap, gsw, clamp, slack, independent and nearest",
                          o->engine);
    if (!(o->step_size >= 0 && o->step_size <= 0.5))
        return status_set(STATUS_INVALID, "a walk cannot make steps of %g; they are in (0, 0.5]", o->step_size);
    if (!(o->slack >= 0 && o->slack < 0.5))
        return status_set(STATUS_INVALID, "a slack of %g leaves nothing to walk in; it is in (0, 0.5)", o->slack);
    if (!(o->block >= 0 && o->block <= 0.9))
        return status_set(STATUS_INVALID, "leap cannot round a share of %g at once; it is in (0, 0.9]", o->block);
    if (o->stop < 0)
        return status_set(STATUS_INVALID, "a walk cannot stop at %lld fractional coordinates", (long long)o->stop);
    return STATUS_OK;
}

static enum status check_start(const double *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(y[i] >= 0 && y[i] <= 1))
            return status_set(STATUS_INVALID, "coordinate %lld of the start is %g; a walk starts in [0, 1]",
                              (long long)i, y[i]);
    return STATUS_OK;
}

static int64_t count_fractional(const double *x, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] > 0 && x[i] < 1;
    return count;
}

static enum status finish(struct walk_state *s, enum walk_finish how, struct walk_result *result) {
    enum status status = STATUS_OK;
    int64_t moves = 0;
    if (how == WALK_VERTEX || how == WALK_VERTEX_NEAREST) TRY(gsw_run(s, 0, false, &moves, &result->constraints_kept));
    if (how == WALK_LANDING) TRY(gsw_run(s, 0, true, &moves, &result->constraints_kept));
    if (how == WALK_NEAREST || how == WALK_VERTEX_NEAREST)
        for (int64_t i = 0; i < s->n; i++)
            if (s->x[i] > 0 && s->x[i] < 1) s->x[i] = s->x[i] < 0.5 ? 0 : 1;
    result->finish_moves += moves;
done:
    return status;
}

// Remembers the point before the final phase.
static enum status mark(struct walk_state *s) {
    enum status status = walk_mark_new(s, s->result.fractional_walk);
    for (int64_t i = 0, k = 0; i < s->n && status == STATUS_OK; i++)
        if (s->x[i] > 0 && s->x[i] < 1) s->walked_ids[k] = i, s->walked[k++] = s->x[i];
    return status;
}

// Up to the point before the final phase.
static enum status walk_all(struct walk_state *s, const struct engine *engine) {
    enum status status = STATUS_OK;
    struct walk_result *result = &s->result;
    int64_t stop = s->options->stop ? s->options->stop : engine->run == run_gsw ? 0 : 16 * s->rank;
    TRY(engine->run(s, engine, stop, result));
    result->fractional_walk = count_fractional(s->x, s->n);
    TRY(walk_residual(s, &result->residual_walk));
    TRY(mark(s));
    s->finishing = true;
done:
    return status;
}

static enum status round_all(struct walk_state *s, const struct engine *engine, double *x, double *x_walk) {
    enum status status = STATUS_OK;
    const struct walk_options *o = s->options;
    struct walk_result *result = &s->result;
    double start = clock_seconds();
    if (o->checkpoint.resume) TRY(walk_load(s, o->checkpoint.resume, o->checkpoint.resume_bytes));
    if (!s->finishing) TRY(walk_all(s, engine));
    result->seconds_walk = clock_seconds() - start;
    if (x_walk) memcpy(x_walk, s->x, (size_t)s->n * sizeof *x_walk);
    for (int64_t k = 0; k < s->n_walked && x_walk; k++) x_walk[s->walked_ids[k]] = s->walked[k];
    start = clock_seconds();
    result->residual = result->residual_walk;
    if (o->finish != WALK_STOP) {
        TRY(finish(s, o->finish, result));
        result->seconds_finish = clock_seconds() - start;
        TRY(walk_residual(s, &result->residual));
    }
    memcpy(x, s->x, (size_t)s->n * sizeof *x);
done:
    return status;
}

enum status walk_round(const struct frame *frame, const double *y, const struct walk_options *options, double *x,
                       double *x_walk, struct walk_result *result) {
    enum status status = STATUS_OK;
    struct walk_state *s = NULL;
    struct walk_options o = *options;
    const struct engine *engine = engine_named(o.engine);
    TRY(check_options(&o));
    TRY(check_start(y, frame->n));
    if (o.step_size == 0) o.step_size = engine->step_size;
    if (o.slack == 0) o.slack = fmin(4 * o.step_size, 0.45);
    if (o.block == 0) o.block = 0.5;
    TRY(walk_state_new(frame, y, &o, engine->noisy, engine->gaussian, engine->run != run_each, &s));
    struct walk_result *r = &s->result;
    *r = (struct walk_result){.engine = engine->name,
                              .n = frame->n,
                              .m = frame->m,
                              .rank = frame->rank,
                              .constraints_kept = frame->rank,
                              .fractional_start = count_fractional(y, frame->n)};
    TRY(round_all(s, engine, x, x_walk));
    r->fractional = count_fractional(x, frame->n);
    r->reads = s->rows_read / (double)frame->n;
    r->spread = s->spread, r->held = s->total_held, r->repairs = s->repairs, r->guards = s->guards;
    *result = *r;
done:
    walk_state_free(s);
    return status;
}
