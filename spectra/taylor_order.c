#include "spectra/taylor_order.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

// Which of a window's sums: n, f'^2, then for every t plain^2, even^2, central^2.
enum { SUM_N, SUM_FIRST2, SUMS_HEAD };
enum kind { KIND_PLAIN, KIND_EVEN, KIND_CENTRAL, KINDS };

static double mean_square(const double *sums, int t, enum kind kind) {
    return sums[SUMS_HEAD + t * KINDS + (int)kind] / sums[SUM_N];
}

static void add_token(double *sums, double f0, double first, double up, double down, double t, int at) {
    double values[KINDS] = {up - f0 - t * first, (up + down) / 2 - f0, (up - down) / (2 * t) - first};
    for (int k = 0; k < KINDS; k++) sums[SUMS_HEAD + at * KINDS + k] += values[k] * values[k];
}

struct fit {
    const struct taylor_order *about;
    enum kind kind;
};

// At the smallest two t there is nothing but rounding.
static double floor2_of(const double *sums, int n_t, enum kind kind) {
    return (mean_square(sums, n_t - 1, kind) + mean_square(sums, n_t - 2, kind)) / 2;
}

// Slope of log rms on log t over the used t, the floor taken off.
static double order(const double *sums, const void *context) {
    const struct fit *fit = context;
    const struct taylor_order *about = fit->about;
    double n = 0, x = 0, y = 0, xx = 0, xy = 0, floor2 = floor2_of(sums, about->n_t, fit->kind);
    for (int k = 0; k < about->n_t; k++) {
        if (!about->used[k]) continue;
        double log_t = log(about->t[k]), log_rms = log(fmax(mean_square(sums, k, fit->kind) - floor2, 1e-300)) / 2;
        n++;
        x += log_t;
        y += log_rms;
        xx += log_t * log_t;
        xy += log_t * log_rms;
    }
    return n >= 3 ? (n * xy - x * y) / (n * xx - x * x) : NAN;
}

// The smallest t that stand above the floor, without a gap.
static void choose(struct taylor_order *o) {
    int last = -1, n = 0;
    for (int k = 0; k < o->n_t && o->plain[k] >= TAYLOR_ABOVE * o->floor; k++) last = k;
    for (int k = last; k >= 0 && n < TAYLOR_POINTS; k--, n++) o->used[k] = true;
}

void taylor_order_measure(const double *f0, const double *first, const double *const *up, const double *const *down,
                          const double *t, int n_t, int64_t windows, int64_t size, struct taylor_order *out) {
    REQUIRE(n_t >= 3 && n_t <= TAYLOR_MOST, "three values of t at least");
    struct taylor_order result = {.n_t = n_t};
    int64_t width = SUMS_HEAD + n_t * KINDS;
    double *sums = mem_new((size_t)(windows * width), sizeof *sums), *total = mem_new((size_t)width, sizeof *total);
    for (int64_t i = 0; i < windows * size; i++) {
        double *window = sums + i / size * width;
        window[SUM_N]++;
        window[SUM_FIRST2] += first[i] * first[i];
        for (int k = 0; k < n_t; k++) add_token(window, f0[i], first[i], up[k][i], down[k][i], t[k], k);
    }
    for (int64_t i = 0; i < windows * width; i++) total[i % width] += sums[i];
    result.central_least = INFINITY;
    for (int k = 0; k < n_t; k++) {
        result.t[k] = t[k];
        result.plain[k] = sqrt(mean_square(total, k, KIND_PLAIN));
        result.even[k] = sqrt(mean_square(total, k, KIND_EVEN));
        result.central[k] = sqrt(mean_square(total, k, KIND_CENTRAL));
        double rms_first = sqrt(total[SUM_FIRST2] / total[SUM_N]);
        result.central_least = fmin(result.central_least, result.central[k] / rms_first);
    }
    result.floor = sqrt(floor2_of(total, n_t, KIND_PLAIN));
    choose(&result);
    struct fit plain = {&result, KIND_PLAIN}, even = {&result, KIND_EVEN};
    result.order = agreement_jackknife(sums, windows, width, order, &plain);
    result.order_even = agreement_jackknife(sums, windows, width, order, &even);
    free(sums);
    free(total);
    *out = result;
}
