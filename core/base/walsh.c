#include "core/base/walsh.h"

#include "core/base/status.h"

enum { IN_CACHE = 2048 }; // 16 KiB of doubles

bool walsh_has_size(int64_t n) { return n >= 1 && (n & (n - 1)) == 0; }

static void butterflies(double *x, int64_t n) {
    for (int64_t half = 1; half < n; half *= 2)
        for (int64_t at = 0; at < n; at += 2 * half)
            for (int64_t i = at; i < at + half; i++) {
                double a = x[i], b = x[i + half];
                x[i] = a + b, x[i + half] = a - b;
            }
}

// Quarters first, while they fit the cache, then one pass over all of x joins them: H_n = H_4 (x) H_{n/4}.
static void transform(double *x, int64_t n) {
    if (n <= IN_CACHE) {
        butterflies(x, n);
        return;
    }
    int64_t quarter = n / 4;
    double *x0 = x, *x1 = x + quarter, *x2 = x + 2 * quarter, *x3 = x + 3 * quarter;
    for (int i = 0; i < 4; i++) transform(x + i * quarter, quarter);
    for (int64_t i = 0; i < quarter; i++) {
        double s01 = x0[i] + x1[i], d01 = x0[i] - x1[i], s23 = x2[i] + x3[i], d23 = x2[i] - x3[i];
        x0[i] = s01 + s23, x1[i] = d01 + d23, x2[i] = s01 - s23, x3[i] = d01 - d23;
    }
}

void walsh_transform(double *x, int64_t n) {
    REQUIRE(walsh_has_size(n), "length must be a power of two");
    transform(x, n);
}
