// residual^2 (p) = min over c of sum_k (1/k) (log value_k - c - log expected_k(p))^2 / sum_k (1/k). With one parameter by Brent's method,
// with three by Nelder and Mead's, both in coordinates without bounds. Expected eigenvalues are computed at a part of the
// ranks; in between the logarithm of their ratio to the law, which is smooth, is a cubic spline in log k.
#include "spectra/decay.h"

#include "core/base/mem.h"
#include "theory/spectrum_bias.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_min.h>
#include <gsl/gsl_multimin.h>
#include <gsl/gsl_spline.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const law_names[LAWS + 1] = {"power", "broken", "exponential", NULL};

enum { KNOTS = 128 };

static double law_at(const void *context, double k) {
    const struct decay *d = context;
    const double *p = d->parameters;
    switch (d->law) {
    case LAW_BROKEN: return k < p[2] ? pow(k, -p[0]) : pow(p[2], p[1] - p[0]) * pow(k, -p[1]);
    case LAW_EXPONENTIAL: return exp(-k / p[0]);
    default: return pow(k, -p[0]);
    }
}

double decay_eigenvalue(const struct decay *decay, double k) { return decay->scale * law_at(decay, k); }

// Where a law is 0 in double precision, nothing is left to send through the bias.
static int64_t eigenvalues_of(const struct decay_frame *frame, const struct decay *decay) {
    double most = decay->law == LAW_EXPONENTIAL ? 600 * decay->parameters[0] : (double)frame->weights;
    return most < (double)frame->weights ? (int64_t)most : frame->weights;
}

// log of expected over scale, [last - first + 1].
static enum status log_expected(const struct decay_frame *frame, const struct decay *decay, double *out) {
    enum status status = STATUS_OK;
    struct population population = {.n = eigenvalues_of(frame, decay), .eigenvalue = law_at, .context = decay};
    int64_t ranks[KNOTS];
    double x[KNOTS], y[KNOTS];
    size_t n = 0;
    gsl_spline *spline = NULL;
    for (int64_t k = frame->first; k < frame->last && n + 1 < KNOTS; k += 1 + k / 6) ranks[n++] = k;
    ranks[n++] = frame->last;
    TRY(spectrum_bias(&population, frame->samples, frame->dim, ranks, (int64_t)n, y));
    for (size_t i = 0; i < n; i++) {
        x[i] = log((double)ranks[i]);
        y[i] = log(y[i]) - log(law_at(decay, (double)ranks[i]));
    }
    spline = gsl_spline_alloc(gsl_interp_cspline, n);
    REQUIRE(spline, "no memory for a spline");
    gsl_spline_init(spline, x, y, n);
    for (int64_t k = frame->first; k <= frame->last; k++)
        out[k - frame->first] =
            log(law_at(decay, (double)k)) + gsl_spline_eval(spline, fmin(log((double)k), x[n - 1]), NULL);
done:
    gsl_spline_free(spline);
    return status;
}

enum status decay_expected(const struct decay_frame *frame, const struct decay *decay, double *expected) {
    enum status status = log_expected(frame, decay, expected);
    for (int64_t i = 0; status == STATUS_OK && i <= frame->last - frame->first; i++)
        expected[i] = decay->scale * exp(expected[i]);
    return status;
}

// ---- residuals

struct search {
    const struct decay_frame *frame;
    const double *values;
    double *logs; // scratch [last - first + 1]
    struct decay decay;
    enum status status; // of the last evaluation that failed
};

static enum status residual_of(const struct decay_frame *frame, const double *values, double *logs, struct decay *d,
                               bool own_scale) {
    double weights = 0, mean = 0, sum = 0;
    enum status status = log_expected(frame, d, logs);
    if (status != STATUS_OK) return status;
    for (int64_t k = frame->first; k <= frame->last; k++) {
        double *off = &logs[k - frame->first];
        *off = log(values[k - 1]) - *off;
        weights += 1 / (double)k, mean += *off / (double)k;
    }
    mean /= weights;
    if (own_scale)
        d->scale = exp(mean);
    else
        mean = log(d->scale);
    for (int64_t k = frame->first; k <= frame->last; k++) {
        double off = logs[k - frame->first] - mean;
        sum += off * off / (double)k;
    }
    d->residual = sqrt(sum / weights);
    return STATUS_OK;
}

enum status decay_residual(const struct decay_frame *frame, const struct decay *decay, const double *values,
                           bool own_scale, double *residual) {
    struct decay d = *decay;
    double *logs = mem_new((size_t)(frame->last - frame->first + 1), sizeof *logs);
    enum status status = residual_of(frame, values, logs, &d, own_scale);
    if (status == STATUS_OK) *residual = d.residual;
    free(logs);
    return status;
}

// ---- search

struct bounds {
    double low, high;
};

static void bounds_of(const struct decay_frame *frame, enum law law, struct bounds *b) {
    double first = (double)frame->first, last = (double)frame->last;
    b[0] = b[1] = (struct bounds){0.05, 12};
    if (law == LAW_EXPONENTIAL) b[0] = (struct bounds){last / 30, 1000 * last};
    if (law == LAW_BROKEN) b[2] = (struct bounds){1.5 * first, last / 1.5};
}

static int parameters_of(enum law law) { return law == LAW_BROKEN ? 3 : 1; }

