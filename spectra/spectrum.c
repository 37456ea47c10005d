#include "spectra/spectrum.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "spectra/beta.h"
#include "spectra/exact.h"
#include "spectra/figures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NOISE_SAMPLES = 16, BETA_DIRECTIONS_MOST = 128, EXACT_FIRST = 3, EXACT_LAST = 100 };

struct run {
    const struct program_common *common;
    const struct spectrum_settings *settings;
    struct run_folder *folder;
    struct record *about;
    struct sampling *sampling; // NULL with --store
    struct backend *backend;   // of the sampling's model, or own
    struct backend *own;
    struct samples *samples;
    struct spectrum_fit *fit; // of all weights, uncentred; NULL without sketches
    double noise_share;
    double seconds; // of the passes
};

// ---- arrays ----

static enum status put_array(struct run *run, const char *name, const char *suffix, const double *values, int64_t rows,
                             int64_t cols) {
    char *file = mem_format("%s%s", name, suffix);
    enum status status = run_folder_array(run->folder, file, NPY_F64, values, rows, cols);
    free(file);
    return status;
}

// NAME and the roots beside it, [rows] or [rows, cols].
static enum status put_eigenvalues(struct run *run, const char *suffix, const double *values, int64_t rows,
                                   int64_t cols) {
    enum status status = STATUS_OK;
    int64_t n = cols ? rows * cols : rows;
    double *roots = mem_new((size_t)n, sizeof *roots);
    for (int64_t i = 0; i < n; i++) roots[i] = sqrt(values[i]);
    TRY(put_array(run, "eigenvalues", suffix, values, rows, cols));
    TRY(put_array(run, "eigenvalue_roots", suffix, roots, rows, cols));
done:
    free(roots);
    return status;
}

static enum status put_fit(struct run *run, const char *suffix, const struct spectrum_fit *fit) {
    enum status status = STATUS_OK;
    char *debiased = mem_format("_debiased%s", suffix), *error = mem_format("_debiased_se%s", suffix);
    TRY(put_eigenvalues(run, suffix, fit->sampled, fit->size, 0));
    TRY(put_eigenvalues(run, debiased, fit->debiased, fit->size, 0));
    TRY(put_array(run, "eigenvalues", error, fit->debiased_error, fit->size, 0));
done:
    free(error);
    free(debiased);
    return status;
}

// ---- figures ----

static struct figures_input input_of(const struct run *run, int64_t group) {
    struct figures_input in = {.rows = samples_rows(run->samples),
                               .sum2 = samples_sum2(run->samples, group),
                               .weights = samples_weights(run->samples, group),
                               .noise_share = run->noise_share};
    in.norms = samples_norms(run->samples, group, &in.norms_stride);
    return in;
}

static bool has_sketches(const struct run *run) { return run->samples->settings->sketches > 0; }

static enum status measure_whole(struct run *run) {
    enum status status = STATUS_OK;
    struct record *result = run_folder_result(run->folder);
    struct spectrum_fit *fit = NULL, *centred = NULL;
    if (has_sketches(run)) TRY(samples_load(run->samples, SAMPLES_WHOLE));
    struct figures_input in = input_of(run, SAMPLES_WHOLE);
    TRY(figures_norms(&in, result));
    if (!has_sketches(run)) goto done;
    TRY(figures_spectrum(&in, false, run->backend, result, &fit));
    TRY(put_fit(run, "", fit));
    TRY(figures_spectrum(&in, true, run->backend, result, &centred));
    TRY(put_fit(run, "_centred", centred));
    progress_say("alpha %.3f +- %.3f, C %.3g; the naive slope is %.3f (biased)", fit->alpha.value, fit->alpha.error,
                 fit->scale.value, fit->naive_slope.value);
    run->fit = fit;
    fit = NULL;
done:
    spectrum_fit_free(fit);
    spectrum_fit_free(centred);
    return status;
}

