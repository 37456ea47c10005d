#include "walk/bootstrap.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/status.h"

#include <math.h>
#include <stdlib.h>

enum { RESAMPLES = 2000 };

#define BOOTSTRAP_RNG RNG_STREAM(80) // one stream per nest

double nest_mean(const struct nest *nest) {
    int64_t n = 1;
    double sum = 0;
    for (int level = 0; level < nest->levels; level++) n *= nest->counts[level];
    for (int64_t i = 0; i < n; i++) sum += nest->values[i * nest->stride];
    return sum / (double)n;
}

// `at` counts the random numbers that were used.
static double resample(const struct nest *nest, int level, int64_t first, struct rng rng, uint64_t *at) {
    if (level == nest->levels || level == NEST_LEVELS) return nest->values[first * nest->stride];
    int64_t count = nest->counts[level];
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t pick = (int64_t)(((uint64_t)rng_bits(rng, (*at)++) * (uint64_t)count) >> 32);
        sum += resample(nest, level + 1, first * count + pick, rng, at);
    }
    return sum / (double)count;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The interval from resampled figures [RESAMPLES], which are sorted.
static struct interval interval_of(double centre, double *figures, int64_t outermost) {
    if (outermost < 2 || isnan(centre)) return (struct interval){centre, NAN, NAN};
    qsort(figures, RESAMPLES, sizeof *figures, compare);
    double spread = sqrt((double)outermost / (double)(outermost - 1));
    int64_t tail = RESAMPLES / 40;
    return (struct interval){centre, centre + spread * (figures[tail] - centre),
                             centre + spread * (figures[RESAMPLES - 1 - tail] - centre)};
}

struct interval bootstrap_mean(const struct nest *nest, uint64_t seed) {
    double *figures = mem_new(RESAMPLES, sizeof *figures);
    uint64_t at = 0;
    for (int i = 0; i < RESAMPLES; i++)
        figures[i] = resample(nest, 0, 0, (struct rng){.seed = seed, .stream = BOOTSTRAP_RNG}, &at);
    struct interval interval = interval_of(nest_mean(nest), figures, nest->counts[0]);
    free(figures);
    return interval;
}

double slope_of(const double *x, const double *y, int64_t n) {
    double mean_x = 0, mean_y = 0, above = 0, below = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(y[i] > 0)) return NAN;
        mean_x += log(x[i]) / (double)n;
        mean_y += log(y[i]) / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        above += (log(x[i]) - mean_x) * (log(y[i]) - mean_y);
        below += (log(x[i]) - mean_x) * (log(x[i]) - mean_x);
    }
    return above / below;
}

struct interval bootstrap_slope(const struct nest *nests, const double *x, int64_t n, uint64_t seed) {
    REQUIRE(n > 1, "a slope has two points");
    double *figures = mem_new(RESAMPLES, sizeof *figures), *means = mem_new((size_t)n, sizeof *means);
    uint64_t *at = mem_new((size_t)n, sizeof *at);
    int64_t outermost = nests[0].counts[0];
    for (int i = 0; i < RESAMPLES; i++) {
        for (int64_t k = 0; k < n; k++)
            means[k] = resample(&nests[k], 0, 0, (struct rng){.seed = seed, .stream = BOOTSTRAP_RNG + (uint64_t)k + 1},
                                &at[k]);
        figures[i] = slope_of(x, means, n);
    }
    for (int64_t k = 0; k < n; k++) {
        means[k] = nest_mean(&nests[k]);
        if (nests[k].counts[0] < outermost) outermost = nests[k].counts[0];
    }
    struct interval interval = interval_of(slope_of(x, means, n), figures, outermost);
    free(figures);
    free(means);
    free(at);
    return interval;
}

struct interval bootstrap_ratio(const struct nest *above, const struct nest *below, uint64_t seed) {
    REQUIRE(above->levels == below->levels && above->counts[0] == below->counts[0], "nests of one shape");
    double *figures = mem_new(RESAMPLES, sizeof *figures);
    struct rng rng = {.seed = seed, .stream = BOOTSTRAP_RNG};
    uint64_t at = 0;
    for (int i = 0; i < RESAMPLES; i++) {
        uint64_t again = at;
        double top = resample(above, 0, 0, rng, &at);
        figures[i] = top / resample(below, 0, 0, rng, &again);
    }
    struct interval interval = interval_of(nest_mean(above) / nest_mean(below), figures, above->counts[0]);
    free(figures);
    return interval;
}
