// Verdicts on hypotheses from intervals.
//
//     enum verdict all = VERDICT_HOLDS;
//     all = verdict_and(all, judge_below(&error, bound));
//     all = verdict_and(all, judge_near(&slope, predicted, 0.1));
#ifndef DQ_WALK_JUDGE_H
#define DQ_WALK_JUDGE_H

#include "walk/bootstrap.h"

enum verdict { VERDICT_FAILS, VERDICT_UNDECIDED, VERDICT_HOLDS };
extern const char *const verdict_names[];

// The worse of the two.
enum verdict verdict_and(enum verdict a, enum verdict b);

// Holds: the whole interval is at most the bound. Fails: all of it is above. NaN is undecided.
enum verdict judge_below(const struct interval *value, double bound);
enum verdict judge_above(const struct interval *value, double bound);

// Holds: the estimate is within the tolerance, and the interval is not wider than 4 tolerances. Fails: the whole interval is
// farther away than the tolerance.
enum verdict judge_near(const struct interval *value, double target, double tolerance);

#endif
