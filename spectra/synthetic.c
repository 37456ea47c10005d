#include "spectra/synthetic.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/base/walsh.h"

#include <math.h>
#include <stdlib.h>

#define SYNTHETIC_SEED RNG_STREAM(97) // of a replicate: words 2 r and 2 r + 1

static const char *const basis_names[] = {"identity", "hadamard"};
static const char *const distribution_names[] = {"gaussian", "rademacher", "heavy"};
static const char *const sketch_names[] = {"none", "rotation", "gaussian", "rademacher"};

// What a replicate says, in the order of its line.
enum column { ALPHA, C, ENVELOPE, SLOPE, MOMENT2, RANK_LARGEST, RANK_MOMENT, ESTIMATES };
enum plain { KAPPA = 2 * ESTIMATES, TRACE, RESIDUAL, LAST_RANK, HELD_OUT, COLUMNS = HELD_OUT + LAWS };
static const char *const column_names[] = {"alpha",        "c",          "envelope", "naive_slope", "moment2",
                                           "rank_largest", "rank_moment"};
static const char *const plain_names[] = {"kappa", "trace", "residual", "last_rank"};

static void row_of(const struct spectrum_fit *fit, double row[COLUMNS]) {
    const struct estimate estimates[ESTIMATES] = {fit->alpha,   fit->scale,        fit->envelope,   fit->naive_slope,
                                                  fit->moment2, fit->rank_largest, fit->rank_moment};
    for (int i = 0; i < ESTIMATES; i++) row[2 * i] = estimates[i].value, row[2 * i + 1] = estimates[i].error;
    row[KAPPA] = fit->kappa, row[TRACE] = fit->trace, row[RESIDUAL] = fit->residual;
    row[LAST_RANK] = (double)fit->last_rank;
    for (int law = 0; law < LAWS; law++) row[HELD_OUT + law] = fit->laws[law].held_out;
}

static void put(struct record *record, const char *format, const char *name, double value) {
    char *key = mem_format(format, name);
    record_number(record, key, value);
    free(key);
}

// `errors`: stated ones beside the values; otherwise the caller says what they are.
static void row_put(const double row[COLUMNS], bool errors, bool alternatives, struct record *record) {
    for (int i = 0; i < ESTIMATES; i++) {
        put(record, "%s", column_names[i], row[2 * i]);
        if (errors) put(record, "%s_se", column_names[i], row[2 * i + 1]);
    }
    for (int i = 0; i < HELD_OUT - KAPPA; i++) put(record, "%s", plain_names[i], row[KAPPA + i]);
    for (int law = 0; law < LAWS && alternatives; law++)
        put(record, "held_out_%s", law_names[law], row[HELD_OUT + law]);
}

static uint64_t seed_of(uint64_t seed, int64_t replicate) {
    struct rng rng = {seed, SYNTHETIC_SEED};
    return (uint64_t)rng_bits(rng, 2 * (uint64_t)replicate) << 32 | rng_bits(rng, 2 * (uint64_t)replicate + 1);
}

// ---- a run

static enum status arrays_put(const struct synthetic_settings *s, const struct spectrum_fit *fit,
                              struct run_folder *folder) {
    enum status status = STATUS_OK;
    double *truth = mem_new((size_t)fit->size, sizeof *truth);
    for (int64_t k = 1; k <= fit->size; k++)
        truth[k - 1] = k <= s->planted.gradients.law.n ? power_law_eigenvalue(&s->planted.gradients.law, k) : 0;
    TRY(run_folder_array(folder, "eigenvalues_true", NPY_F64, truth, fit->size, 0));
    TRY(run_folder_array(folder, "eigenvalues", NPY_F64, fit->sampled, fit->size, 0));
    TRY(run_folder_array(folder, "eigenvalues_expected", NPY_F64, fit->expected, fit->size, 0));
    TRY(run_folder_array(folder, "eigenvalues_debiased", NPY_F64, fit->debiased, fit->size, 0));
    TRY(run_folder_array(folder, "eigenvalues_debiased_se", NPY_F64, fit->debiased_error, fit->size, 0));
done:
    free(truth);
    return status;
}

