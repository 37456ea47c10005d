#include "spectra/spectrum_fit.h"

#include "core/base/mem.h"
#include "spectra/replicates.h"

#include <gsl/gsl_fit.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS_LEAST = 8 };

// What has an error: alpha, and logarithms of the rest but the slope; behind them the logarithms of the debiased eigenvalues,
// [FIGURES + last] in all.
enum figure { ALPHA, SCALE, ENVELOPE, SLOPE, RANK_LARGEST, RANK_MOMENT, MOMENT2, FIGURES };

struct work {
    const struct spectrum_input *in;
    struct spectrum_options options;
    double *norms; // [samples] squared, around the mean where centred
    struct replicates *r;
    struct decay_frame frame;
    struct decay decay;
    struct decay_tangent *tangent;
    double *logs, *over; // [last] scratch
};

// Samples that count, and sums over them.
struct sums {
    double samples, norm, norm2, moment2, kappa;
};

double spectrum_noise_floor(double share, double trace, int64_t dim) { return share * trace / (2 * (double)dim); }

// ---- input

static struct spectrum_options with_defaults(const struct spectrum_options *given) {
    struct spectrum_options o = given ? *given : (struct spectrum_options){0};
    if (o.first_rank == 0) o.first_rank = 3;
    if (o.last_share == 0) o.last_share = 0.6;
    if (o.groups == 0) o.groups = 20;
    REQUIRE(o.first_rank >= 1 && o.last_share > 0 && o.last_share <= 0.85 && o.groups >= 2, "options of the fit");
    return o;
}

static int64_t last_rank(const struct work *w, double samples) {
    double most = fmin(fmin(samples, (double)w->in->rows.dim), (double)w->in->weights);
    return (int64_t)(w->options.last_share * most);
}

static enum status check_ranks(const struct work *w, int64_t last) {
    if (last - w->options.first_rank + 1 >= RANKS_LEAST) return STATUS_OK;
    return status_set(
        STATUS_INVALID,
        "%lld samples of %lld dimensions leave ranks %lld … %lld to a fit, which needs at least %d: take more samples",
        (long long)w->in->rows.samples, (long long)w->in->rows.dim, (long long)w->options.first_rank, (long long)last,
        RANKS_LEAST);
}

// Copies the norms, around the mean where centred: |g - m|^2 = |g|^2 - 2 <g, m> + |m|^2.
static enum status norms_copy(struct work *w) {
    enum status status = STATUS_OK;
    const struct spectrum_input *in = w->in;
    int64_t n = in->rows.samples;
    double *inner = NULL, sum2 = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        w->norms[i] = in->norms[i * in->norms_stride];
        if (!(w->norms[i] >= 0 && isfinite(w->norms[i])))
            return status_set(STATUS_INVALID,
                              "sample %lld of %lld: squared norm %g of its gradient, must be finite and >= 0",
                              (long long)i, (long long)n, w->norms[i]);
        largest = fmax(largest, w->norms[i]);
    }
    if (largest == 0) return status_set(STATUS_INVALID, "all %lld gradients are 0", (long long)n);
    if (!w->options.centred) return STATUS_OK;
    inner = mem_new((size_t)n, sizeof *inner);
    TRY(norms_inner(&in->rows, in->norms, in->norms_stride, inner));
    for (int64_t i = 0; i < n; i++) sum2 += inner[i];
    for (int64_t i = 0; i < n; i++)
        w->norms[i] = fmax(0, w->norms[i] - 2 * inner[i] / (double)n + sum2 / (double)n / (double)n);
done:
    free(inner);
    return status;
}

// Eigenvalues that are 0 to rounding have no logarithm.
static enum status check_spread(const struct work *w) {
    const double *values = w->r->whole;
    int64_t rank = 0;
    double norm = 0;
    for (int64_t i = 0; i < w->in->rows.samples; i++) norm = fmax(norm, w->in->norms[i * w->in->norms_stride]);
    while (rank < w->r->size && values[rank] > 1e-12 * fmax(values[0], 1e-3 * norm)) rank++;
    if (rank <= 1)
        return status_set(STATUS_INVALID, "all %lld gradients are equal, or multiples of one",
                          (long long)w->in->rows.samples);
    if (rank < w->r->last)
        return status_set(STATUS_INVALID, "%lld gradients span %lld directions only, the fit needs %lld",
                          (long long)w->in->rows.samples, (long long)rank, (long long)w->r->last);
    return STATUS_OK;
}

// ---- moments

