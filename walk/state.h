// A walk under way: which coordinates are free, the Gram matrix of their rows, and one pass over the rows per step.
//
//     walk_pass(s, true, step);      // position d_i, direction h_i of the free coordinates; residual and noise sums
//     …                              // choose who leaves: s->leaving
//     TRY(walk_leave(s));            // they go to their faces; Gram matrix, residual and noise sums follow
//     walk_prepare(s);               // vectors of the next pass
//
// Equations (F the free set, G = sum_F q_i q_i^T, T = Q (x - y) with every coordinate in it, g the noise):
//
//     position   d_i = x_i - q_i . G^-1 T           the correction of least norm: removes T exactly, jumps and rounding alike
//     direction  h_i = g_i - q_i . G^-1 sum_F g q   the noise projected on the null space
//     next       T' = fixed + sum_F (d_i + step h_i - y_i) q_i,   Z' = sum_F g'_i q_i
//
// all in one read of the free rows. T is computed anew each time, so nothing drifts.
#ifndef DQ_WALK_STATE_H
#define DQ_WALK_STATE_H

#include "core/base/rng.h"
#include "walk/gram.h"
#include "walk/walk.h"

#include <stdbool.h>

// Streams of random numbers (core/base/rng.h): purpose in the upper 32 bits, number of the walk in the lower.
#define WALK_RNG_NOISE RNG_STREAM(64) // steps
#define WALK_RNG_JUMP RNG_STREAM(65)  // jumps to faces, one per coordinate
#define WALK_RNG_BLOCK RNG_STREAM(66) // blocks of leap
#define WALK_RNG_PIVOT RNG_STREAM(67) // pivots and directions of gsw

// How a coordinate leaves the free set.
enum leave_kind {
    LEAVE_JUMP,  // to 0 or 1, with the probabilities that keep its mean
    LEAVE_CLAMP, // to the nearest face
    LEAVE_HERE,  // stays where it is, counts as rounded (slack)
    LEAVE_HOLD,  // stays where it is and fractional, until the final phase
};

struct leaver {
    int64_t at;   // position in the free list
    int64_t slot; // its place among the leave_* arrays: held ones first
    enum leave_kind kind;
    bool may_stay; // leap's random part: stays free where a constraint rests on it
};

// A Gram-Schmidt walk under way (gsw.c).
struct gsw {
    struct walk_state *s;
    bool active;          // a checkpoint goes on inside it
    int64_t kept;         // constraints that hold
    double *inverse;      // H [kept, kept]; room for rank^2
    double *c;            // [width], H q_p, zeros beyond kept
    double *t;            // [width]
    unsigned char *fixed; // [n rounded up to 8] pivots that could not move
    int64_t pivot;        // id, or -1
    double pivot_share;   // P_pp of the direction under way
    uint64_t draws;       // random numbers taken; goes on in the next Gram-Schmidt walk
    int64_t since_built, since_checked, moves;
    double rows_saved;  // rows_read at the last checkpoint
    const double *cost; // NULL: a walk; else x goes where <cost, x> falls
    double cost_size;   // the largest |cost_i|
};

struct walk_state {
    const struct frame *frame;
    const double *y;
    const struct walk_options *options;
    int64_t n, rank, width;
    bool noisy, gaussian; // noisy: passes take steps (leap begins without)

    double *x;     // [n]; of free coordinates: as of the last walk_leave
    int64_t *free; // [n_free] ids, rising
    int64_t n_free;
    int64_t *held; // [n_held]
    int64_t n_held;
    double *position, *direction; // [n_free] d and h of the last pass
    uint64_t *signs;              // [n] or NULL: Rademacher noise, bit t % 64 of the block of 64 steps
    double *normals;              // [n] or NULL: Gaussian noise of the next pass

    double *gram;                     // [rank, rank] of the free rows
    struct solver solver, trial;      // of gram; of the gram after a block has left; on a device their ranks alone
    double *gram_start, *gram_before; // before anyone left; before those that jump left
    struct gram_scratch *scratch;
    double *fixed, *residual, *noise; // [width] see above
    double *correct, *push;           // [width] G^-1 T, G^-1 Z
    double *slow, *slow_pair;         // [rank] vectors of power iterations
    double *parts;                    // [PARTS, 2 width] sums of a pass

    struct leaver *leaving; // [n_leaving]; capacity n
    int64_t n_leaving;
    int64_t *leave_ids;
    int64_t n_leaving_held;
    double *leave_weight[3]; // numbers of leaving coordinates: change of x, x - y, noise
    double *leave_to;