static enum status replicate(const struct synthetic_settings *s, uint64_t seed, int64_t index, struct backend *backend,
                             struct run_folder *folder, double row[COLUMNS]) {
    enum status status = STATUS_OK;
    struct planted_options options = s->planted;
    struct planted *planted = NULL;
    struct spectrum_fit *fit = NULL;
    struct record *line = record_new();
    options.gradients.seed = seed_of(seed, index);
    TRY(planted_new(&options, backend, &planted));
    struct spectrum_input in = {
        .rows = planted->rows, .norms = planted->norms, .norms_stride = 1, .weights = options.gradients.law.n};
    TRY(spectrum_fit_new(&in, &s->fit, backend, &fit));
    row_of(fit, row);
    record_integer(line, "replicate", index);
    row_put(row, true, s->fit.alternatives, line);
    TRY(run_folder_log(folder, line));
    if (index == 0) TRY(arrays_put(s, fit, folder));
done:
    record_free(line);
    spectrum_fit_free(fit);
    planted_free(planted);
    return status;
}

static void describe(const struct synthetic_settings *s, struct record *record) {
    const struct planted_options *p = &s->planted;
    const struct power_law *law = &p->gradients.law;
    record_integer(record, "n", law->n);
    record_integer(record, "samples", p->samples);
    record_integer(record, "dim", p->dim);
    record_integer(record, "sketches", p->sketches);
    record_number(record, "alpha_true", law->alpha);
    record_number(record, "c_true", law->scale);
    record_number(record, "kappa_true", exp(4 * p->spread * p->spread));
    record_string(record, "basis", basis_names[p->gradients.basis]);
    record_string(record, "distribution", distribution_names[p->gradients.distribution]);
    record_string(record, "sketch", sketch_names[p->kind]);
    record_bool(record, "centred", s->fit.centred);
    record_bool(record, "exact_jackknife", s->fit.exact_jackknife);
    record_integer(record, "groups", s->fit.groups);
    record_integer(record, "replicates", s->replicates);
}

static void summarize(const struct synthetic_settings *s, const double *rows, struct run_folder *folder) {
    struct record *result = run_folder_result(folder);
    const struct power_law *law = &s->planted.gradients.law;
    struct power_law squares = {law->n, 2 * law->alpha, law->scale * law->scale};
    double mean[COLUMNS] = {0}, n = (double)s->replicates, spread = 0, error2 = 0;
    int64_t within = 0, below = 0;
    for (int64_t r = 0; r < s->replicates; r++)
        for (int i = 0; i < COLUMNS; i++) mean[i] += rows[r * COLUMNS + i] / n;
    for (int64_t r = 0; r < s->replicates; r++) {
        const double *row = rows + r * COLUMNS;
        spread += pow(row[2 * ALPHA] - mean[2 * ALPHA], 2), error2 += pow(row[2 * ALPHA + 1], 2) / n;
        within += fabs(row[2 * ALPHA] - law->alpha) <= 2 * row[2 * ALPHA + 1];
        below += row[2 * SLOPE] < 1;
    }
    describe(s, result);
    row_put(mean, false, s->fit.alternatives, result);
    record_number(result, "alpha_sd", s->replicates > 1 ? sqrt(spread / (n - 1)) : NAN);
    record_number(result, "alpha_se", sqrt(error2));
    record_integer(result, "alpha_within", within);
    record_integer(result, "naive_slope_below_1", below);
    record_number(result, "trace_true", power_law_sum(law, 1, law->n));
    record_number(result, "moment2_true", power_law_sum(&squares, 1, law->n));
    record_number(result, "seconds", run_folder_seconds(folder));
    progress_say(
        "alpha %.4f planted: fitted %.4f (stated error %.4f, spread %.4f), %lld of %lld within two stated errors; "
        "naive slope %.3f",
        law->alpha, mean[2 * ALPHA], sqrt(error2), s->replicates > 1 ? sqrt(spread / (n - 1)) : NAN, (long long)within,
        (long long)s->replicates, mean[2 * SLOPE]);
}

