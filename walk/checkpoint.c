// States of a walk as bytes: everything that the steps to come depend on, and what tells one run from another. While coordinates
// move one at a time (gsw.c) that is the inverse Gram matrix; before, it is the Gram matrix and what the next pass needs.
#include "walk/state.h"

#include "core/base/mem.h"
#include "walk/device.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct header {
    char magic[8], engine[16];
    uint64_t seed, walk;
    int64_t n, rank, finish, stop;
    double step_size, slack, block;
    // of this moment
    int64_t n_free, n_held, n_walked, finishing, alone;
    int64_t step, gram_built, total_held, repairs, guards, leverage_free, rounds, noisy, primed;
    double rows_read, spread, leverage_trace, inverse_norm, tau;
    int64_t kept, pivot, since_built, since_checked, moves;
    uint64_t draws;
    double pivot_share;
    int64_t steps, finish_moves, constraints_kept, fractional_walk;
    double residual_walk;
};

static const char magic[8] = "dqwalk2";

struct field {
    void *at;
    int64_t count; // of 8 bytes
};
enum { FIELDS_MOST = 12 };

// The arrays of a state with the header's counts; both directions use this list.
static int list_fields(const struct walk_state *s, const struct header *h, struct field out[FIELDS_MOST]) {
    struct field all[] = {{s->x, s->n},
                          {s->free, h->n_free},
                          {s->fixed, s->width},
                          {s->walked_ids, h->n_walked},
                          {s->walked, h->n_walked}};
    struct field together[] = {{s->held, h->n_held}, {s->gram, s->rank * s->rank}, {s->residual, s->width},
                               {s->noise, s->width}, {s->slow, s->width},          {s->slow_pair, s->width},
                               {s->leverage, s->n}};
    struct field alone[] = {{s->gsw.inverse, h->kept * h->kept}, {s->gsw.fixed, (s->n + 7) / 8}};
    int n_all = sizeof all / sizeof *all, more = h->alone ? 2 : sizeof together / sizeof *together;
    memcpy(out, all, sizeof all);
    memcpy(out + n_all, h->alone ? alone : together, (size_t)more * sizeof *out);
    return n_all + more;
}

static int64_t bytes_of(const struct walk_state *s, const struct header *h) {
    struct field fields[FIELDS_MOST];
    int64_t bytes = (int64_t)sizeof *h;
    for (int i = 0, n = list_fields(s, h, fields); i < n; i++) bytes += 8 * fields[i].count;
    return bytes;
}

// What tells one run from another.
static struct header header_of(const struct walk_state *s) {
    const struct walk_options *o = s->options;
    struct header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, magic, sizeof magic);
    snprintf(h.engine, sizeof h.engine, "%s", o->engine ? o->engine : "zone");
    h.seed = o->seed, h.walk = o->walk, h.step_size = o->step_size, h.slack = o->slack, h.block = o->block;
    h.n = s->n, h.rank = s->rank, h.finish = o->finish, h.stop = o->stop;
    return h;
}

static void take_numbers(const struct walk_state *s, struct header *h) {
    const struct gsw *g = &s->gsw;
    const struct walk_result *r = &s->result;
    h->n_free = s->n_free, h->n_held = s->n_held, h->n_walked = s->n_walked;
    h->finishing = s->finishing, h->alone = g->active;
    h->step = s->step, h->gram_built = s->gram_built, h->total_held = s->total_held, h->repairs = s->repairs;
    h->guards = s->guards, h->leverage_free = s->leverage_free, h->rounds = s->rounds, h->noisy = s->noisy;
    h->primed = s->primed, h->rows_read = s->rows_read, h->spread = s->spread, h->leverage_trace = s->leverage_trace;
    h->inverse_norm = s->inverse_norm, h->tau = s->tau;
    h->kept = g->kept, h->pivot = g->pivot, h->since_built = g->since_built, h->since_checked = g->since_checked;
    h->moves = g->moves, h->draws = g->draws, h->pivot_share = g->pivot_share;
    h->steps = r->steps, h->finish_moves = r->finish_moves, h->constraints_kept = r->constraints_kept;
    h->fractional_walk = r->fractional_walk, h->residual_walk = r->residual_walk;
}