// Mean of <g_i, g_j>^2 over pairs of different samples left in replicate c (everything or without samples), by one sketch: of
// <y_i, y_j>^2, which a sketch makes (<g_i, g_j>^2 (1 + 1/k) + |g_i|^2 |g_j|^2 / k) on average.
static double moment2_of(const struct work *w, const struct sums *s, int64_t sketch, int64_t c) {
    double n = s->samples, k = (double)w->in->rows.dim, scale = w->options.centred ? n - 1 : n;
    double pairs = w->r->squares[sketch * w->r->count + c] * scale * scale - w->r->fourth[sketch * w->r->count + c];
    if (!w->in->exact) pairs = (pairs - (s->norm * s->norm - s->norm2) / k) / (1 + 1 / k);
    return pairs / (n * (n - 1));
}

static struct sums sums_of(const struct work *w, int64_t c) {
    int64_t n = w->in->rows.samples, groups = w->r->groups;
    int64_t first = c ? replicate_first(n, groups, c - 1) : 0, end = c ? replicate_first(n, groups, c) : 0;
    struct sums s = {.samples = (double)(n - (end - first))};
    for (int64_t i = 0; i < n; i++)
        if (i < first || i >= end) s.norm += w->norms[i], s.norm2 += w->norms[i] * w->norms[i];
    for (int64_t j = 0; j < w->r->sketches; j++) s.moment2 += moment2_of(w, &s, j, c) / (double)w->r->sketches;
    double trace = s.norm / s.samples;
    s.kappa = fmax(1, s.norm2 / s.samples / (trace * trace) / (1 + 2 * fmax(0, s.moment2) / (trace * trace)));
    return s;
}

// ---- figures of a replicate

// logs [last] of its eigenvalues.
static void figures_of(const struct work *w, const struct sums *s, double dim, const double *logs, double *figures) {
    int64_t first = w->frame.first - 1, n = w->frame.last - first;
    struct decay d;
    double *x = mem_new((size_t)n, sizeof *x), intercept, slope, unused[3], sum;
    decay_tangent_fit(w->tangent, s->samples / s->kappa, dim, logs, w->over, &d);
    for (int64_t i = 0; i < n; i++) x[i] = log((double)(first + i + 1));
    gsl_fit_linear(x, 1, logs + first, 1, (size_t)n, &intercept, &slope, &unused[0], &unused[1], &unused[2], &sum);
    free(x);
    figures[ALPHA] = d.parameters[0];
    figures[SCALE] = log(d.scale);
    figures[ENVELOPE] = -INFINITY;
    for (int64_t i = 0; i < w->frame.last; i++) figures[ENVELOPE] = fmax(figures[ENVELOPE], w->over[i]);
    figures[SLOPE] = -slope;
    double trace = s->norm / s->samples * (w->options.centred ? s->samples / (s->samples - 1) : 1);
    figures[RANK_LARGEST] = log(trace) - w->over[0];
    figures[RANK_MOMENT] = 2 * log(trace) - log(s->moment2);
    figures[MOMENT2] = s->moment2;
    for (int64_t i = 0; i < w->frame.last; i++)
        figures[FIGURES + i] = w->over[i] - figures[ALPHA] * log((double)(i + 1));
}

static int64_t width_of(const struct work *w) { return FIGURES + w->frame.last; }

static void logs_of(const struct work *w, int64_t sketch, int64_t n, int64_t c) {
    for (int64_t i = 0; i < w->frame.last; i++) {
        w->logs[i] = 0;
        for (int64_t j = sketch; j < sketch + n; j++)
            w->logs[i] += log(w->r->values[(j * w->r->count + c) * w->r->last + i]) / (double)n;
    }
}

// Sums of squares around the mean of the columns of values [n, width], added to variance [width] with a factor.
static void variance_add(const double *values, int64_t n, int64_t width, double factor, double *variance) {
    for (int64_t f = 0; f < width; f++) {
        double mean = 0, sum = 0;
        for (int64_t i = 0; i < n; i++) mean += values[i * width + f] / (double)n;
        for (int64_t i = 0; i < n; i++) sum += pow(values[i * width + f] - mean, 2);
        variance[f] += factor * sum;
    }
}

static void add_samples_variance(const struct work *w, double *rows, double *variance) {
    int64_t groups = w->r->groups, width = width_of(w);
    for (int64_t g = 0; g < groups; g++) {
        struct sums s = sums_of(w, g + 1);
        logs_of(w, 0, w->r->sketches, g + 1);
        figures_of(w, &s, w->frame.dim, w->logs, rows + g * width);
    }
    variance_add(rows, groups, width, (double)(groups - 1) / (double)groups, variance);
}