// A line per group, and all eigenvalues in one array.
static enum status measure_groups(struct run *run) {
    enum status status = STATUS_OK;
    const struct settings *s = run->samples->settings;
    int64_t size = run->samples->n < s->dim ? run->samples->n : s->dim;
    double *values = NULL;
    struct spectrum_fit *fit = NULL;
    struct record *line = record_new();
    if (s->n_groups == 1) goto done;
    if (has_sketches(run)) values = mem_new((size_t)(s->n_groups * size), sizeof *values);
    for (int64_t g = 0; g < s->n_groups; g++) {
        record_clear(line);
        record_string(line, "group", s->groups[g]);
        record_integer(line, "weights", samples_weights(run->samples, g));
        if (values) TRY(samples_load(run->samples, g));
        struct figures_input in = input_of(run, g);
        TRY(figures_norms(&in, line));
        if (values) {
            TRY(figures_spectrum(&in, false, run->backend, line, &fit));
            memcpy(values + g * size, fit->sampled, (size_t)size * sizeof *values);
            spectrum_fit_free(fit);
            fit = NULL;
        }
        TRY(run_folder_log(run->folder, line));
    }
    if (values) TRY(put_eigenvalues(run, "_by_group", values, s->n_groups, size));
done:
    spectrum_fit_free(fit);
    record_free(line);
    free(values);
    return status;
}

// ---- beta ----

static void put_ratio(struct record *record, const char *name, struct beta_ratio ratio) {
    char *low = mem_format("%s_ci_low", name), *high = mem_format("%s_ci_high", name);
    char *without = mem_format("%s_without_largest", name);
    record_number(record, name, ratio.value);
    record_number(record, low, ratio.low);
    record_number(record, high, ratio.high);
    record_number(record, without, ratio.without_largest);
    free(low);
    free(high);
    free(without);
}

static enum status log_beta(struct run *run, const struct beta_measure *beta) {
    struct record *line = record_new();
    record_integer(line, "beta_directions", beta->sample.directions);
    record_bool(line, "known", beta->known);
    put_ratio(line, "held_out", beta->held_out);
    put_ratio(line, "leading", beta->leading);
    record_number(line, "sample_lower", beta->sample.lower);
    record_number(line, "sample_lower_without_largest", beta->sample.lower_without_largest);
    record_number(line, "sample_upper", beta->sample.upper);
    record_number(line, "leverage_low", beta->sample.leverage_low);
    record_number(line, "leverage_high", beta->sample.leverage_high);
    record_number(line, "average", beta->sample.average);
    enum status status = run_folder_log(run->folder, line);
    record_free(line);
    return status;
}

static void put_beta(struct record *result, const struct beta_measure *beta) {
    record_integer(result, "beta_directions", beta->sample.directions);
    put_ratio(result, "beta_lower", beta->held_out);
    record_number(result, "beta_sample_lower", beta->sample.lower);
    record_number(result, "beta_upper", beta->sample.upper);
    record_number(result, "beta_leverage_low", beta->sample.leverage_low);
    record_number(result, "beta_leverage_high", beta->sample.leverage_high);
}

// The table over numbers of directions, from the first sketch; the sketches of all weights are loaded.
static enum status measure_beta(struct run *run) {
    enum status status = STATUS_OK;
    struct sketch_rows rows = samples_rows(run->samples);
    struct covariance *covariance = NULL;
    struct beta_source *source = NULL;
    int64_t most = rows.dim < BETA_DIRECTIONS_MOST ? rows.dim : BETA_DIRECTIONS_MOST;
    double best = 0;
    record_integer(run_folder_result(run->folder), "beta_directions_known", beta_directions_known(rows.samples));
    TRY(covariance_new(&rows, 0, &covariance));
    TRY(beta_source_new(&rows, 0, covariance, run->backend, most, &source));
    if (most > beta_source_directions(source)) most = beta_source_directions(source);
    for (int64_t r = 8; r <= most && 4 * r <= rows.samples; r *= 2) {
        struct beta_measure beta;
        TRY(beta_measure(source, r, run->common->seed, &beta));
        TRY(log_beta(run, &beta));
        // A bound over fewer directions holds over more: the best one whose number of directions the samples can speak of.
        if (r == 8 || (beta.known && beta.held_out.low > best)) {
            put_beta(run_folder_result(run->folder), &beta);
            best = beta.held_out.low;
        }
    }
done:
    beta_source_free(source);
    covariance_free(covariance);
    return status;
}

