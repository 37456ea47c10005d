// Intervals for means and slopes of nested replicates: walks of one y, several y of one M, several M. A resample draws M
// with replacement, then y of each M drawn, then walks of each y drawn, so that what is shared stays shared.
//
//     struct nest nest = {.levels = 2, .counts = {8, 4}, .values = qe, .stride = 1};   // 8 M, 4 walks of each
//     struct interval mean = bootstrap_mean(&nest, seed);
//     struct interval slope = bootstrap_slope(nests, m, 5, seed);   // d log mean / d log m
//
// Intervals hold 95 %: 2.5 % and 97.5 % points of 2000 resamples, drawn apart by sqrt(k / (k - 1)) for k values on the
// first level, which a resample of few values lacks. With one value there they are NaN.
#ifndef DQ_WALK_BOOTSTRAP_H
#define DQ_WALK_BOOTSTRAP_H

#include <stdint.h>

enum { NEST_LEVELS = 4 };

struct nest {
    int levels;
    int64_t counts[NEST_LEVELS]; // of each level, outermost first
    const double *values;        // number i at values[i * stride], the last level running fastest
    int64_t stride;
};

struct interval {
    double mean, low, high;
};

double nest_mean(const struct nest *nest);
struct interval bootstrap_mean(const struct nest *nest, uint64_t seed);

// Least squares of log y against log x. NaN where a y is not positive.
double slope_of(const double *x, const double *y, int64_t n);

// The slope of log mean(nests[i]) against log x[i]; nests are resampled independently.
struct interval bootstrap_slope(const struct nest *nests, const double *x, int64_t n, uint64_t seed);

// The ratio mean(above) / mean(below) of two nests of one shape whose values belong together: they are resampled alike.
struct interval bootstrap_ratio(const struct nest *above, const struct nest *below, uint64_t seed);

#endif
