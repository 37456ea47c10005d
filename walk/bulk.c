// The engines that move all free coordinates at once: zone, leap, clamp, slack. They differ in how the step is taken and in
// who leaves after it.
//
//   zone   s = min(step, min_i dist_i / |h_i|), symmetric in h, so x + s h stays in the box and has mean x. Who is then within
//          step (1 + 4 sqrt(l_i)) of a face jumps to one of the two faces with the probabilities that keep its mean, and
//          the others correct (state.h). Who jumps does not depend on how jumps fall, so the mean is exactly kept.
//   leap   no steps: blocks jump. A block is a random share of the free coordinates and those near a face,
//          dist_i < 6.5 sigma_i, where sigma_i^2 = l_i V / n_free / (1 - beta)^2 is the variance of the coming correction,
//          V the variance of the block's jumps, beta its share. |Cov x| <= (1 + tau)^2 / 4.
//   clamp  x + step h with Gaussian g; what leaves the box is cut to the face, the others correct. Mean not kept.
//   slack  x + step h with Gaussian g; who is within the slack of a face stays there and is snapped at the end.
//
// l_i is walk_leverage: near the leverage q_i G^-1 q_i.
#include "walk/state.h"

#include <math.h>
#include <string.h>

enum { PARTS = 64, PATIENCE = 2000, LEAP_PATIENCE = 30 };
static const double SIGMAS = 6.5, LEAP_REACH = 0.3, LEAP_TAU = 2, ZONE_TAU = 5;