static enum status measure_directions(struct run *run) {
    enum status status = STATUS_OK;
    const struct samples *samples = run->samples;
    struct record *line = record_new(), *result = run_folder_result(run->folder);
    for (int64_t d = 0; d < samples->settings->n_directions; d++) {
        const char *label = samples->settings->directions[d];
        const double *inner = samples->inner + d * samples->n;
        char *name = mem_string_n(label, strcspn(label, "="));
        char *beta = mem_format("beta_%s", name), *rms = mem_format("rms_product_%s", name);
        struct beta_ratio ratio = beta_ratio(inner, samples->n);
        double sum = 0;
        for (int64_t i = 0; i < samples->n; i++) sum += inner[i] * inner[i];
        record_clear(line);
        record_string(line, "rounding", label);
        record_number(line, "rms_product", sqrt(sum / (double)samples->n));
        put_ratio(line, "beta", ratio);
        record_number(line, "largest_share", ratio.largest_share);
        record_number(result, rms, sqrt(sum / (double)samples->n));
        put_ratio(result, beta, ratio);
        free(name);
        free(beta);
        free(rms);
        TRY(run_folder_log(run->folder, line));
    }
done:
    record_free(line);
    return status;
}

// ---- the run ----

static enum status make_samples(struct run *run) {
    enum status status = STATUS_OK;
    const struct sampling_settings *s = &run->settings->sampling;
    struct record *result = run_folder_result(run->folder);
    TRY(sampling_open(s, run->common, run->about, &run->sampling));
    run->backend = run->sampling->model->transformer->backend;
    progress_say("%lld weights count, %lld groups", (long long)run->sampling->groups->parameters,
                 (long long)run->sampling->groups->n);
    TRY(sampling_collect(run->sampling, run->folder, run->common->out, run->common->resume, &run->seconds));
    record_number(result, "seconds_samples", run->seconds);
    record_number(result, "tokens_per_second", (double)(s->samples * s->seq_len) / run->seconds);
    record_integer(result, "peak_memory_bytes_samples", mem_resident_peak());
    for (int64_t d = 0; d < run->sampling->directions->n; d++) {
        char *key = mem_format("distance2_%s", run->sampling->directions->names[d]);
        record_number(result, key, run->sampling->directions->squares[d]);
        free(key);
    }
    if (s->sketch == SKETCH_NONE || run->settings->samples_only) goto done;
    TRY(collect_noise(&run->sampling->options, NOISE_SAMPLES, &run->noise_share));
    record_number(result, "noise_share", run->noise_share);
done:
    return status;
}

static void summarize(struct run *run) {
    const struct samples *samples = run->samples;
    const struct settings *s = samples->settings;
    struct record *result = run_folder_result(run->folder);
    double loss = 0;
    for (int64_t i = 0; i < samples->n; i++) loss += samples->losses[i] / (double)samples->n;
    record_integer(result, "samples", samples->n);
    record_integer(result, "first_sample", samples->store->first);
    record_integer(result, "seq_len", s->seq_len);
    record_string(result, "parameters", s->parameters);
    record_integer(result, "weights", samples_weights(samples, SAMPLES_WHOLE));
    record_string(result, "sketch", s->sketch);
    record_integer(result, "dim", s->dim);
    record_integer(result, "sketches", s->sketches);
    record_number(result, "mean_loss", loss);
}