static enum status work(const struct program_common *common, const struct synthetic_settings *s,
                        struct run_folder *folder) {
    enum status status = STATUS_OK;
    struct backend *backend = NULL;
    struct progress *progress = progress_new("planting", "spectrum", s->replicates, 0);
    double *rows = mem_new((size_t)(s->replicates * COLUMNS), sizeof *rows);
    TRY(backend_open(common->device, &backend));
    for (int64_t r = 0; r < s->replicates; r++) {
        double *row = rows + r * COLUMNS;
        TRY(replicate(s, common->seed, r, backend, folder, row));
        progress_update(progress, r + 1, "alpha %.4f +- %.4f, naive %.3f", row[2 * ALPHA], row[2 * ALPHA + 1],
                        row[2 * SLOPE]);
    }
    summarize(s, rows, folder);
done:
    progress_free(progress);
    backend_close(backend);
    free(rows);
    return status;
}

enum status synthetic_spectra_run(const struct program_common *common, const struct synthetic_settings *s) {
    enum status status = STATUS_OK;
    struct run_folder *folder = NULL;
    struct record *about = record_new();
    describe(s, about);
    record_integer(about, "seed", (int64_t)common->seed);
    TRY(program_run_folder(common, about, &folder));
    status = run_folder_finish(folder, work(common, s, folder));
done:
    run_folder_free(folder);
    record_free(about);
    return status;
}

// ---- command line

enum {
    KEY_N = 0x100,
    KEY_SAMPLES,
    KEY_ALPHA,
    KEY_C,
    KEY_BASIS,
    KEY_DISTRIBUTION,
    KEY_SPREAD,
    KEY_SKETCH,
    KEY_DIM,
    KEY_SKETCHES,
    KEY_CENTRED,
    KEY_GROUPS,
    KEY_EXACT_JACKKNIFE,
    KEY_ALTERNATIVES,
    KEY_REPLICATES,
};

static struct synthetic_settings settings = {
    .planted = {.gradients = {.law = {.n = 65536, .alpha = 1.5, .scale = 1}, .basis = BASIS_HADAMARD},
                .kind = SKETCH_ROTATION,
                .samples = 2048,
                .dim = 512,
                .sketches = 4},
    .fit = {.groups = 20},
    .replicates = 1,
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Gradients:", 1},
    {"n", KEY_N, "N", 0, "weights; a power of two for --basis hadamard (default: 65536)", 1},
    {"samples", KEY_SAMPLES, "N", 0, "samples (default: 2048)", 1},
    {"alpha", KEY_ALPHA, "A", 0, "eigenvalues of the covariance are C k^-A (default: 1.5)", 1},
    {"c", KEY_C, "C", 0, "see --alpha (default: 1)", 1},
    {"basis", KEY_BASIS, "NAME", 0,
     "eigenvectors: hadamard (spread out, default) or identity (the axes; a rotation does not mix axes, so that only "
     "the dense "
     "sketches see the spectrum)",
     1},
    {"distribution", KEY_DISTRIBUTION, "NAME", 0,
     "coordinates in the eigenbasis: gaussian (default), rademacher, heavy (Student, 5 degrees of freedom)", 1},
    {"spread", KEY_SPREAD, "S", 0,
     "standard deviation of the logarithm of the samples' scale, 0 to 1 (default: 0, all alike)", 1},
    {0, 0, 0, 0, "Sketches:", 2},
    {"sketch", KEY_SKETCH, "NAME", 0, "random map of gradients to K numbers: rotation (default), gaussian, rademacher",
     2},
    {"dim", KEY_DIM, "K", 0, "numbers per sketch (default: 512)", 2},
    {"sketches", KEY_SKETCHES, "J", 0, "independent sketches (default: 4)", 2},
    {0, 0, 0, 0, "Fit:", 3},
    {"centred", KEY_CENTRED, 0, 0, "eigenvalues around the mean", 3},
    {"groups", KEY_GROUPS, "G", 0, "groups of samples of the jackknife (default: 20)", 3},
    {"exact-jackknife", KEY_EXACT_JACKKNIFE, 0, 0, "eigenvalues without a group anew instead of to first order", 3},
    {"alternatives", KEY_ALTERNATIVES, 0, 0, "judge a broken power law and an exponential too", 3},
    {"replicates", KEY_REPLICATES, "R", 0, "draws of samples and sketches (default: 1)", 3},
    {0},
};