static void add_sketch_variance(const struct work *w, const struct sums *all, double *rows, double *variance) {
    int64_t groups = w->r->groups, sketches = w->r->sketches, dim = w->in->rows.dim, width = width_of(w);
    double share = sketches > 1 ? 0.5 : 1;
    for (int64_t j = 0; j < sketches && sketches > 1; j++) {
        struct sums s = *all;
        s.moment2 = moment2_of(w, all, j, 0);
        logs_of(w, j, 1, 0);
        figures_of(w, &s, w->frame.dim, w->logs, rows + j * width);
    }
    if (sketches > 1) variance_add(rows, sketches, width, share / (double)(sketches * (sketches - 1)), variance);
    for (int64_t j = 0; j < sketches; j++) {
        for (int64_t g = 0; g < groups; g++) {
            int64_t left = dim - replicate_first(dim, groups, g + 1) + replicate_first(dim, groups, g);
            logs_of(w, j, 1, 1 + groups + g);
            figures_of(w, all, (double)left, w->logs, rows + g * width);
        }
        variance_add(rows, groups, width, share * (double)(groups - 1) / (double)(groups * sketches * sketches),
                     variance);
    }
}

// ---- result

static struct estimate estimate_log(double log_value, double variance) {
    return (struct estimate){exp(log_value), exp(log_value) * sqrt(variance)};
}

static enum status describe(struct work *w, const struct sums *s, struct spectrum_fit *fit) {
    enum status status = STATUS_OK;
    int64_t most = w->r->groups > w->r->sketches ? w->r->groups : w->r->sketches, width = width_of(w);
    double *rows = mem_new((size_t)((most + 2) * width), sizeof *rows);
    double *figures = rows + most * width, *variance = figures + width;
    add_samples_variance(w, rows, variance);
    if (!w->in->exact) add_sketch_variance(w, s, rows, variance);
    logs_of(w, 0, w->r->sketches, 0);
    figures_of(w, s, w->frame.dim, w->logs, figures);
    for (int64_t i = 0; i < w->frame.last; i++)
        if (w->over[i] == figures[ENVELOPE]) fit->envelope_rank = i + 1;
    fit->alpha = (struct estimate){w->decay.parameters[0], sqrt(variance[ALPHA])};
    fit->scale = estimate_log(log(w->decay.scale), variance[SCALE]);
    fit->envelope = estimate_log(figures[ENVELOPE], variance[ENVELOPE]);
    fit->naive_slope = (struct estimate){figures[SLOPE], sqrt(variance[SLOPE])};
    fit->rank_largest = estimate_log(figures[RANK_LARGEST], variance[RANK_LARGEST]);
    fit->rank_moment = estimate_log(figures[RANK_MOMENT], variance[RANK_MOMENT]);
    fit->moment2 = (struct estimate){s->moment2, sqrt(variance[MOMENT2])};
    fit->residual = w->decay.residual;
    fit->first_rank = w->frame.first, fit->last_rank = w->frame.last;
    fit->kappa = s->kappa, fit->samples_effective = w->frame.samples;
    fit->trace = s->norm / s->samples * (w->options.centred ? s->samples / (s->samples - 1) : 1);
    struct decay_frame all = w->frame;
    all.first = 1;
    TRY(decay_expected(&all, &w->decay, fit->expected));
    for (int64_t i = 0; i < fit->size; i++) {
        for (int64_t j = 0; j < w->r->sketches; j++)
            fit->sampled[i] += w->r->whole[j * fit->size + i] / (double)w->r->sketches;
        if (i >= w->frame.last) fit->expected[i] = NAN;
        fit->debiased[i] = fit->sampled[i] / fit->expected[i] * decay_eigenvalue(&w->decay, (double)(i + 1));
        fit->debiased_error[i] = i < w->frame.last ? fit->debiased[i] * sqrt(variance[FIGURES + i]) : NAN;
    }
done:
    free(rows);
    return status;
}

// ---- other laws

static enum status half_values(const struct work *w, int64_t half, struct backend *backend, double *values) {
    enum status status = STATUS_OK;
    struct sketch_rows rows = w->in->rows;
    struct covariance *covariance = NULL;
    int64_t sketch = half < rows.sketches ? half : 0;
    rows.samples /= 2;
    rows.at += half * rows.samples * rows.sample_stride;
    TRY(covariance_new(&rows, sketch, &covariance));
    TRY(covariance_eigenvalues(covariance, backend, &(struct covariance_part){.centred = w->options.centred}, values));
done:
    covariance_free(covariance);
    return status;
}

static void judge(const struct decay_frame *frame, double *const values[2], enum law law,
                  struct spectrum_alternative *out) {
    double sum = 0;
    for (int half = 0; half < 2; half++) {
        struct decay decay;
        double residual;
        if (decay_fit(frame, law, values[half], NULL, &decay) != STATUS_OK) return;
        if (decay_residual(frame, &decay, values[1 - half], false, &residual) != STATUS_OK) return;
        sum += residual * residual / 2;
    }
    out->held_out = sqrt(sum);
}