static void put_numbers(struct walk_state *s, const struct header *h) {
    struct gsw *g = &s->gsw;
    struct walk_result *r = &s->result;
    s->n_free = h->n_free, s->n_held = h->n_held, s->n_walked = h->n_walked;
    s->finishing = h->finishing != 0, g->active = h->alone != 0;
    s->step = h->step, s->gram_built = h->gram_built, s->total_held = h->total_held, s->repairs = h->repairs;
    s->guards = h->guards, s->leverage_free = h->leverage_free, s->rounds = h->rounds, s->noisy = h->noisy != 0;
    s->primed = h->primed != 0, s->rows_read = h->rows_read, s->spread = h->spread;
    s->leverage_trace = h->leverage_trace, s->inverse_norm = h->inverse_norm, s->tau = h->tau;
    g->kept = h->kept, g->pivot = h->pivot, g->since_built = h->since_built, g->since_checked = h->since_checked;
    g->moves = h->moves, g->draws = h->draws, g->pivot_share = h->pivot_share, g->rows_saved = h->rows_read;
    r->steps = h->steps, r->finish_moves = h->finish_moves, r->constraints_kept = h->constraints_kept;
    r->fractional_walk = h->fractional_walk, r->residual_walk = h->residual_walk;
}

enum status walk_save(struct walk_state *s) {
    enum status status = STATUS_OK;
    const struct walk_checkpoint *c = &s->options->checkpoint;
    struct header h = header_of(s);
    struct field fields[FIELDS_MOST];
    void *bytes = NULL;
    take_numbers(s, &h);
    if (s->device && !h.alone) TRY(device_gram_read(s));
    int64_t n_bytes = bytes_of(s, &h);
    TRY(mem_buffer_new(n_bytes, "a checkpoint of the walk", &bytes));
    char *to = bytes;
    memcpy(to, &h, sizeof h);
    to += sizeof h;
    for (int i = 0, n = list_fields(s, &h, fields); i < n; i++) {
        if (fields[i].count) memcpy(to, fields[i].at, (size_t)fields[i].count * 8);
        to += fields[i].count * 8;
    }
    status = c->save(c->context, bytes, n_bytes);
done:
    mem_buffer_free(bytes);
    return status;
}

// The header is of this run and its counts fit.
static bool header_fits(const struct walk_state *s, const struct header *h) {
    struct header own = header_of(s);
    size_t same = offsetof(struct header, n_free);
    return memcmp(h, &own, same) == 0 && h->n_free >= 0 && h->n_held >= 0 && h->n_free <= s->n &&
           h->n_held <= s->n - h->n_free && h->n_walked >= 0 && h->n_walked <= s->n && h->kept >= 0 &&
           h->kept <= s->rank && h->pivot >= -1 && h->pivot < s->n;
}

static bool rising(const int64_t *ids, int64_t count, int64_t n) {
    for (int64_t k = 0; k < count; k++)
        if (ids[k] < 0 || ids[k] >= n || (k > 0 && ids[k] <= ids[k - 1])) return false;
    return true;
}

enum status walk_load(struct walk_state *s, const void *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    struct header h;
    struct field fields[FIELDS_MOST];
    const char *from = bytes, *wrong = "the checkpoint of the walk is of another run or damaged; start without it";
    if (n_bytes < (int64_t)sizeof h) return status_set(STATUS_INVALID, "%s", wrong);
    memcpy(&h, from, sizeof h);
    from += sizeof h;
    if (!header_fits(s, &h) || n_bytes != bytes_of(s, &h)) return status_set(STATUS_INVALID, "%s", wrong);
    put_numbers(s, &h);
    if (h.alone) TRY(gsw_open(s));
    if (h.n_walked) TRY(walk_mark_new(s, h.n_walked));
    for (int i = 0, n = list_fields(s, &h, fields); i < n; i++) {
        if (fields[i].count) memcpy(fields[i].at, from, (size_t)fields[i].count * 8);
        from += fields[i].count * 8;
    }
    bool sound = rising(s->free, s->n_free, s->n) && rising(s->walked_ids, s->n_walked, s->n);
    for (int64_t k = 0; k < s->n_held; k++) sound = sound && s->held[k] >= 0 && s->held[k] < s->n;
    if (!sound) return status_set(STATUS_INVALID, "%s", wrong);
    if (!h.alone) TRY(walk_resume(s));
done:
    return status;
}
