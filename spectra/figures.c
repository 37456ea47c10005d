#include "spectra/figures.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

static void put(struct record *record, const char *name, const char *suffix, double value) {
    char *key = mem_format("%s%s", name, suffix);
    record_number(record, key, value);
    free(key);
}

static void put_estimate(struct record *record, const char *name, const char *suffix, struct estimate estimate) {
    char *error = mem_format("%s_se", name);
    put(record, name, suffix, estimate.value);
    put(record, error, suffix, estimate.error);
    free(error);
}

enum status figures_norms(const struct figures_input *in, struct record *record) {
    enum status status = STATUS_OK;
    struct norms norms;
    struct estimate sketched;
    bool has_rows = in->rows.at != NULL;
    void *inner = NULL;
    TRY(mem_buffer_new(in->rows.samples * (int64_t)sizeof(double), "inner products", &inner));
    if (has_rows) TRY(norms_inner(&in->rows, in->norms, in->norms_stride, inner));
    struct norms_input input = {.samples = in->rows.samples,
                                .norms = in->norms,
                                .stride = in->norms_stride,
                                .sum2 = in->sum2,
                                .inner = has_rows ? inner : NULL};
    TRY(norms_estimate(&input, &norms));
    put_estimate(record, "mean_norm2", "", norms.mean2);
    put(record, "mean_norm2_naive", "", norms.mean2_naive);
    put_estimate(record, "norm2_mean", "", norms.second);
    put_estimate(record, "norm2_ratio", "", norms.ratio);
    put_estimate(record, "kappa", "", norms.kappa);
    if (has_rows && !in->exact) {
        TRY(norms_mean2_sketched(&in->rows, in->norms, in->norms_stride, &sketched));
        put_estimate(record, "mean_norm2_sketched", "", sketched);
    }
done:
    mem_buffer_free(inner);
    return status;
}

static void put_fit(struct record *record, const struct spectrum_fit *fit, const char *suffix) {
    put_estimate(record, "alpha", suffix, fit->alpha);
    put_estimate(record, "c", suffix, fit->scale);
    put_estimate(record, "c_envelope", suffix, fit->envelope);
    put(record, "c_envelope_rank", suffix, (double)fit->envelope_rank);
    put_estimate(record, "alpha_naive", suffix, fit->naive_slope);
    put(record, "fit_residual", suffix, fit->residual);
    put(record, "fit_first_rank", suffix, (double)fit->first_rank);
    put(record, "fit_last_rank", suffix, (double)fit->last_rank);
    put(record, "samples_effective", suffix, fit->samples_effective);
    put(record, "heterogeneity", suffix, fit->kappa);
    put(record, "trace", suffix, fit->trace);
    put_estimate(record, "trace_of_square", suffix, fit->moment2);
    put_estimate(record, "effective_rank", suffix, fit->rank_largest);
    put_estimate(record, "effective_rank_moment", suffix, fit->rank_moment);
}

// How laws fitted to one half of the samples do on the other, and what they are.
static void put_laws(struct record *record, const struct spectrum_fit *fit) {
    const double *broken = fit->laws[LAW_BROKEN].fitted.parameters;
    for (int law = 0; law < LAWS; law++) put(record, "held_out_residual_", law_names[law], fit->laws[law].held_out);
    bool fits = isfinite(fit->laws[LAW_BROKEN].fitted.residual);
    put(record, "broken_alpha_before", "", fits ? broken[0] : NAN);
    put(record, "broken_alpha_after", "", fits ? broken[1] : NAN);
    put(record, "broken_rank", "", fits ? broken[2] : NAN);
    fits = isfinite(fit->laws[LAW_EXPONENTIAL].fitted.residual);
    put(record, "exponential_ranks", "", fits ? fit->laws[LAW_EXPONENTIAL].fitted.parameters[0] : NAN);
}

enum status figures_spectrum(const struct figures_input *in, bool centred, struct backend *backend,
                             struct record *record, struct spectrum_fit **fit) {
    enum status status = STATUS_OK;
    struct spectrum_input input = {.rows = in->rows,
                                   .norms = in->norms,
                                   .norms_stride = in->norms_stride,
                                   .weights = in->weights,
                                   .exact = in->exact};
    struct spectrum_options options = {.centred = centred, .alternatives = !centred};
    double total = 0;
    for (int64_t i = 0; i < in->rows.samples; i++) total += in->norms[i * in->norms_stride];
    if (in->noise_share > 0)
        options.noise_floor = spectrum_noise_floor(in->noise_share, total / (double)in->rows.samples, in->rows.dim);
    TRY(spectrum_fit_new(&input, &options, backend, fit));
    put_fit(record, *fit, in->exact ? (centred ? "_exact_centred" : "_exact") : (centred ? "_centred" : ""));
    if (in->exact || centred) goto done;
    put_laws(record, *fit);
    put(record, "noise_floor", "", options.noise_floor);
done:
    return status;
}
