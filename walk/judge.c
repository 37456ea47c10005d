#include "walk/judge.h"

#include <math.h>

const char *const verdict_names[] = {"fails", "undecided", "holds"};

enum verdict verdict_and(enum verdict a, enum verdict b) { return a < b ? a : b; }

enum verdict judge_below(const struct interval *value, double bound) {
    if (value->high <= bound) return VERDICT_HOLDS;
    return value->low > bound ? VERDICT_FAILS : VERDICT_UNDECIDED;
}

enum verdict judge_above(const struct interval *value, double bound) {
    if (value->low >= bound) return VERDICT_HOLDS;
    return value->high < bound ? VERDICT_FAILS : VERDICT_UNDECIDED;
}

enum verdict judge_near(const struct interval *value, double target, double tolerance) {
    if (fabs(value->mean - target) <= tolerance && value->high - value->low <= 4 * tolerance) return VERDICT_HOLDS;
    return value->low > target + tolerance || value->high < target - tolerance ? VERDICT_FAILS : VERDICT_UNDECIDED;
}