static void finish(const struct synthetic_settings *s) {
    if (s->planted.gradients.basis == BASIS_HADAMARD && !walsh_has_size(s->planted.gradients.law.n))
        args_fail("--n %lld: must be a power of two for --basis hadamard", (long long)s->planted.gradients.law.n);
    if (s->planted.samples < 2 * s->fit.groups)
        args_fail("--samples %lld: must be at least twice --groups %lld", (long long)s->planted.samples,
                  (long long)s->fit.groups);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct synthetic_settings *s = state->input;
    struct gradients_options *g = &s->planted.gradients;
    switch (key) {
    case KEY_N: g->law.n = args_integer("--n", arg, 16, INT64_C(1) << 31); return 0;
    case KEY_SAMPLES: s->planted.samples = args_integer("--samples", arg, 3, INT64_C(1) << 32); return 0;
    case KEY_ALPHA: g->law.alpha = args_number("--alpha", arg, 0, 10); return 0;
    case KEY_C: g->law.scale = args_number("--c", arg, 1e-30, 1e30); return 0;
    case KEY_BASIS: g->basis = args_choice("--basis", arg, "identity|hadamard"); return 0;
    case KEY_DISTRIBUTION: g->distribution = args_choice("--distribution", arg, "gaussian|rademacher|heavy"); return 0;
    case KEY_SPREAD: s->planted.spread = args_number("--spread", arg, 0, 1); return 0;
    case KEY_SKETCH: s->planted.kind = 1 + args_choice("--sketch", arg, "rotation|gaussian|rademacher"); return 0;
    case KEY_DIM: s->planted.dim = args_integer("--dim", arg, 1, 1 << 15); return 0;
    case KEY_SKETCHES: s->planted.sketches = args_integer("--sketches", arg, 1, SKETCHES_MOST); return 0;
    case KEY_CENTRED: s->fit.centred = true; return 0;
    case KEY_GROUPS: s->fit.groups = args_integer("--groups", arg, 2, 1 << 16); return 0;
    case KEY_EXACT_JACKKNIFE: s->fit.exact_jackknife = true; return 0;
    case KEY_ALTERNATIVES: s->fit.alternatives = true; return 0;
    case KEY_REPLICATES: s->replicates = args_integer("--replicates", arg, 1, 1 << 20); return 0;
    case ARGP_KEY_END: finish(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status start(const struct program_common *common, void *input) {
    return synthetic_spectra_run(common, input);
}

const struct command synthetic_command = {
    .name = "synthetic",
    .doc = "Plants gradients with a known spectrum, samples and sketches them, and fits their decay.\v"
           "result.json holds alpha and C as planted and as fitted, with stated errors and the spread over replicates, "
           "and "
           "the naive slope, which is biased.",
    .options = options,
    .parse = parse,
    .common = COMMON_SEED | COMMON_THREADS | COMMON_DEVICE | COMMON_OUT_NEEDED,
    .run = start,
    .settings = &settings,
};
