#include "notebooks-export/paper.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/npy.h"
#include "notebooks-export/method_runs.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// ---- Figure 2 ----

enum { DOTS_MAX = 1500, ROUNDINGS_MAX = 8 };

static enum status array_read(const struct run_info *run, const char *name, double **values, int64_t *rows,
                              int64_t *cols) {
    char *path = mem_format("%s/%s.npy", run->path, name);
    enum status status = npy_read(path, values, rows, cols);
    free(path);
    return status;
}

static bool array_exists(const struct run_info *run, const char *name) {
    char *path = mem_format("%s/%s.npy", run->path, name);
    bool exists = file_exists(path);
    free(path);
    return exists;
}

static enum status add_rounding(struct figure *figure, const struct run_info *run, const char *name) {
    enum status status = STATUS_OK;
    char *delta_name = mem_format("delta_%s", name), *first_name = mem_format("first_order_%s", name);
    char *pearson = mem_format("pearson_%s", name), *title = NULL;
    double *delta = NULL, *first = NULL;
    int64_t rows[2], cols[2];
    TRY(array_read(run, delta_name, &delta, &rows[0], &cols[0]));
    TRY(array_read(run, first_name, &first, &rows[1], &cols[1]));
    if (rows[0] != rows[1] || cols[0] != cols[1])
        TRY(status_set(STATUS_FORMAT, "%s: %s.npy and %s.npy have different shapes", run->path, delta_name,
                       first_name));
    int64_t n = rows[0] * cols[0], stride = (n + DOTS_MAX - 1) / DOTS_MAX;
    title = mem_format("%s, correlation %.3f", name, run_number(run, pearson));
    struct panel *panel = figure_panel(figure, title, "first order ⟨∇f, ŵ − w⟩, nats", "f(ŵ) − f(w), nats", 0);
    struct series *series = panel_series(panel, "", LOOK_DOTS, (int)figure->n_panels - 1);
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < n; i += stride) {
        series_point(series, first[i], delta[i], NAN, NAN);
        low = fmin(low, first[i]), high = fmax(high, first[i]);
    }
    struct series *same = panel_series(panel, "f(ŵ) − f(w) = first order", LOOK_DASHES, 6);
    series_point(same, low, low, NAN, NAN);
    series_point(same, high, high, NAN, NAN);
done:
    mem_buffer_free(delta);
    mem_buffer_free(first);
    free(delta_name);
    free(first_name);
    free(pearson);
    free(title);
    return status;
}

static const struct run_info *last_run(const struct run_set *set, const char *program) {
    const struct run_info *run = NULL;
    for (int64_t i = 0; i < set->n; i++)
        if (run_is(&set->runs[i], program)) run = &set->runs[i];
    return run;
}

enum status figure_first_order(const struct run_set *set, struct figure **out) {
    enum status status = STATUS_OK;
    const struct run_info *run = last_run(set, "discquant-spectra taylor");
    if (!run) return STATUS_OK;
    struct figure *figure = figure_new("figure2", "Figure 2", "Change of a token's loss and its first order");
    const char *key;
    json_t *value;
    json_object_foreach(run->result, key, value) {
        if (strncmp(key, "delta_rms_", 10) != 0 || figure->n_panels == ROUNDINGS_MAX) continue;
        TRY(add_rounding(figure, run, key + 10));
    }
    figure_caption(figure,
                   "%.0f tokens of %.0f windows, %d of them or fewer as dots at equal distances in the text; f is a "
                   "token's cross entropy.",
                   run_number(run, "tokens"), run_number(run, "windows"), DOTS_MAX);
    if (figure->n_panels == 0) goto done;
    *out = figure;
    figure = NULL;
done:
    figure_free(figure);
    return status;
}

// ---- Figure 3 ----

// Ranks 1, 2, … at about equal distances on a logarithmic axis, marks farther from one another than points of a line.
static int64_t next_rank(int64_t rank, enum look look) {
    int64_t next = rank * (look == LOOK_MARKS ? 125 : 104) / 100;
    return next > rank ? next : rank + 1;
}

static enum status add_spectrum(struct panel *panel, const struct run_info *run, const char *array, const char *name,
                                enum look look, int hue) {
    double *values = NULL;
    int64_t rows, cols;
    if (!array_exists(run, array)) return STATUS_OK;
    enum status status = array_read(run, array, &values, &rows, &cols);
    if (status != STATUS_OK) return status;
    struct series *series = panel_series(panel, name, look, hue);
    for (int64_t k = 1; k <= rows * cols; k = next_rank(k, look))
        if (values[k - 1] > 0) series_point(series, (double)k, values[k - 1], NAN, NAN);
    mem_buffer_free(values);
    return STATUS_OK;
}

