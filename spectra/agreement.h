// How well a prediction x agrees with what happened, y, for pairs that come in clusters (tokens of one window of text).
//
// Every figure comes with a delete-one-cluster jackknife, so that pairs of one cluster may depend on each other as they like.
#ifndef DQ_SPECTRA_AGREEMENT_H
#define DQ_SPECTRA_AGREEMENT_H

#include <stdint.h>

// 95 %: value +- 1.96 se.
struct estimate {
    double value, se, low, high;
};

struct agreement {
    int64_t clusters, pairs;
    struct estimate pearson;     // its interval and error come from Fisher's atanh, whose jackknife it is
    struct estimate slope;       // least squares of y on x, with intercept
    struct estimate slope_total; // total least squares: both have errors of one size
    struct estimate sign;        // share of pairs whose signs agree; zeros agree with zeros only
    struct estimate remainder;   // mean (y - x)^2 / mean y^2
    double mean_x, mean_y, rms_x, rms_y;
};

// x, y [clusters, size]; at least 2 clusters, else errors are NaN. Figures that do not exist (no variance) are NaN.
void agreement_measure(const double *x, const double *y, int64_t clusters, int64_t size, struct agreement *out);

// figure(total of sums less cluster c's) for all c: the value at the total and the jackknife error of it. sums [clusters, width].
typedef double agreement_figure(const double *sums, const void *context);
struct estimate agreement_jackknife(const double *sums, int64_t clusters, int64_t width, agreement_figure *figure,
                                    const void *context);

#endif
