// Rounds y in [0,1]^n to x with M (x - y) = 0: the algorithm of Theorem 2, its relatives and comparators.
//
//     struct walk_options options = {.engine = "zone", .seed = 7, .finish = WALK_VERTEX};
//     struct walk_result result;
//     TRY(walk_round(frame, y, &options, x, NULL, &result));   // frame: walk/frame.h
//
// Engines (README.md says which to take; NOTES.md what was measured):
//
//     zone         Lovett-Meka walk whose steps are exactly a martingale; Theorem 2's algorithm. The default.
//     leap         rounds random blocks of coordinates at random and corrects the rest; few reads of M, a martingale too
//     gsw          Gram-Schmidt walk in the null space of M; |frac| <= rank; O(n rank) a coordinate
//     clamp        Lovett-Meka with Gaussian steps cut at the box: biased, for comparison
//     slack        Lovett-Meka as in the textbook, frozen within a slack and snapped: biased, breaks M (x - y) = 0
//     independent  x_i = 1 with probability y_i, nothing kept
//     nearest      x_i = y_i rounded to nearest, nothing kept
//
// The result is a function of frame, y and options, whatever the number of threads (call threads_set first: it keeps BLAS
// to one thread per call, which walk relies on).
#ifndef DQ_WALK_WALK_H
#define DQ_WALK_WALK_H

#include "core/base/status.h"
#include "walk/frame.h"

#include <stdbool.h>
#include <stdint.h>

enum walk_finish {
    WALK_STOP,           // at most `stop` fractional coordinates are left as they are: x of Theorem 2
    WALK_VERTEX,         // on to a vertex of {x in [0,1]^n: M x = M y} by gsw: at most rank fractional coordinates
    WALK_LANDING,        // on until nothing is fractional, giving up the weakest constraint each time none is free
    WALK_NEAREST,        // those left at `stop` are rounded to nearest
    WALK_VERTEX_NEAREST, // those left at a vertex are rounded to nearest
};

// A walk that was saved while it ran. Called by walk_round with what a later call needs to go on to the same bits; what the hook
// returns other than STATUS_OK ends the walk.
struct walk_checkpoint {
    int64_t every; // steps or rounds; in Gram-Schmidt walks and final phases: rows read, in units of n; 0: never
    enum status (*save)(void *context, const void *bytes, int64_t n_bytes);
    void *context;
    const void *resume; // bytes of an earlier call with the same frame, y and options; NULL: from the start
    int64_t resume_bytes;
};

struct walk_options {
    const char *engine; // NULL: "zone"
    enum walk_finish finish;
    double step_size; // zone, clamp, slack: length of a step per coordinate, in (0, 0.5]; 0: 0.1 (slack: 0.05)
    double slack;     // slack: distance from the faces at which a coordinate is frozen; 0: 4 step_size
    double block;     // leap: largest share of the free coordinates that is rounded at once; 0: 0.5
    int64_t stop;     // fractional coordinates at which the walk ends; 0: 16 rank, the theorem's; gsw: rank
    uint64_t seed;
    uint32_t walk; // number of the walk: walks of one seed are independent
    struct walk_checkpoint checkpoint;
};

struct walk_result {
    const char *engine;
    int64_t n, m, rank;
    int64_t fractional_start; // coordinates of y that are neither 0 nor 1
    int64_t fractional_walk;  // after the walk, before the final phase
    int64_t fractional;       // at the end
    int64_t steps;            // steps (zone, clamp, slack), rounds (leap), moves (gsw) of the walk
    int64_t finish_moves;     // moves of the final phase
    int64_t constraints_kept; // rank, less what landing gave up
    double reads;             // rows of M read by walk and final phase / n, the last check of the residual included
    double residual_walk;     // max_k |Q (x - y)|_k after the walk
    double residual;          // the same at the end; nearest and landing do not keep it
    double spread;            // leap, zone: largest tau seen; |Cov x| <= (1 + tau)^2 / 4 for leap
    int64_t held;             // coordinates taken out of the walk because a constraint rests on them
    int64_t repairs;          // times a correction left the box and was cut (each costs exact unbiasedness)
    int64_t guards;           // blocks made smaller because what was left could not have carried the correction
    double seconds_walk, seconds_finish; // of this call
};

// y [n] -> x [n]; x may be y. x_walk [n] or NULL: the point before the final phase.
// STATUS_INVALID: y is not in [0,1] (or NaN), an unknown engine, settings out of their range, or a checkpoint of another run.
// With stop = 0 and fewer than 16 rank fractional coordinates there is nothing for the theorem's walk to do: x_walk = y.
enum status walk_round(const struct frame *frame, const double *y, const struct walk_options *options, double *x,
                       double *x_walk, struct walk_result *result);

// Names of the engines, NULL at the end; whether an engine keeps M (x - y) = 0, and whether its mean is exactly y.
extern const char *const walk_engines[];
bool walk_engine_keeps(const char *engine);
bool walk_engine_unbiased(const char *engine);

#endif
