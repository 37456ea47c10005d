// The order of a Taylor remainder: how fast f(w + t d) - f(w) - t f'(w; d) falls with t = 1, 1/2, 1/4, …, measured in arithmetic
// whose rounding puts a floor under it.
//
//     plain      f(t) - f(0) - t f'                    = t^2 / 2 f'' + t^3 / 6 f''' + …
//     even       (f(t) + f(-t)) / 2 - f(0)             = t^2 / 2 f'' + t^4 / 24 f'''' + …
//     central    (f(t) - f(-t)) / (2 t) - f'           = t^2 / 6 f''' + …       a check of f' that no derivative went into
//
// Root mean squares are over all tokens of all windows. The floor is the plain one at the smallest two t, where t^2 has long left
// nothing else; its square is taken off the other squares. The order is the least-squares slope of log rms on log t over those
// smallest t whose rms is at least TAYLOR_ABOVE floors, four at most: there t^3 matters least.
#ifndef DQ_SPECTRA_TAYLOR_ORDER_H
#define DQ_SPECTRA_TAYLOR_ORDER_H

#include "spectra/agreement.h"

#include <stdbool.h>

enum { TAYLOR_ABOVE = 10, TAYLOR_POINTS = 4, TAYLOR_MOST = 32 };

struct taylor_order {
    int n_t;
    double t[TAYLOR_MOST];
    double plain[TAYLOR_MOST], even[TAYLOR_MOST], central[TAYLOR_MOST]; // rms, as measured
    bool used[TAYLOR_MOST];                                             // for the order
    double floor;                                                       // rms of plain that is rounding
    struct estimate order; // of plain; errors by leaving out windows; NaN where fewer than three t are above the floor
    struct estimate order_even; // over the same t
    double central_least;       // the smallest central rms over the rms of f': how well both agree
};

// f0, first [windows, size]; up, down: n_t arrays [windows, size] of f(w + t d), f(w - t d), t falling. n_t <= TAYLOR_MOST.
void taylor_order_measure(const double *f0, const double *first, const double *const *up, const double *const *down,
                          const double *t, int n_t, int64_t windows, int64_t size, struct taylor_order *out);

#endif
