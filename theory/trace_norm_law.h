// What Proposition 4's norm E |Sigma_hat - Sigma|_S1 is for large m and any n: a deterministic law beside the eigenvalues of draws
// (theory/trace_norm.h) and the paper's upper bound (theory/rates.h).
//
//     struct power_law law = {.n = 1 << 20, .alpha = 1.5, .scale = 1};
//     double norm;
//     TRY(trace_norm_law(&law, 256, &norm));   // 0.93 or so; costs milliseconds for n = 10^3 and n = 10^18
#ifndef DQ_THEORY_TRACE_NORM_LAW_H
#define DQ_THEORY_TRACE_NORM_LAW_H

#include "theory/power_law.h"

// Relative error of the quadrature about 1e-3; of the law, against draws: trace_norm_law.c.
// STATUS_INVALID for a law out of its range, or m < 1.
enum status trace_norm_law(const struct power_law *law, int64_t m, double *norm);

// d log norm / d log m between m / 2 and 2 m, m >= 2.
enum status trace_norm_law_slope(const struct power_law *law, int64_t m, double *slope);

#endif