    int64_t step;       // index of the noise that the noise sums hold
    int64_t rounds;     // steps or rounds so far
    bool primed;        // the noise sums are there
    double step_size;   // of the pass under way: d + step h is the point
    double least_ratio; // min over the free set of distance of d from the faces / |h|
    double gram_trace;
    double *leverage;      // [n] q_i G^-1 q_i as of when it was last computed
    double leverage_trace; // trace of G then: leverages grow about as G shrinks
    int64_t leverage_free; // n_free then
    double tau, tau_most;  // of the last leavers; a set with more is made smaller
    double inverse_norm;   // |G^-1|, estimated at the last walk_leave
    int64_t gram_built;    // n_free when the Gram matrix was last summed from rows
    double rows_read;
    int64_t total_held, repairs, guards;
    double spread;

    struct gsw gsw;
    struct walk_result result; // of the parts that have ended
    bool finishing;            // the final phase is under way
    int64_t n_walked;          // coordinates that were fractional when it began:
    int64_t *walked_ids;       // rising
    double *walked;            // and where they were

    struct device_walk *device; // NULL: on the host; else passes, Gram matrices and systems are there (device.h)
    bool limited;               // on a device: steps end at the first face that a coordinate meets
};

// On the device of the frame, if it has one and `on_device` asks for it.
enum status walk_state_new(const struct frame *frame, const double *y, const struct walk_options *options, bool noisy,
                           bool gaussian, bool on_device, struct walk_state **out);
void walk_state_free(struct walk_state *s); // accepts NULL

// One pass over the free rows with correct and push as they are; step = 0 takes no step. Fails on a device alone, where position
// is the point after the step and direction stays 0.
enum status walk_pass(struct walk_state *s, bool noisy, double step);

// The leaving coordinates go: x must hold the new points of all free coordinates. Keeps s->leaving in rising order of
// `at`; coordinates that a constraint rests on are held (or kept). STATUS_NO_MEMORY, STATUS_INVALID.
enum status walk_leave(struct walk_state *s);

// correct and push of the next pass.
enum status walk_prepare(struct walk_state *s);

// Corrects x until the residual is that of rounding: at most a few passes without noise.
enum status walk_settle(struct walk_state *s);

// Held coordinates go back to the free set; the Gram matrix is then no longer that of the free set.
void walk_release(struct walk_state *s);

// The Gram matrix of the free rows, from the rows; walk_rebuild: and its system.
enum status walk_gram(struct walk_state *s);
enum status walk_rebuild(struct walk_state *s);

// max_k |Q (x - y)|_k of all coordinates; the sums go to s->residual.
enum status walk_residual(struct walk_state *s, double *most);

// About q_i G^-1 q_i.
static inline double walk_leverage(const struct walk_state *s, int64_t id) {
    return s->leverage[id] * (s->leverage_trace / s->gram_trace);
}

static inline int64_t walk_fractional(const struct walk_state *s) { return s->n_free + s->n_held; }

// Distance from the nearer face; negative outside the box.
static inline double face_distance(double x) { return x < 0.5 ? x : 1 - x; }

// Uniform in (0, 1), 53 bits, at `index`.
double walk_uniform(const struct walk_state *s, uint64_t stream, uint64_t index);

// What follows from the lists, the Gram matrix and the step once they have been restored.
enum status walk_resume(struct walk_state *s);

// Memory for the n coordinates that are fractional before the final phase.
enum status walk_mark_new(struct walk_state *s, int64_t n);

// checkpoint.c. walk_save hands the state to the hook of the options; walk_load is its inverse: what it leaves goes on to the same
// bits. STATUS_INVALID: the bytes are of another run or damaged.
enum status walk_save(struct walk_state *s);
enum status walk_load(struct walk_state *s, const void *bytes, int64_t n_bytes);

// Steps between checkpoints; 0: none are wanted.
static inline int64_t walk_save_every(const struct walk_state *s) {
    return s->options->checkpoint.save ? s->options->checkpoint.every : 0;
}

// bulk.c, gsw.c: the engines. `stop`: fractional coordinates at which they end.
enum status bulk_run(struct walk_state *s, const char *engine, int64_t stop);
// Moves held coordinates back to the free set first, or goes on where a checkpoint was written. *kept: constraints that still
// hold; landing gives them up one by one.
enum status gsw_run(struct walk_state *s, int64_t stop, bool landing, int64_t *moves, int64_t *kept);
// Memory of s->gsw; the second call does nothing.
enum status gsw_open(struct walk_state *s);
// To a vertex without a draw while <cost, x> can fall: cost [n] (vertex.c).
enum status gsw_descend(struct walk_state *s, const double *cost, int64_t *moves, int64_t *kept);

#endif
