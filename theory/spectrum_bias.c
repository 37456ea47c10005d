// With tau(w) = sum_i lambda_i / (w - lambda_i), over the n eigenvalues of Sigma, and complex w above the real axis, the
// eigenvalues x of the sketched sample covariance satisfy sum x / (z - x) = tau(w) where
//
//     z = w (1 + tau / N) (1 + tau / k):
//
// the S-transform of a free product is the product of the S-transforms (Voiculescu 1987), and that of either
// Marchenko-Pastur step is 1 / (1 + tau / N) in this scaling. Their density is -Im tau / (pi z). How many lie above z
// needs no quadrature: tau dz / z is the differential of
//
//     phi = sum_i log(1 - lambda_i / w) + 2 tau - N log(1 + tau / N) - k log(1 + tau / k),
//
// and phi = 0 at infinity, so that rank(z) = Im phi / pi. A rank is therefore found by Newton's method for the two real
// equations Im log z = 0 and Im phi = pi (rank - 1/2) in u = log w; with s = d log z / du, d phi / du = tau s. Where that does
// not converge, w is sought by nested bisection along the curve Im z = 0.
//
// Far ranks are binned: bins narrower than Im w, where discrete eigenvalues cannot be told from their mean.
#include "theory/spectrum_bias.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct atoms {
    int64_t n, room;
    double *value, *count;
    double samples, dim;
};

// All that is needed at w = exp(log_size + i angle).
struct point {
    double log_size, angle;
    double tau_re, tau_im;
    double log_z_re, log_z_im; // log z
    double slope_re, slope_im; // d log z / d log w
    double phi_im;
};

static double power_law_at(const void *context, double k) {
    const struct power_law *law = context;
    return law->scale * pow(k, -law->alpha);
}

struct population population_power_law(const struct power_law *law) {
    return (struct population){.n = law->n, .eigenvalue = power_law_at, .context = law};
}

double spectrum_bias_first_order(double alpha) {
    REQUIRE(alpha > 1, "the sum needs alpha > 1");
    return -(M_PI / alpha) / tan(M_PI / alpha);
}

// ---- population

static void atom_add(struct atoms *a, double value, double count) {
    if (a->n == a->room) {
        a->room = 2 * a->room + 256;
        a->value = mem_resize(a->value, (size_t)a->room, sizeof *a->value);
        a->count = mem_resize(a->count, (size_t)a->room, sizeof *a->count);
    }
    a->value[a->n] = value, a->count[a->n] = count;
    a->n++;
}

// Mean over the ranks first … last: Simpson's rule from first - 1/2 to last + 1/2 for functions.
static double mean_of(const struct population *p, int64_t first, int64_t last) {
    if (!p->eigenvalue) {
        double sum = 0;
        for (int64_t k = last; k >= first; k--) sum += p->list[k - 1];
        return sum / (double)(last - first + 1);
    }
    if (first == last) return p->eigenvalue(p->context, (double)first);
    double a = (double)first - 0.5, b = (double)last + 0.5;
    return (p->eigenvalue(p->context, a) + 4 * p->eigenvalue(p->context, (a + b) / 2) + p->eigenvalue(p->context, b)) /
           6;
}

// At rank j neighbours are 1 / j apart in log lambda (times alpha) and Im log w is about j (1/N + 1/k) (times pi / alpha).
static void atoms_of(const struct population *p, struct atoms *a) {
    double both = 1 / a->samples + 1 / a->dim;
    for (int64_t first = 1; first <= p->n;) {
        double j = (double)first, width = fmin(0.03 * j, 0.3 * j * j * both);
        int64_t last = width > 1 ? first + (int64_t)width - 1 : first;
        if (last > p->n) last = p->n;
        double mean = mean_of(p, first, last);
        if (mean > 0) atom_add(a, mean, (double)(last - first + 1));
        first = last + 1;
    }
}

// ---- the equation

struct sums {
    double tau_re, tau_im, square_re, square_im, log_im; // square: sum of count lambda w / (w - lambda)^2
};