enum status figure_eigenvalues(const struct run_set *set, struct figure **out) {
    enum status status = STATUS_OK;
    struct figure *figure = NULL;
    struct panel *panel = NULL;
    int hue = 0;
    for (int64_t i = 0; i < set->n; i++) {
        const struct run_info *run = &set->runs[i];
        if (!run_is(run, "discquant-spectra spectrum") || !array_exists(run, "eigenvalues")) continue;
        if (!figure) {
            figure = figure_new("figure3", "Figure 3", "Eigenvalues of the covariance of per-sample gradients");
            panel = figure_panel(figure, "", "rank k", "eigenvalue", PANEL_LOG_X | PANEL_LOG_Y);
        }
        char *sampled = mem_format("%s, as sampled", run->name), *debiased = mem_format("%s, without bias", run->name);
        char *law = mem_format("C / k^α, α = %.3f ± %.3f", run_number(run, "alpha"), run_number(run, "alpha_se"));
        status = add_spectrum(panel, run, "eigenvalues", sampled, LOOK_DASHES, hue);
        if (status == STATUS_OK) status = add_spectrum(panel, run, "eigenvalues_debiased", debiased, LOOK_MARKS, hue);
        struct series *line = panel_series(panel, law, LOOK_LINE, hue);
        double first = run_number(run, "fit_first_rank"), last = run_number(run, "fit_last_rank");
        for (double k = first; k <= last; k *= 1.25)
            series_point(line, k, run_number(run, "c") * pow(k, -run_number(run, "alpha")), NAN, NAN);
        free(sampled);
        free(debiased);
        free(law);
        hue++;
        TRY(status);
    }
    if (figure)
        figure_caption(figure, "Second moment of the gradients of single windows, by sketches. As sampled: what N "
                               "samples in K dimensions show, too flat at the end; marks: "
                               "freed from that; lines: the fitted power law over the ranks that it is fitted to.");
    *out = figure;
    figure = NULL;
done:
    figure_free(figure);
    return status;
}

// ---- Figures 4 to 7 ----

enum { SCORE_KL = -2, SCORE_PERPLEXITY = -1 }; // beside the numbers of tasks

static const struct student *score_of(const struct method_row *row, int64_t task) {
    return task == SCORE_KL ? &row->kl : task == SCORE_PERPLEXITY ? &row->perplexity : &row->scores[task];
}

static const char *method_of(const struct method_row *row) {
    const char *method = run_setting_text(row->run, "method");
    return method ? method : "?";
}

// A method looks the same in every figure.
static int hue_of(const char *method) {
    static const char *const methods[] = {"rtn", "gptq", "discquant", "qat", "signround"};
    int n = (int)(sizeof methods / sizeof *methods), i = 0;
    while (i < n && strcmp(methods[i], method) != 0) i++;
    return i;
}

// A series per method over bits per weight, of several settings the one with the lowest KL: rows of a bit rate have falling KL.
static void add_methods(struct panel *panel, const struct method_runs *runs, int64_t task) {
    const char *seen[16];
    int n_seen = 0;
    for (int64_t i = 0; i < runs->n && n_seen < 16; i++) {
        const char *method = method_of(&runs->rows[i]);
        int k = 0;
        while (k < n_seen && strcmp(seen[k], method) != 0) k++;
        if (k < n_seen) continue;
        seen[n_seen++] = method;
        struct series *series = panel_series(panel, method, LOOK_MARKED_LINE, hue_of(method));
        const struct method_row *best = NULL;
        for (int64_t j = i; j <= runs->n; j++) {
            const struct method_row *row = j < runs->n ? &runs->rows[j] : NULL;
            if (row && strcmp(method_of(row), method) != 0) continue;
            if (best && (!row || row->bits_per_weight != best->bits_per_weight)) {
                const struct student *e = score_of(best, task);
                series_point(series, best->bits_per_weight, e->mean, e->mean - e->half, e->mean + e->half);
            }
            best = row;
        }
    }
}

static int64_t bit_rates(const struct method_runs *runs) {
    int64_t n = 0;
    for (int64_t i = 0; i < runs->n; i++)
        n += i == 0 || runs->rows[i].bits_per_weight != runs->rows[i - 1].bits_per_weight;
    return n;
}

static enum status bits_figure(const struct run_set *set, const char *id, const char *place, const char *title,
                               bool (*keep)(const struct run_info *run), struct figure **out) {
    struct method_runs *runs = NULL;
    enum status status = method_runs_new(set, keep, &runs);
    if (status != STATUS_OK) return status;
    if (bit_rates(runs) >= 2) {
        struct figure *figure = figure_new(id, place, title);
        add_methods(figure_panel(figure, "", "bits per weight", "KL, nats", PANEL_LOG_Y), runs, SCORE_KL);
        add_methods(figure_panel(figure, "", "bits per weight", "perplexity", 0), runs, SCORE_PERPLEXITY);
        for (int64_t t = 0; t < runs->n_tasks && figure->n_panels < MOST_PANELS; t++)
            add_methods(figure_panel(figure, runs->tasks[t].name, "bits per weight", runs->tasks[t].key, 0), runs, t);
        figure_caption(figure,
                       "Bits per weight count codes and 16-bit scales. The original's perplexity is %.4f. Intervals: "
                       "95 %% over seeds, where there are several. Of several settings of a method: the one with the "
                       "lowest KL.",
                       runs->perplexity_original);
        *out = figure;
    }
    method_runs_free(runs);
    return STATUS_OK;
}

