// States of a walk as bytes: everything that the steps to come depend on, and what tells one run from another.
#include "walk/state.h"

#include <stdio.h>
#include <string.h>

struct header {
    char magic[8], engine[16];
    int64_t n, rank, n_free, n_held, step, gram_built, total_held, repairs, guards, leverage_free, rounds, noisy,
        primed;
    uint64_t seed, walk;
    double step_size, slack, block;
    double rows_read, spread, leverage_trace, inverse_norm, tau;
};

static const char magic[8] = "dqwalk1";

// Everything but the header, in order.
static int64_t body_bytes(int64_t n, int64_t rank, int64_t width, int64_t n_free, int64_t n_held) {
    return 8 * (2 * n + n_free + n_held + rank * rank + 5 * width);
}

int64_t walk_state_bytes(const struct walk_state *s) {
    return (int64_t)sizeof(struct header) + body_bytes(s->n, s->rank, s->width, s->n_free, s->n_held);
}

// The arrays of a checkpoint with their lengths; both directions use this list.
static int fields(const struct walk_state *s, void *at[10], int64_t count[10]) {
    void *all[] = {s->x,        s->free,  s->held, s->gram,      s->fixed,
                   s->residual, s->noise, s->slow, s->slow_pair, s->leverage};
    int64_t counts[] = {s->n,     s->n_free, s->n_held, s->rank * s->rank, s->width,
                        s->width, s->width,  s->width,  s->width,          s->n};
    memcpy(at, all, sizeof all);
    memcpy(count, counts, sizeof counts);
    return 10;
}

// What tells one run from another, and the numbers of this moment.
static struct header header_of(const struct walk_state *s) {
    const struct walk_options *o = s->options;
    struct header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, magic, sizeof magic);
    snprintf(h.engine, sizeof h.engine, "%s", o->engine ? o->engine : "zone");
    h.seed = o->seed, h.walk = o->walk, h.step_size = o->step_size, h.slack = o->slack, h.block = o->block;
    h.n = s->n, h.rank = s->rank, h.n_free = s->n_free, h.n_held = s->n_held, h.step = s->step;
    h.gram_built = s->gram_built, h.total_held = s->total_held, h.repairs = s->repairs, h.guards = s->guards;
    h.leverage_free = s->leverage_free, h.rounds = s->rounds, h.noisy = s->noisy, h.primed = s->primed;
    h.rows_read = s->rows_read, h.spread = s->spread;
    h.leverage_trace = s->leverage_trace, h.inverse_norm = s->inverse_norm;
    h.tau = s->tau;
    return h;
}

void walk_state_save(const struct walk_state *s, void *bytes) {
    struct header h = header_of(s);
    char *to = bytes;
    memcpy(to, &h, sizeof h);
    to += sizeof h;
    void *at[10];
    int64_t count[10];
    for (int i = 0, n = fields(s, at, count); i < n; i++) {
        memcpy(to, at[i], (size_t)count[i] * 8);
        to += count[i] * 8;
    }
}

enum status walk_state_load(struct walk_state *s, const void *bytes, int64_t n_bytes) {
    struct header h;
    const char *from = bytes;
    const char *wrong = "the checkpoint of the walk is of another run or damaged; start without it";
    if (n_bytes < (int64_t)sizeof h) return status_set(STATUS_INVALID, "%s", wrong);
    memcpy(&h, from, sizeof h);
    from += sizeof h;
    struct header own = header_of(s);
    if (memcmp(h.magic, own.magic, sizeof h.magic) != 0 || memcmp(h.engine, own.engine, sizeof h.engine) != 0 ||
        h.n != own.n || h.rank != own.rank || h.seed != own.seed || h.walk != own.walk ||
        h.step_size != own.step_size || h.slack != own.slack || h.block != own.block || h.n_free < 0 || h.n_held < 0 ||
        h.n_free > s->n || h.n_held > s->n - h.n_free ||
        n_bytes != (int64_t)sizeof h + body_bytes(s->n, s->rank, s->width, h.n_free, h.n_held))
        return status_set(STATUS_INVALID, "%s", wrong);
    s->n_free = h.n_free, s->n_held = h.n_held, s->step = h.step, s->gram_built = h.gram_built;
    s->total_held = h.total_held, s->repairs = h.repairs, s->guards = h.guards;
    s->leverage_free = h.leverage_free, s->rounds = h.rounds, s->noisy = h.noisy != 0, s->primed = h.primed != 0;
    s->rows_read = h.rows_read, s->spread = h.spread;
    s->leverage_trace = h.leverage_trace, s->inverse_norm = h.inverse_norm;
    s->tau = h.tau;
    void *at[10];
    int64_t count[10];
    for (int i = 0, n = fields(s, at, count); i < n; i++) {
        memcpy(at[i], from, (size_t)count[i] * 8);
        from += count[i] * 8;
    }
    for (int64_t k = 0; k < s->n_free; k++)
        if (s->free[k] < 0 || s->free[k] >= s->n || (k > 0 && s->free[k] <= s->free[k - 1]))
            return status_set(STATUS_INVALID, "%s", wrong);
    for (int64_t k = 0; k < s->n_held; k++)
        if (s->held[k] < 0 || s->held[k] >= s->n) return status_set(STATUS_INVALID, "%s", wrong);
    return walk_resume(s);
}
