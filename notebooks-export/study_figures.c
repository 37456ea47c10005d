// Figures of the studies of `discquant-walk validate`: what was measured with its intervals, what is predicted, the paper's bound.
#include "core/base/mem.h"
#include "notebooks-export/paper.h"
#include "notebooks-export/points.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// The last run of a study: one that was made with more care stands behind a quick one of the same folder by its name only.
static enum status study_points(const struct run_set *set, const char *study, const struct run_info **run,
                                struct points **out) {
    *run = NULL;
    *out = NULL;
    for (int64_t i = 0; i < set->n; i++) {
        const char *name = run_setting_text(&set->runs[i], "study");
        if (!run_is(&set->runs[i], "discquant-walk validate") || !name || strcmp(name, study) != 0) continue;
        if (!*run || run_number(&set->runs[i], "n") > run_number(*run, "n")) *run = &set->runs[i];
    }
    if (!*run) return STATUS_OK;
    char *path = mem_format("%s/points.csv", (*run)->path);
    enum status status = points_read(path, out);
    free(path);
    return status;
}

// Points of one kind, a series for each of their series, hues in the order in which these appear.
static void add_series(struct panel *panel, const struct points *points, const char *kind, const char *name,
                       enum look look, bool name_each) {
    const char *seen[16];
    int n_seen = 0;
    for (int64_t i = 0; i < points->n && n_seen < 16; i++) {
        const char *series_name = points->points[i].series;
        int k = 0;
        if (strcmp(points->points[i].figure, kind) != 0) continue;
        while (k < n_seen && strcmp(seen[k], series_name) != 0) k++;
        if (k < n_seen) continue;
        seen[n_seen++] = series_name;
        struct series *series = panel_series(panel, name_each ? series_name : k ? "" : name, look, k);
        for (int64_t j = i; j < points->n; j++) {
            const struct point *p = &points->points[j];
            if (strcmp(p->figure, kind) == 0 && strcmp(p->series, series_name) == 0)
                series_point(series, p->x, p->value, p->low, p->high);
        }
    }
}

static void add_level(struct panel *panel, const struct points *points, const char *name, double level) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < points->n; i++)
        low = fmin(low, points->points[i].x), high = fmax(high, points->points[i].x);
    struct series *series = panel_series(panel, name, LOOK_DASHES, 6);
    series_point(series, low, level, NAN, NAN);
    series_point(series, high, level, NAN, NAN);
}

enum status figure_theorem2(const struct run_set *set, struct figure **out) {
    const struct run_info *run;
    struct points *points;
    enum status status = study_points(set, "theorem2", &run, &points);
    if (status != STATUS_OK || !points) return status;
    struct figure *figure = figure_new("theorem2", "Theorem 2", "Error of the walk against the number of samples");
    struct panel *panel =
        figure_panel(figure, "quantization error at a vertex", "m (samples)", "QE", PANEL_LOG_X | PANEL_LOG_Y);
    add_series(panel, points, "qe", "", LOOK_MARKS, true);
    add_series(panel, points, "qe_law", "law", LOOK_LINE, false);
    add_series(panel, points, "log(n/m) F_alpha", "log(n/m) F", LOOK_DASHES, false);
    panel = figure_panel(figure, "measured over predicted", "m (samples)", "QE / law", PANEL_LOG_X);
    add_series(panel, points, "qe / law", "", LOOK_MARKED_LINE, true);
    add_level(panel, points, "", 1);
    figure_caption(figure,
                   "n = %.0f coordinates; marks with 95 %% intervals over draws of samples, starts and walks. The law "
                   "is (‖x − y‖² / n) m μ; dashes: "
                   "Theorem 2's log(n/m) F_α with its constant set to 1, which from α = 3/2 on falls as m^(−1/2) only.",
                   run_number(run, "n"));
    *out = figure;
    points_free(points);
    return STATUS_OK;
}

