// How an optimization over x in [0, 1]^n ends at a vertex. From step `from` of `steps` on, with t = (done - from) / (steps - from):
//
//     nearest            the paper's: nothing happens, x is rounded when it is done
//     straight-through   the network is the rounded one, gradients pass straight through the rounding to x; linear term `strength`
//     freeze             in each of 32 turns what is at 0 or 1 and a tenth of what is not, the nearest to it, is set there and stays; the
//                        others go on with linear term `strength`. After the last step all are frozen
//     anneal             + concave t x (1 - x), whose minima are the vertices; the linear term goes from the optimizer's strength to `strength`
//
// An element is frozen by an infinite second moment, under which AdamW does not move it (core/ops/op.h): no memory of its own,
// and the state of an interrupted run has it. Needs weight decay 0.
#ifndef DQ_DISCQUANT_FINISH_H
#define DQ_DISCQUANT_FINISH_H

#include "core/nn/rounding.h"

enum finish_kind { FINISH_STRAIGHT_THROUGH, FINISH_NEAREST, FINISH_FREEZE, FINISH_ANNEAL, FINISHES };
extern const char *const finish_kind_names[FINISHES];
extern const char finish_choice[]; // all of them, for args_choice

struct finish {
    enum finish_kind kind;
    int64_t from;    // first step of the finish; the number of steps: never
    double strength; // of the linear term, see above
    double concave;
};

// What discquant/NOTES.md found to be good; share: from / steps.
struct finish_defaults {
    double share, strength, concave;
};
extern const struct finish_defaults finish_defaults[FINISHES];

// What the step after `done` others is made of.
struct finish_terms {
    enum weight_form form;
    double strength, concave;
};
struct finish_terms finish_terms(const struct finish *finish, int64_t done, int64_t steps, double strength);

// After step number `done` (from 1): freezes what is due. v: second moments of the model's weights, by their index.
enum status finish_freeze(const struct finish *finish, const struct rounding *rounding, const struct view *v,
                          int64_t done, int64_t steps);

#endif