static void sums_add(double re, double im, double over, double count, struct sums *s, double q_re, double q_im) {
    s->tau_re += re * over, s->tau_im += im * over;
    // q / (1 - q)^2 = (q / (1 - q)) / (1 - q)
    double by = over / count;
    s->square_re += over * (re * (1 - q_re) - im * q_im) * by,
        s->square_im += over * (im * (1 - q_re) + re * q_im) * by;
}

static struct sums sums_at(const struct atoms *a, double w_re, double w_im) {
    double size2 = w_re * w_re + w_im * w_im, small = 0.05 * sqrt(size2);
    struct sums s = {0};
    for (int64_t i = a->n - 1; i >= 0; i--) {                                             // the small ones first
        double scaled = a->value[i] / size2, q_re = scaled * w_re, q_im = -scaled * w_im; // q = lambda / w
        double d_re = 1 - q_re, over = a->count[i] / (d_re * d_re + q_im * q_im);
        sums_add(q_re * d_re - q_im * q_im, q_im, over, a->count[i], &s, q_re, q_im);
        if (a->value[i] > small) {
            s.log_im += a->count[i] * atan2(-q_im, d_re);
            continue;
        }
        double re = 1.0 / 6, im = 0; // log(1 - q) = -q (1 + q / 2 + … + q^5 / 6): error below 0.05^7 / 7
        for (int term = 5; term >= 1; term--) {
            double next = re * q_re - im * q_im + 1.0 / term;
            im = re * q_im + im * q_re, re = next;
        }
        s.log_im -= a->count[i] * (re * q_im + im * q_re);
    }
    return s;
}

// Adds the step with c samples or dimensions.
static void step_add(double c, const struct sums *s, struct point *p) {
    if (isinf(c)) { // c log(1 + tau / c) -> tau
        p->phi_im -= s->tau_im;
        return;
    }
    double re = 1 + s->tau_re / c, im = s->tau_im / c, size2 = re * re + im * im, angle = atan2(im, re);
    p->log_z_re += log(size2) / 2, p->log_z_im += angle;
    // d tau / d log w = -square
    p->slope_re -= (s->square_re * re + s->square_im * im) / (c * size2);
    p->slope_im -= (s->square_im * re - s->square_re * im) / (c * size2);
    p->phi_im -= c * angle;
}

static struct point point_at(const struct atoms *a, double log_size, double angle) {
    struct sums s = sums_at(a, exp(log_size) * cos(angle), exp(log_size) * sin(angle));
    struct point p = {log_size, angle, s.tau_re, s.tau_im, log_size, angle, 1, 0, s.log_im + 2 * s.tau_im};
    step_add(a->samples, &s, &p);
    step_add(a->dim, &s, &p);
    return p;
}

// Both residuals in numbers that are about 1: angles, and ranks relative to the sought one.
static double miss(const struct point *p, double target) { return hypot(p->log_z_im, (p->phi_im - target) / target); }

// p: start and result. False where it does not come down to `small`.
static bool newton(const struct atoms *a, double target, struct point *p) {
    const double small = 1e-9;
    double now = miss(p, target);
    for (int i = 0; i < 60 && now > small; i++) {
        double v_im = -p->log_z_im, v_re = (target - p->phi_im - p->tau_re * v_im) / p->tau_im;
        double size2 = p->slope_re * p->slope_re + p->slope_im * p->slope_im;
        double re = (v_re * p->slope_re + v_im * p->slope_im) / size2,
               im = (v_im * p->slope_re - v_re * p->slope_im) / size2;
        double length = hypot(re, im), share = length > 0.7 ? 0.7 / length : 1;
        if (!isfinite(length)) return false;
        bool better = false;
        for (int halving = 0; halving < 12 && !better; halving++, share /= 2) {
            double angle = p->angle + share * im;
            if (!(angle > 0 && angle < M_PI)) continue;
            struct point next = point_at(a, p->log_size + share * re, angle);
            double then = miss(&next, target);
            better = then < now;
            if (better) *p = next, now = then;
        }
        if (!better) break;
    }
    return now <= 1e-7;
}