enum status figure_theorem3(const struct run_set *set, struct figure **out) {
    const struct run_info *run;
    struct points *points;
    enum status status = study_points(set, "theorem3", &run, &points);
    if (status != STATUS_OK || !points) return status;
    struct figure *figure = figure_new("theorem3", "Theorem 3", "Largest eigenvalue of x − y's second moment");
    struct panel *panel = figure_panel(figure, "over walks", "n (coordinates)", "largest eigenvalue", PANEL_LOG_X);
    add_series(panel, points, "norm", "", LOOK_MARKED_LINE, true);
    add_series(panel, points, "norm_null", "without structure", LOOK_DASHES, false);
    panel = figure_panel(figure, "one run, along P (1 − 2y)", "", "⟨x − y, v⟩², v = P (1 − 2y) / ‖P (1 − 2y)‖",
                         PANEL_LOG_Y | PANEL_NAMED_X);
    struct series *series = panel_series(panel, "", LOOK_MARKS, 0);
    for (int64_t i = 0; i < points->n; i++) {
        const struct point *p = &points->points[i];
        if (strcmp(p->figure, "one_run") == 0)
            series_point(series, (double)panel_x_name(panel, p->series), p->value, p->low, p->high);
    }
    figure_caption(figure,
                   "Theorem 3 (iii) asks for a bounded second moment in every direction. The dashed line is the "
                   "largest eigenvalue of as many walks without "
                   "any structure. A clamped walk of the same steps gathers along P (1 − 2y): its spike grows with n.");
    *out = figure;
    points_free(points);
    return STATUS_OK;
}

enum status figure_proposition4(const struct run_set *set, struct figure **out) {
    const struct run_info *run;
    struct points *points;
    enum status status = study_points(set, "proposition4", &run, &points);
    if (status != STATUS_OK || !points) return status;
    struct figure *figure =
        figure_new("proposition4", "Proposition 4", "Distance of a sampled covariance from the true one");
    struct panel *panel = figure_panel(figure, "", "m (samples)", "mean trace norm", PANEL_LOG_X | PANEL_LOG_Y);
    add_series(panel, points, "norm", "", LOOK_MARKS, true);
    add_series(panel, points, "law", "law of large n", LOOK_LINE, false);
    add_series(panel, points, "blocks", "Proposition 4's bound", LOOK_DASHES, false);
    figure_caption(figure,
                   "Marks: mean of the trace norm of the sampled covariance less the true one, with 95 %% intervals; "
                   "lines: Marchenko and Pastur's law for the "
                   "same spectrum; dashes: the sum over blocks in the proof of Proposition 4, with its constants.");
    *out = figure;
    points_free(points);
    return STATUS_OK;
}

enum status figure_adversarial(const struct run_set *set, struct figure **out) {
    const struct run_info *run;
    struct points *points;
    enum status status = study_points(set, "adversarial", &run, &points);
    if (status != STATUS_OK || !points) return status;
    struct figure *figure =
        figure_new("adversarial", "Choice of c", "Vertices chosen without randomness beside the walk");
    struct panel *panel = figure_panel(figure, "", "", "QE / law", PANEL_LOG_Y | PANEL_NAMED_X);
    struct series *series = panel_series(panel, "", LOOK_MARKS, 0);
    for (int64_t i = 0; i < points->n; i++) {
        const struct point *p = &points->points[i];
        if (strcmp(p->figure, "ratio") != 0) continue;
        char *name = mem_string(p->series);
        for (char *c = name; *c; c++)
            if (*c == '_') *c = ' ';
        series_point(series, (double)panel_x_name(panel, name), p->value, p->low, p->high);
        free(name);
    }
    struct series *one = panel_series(panel, "the law", LOOK_DASHES, 6);
    series_point(one, -0.5, 1, NAN, NAN);
    series_point(one, (double)panel->n_x_names - 0.5, 1, NAN, NAN);
    figure_caption(figure, "Starts: generic, near the vertices, far from them. walk: Theorem 2's; nearest and random: "
                           "rounding without constraints; closest: the vertex that "
                           "minimises ⟨1 − 2y, x⟩; random vertex: a random c. vertex 1, 2m, half m: the vertex that "
                           "minimises the direction −v₀, for m as named.");
    *out = figure;
    points_free(points);
    return STATUS_OK;
}