static enum status analyse(struct run *run) {
    enum status status = STATUS_OK;
    TRY(samples_open(run->sampling ? run->common->out : run->settings->store, &run->samples));
    summarize(run);
    TRY(run_folder_array(run->folder, "losses", NPY_F64, run->samples->losses, run->samples->n, 0));
    TRY(run_folder_array(run->folder, "norms2", NPY_F64, run->samples->whole, run->samples->n, 0));
    TRY(measure_groups(run));
    TRY(measure_whole(run));
    if (has_sketches(run)) TRY(measure_beta(run));
    TRY(measure_directions(run));
done:
    return status;
}

// How far the debiased eigenvalues of the sketches are from those of the gradients themselves, ranks 3 … 100, in standard errors
// of the former. Both have the same samples.
static void compare_exact(struct run *run, const struct spectrum_fit *exact) {
    struct record *result = run_folder_result(run->folder);
    const struct spectrum_fit *fit = run->fit;
    int64_t last = fit->last_rank < exact->last_rank ? fit->last_rank : exact->last_rank, within = 0, n = 0;
    double largest = 0, ratio = 0;
    for (int64_t k = EXACT_FIRST; k <= EXACT_LAST && k <= last; k++, n++) {
        double difference = fit->debiased[k - 1] - exact->debiased[k - 1];
        within += fabs(difference) <= fit->debiased_error[k - 1];
        largest = fmax(largest, fabs(difference) / fit->debiased_error[k - 1]);
        ratio += log(fit->debiased[k - 1] / exact->debiased[k - 1]);
    }
    record_integer(result, "exact_ranks", n);
    record_number(result, "exact_within_1se", n ? (double)within / (double)n : NAN);
    record_number(result, "exact_largest_se", largest);
    record_number(result, "exact_mean_ratio", exp(ratio / (double)n));
}

static enum status measure_exact(struct run *run) {
    enum status status = STATUS_OK;
    struct exact *exact = NULL;
    struct spectrum_fit *fit = NULL;
    struct figures_input in = input_of(run, SAMPLES_WHOLE);
    TRY(exact_new(&run->sampling->options, &exact));
    in.rows = exact_rows(exact);
    in.exact = true;
    TRY(figures_spectrum(&in, false, run->backend, run_folder_result(run->folder), &fit));
    TRY(put_fit(run, "_exact", fit));
    if (run->fit) compare_exact(run, fit);
done:
    spectrum_fit_free(fit);
    exact_free(exact);
    return status;
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    struct record *result = run_folder_result(run->folder);
    if (!run->settings->store) TRY(make_samples(run));
    if (!run->backend) {
        TRY(backend_open(run->common->device, &run->own));
        run->backend = run->own;
    }
    if (run->settings->samples_only) {
        record_integer(result, "samples", run->settings->sampling.samples);
        record_integer(result, "first_sample", run->settings->sampling.first);
    } else {
        TRY(analyse(run));
        if (run->settings->exact) TRY(measure_exact(run));
    }
    record_number(result, "seconds", run_folder_seconds(run->folder));
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
done:
    return status;
}

static enum status describe(struct run *run) {
    const struct spectrum_settings *s = run->settings;
    record_bool(run->about, "exact", s->exact);
    record_bool(run->about, "samples_only", s->samples_only);
    if (!s->store) return sampling_describe(&s->sampling, run->common->seed, run->about);
    char *records = mem_format("%s/records", s->store);
    enum status status = record_digest(run->about, "store", records);
    free(records);
    return status;
}

enum status spectrum_run(const struct program_common *common, const struct spectrum_settings *settings) {
    enum status status = STATUS_OK;
    struct run run = {.common = common, .settings = settings, .about = record_new()};
    TRY(describe(&run));
    TRY(program_run_folder(common, run.about, &run.folder));
    if (run_folder_is_done(run.folder)) goto done;
    status = run_folder_finish(run.folder, work(&run));
done:
    spectrum_fit_free(run.fit);
    samples_free(run.samples);
    sampling_free(run.sampling);
    backend_close(run.own);
    run_folder_free(run.folder);
    record_free(run.about);
    return status;
}