enum status figure_methods(const struct run_set *set, struct figure **out) {
    return bits_figure(set, "figure4", "Figures 4, 5", "Methods against bits per weight", method_is_plain, out);
}

enum status figure_incoherence(const struct run_set *set, struct figure **out) {
    return bits_figure(set, "figure6", "Figures 6, 7", "Methods with incoherence processing against bits per weight",
                       method_is_incoherent, out);
}

// ---- Figure 8 ----

// Rows by method, then the share of the second corpus, then KL falling as in method_runs.
static int by_method_and_share(const void *a, const void *b) {
    const struct method_row *x = *(const struct method_row *const *)a, *y = *(const struct method_row *const *)b;
    int order = strcmp(method_of(x), method_of(y));
    double difference = run_setting(x->run, "second_share") - run_setting(y->run, "second_share");
    if (order == 0) order = (difference > 0) - (difference < 0);
    return order ? order : (x > y) - (x < y);
}

// Rows of one bit rate; of several settings of a method at a share the one with the lowest KL.
static void add_shares(struct panel *panel, const struct method_row *const *rows, int64_t n, int64_t task) {
    struct series *series = NULL;
    const char *before = NULL;
    for (int64_t i = 0; i < n; i++) {
        const char *method = method_of(rows[i]);
        const struct student *e = score_of(rows[i], task);
        double share = run_setting(rows[i]->run, "second_share");
        if (!before || strcmp(before, method) != 0)
            series = panel_series(panel, method, LOOK_MARKED_LINE, hue_of(method));
        before = method;
        if (i + 1 < n && strcmp(method_of(rows[i + 1]), method) == 0 &&
            run_setting(rows[i + 1]->run, "second_share") == share)
            continue;
        series_point(series, share, e->mean, e->mean - e->half, e->mean + e->half);
    }
}

// Rows of one bit rate: KL and perplexity, or what the tasks say.
static void add_mixes(struct figure *figure, const struct method_runs *runs, const struct method_row **rows, int64_t n,
                      const char *title, bool tasks) {
    const char *share = "share of the second corpus";
    qsort(rows, (size_t)n, sizeof *rows, by_method_and_share);
    if (!tasks && figure->n_panels + 2 <= MOST_PANELS) {
        add_shares(figure_panel(figure, title, share, "KL, nats", PANEL_LOG_Y), rows, n, SCORE_KL);
        add_shares(figure_panel(figure, title, share, "perplexity", 0), rows, n, SCORE_PERPLEXITY);
    }
    for (int64_t t = 0; tasks && t < runs->n_tasks && figure->n_panels < MOST_PANELS; t++) {
        char *name = mem_format("%s%s%s", runs->tasks[t].name, title[0] ? ", " : "", title);
        add_shares(figure_panel(figure, name, share, runs->tasks[t].key, 0), rows, n, t);
        free(name);
    }
}

enum status figure_mix(const struct run_set *set, struct figure **out) {
    struct method_runs *runs = NULL;
    enum status status = method_runs_new(set, method_is_mixed, &runs);
    if (status != STATUS_OK) return status;
    if (runs->n) {
        struct figure *figure = figure_new("figure8", "Figure 8", "A share of a second corpus in the calibration text");
        const struct method_row **rows = mem_new((size_t)runs->n, sizeof *rows);
        int64_t n_rates = bit_rates(runs), n_wanted = n_rates * (2 + runs->n_tasks), n;
        for (int64_t tasks = 0; tasks < 2; tasks++)
            for (int64_t first = 0; first < runs->n; first += n) {
                double bits = runs->rows[first].bits_per_weight;
                rows[0] = &runs->rows[first];
                for (n = 1; first + n < runs->n && runs->rows[first + n].bits_per_weight == bits; n++)
                    rows[n] = &runs->rows[first + n];
                bool named = n_rates > 1 && isfinite(bits);
                char *title = named ? mem_format("%.4g bits per weight", bits) : mem_string("");
                add_mixes(figure, runs, rows, n, title, tasks);
                free(title);
            }
        char *more = figure->n_panels == n_wanted
                         ? mem_string("")
                         : mem_format(" Further panels have no room: %lld.", (long long)(n_wanted - figure->n_panels));
        figure_caption(
            figure, "Measured on the validation text, which is the first corpus's unless another was given.%s", more);
        free(more);
        free(rows);
        *out = figure;
    }
    method_runs_free(runs);
    return STATUS_OK;
}
