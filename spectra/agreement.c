// Sums of a cluster: n, x, y, x^2, y^2, x y, equal signs, (y - x)^2, with x and y taken from their means over all pairs where moments
// around the mean are asked for. With V = covariance matrix of (x, y):
//     pearson = V_xy / sqrt(V_xx V_yy),   slope = V_xy / V_xx,
//     total least squares: the direction of V's larger eigenvalue, (V_yy - V_xx + sqrt((V_yy - V_xx)^2 + 4 V_xy^2)) / (2 V_xy).
#include "spectra/agreement.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { SUM_N, SUM_X, SUM_Y, SUM_XX, SUM_YY, SUM_XY, SUM_SIGNS, SUM_REST, SUM_Y2, SUMS };

struct estimate agreement_jackknife(const double *sums, int64_t clusters, int64_t width, agreement_figure *figure,
                                    const void *context) {
    double *total = mem_new((size_t)width, sizeof *total), *left = mem_new((size_t)width, sizeof *left);
    for (int64_t c = 0; c < clusters; c++)
        for (int64_t k = 0; k < width; k++) total[k] += sums[c * width + k];
    struct estimate estimate = {.value = figure(total, context)};
    double shift = 0, squares = 0, n = (double)clusters;
    for (int64_t c = 0; c < clusters; c++) {
        for (int64_t k = 0; k < width; k++) left[k] = total[k] - sums[c * width + k];
        double without = figure(left, context) - estimate.value;
        shift += without;
        squares += without * without;
    }
    squares -= shift * shift / n;
    estimate.se = clusters > 1 ? sqrt((n - 1) / n * fmax(squares, 0)) : NAN;
    if (isnan(shift)) estimate.se = NAN;
    estimate.low = estimate.value - 1.96 * estimate.se;
    estimate.high = estimate.value + 1.96 * estimate.se;
    free(total);
    free(left);
    return estimate;
}

struct moments {
    double xx, yy, xy;
};

static struct moments moments_of(const double *sums) {
    double n = sums[SUM_N], x = sums[SUM_X] / n, y = sums[SUM_Y] / n;
    return (struct moments){sums[SUM_XX] / n - x * x, sums[SUM_YY] / n - y * y, sums[SUM_XY] / n - x * y};
}

static double pearson_of(const double *sums) {
    struct moments v = moments_of(sums);
    return v.xx > 0 && v.yy > 0 ? v.xy / sqrt(v.xx * v.yy) : NAN;
}

static double fisher(const double *sums, const void *context) {
    (void)context;
    double r = pearson_of(sums), most = 1 - 1e-15;
    return atanh(r > most ? most : r < -most ? -most : r);
}

static double slope(const double *sums, const void *context) {
    (void)context;
    struct moments v = moments_of(sums);
    return v.xx > 0 ? v.xy / v.xx : NAN;
}

static double slope_total(const double *sums, const void *context) {
    (void)context;
    struct moments v = moments_of(sums);
    double difference = v.yy - v.xx;
    return v.xy != 0 ? (difference + sqrt(difference * difference + 4 * v.xy * v.xy)) / (2 * v.xy) : NAN;
}

static double sign_share(const double *sums, const void *context) {
    (void)context;
    return sums[SUM_SIGNS] / sums[SUM_N];
}

static double remainder_share(const double *sums, const void *context) {
    (void)context;
    return sums[SUM_Y2] > 0 ? sums[SUM_REST] / sums[SUM_Y2] : NAN;
}

static int sign_of(double x) { return (x > 0) - (x < 0); }

static void add_pair(double *sums, double x, double y, const struct agreement *about) {
    double from_x = x - about->mean_x, from_y = y - about->mean_y;
    sums[SUM_N]++;
    sums[SUM_X] += from_x;
    sums[SUM_Y] += from_y;
    sums[SUM_XX] += from_x * from_x;
    sums[SUM_YY] += from_y * from_y;
    sums[SUM_XY] += from_x * from_y;
    sums[SUM_SIGNS] += sign_of(x) == sign_of(y);
    sums[SUM_REST] += (y - x) * (y - x);
    sums[SUM_Y2] += y * y;
}

void agreement_measure(const double *x, const double *y, int64_t clusters, int64_t size, struct agreement *out) {
    int64_t pairs = clusters * size;
    struct agreement result = {.clusters = clusters, .pairs = pairs};
    double *sums = mem_new((size_t)(clusters * SUMS), sizeof *sums);
    for (int64_t i = 0; i < pairs; i++) {
        result.mean_x += x[i] / (double)pairs;
        result.mean_y += y[i] / (double)pairs;
        result.rms_x += x[i] * x[i] / (double)pairs;
        result.rms_y += y[i] * y[i] / (double)pairs;
    }
    result.rms_x = sqrt(result.rms_x);
    result.rms_y = sqrt(result.rms_y);
    for (int64_t i = 0; i < pairs; i++) add_pair(sums + i / size * SUMS, x[i], y[i], &result);
    struct estimate z = agreement_jackknife(sums, clusters, SUMS, fisher, NULL);
    double r = tanh(z.value);
    result.pearson = (struct estimate){r, z.se * (1 - r * r), tanh(z.low), tanh(z.high)};
    result.slope = agreement_jackknife(sums, clusters, SUMS, slope, NULL);
    result.slope_total = agreement_jackknife(sums, clusters, SUMS, slope_total, NULL);
    result.sign = agreement_jackknife(sums, clusters, SUMS, sign_share, NULL);
    result.remainder = agreement_jackknife(sums, clusters, SUMS, remainder_share, NULL);
    free(sums);
    *out = result;
}
