#include "spectra/decay.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

struct decay_tangent {
    struct decay_frame frame;
    double alpha;
    // log expected eigenvalue at ranks 1 … last for scale 1, and its derivatives
    double *base, *alpha1, *alpha2, *by_samples, *by_dim; // [last] each; the last two by 1 / samples and 1 / dim
};

static enum status curve(const struct decay_frame *frame, double alpha, double *out) {
    struct decay_frame all = *frame;
    struct decay d = {.law = LAW_POWER, .parameters = {alpha}, .scale = 1};
    all.first = 1;
    enum status status = decay_expected(&all, &d, out);
    for (int64_t i = 0; status == STATUS_OK && i < frame->last; i++) out[i] = log(out[i]);
    return status;
}

enum status decay_tangent_new(const struct decay_frame *frame, const struct decay *centre, struct decay_tangent **out) {
    enum status status = STATUS_OK;
    struct decay_tangent *t = mem_new(1, sizeof *t);
    const double step = 0.02, share = 0.05;
    int64_t n = frame->last;
    double *rows = mem_new(5 * (size_t)n, sizeof *rows);
    *t =
        (struct decay_tangent){*frame, centre->parameters[0], rows, rows + n, rows + 2 * n, rows + 3 * n, rows + 4 * n};
    struct decay_frame fewer = *frame, narrower = *frame;
    fewer.samples *= 1 - share, narrower.dim *= 1 - share;
    TRY(curve(frame, t->alpha, t->base));
    TRY(curve(frame, t->alpha - step, t->alpha1));
    TRY(curve(frame, t->alpha + step, t->alpha2));
    TRY(curve(&fewer, t->alpha, t->by_samples));
    TRY(curve(&narrower, t->alpha, t->by_dim));
    double more_samples = 1 / fewer.samples - 1 / frame->samples, more_dim = 1 / narrower.dim - 1 / frame->dim;
    for (int64_t i = 0; i < n; i++) {
        double below = t->alpha1[i], above = t->alpha2[i];
        t->alpha1[i] = (above - below) / (2 * step);
        t->alpha2[i] = (above - 2 * t->base[i] + below) / (step * step);
        t->by_samples[i] = more_samples > 0 ? (t->by_samples[i] - t->base[i]) / more_samples : 0;
        t->by_dim[i] = more_dim > 0 ? (t->by_dim[i] - t->base[i]) / more_dim : 0;
    }
    *out = t;
    t = NULL;
done:
    decay_tangent_free(t);
    return status;
}

void decay_tangent_free(struct decay_tangent *t) {
    if (!t) return;
    free(t->base);
    free(t);
}

// Gauss and Newton for alpha; the scale is the weighted mean of what is left.
void decay_tangent_fit(const struct decay_tangent *t, double samples, double dim, const double *log_values,
                       double *over, struct decay *out) {
    double off = 0, mean = 0, weights = 0, square = 0;
    double d_samples = 1 / samples - 1 / t->frame.samples, d_dim = 1 / dim - 1 / t->frame.dim;
    for (int round = 0; round < 6; round++) {
        double slope_mean = 0, slope_square = 0, both = 0;
        weights = mean = square = 0;
        for (int64_t i = t->frame.first - 1; i < t->frame.last; i++) {
            double weight = 1 / (double)(i + 1), slope = t->alpha1[i] + t->alpha2[i] * off;
            double rest = log_values[i] - t->base[i] - off * (t->alpha1[i] + t->alpha2[i] * off / 2) -
                          d_samples * t->by_samples[i] - d_dim * t->by_dim[i];
            weights += weight, mean += weight * rest, square += weight * rest * rest;
            slope_mean += weight * slope, slope_square += weight * slope * slope, both += weight * slope * rest;
        }
        mean /= weights, slope_mean /= weights;
        if (round < 5) off += (both / weights - slope_mean * mean) / (slope_square / weights - slope_mean * slope_mean);
    }
    *out = (struct decay){.law = LAW_POWER,
                          .parameters = {t->alpha + off},
                          .scale = exp(mean),
                          .residual = sqrt(fmax(0, square / weights - mean * mean))};
    for (int64_t i = 0; over && i < t->frame.last; i++)
        over[i] = log_values[i] - t->base[i] - off * (t->alpha1[i] + t->alpha2[i] * off / 2) -
                  d_samples * t->by_samples[i] - d_dim * t->by_dim[i];
}
