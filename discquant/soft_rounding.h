// AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020) on the Gram matrix H of a layer's
// inputs. Every weight lies between its neighbours by a rectified sigmoid of a variable v,
//
//     w'(v) = down + (up - down) h(v),     h(v) = min(1, max(0, 1.2 sigmoid(v) - 0.1))
//     minimize  tr((w - w') H (w - w')^T) / c + strength * sum of (1 - |2 h - 1|^beta)
//
// by Adam from h(v) = (w - down) / (up - down), the original weights. c is the error of round-to-nearest per weight, so that strength is
// relative to it whatever the layer. beta falls linearly from 20 to 2 between a fifth of the steps and the last; before that there is no
// second term. Then w is rounded up where v > 0. The whole of H takes part in every step: there are no batches and no noise. A row of
// weights that came out worse than round-to-nearest is rounded to nearest.
#ifndef DQ_DISCQUANT_SOFT_ROUNDING_H
#define DQ_DISCQUANT_SOFT_ROUNDING_H

#include "discquant/hessian.h"

struct soft_rounding_options {
    int64_t steps;
    double rate;     // of Adam
    double strength; // of the term that drives h to 0 and 1
};

// h of one variable and its derivative; the variable of an h in [0, 1].
double soft_rounding_value(double v, double *slope);
double soft_rounding_variable(double h);

struct soft_rounding_result {
    double error, error_nearest; // tr((w - w') H (w - w')^T) of the result and of round-to-nearest
    int64_t rows_nearest;        // rows that stayed at round-to-nearest since nothing better was found
};

// w, down, up [rows, n]; x [rows, n] becomes 1 (up) or 0 (down). Same bits for any number of threads.
enum status soft_rounding(const struct hessian *hessian, const float *w, const float *down, const float *up,
                          int64_t rows, const struct soft_rounding_options *options, float *x,
                          struct soft_rounding_result *result);

#endif