static enum status alternatives(const struct work *w, struct backend *backend, struct spectrum_fit *fit) {
    enum status status = STATUS_OK;
    struct decay_frame frame = w->frame;
    int64_t half = w->in->rows.samples / 2, size = half < w->in->rows.dim ? half : w->in->rows.dim;
    double *values[2] = {mem_new((size_t)size, sizeof **values), mem_new((size_t)size, sizeof **values)};
    frame.samples = ((double)half - (w->options.centred ? 1 : 0)) / fit->kappa;
    if (frame.last > last_rank(w, frame.samples)) frame.last = last_rank(w, frame.samples);
    for (int law = 0; law < LAWS; law++) {
        fit->laws[law] = (struct spectrum_alternative){.held_out = NAN, .fitted = {.residual = NAN}};
        logs_of(w, 0, w->r->sketches, 0);
        for (int64_t i = 0; i < w->frame.last; i++) w->logs[i] = exp(w->logs[i]);
        if (decay_fit(&w->frame, law, w->logs, NULL, &fit->laws[law].fitted) != STATUS_OK)
            fit->laws[law].fitted.residual = NAN;
    }
    if (frame.last - frame.first + 1 < RANKS_LEAST) goto done;
    for (int i = 0; i < 2; i++) TRY(half_values(w, i, backend, values[i]));
    for (int law = 0; law < LAWS; law++) judge(&frame, values, law, &fit->laws[law]);
done:
    free(values[0]);
    free(values[1]);
    return status;
}

// ---- all of it

// The ranks that are compared, and the law that fits them best.
static enum status fit_law(struct work *w, const struct sums *s) {
    enum status status = STATUS_OK;
    w->frame = (struct decay_frame){.weights = w->in->weights,
                                    .samples = (s->samples - (w->options.centred ? 1 : 0)) / s->kappa,
                                    .dim = w->in->exact ? INFINITY : (double)w->in->rows.dim,
                                    .first = w->options.first_rank};
    int64_t last = last_rank(w, w->frame.samples);
    w->frame.last = last < w->r->last ? last : w->r->last;
    logs_of(w, 0, w->r->sketches, 0);
    while (w->frame.last > 0 && exp(w->logs[w->frame.last - 1]) < 10 * w->options.noise_floor) w->frame.last--;
    TRY(check_ranks(w, w->frame.last));
    for (int64_t i = 0; i < w->frame.last; i++) w->over[i] = exp(w->logs[i]);
    TRY(decay_fit(&w->frame, LAW_POWER, w->over, NULL, &w->decay));
    TRY(decay_tangent_new(&w->frame, &w->decay, &w->tangent));
done:
    return status;
}

static enum status prepare(struct work *w, struct backend *backend) {
    enum status status = STATUS_OK;
    const struct spectrum_input *in = w->in;
    int64_t last = last_rank(w, (double)in->rows.samples);
    if (in->rows.samples < 2 * w->options.groups)
        TRY(status_set(STATUS_INVALID,
                       "%lld samples are too few for errors from %lld groups of samples: take at least %lld",
                       (long long)in->rows.samples, (long long)w->options.groups, (long long)(2 * w->options.groups)));
    TRY(check_ranks(w, last));
    TRY(norms_copy(w));
    TRY(replicates_new(&in->rows,
                       &(struct replicates_options){.centred = w->options.centred,
                                                    .exact = w->options.exact_jackknife,
                                                    .coordinates = !in->exact,
                                                    .groups = w->options.groups,
                                                    .last = last},
                       backend, &w->r));
    TRY(check_spread(w));
    w->logs = mem_new((size_t)last, sizeof *w->logs);
    w->over = mem_new((size_t)last, sizeof *w->over);
done:
    return status;
}

enum status spectrum_fit_new(const struct spectrum_input *in, const struct spectrum_options *options,
                             struct backend *backend, struct spectrum_fit **out) {
    enum status status = STATUS_OK;
    struct work w = {.in = in, .options = with_defaults(options)};
    struct spectrum_fit *fit = mem_new(1, sizeof *fit);
    w.norms = mem_new((size_t)in->rows.samples, sizeof *w.norms);
    TRY(prepare(&w, backend));
    fit->size = w.r->size;
    fit->sampled = mem_new(4 * (size_t)fit->size, sizeof *fit->sampled);
    fit->expected = fit->sampled + fit->size, fit->debiased = fit->expected + fit->size;
    fit->debiased_error = fit->debiased + fit->size;
    struct sums sums = sums_of(&w, 0);
    w.frame.last = w.r->last;
    TRY(fit_law(&w, &sums));
    TRY(describe(&w, &sums, fit));
    if (w.options.alternatives) TRY(alternatives(&w, backend, fit));
    *out = fit;
    fit = NULL;
done:
    spectrum_fit_free(fit);
    replicates_free(w.r);
    decay_tangent_free(w.tangent);
    free(w.norms);
    free(w.logs);
    free(w.over);
    return status;
}

void spectrum_fit_free(struct spectrum_fit *fit) {
    if (!fit) return;
    free(fit->sampled);
    free(fit);
}
