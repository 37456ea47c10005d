#include "theory/error_law.h"

#include "core/base/status.h"

#include <math.h>

double error_law_displacement(enum rounder rounder, const double *y, int64_t n) {
    if (!y) return rounder == ROUNDER_MARTINGALE ? 1.0 / 6 : rounder == ROUNDER_CLOSEST ? 1.0 / 12 : 1.0 / 3;
    REQUIRE(n >= 1, "no coordinates");
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double variance = y[i] * (1 - y[i]), nearest = fmin(y[i], 1 - y[i]);
        if (rounder == ROUNDER_MARTINGALE)
            sum += variance;
        else if (rounder == ROUNDER_CLOSEST)
            sum += nearest * nearest;
        else
            sum += 0.5 - variance;
    }
    return sum / (double)n;
}

double error_law_predict(double distance2, int64_t n, int64_t m, double energy) {
    REQUIRE(m >= 0 && m < n, "fewer samples than weights");
    return distance2 / (double)(n - m) * energy;
}
