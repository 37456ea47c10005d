// The first terms are added one by one, the rest by Euler and Maclaurin:
//     sum_{k=a}^{b} f(k) = integral_a^b f + (f(a) + f(b)) / 2 + (f'(b) - f'(a)) / 12 - …
// with f' = -alpha f / k for f = lambda_k, and f' = -alpha f (1 - f) / k for f = lambda_k / (lambda_k + mu).
// The first term left out is below (alpha / a)^3 f(a) / 720.
#include "theory/power_law.h"

#include <gsl/gsl_integration.h>

#include <math.h>

enum { POINTS = 20 };

enum status power_law_check(const struct power_law *law) {
    if (law->n < 1) return status_set(STATUS_INVALID, "power law: n = %lld, must be >= 1", (long long)law->n);
    if (!(law->alpha >= 0 && law->alpha <= 100))
        return status_set(STATUS_INVALID, "power law: alpha = %g, must be in 0 … 100", law->alpha);
    if (!(law->scale > 0 && isfinite(law->scale)))
        return status_set(STATUS_INVALID, "power law: scale = %g, must be > 0", law->scale);
    return STATUS_OK;
}

double power_law_eigenvalue(const struct power_law *law, int64_t k) { return law->scale * pow((double)k, -law->alpha); }

// Where the terms are smooth enough: alpha / k <= 1/400.
static int64_t smooth_from(const struct power_law *law, int64_t first) {
    int64_t from = (int64_t)(400 * fmax(1, law->alpha));
    return from > first ? from : first;
}

double power_law_sum(const struct power_law *law, int64_t first, int64_t last) {
    REQUIRE(first >= 1, "eigenvalues are counted from 1");
    int64_t smooth = smooth_from(law, first);
    double sum = 0;
    if (last <= smooth + 2) {
        for (int64_t k = last; k >= first; k--) sum += power_law_eigenvalue(law, k);
        return sum;
    }
    double a = (double)smooth, b = (double)last, decay = law->alpha - 1, ratio = log(b / a);
    double at_a = power_law_eigenvalue(law, smooth), at_b = power_law_eigenvalue(law, last);
    double integral = a * at_a * (decay == 0 ? ratio : -expm1(-decay * ratio) / decay);
    sum = integral + (at_a + at_b) / 2 + law->alpha * (at_a / a - at_b / b) / 12;
    for (int64_t k = smooth - 1; k >= first; k--) sum += power_law_eigenvalue(law, k);
    return sum;
}

struct directions {
    double alpha, ratio; // ratio = mu / scale
};

static double direction(const struct directions *d, double k) { return 1 / (1 + d->ratio * pow(k, d->alpha)); }

// In t = log k the integrand is a logistic function times e^t.
static double direction_integrand(double t, void *context) { return direction(context, exp(t)) * exp(t); }

double power_law_directions(const struct power_law *law, double mu) {
    REQUIRE(mu > 0, "mu must be positive");
    struct directions d = {.alpha = law->alpha, .ratio = mu / law->scale};
    int64_t smooth = smooth_from(law, 1), last = law->n <= smooth + 2 ? law->n : smooth - 1;
    double sum = 0;
    for (int64_t k = last; k >= 1; k--) sum += direction(&d, (double)k);
    if (last == law->n) return sum;

    // The poles of the logistic function are pi / alpha away from the axis: panels shorter than that make the 20-point
    // rule exact to rounding.
    double a = (double)smooth, b = (double)law->n, at_a = direction(&d, a), at_b = direction(&d, b);
    double length = log(b) - log(a), step = fmin(0.7, 2 / fmax(law->alpha, 1));
    int64_t panels = (int64_t)ceil(length / step);
    gsl_integration_glfixed_table *table = gsl_integration_glfixed_table_alloc(POINTS);
    REQUIRE(table, "no memory for 20 numbers");
    gsl_function f = {.function = direction_integrand, .params = &d};
    for (int64_t i = 0; i < panels; i++) {
        double from = log(a) + length * (double)i / (double)panels;
        sum += gsl_integration_glfixed(&f, from, from + length / (double)panels, table);
    }
    gsl_integration_glfixed_table_free(table);
    sum += (at_a + at_b) / 2;
    sum += law->alpha * (at_a * (1 - at_a) / a - at_b * (1 - at_b) / b) / 12;
    return sum;
}
