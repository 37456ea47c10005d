// Means of a few independent values, as of runs with different seeds, with Student's interval.
#ifndef DQ_THEORY_STUDENT_H
#define DQ_THEORY_STUDENT_H

#include <stdint.h>

struct student {
    double mean; // NaN of no values
    // Half the width of the 95 % interval; NaN of fewer than two values, 0 where they differ by rounding errors only.
    double half;
    int64_t n; // values that count
};

// Of values [n]; NaNs among them do not count. Gosset (1908): mean +- t s / sqrt(n), t the 0.975 quantile with n - 1 degrees of freedom.
struct student student_of(const double *values, int64_t n);

#endif