// Coordinates: logarithms; outside of the bounds the residual grows with the distance.
static double evaluate(struct search *s, const double *logs) {
    struct bounds bounds[LAW_PARAMETERS];
    double outside = 0;
    bounds_of(s->frame, s->decay.law, bounds);
    for (int i = 0; i < parameters_of(s->decay.law); i++) {
        double inside = fmin(fmax(logs[i], log(bounds[i].low)), log(bounds[i].high));
        outside += fabs(logs[i] - inside);
        s->decay.parameters[i] = exp(inside);
    }
    enum status status = residual_of(s->frame, s->values, s->logs, &s->decay, true);
    if (status != STATUS_OK) s->status = status;
    return status == STATUS_OK && isfinite(s->decay.residual) ? s->decay.residual + outside : 1e3 + outside;
}

static double evaluate_one(double log_parameter, void *context) { return evaluate(context, &log_parameter); }

static double evaluate_all(const gsl_vector *v, void *context) { return evaluate(context, v->data); }

// The lowest of a grid between low and high, then Brent's method between its neighbours.
static bool search_line(struct search *s, double low, double high, int points) {
    double at[64], residual[64];
    int best = 0;
    for (int i = 0; i < points; i++) {
        at[i] = low + (high - low) * i / (points - 1);
        residual[i] = evaluate_one(at[i], s);
        if (residual[i] < residual[best]) best = i;
    }
    if (best == 0 || best == points - 1) return false;
    if (!(residual[best] < residual[best - 1] && residual[best] < residual[best + 1])) return false;
    gsl_function f = {.function = evaluate_one, .params = s};
    gsl_min_fminimizer *m = gsl_min_fminimizer_alloc(gsl_min_fminimizer_brent);
    REQUIRE(m, "no memory for a minimizer");
    gsl_min_fminimizer_set_with_values(m, &f, at[best], residual[best], at[best - 1], residual[best - 1], at[best + 1],
                                       residual[best + 1]);
    for (int i = 0; i < 40; i++) {
        if (gsl_min_fminimizer_iterate(m) != GSL_SUCCESS) break;
        if (gsl_min_fminimizer_x_upper(m) - gsl_min_fminimizer_x_lower(m) < 1e-6) break;
    }
    evaluate_one(gsl_min_fminimizer_x_minimum(m), s);
    gsl_min_fminimizer_free(m);
    return true;
}

static bool search_simplex(struct search *s, const double *start, const double *steps, int n) {
    gsl_multimin_function f = {.n = (size_t)n, .f = evaluate_all, .params = s};
    gsl_multimin_fminimizer *m = gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, (size_t)n);
    REQUIRE(m, "no memory for a minimizer");
    gsl_vector_const_view x = gsl_vector_const_view_array(start, (size_t)n);
    gsl_vector_const_view step = gsl_vector_const_view_array(steps, (size_t)n);
    gsl_multimin_fminimizer_set(m, &f, &x.vector, &step.vector);
    for (int i = 0; i < 300; i++) {
        if (gsl_multimin_fminimizer_iterate(m) != GSL_SUCCESS) break;
        if (gsl_multimin_fminimizer_size(m) < 1e-4) break;
    }
    bool found = evaluate_all(gsl_multimin_fminimizer_x(m), s) < 1e2;
    gsl_multimin_fminimizer_free(m);
    return found;
}

// The break is sought from three places: the residual has more than one valley in it.
static bool search_broken(struct search *s, double alpha) {
    struct decay best = {.residual = INFINITY};
    double low = log((double)s->frame->first), high = log((double)s->frame->last);
    for (int i = 1; i <= 3; i++) {
        const double start[] = {log(alpha) - 0.05, log(alpha) + 0.05, low + (high - low) * i / 4},
                     steps[] = {0.1, 0.1, 0.4};
        if (search_simplex(s, start, steps, 3) && s->decay.residual < best.residual) best = s->decay;
    }
    s->decay = best;
    return isfinite(best.residual);
}

enum status decay_fit(const struct decay_frame *frame, enum law law, const double *values, const struct decay *near,
                      struct decay *out) {
    REQUIRE(frame->first >= 1 && frame->last >= frame->first + 2, "a fit needs three ranks");
    for (int64_t k = frame->first; k <= frame->last; k++)
        if (!(values[k - 1] > 0 && isfinite(values[k - 1])))
            return status_set(STATUS_INVALID,
                              "eigenvalue at rank %lld is %g, a fit of ranks %lld … %lld needs it above 0",
                              (long long)k, values[k - 1], (long long)frame->first, (long long)frame->last);
    struct search s = {.frame = frame, .values = values, .decay = {.law = law}, .status = STATUS_OK};
    struct bounds bounds[LAW_PARAMETERS];
    bounds_of(frame, law, bounds);
    s.logs = mem_new((size_t)(frame->last - frame->first + 1), sizeof *s.logs);
    bool found = false;
    if (law == LAW_BROKEN) {
        struct decay straight = {0};
        enum status status = decay_fit(frame, LAW_POWER, values, NULL, &straight);
        found = search_broken(&s, status == STATUS_OK ? straight.parameters[0] : 1);
    } else {
        double slope =
            log(values[frame->first - 1] / values[frame->last - 1]) / log((double)frame->last / (double)frame->first);
        if (near) found = search_line(&s, log(near->parameters[0]) - 0.06, log(near->parameters[0]) + 0.06, 3);
        if (!found && law == LAW_POWER && slope > 0.1) found = search_line(&s, log(slope) - 0.5, log(slope) + 0.7, 9);
        if (!found) found = search_line(&s, log(bounds[0].low), log(bounds[0].high), 24);
    }
    free(s.logs);
    if (!found && s.status != STATUS_OK) return s.status;
    if (!found)
        return status_set(STATUS_INVALID, "no %s law fits the eigenvalues at ranks %lld … %lld", law_names[law],
                          (long long)frame->first, (long long)frame->last);
    *out = s.decay;
    return STATUS_OK;
}