struct rule {
    struct walk_state *s;
    double step;     // taken: at most step_size
    double width;    // zone: step_size; slack: the slack
    double near;     // leap: width of the near set per sqrt(l_i): 6.5 sigma_i
    uint32_t chance; // leap: 2^32 times the random share
    bool (*leaves)(const struct rule *rule, int64_t k, double x, struct leaver *out);
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static bool inside(double x) { return x >= 0 && x <= 1; }

static bool zone_leaves(const struct rule *r, int64_t k, double x, struct leaver *out) {
    double l = fmin(1, walk_leverage(r->s, r->s->free[k])), distance = face_distance(x);
    out->kind = distance > 0 ? LEAVE_JUMP : LEAVE_CLAMP;
    return distance < r->width * (1 + 4 * sqrt(l));
}

static bool leap_leaves(const struct rule *r, int64_t k, double x, struct leaver *out) {
    const struct walk_state *s = r->s;
    int64_t id = s->free[k];
    double distance = face_distance(x);
    out->kind = distance > 0 ? LEAVE_JUMP : LEAVE_CLAMP;
    if (distance < r->near * sqrt(walk_leverage(s, id))) return true;
    struct rng rng = {.seed = s->options->seed, .stream = WALK_RNG_BLOCK + s->options->walk};
    out->may_stay = true;
    return rng_bits(rng, (uint64_t)(s->step + 1) * (uint64_t)s->n + (uint64_t)id) < r->chance;
}

static bool clamp_leaves(const struct rule *r, int64_t k, double x, struct leaver *out) {
    (void)r, (void)k;
    out->kind = LEAVE_CLAMP;
    return !(x > 0 && x < 1);
}

static bool slack_leaves(const struct rule *r, int64_t k, double x, struct leaver *out) {
    (void)k;
    out->kind = LEAVE_HERE;
    return face_distance(x) <= r->width;
}

// Takes the step and lists who leaves, in order. Returns how many points lay outside the box.
static int64_t move(const struct rule *r, bool from_pass) {
    struct walk_state *s = r->s;
    int64_t per_part = (s->n_free + PARTS - 1) / PARTS, outside = 0, counts[PARTS] = {0};
#pragma omp parallel for schedule(dynamic) reduction(+ : outside) if (s->n_free > 8192)
    for (int64_t p = 0; p < PARTS; p++) {
        int64_t first = p * per_part, end = min_i64(first + per_part, s->n_free);
        for (int64_t k = first; k < end; k++) {
            int64_t id = s->free[k];
            if (from_pass) s->x[id] = s->position[k] + r->step * s->direction[k];
            struct leaver leaver = {.at = k};
            bool leaves = r->leaves(r, k, s->x[id], &leaver);
            if (!inside(s->x[id])) {
                outside++;
                if (r->leaves != slack_leaves) leaver.kind = LEAVE_CLAMP, leaves = true;
            }
            if (leaves) s->leaving[first + counts[p]++] = leaver;
        }
    }
    for (int64_t p = 0; p < PARTS; p++) {
        if (counts[p] == 0) continue;
        memmove(s->leaving + s->n_leaving, s->leaving + p * per_part, (size_t)counts[p] * sizeof *s->leaving);
        s->n_leaving += counts[p];
    }
    return outside;
}

// ---- leap's blocks

struct share {
    double variance, count; // of the block, per free coordinate
};

// What a block of this chance and near set holds, in sums over fixed parts.
static struct share share_of(const struct walk_state *s, double chance, double width) {
    int64_t per_part = (s->n_free + PARTS - 1) / PARTS;
    struct share parts[PARTS] = {0}, all = {0};
#pragma omp parallel for schedule(dynamic) if (s->n_free > 8192)
    for (int64_t p = 0; p < PARTS; p++) {
        int64_t end = min_i64((p + 1) * per_part, s->n_free);
        for (int64_t k = p * per_part; k < end; k++) {
            double x = s->x[s->free[k]];
            bool near = face_distance(x) < width * sqrt(walk_leverage(s, s->free[k]));
            parts[p].variance += (near ? 1 : chance) * x * (1 - x);
            parts[p].count += near ? 1 : chance;
        }
    }
    for (int p = 0; p < PARTS; p++) all.variance += parts[p].variance, all.count += parts[p].count;
    return (struct share){all.variance / (double)s->n_free, all.count / (double)s->n_free};
}

// Chance and near set that fit each other: from the random part alone in a few rounds; smaller while the block would be most
// of what is free. False where no block will do.
static bool size_block(struct rule *r) {
    struct walk_state *s = r->s;
    double leverage = 2 * (double)s->rank / (double)s->n_free, most = s->options->block;
    double v = share_of(s, 1, 0).variance, reach = LEAP_REACH / SIGMAS;
    double chance = s->rank ? fmin(most, reach * reach / fmax(v * leverage, 1e-300)) : 1;
    for (int attempt = 0; attempt < 8; attempt++, chance /= 2) {
        struct share share = {v * chance, chance};
        for (int round = 0; round < 4 && s->rank; round++) {
            double rest = fmax(fmin(1 - share.count, 1 / (1 + s->tau)), 0.05);
            r->near = SIGMAS * sqrt(share.variance) / rest;
            share = share_of(s, chance, r->near);
        }
        r->chance = chance >= 1 ? UINT32_MAX : (uint32_t)(chance * 0x1p32);
        if (share.count <= fmax(0.6, most) || s->rank == 0) return true;
    }
    return false;
}

// ---- the loop

static void set_rule(struct rule *r, const char *engine) {
    const struct walk_options *o = r->s->options;
    r->leaves = strcmp(engine, "zone") == 0    ? zone_leaves
                : strcmp(engine, "leap") == 0  ? leap_leaves
                : strcmp(engine, "clamp") == 0 ? clamp_leaves
                                               : slack_leaves;
    r->width = r->leaves == slack_leaves ? o->slack : o->step_size;
    r->s->limited = r->leaves == zone_leaves;
}

// Where constraints rest on few coordinates no block will do, and leap walks on as zone.
static void walk_on(struct rule *r) {
    struct walk_state *s = r->s;
    s->noisy = true;
    s->step = (s->step / 64 + 1) * 64 - 1; // signs begin with a new block of 64 steps
    memset(s->signs, 0, (size_t)s->n * sizeof *s->signs);
    memset(s->noise, 0, (size_t)s->width * sizeof *s->noise);
    s->tau_most = ZONE_TAU;
    set_rule(r, "zone");
}

// Snapping of slack's frozen coordinates.
static void snap(struct walk_state *s) {
    int64_t next = 0;
    for (int64_t i = 0; i < s->n; i++) {
        if (next < s->n_free && s->free[next] == i)
            next++;
        else
            s->x[i] = s->x[i] < 0.5 ? 0 : 1;
    }
}

// One step or round.
static enum status go(struct rule *rule) {
    enum status status = STATUS_OK;
    struct walk_state *s = rule->s;
    bool leap = rule->leaves == leap_leaves, zone = rule->leaves == zone_leaves;
    int64_t guards = s->guards;
    TRY(walk_prepare(s));
    // The first pass with noise only sums it; leap begins with a block.
    double step = s->primed ? s->options->step_size : 0;
    bool passes = !leap || s->rounds > 0;
    if (passes)
        TRY(walk_pass(s, !leap, step));
    else
        s->step++;
    s->primed = !leap;
    s->rounds++;
    rule->step = zone ? fmin(step, s->least_ratio) : step;
    for (int64_t k = 0; leap && passes && k < s->n_free; k++) s->x[s->free[k]] = s->position[k];
    if (leap && !size_block(rule)) {
        walk_on(rule);
        return STATUS_OK;
    }
    int64_t outside = move(rule, passes);
    if (zone || leap) s->repairs += outside;
    TRY(walk_leave(s));
    if (leap && s->guards > guards) walk_on(rule);
done:
    return status;
}

enum status bulk_run(struct walk_state *s, const char *engine, int64_t stop) {
    enum status status = STATUS_OK;
    struct rule rule = {.s = s};
    // noisy: as the checkpoint says, where there is one
    set_rule(&rule, strcmp(engine, "leap") == 0 && s->noisy ? "zone" : engine);
    s->tau_most = rule.leaves == leap_leaves ? LEAP_TAU : ZONE_TAU;
    int64_t idle = 0, before = walk_fractional(s), every = walk_save_every(s);
    while (walk_fractional(s) > stop && s->n_free > 0 && idle < PATIENCE) {
        TRY(go(&rule));
        idle = walk_fractional(s) < before ? 0 : idle + 1;
        before = walk_fractional(s);
        if (rule.leaves == leap_leaves && idle > LEAP_PATIENCE) walk_on(&rule);
        if (every > 0 && s->rounds % every == 0) TRY(walk_save(s));
    }
    if (rule.leaves == slack_leaves)
        snap(s);
    else
        TRY(walk_settle(s));
done:
    return status;
}