// The point of the curve Im z = 0 with this |w|, or the real axis where the curve lies on it.
static struct point curve_point(const struct atoms *a, double log_size) {
    double low = 1e-9, high = 3.14159;
    struct point p = point_at(a, log_size, low);
    if (p.log_z_im >= 0) return p;
    for (int i = 0; i < 60 && high - low > 1e-13; i++) {
        double middle = (low + high) / 2;
        p = point_at(a, log_size, middle);
        if (p.log_z_im < 0)
            low = middle;
        else
            high = middle;
    }
    return p;
}

static bool bisection(const struct atoms *a, double target, struct point *p) {
    double low = log(a->value[a->n - 1]) - 30, high = log(a->value[0]) + 10;
    for (int i = 0; i < 100 && high - low > 1e-12; i++) {
        *p = curve_point(a, (low + high) / 2);
        if (p->phi_im > target)
            low = (low + high) / 2;
        else
            high = (low + high) / 2;
    }
    return fabs(p->log_z_im) < 1e-6 && fabs(p->phi_im - target) < 1e-3 * target;
}

static enum status solve(const struct atoms *a, const int64_t *ranks, int64_t n_ranks, double *expected) {
    struct point p = {0}, last = {0};
    double both = 1 / a->samples + 1 / a->dim;
    for (int64_t i = 0; i < n_ranks; i++) {
        double target = M_PI * ((double)ranks[i] - 0.5);
        bool found = false;
        if (i > 0) {
            p = last;
            found = newton(a, target, &p);
        }
        if (!found) { // a single eigenvalue's semicircle
            int64_t at = ranks[i] <= a->n ? ranks[i] - 1 : a->n - 1;
            p = point_at(a, log(a->value[at]), fmin(1, sqrt(both)));
            found = newton(a, target, &p);
        }
        if (!found && !bisection(a, target, &p))
            return status_set(STATUS_INVALID,
                              "the bias of the spectrum at rank %lld (%g samples, %g dimensions) is not found",
                              (long long)ranks[i], a->samples, a->dim);
        expected[i] = exp(p.log_z_re);
        last = p;
    }
    return STATUS_OK;
}

enum status spectrum_bias(const struct population *population, double samples, double dim, const int64_t *ranks,
                          int64_t n_ranks, double *expected) {
    enum status status = STATUS_OK;
    struct atoms a = {.samples = samples, .dim = dim};
    if (!(samples > 0 && dim > 0))
        return status_set(STATUS_INVALID, "bias of a spectrum: %g samples and %g dimensions, must be > 0", samples,
                          dim);
    atoms_of(population, &a);
    double positive = 0;
    for (int64_t i = 0; i < a.n; i++) {
        positive += a.count[i];
        if (!isfinite(a.value[i]) || (i > 0 && a.value[i] > a.value[i - 1] * (1 + 1e-12)))
            TRY(status_set(STATUS_INVALID, "bias of a spectrum: eigenvalues must be finite and fall"));
    }
    for (int64_t i = 0; i < n_ranks; i++)
        if (ranks[i] < 1 || (i > 0 && ranks[i] <= ranks[i - 1]) ||
            (double)ranks[i] > 0.95 * fmin(fmin(samples, dim), positive))
            TRY(status_set(STATUS_INVALID, "bias of a spectrum: rank %lld, must rise from 1 to 0.95 of %g",
                           (long long)ranks[i], fmin(fmin(samples, dim), positive)));
    if (isinf(samples) && isinf(dim)) {
        for (int64_t i = 0; i < n_ranks; i++) expected[i] = mean_of(population, ranks[i], ranks[i]);
        goto done;
    }
    TRY(solve(&a, ranks, n_ranks, expected));
done:
    free(a.value);
    free(a.count);
    return status;
}
