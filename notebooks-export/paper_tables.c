#include "notebooks-export/paper.h"

#include "core/base/mem.h"
#include "notebooks-export/method_runs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- Table 1 ----

static bool is_spectrum(const struct run_info *run) { return run_is(run, "discquant-spectra spectrum"); }

static const struct run_info *next_run(const struct run_set *set, int64_t *i,
                                       bool (*keep)(const struct run_info *run)) {
    while (*i < set->n) {
        const struct run_info *run = &set->runs[(*i)++];
        if (keep(run)) return run;
    }
    return NULL;
}

static void number_with_error(struct table *table, const struct run_info *run, const char *key, const char *error) {
    double value = run_number(run, key), se = run_number(run, error);
    if (isnan(value) || isnan(se))
        table_number(table, value, "%.4g");
    else {
        // Two digits of the standard error.
        int digits = se > 0 ? (int)fmax(0, fmin(8, 1 - floor(log10(se)))) : 3;
        table_interval(table, value, se, digits);
    }
}

enum status table_gradients(const struct run_set *set, struct table **out) {
    int64_t i = 0;
    struct table *table = NULL;
    for (const struct run_info *run; (run = next_run(set, &i, is_spectrum));) {
        if (!table) {
            table = table_new("table1", "Table 1", "Squared mean and mean square of per-sample gradients");
            static const char *const columns[] = {"run",   "samples", "tokens", "‖E g‖²",           "E ‖g‖²",
                                                  "ratio", "α",       "C",      "slope as sampled", "effective rank"};
            for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) table_column(table, columns[k]);
            table_note(
                table,
                "± is one standard error. ‖E g‖² is without the bias of finite samples; α and C of eigenvalues C / k^α "
                "are freed from that of samples and projection.");
        }
        table_row(table);
        table_text(table, "%s", run->name);
        table_number(table, run_number(run, "samples"), "%.0f");
        table_number(table, run_number(run, "seq_len"), "%.0f");
        number_with_error(table, run, "mean_norm2", "mean_norm2_se");
        number_with_error(table, run, "norm2_mean", "norm2_mean_se");
        number_with_error(table, run, "norm2_ratio", "norm2_ratio_se");
        number_with_error(table, run, "alpha", "alpha_se");
        number_with_error(table, run, "c", "c_se");
        number_with_error(table, run, "alpha_naive", "alpha_naive_se");
        number_with_error(table, run, "effective_rank", "effective_rank_se");
    }
    *out = table;
    return STATUS_OK;
}

// ---- tables of methods ----

// A row of what the table is about, or one with the same grid, text and steps as such a row.
static bool stands_beside(const struct method_runs *runs, const struct method_row *row,
                          bool (*about)(const struct run_info *run)) {
    static const char *const keys[] = {"bits", "group_size", "grid", "samples", "seq_len", "steps", "finish", NULL};
    if (about(row->run)) return true;
    for (int64_t i = 0; i < runs->n; i++)
        if (about(runs->rows[i].run) && runs_agree_where_both_say(row->run, runs->rows[i].run, keys)) return true;
    return false;
}

// Rows for every group of runs: what it is, then KL, share of RTN's, perplexity, scores of tasks.
// With `about` only settings in which there is a run of that kind, beside those of others.
static enum status method_table(const struct run_set *set, const char *id, const char *place, const char *title,
                                bool (*keep)(const struct run_info *run), bool (*about)(const struct run_info *run),
                                struct table **out) {
    enum status status = STATUS_OK;
    struct method_runs *runs = NULL;
    struct table *table = NULL;
    TRY(method_runs_new(set, keep, &runs));
    if (runs->n == 0) goto done;
    table = table_new(id, place, title);
    static const char *const columns[] = {"bits per weight", "bits",     "group",      "method",
                                          "KL, nats",        "KL / RTN", "perplexity", "top-1 agreement"};
    for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) table_column(table, columns[k]);
    for (int64_t t = 0; t < runs->n_tasks; t++) table_column(table, runs->tasks[t].name);
    table_column(table, "runs");
    table_row(table);
    for (int k = 0; k < 3; k++) table_text(table, "%s", "");
    table_text(table, "original");
    table_number(table, 0, "%.0f");
    table_text(table, "%s", "");
    table_number(table, runs->perplexity_original, "%.4f");
    table_number(table, 1, "%.0f");
    for (int64_t t = 0; t < runs->n_tasks; t++) table_number(table, runs->original[t], "%.4f");
    table_text(table, "%s", "");
    for (int64_t i = 0; i < runs->n; i++) {
        const struct method_row *row = &runs->rows[i];
        if (about && !stands_beside(runs, row, about)) continue;
        table_row(table);
        table_number(table, row->bits_per_weight, "%.4g");
        table_text(table, "%s", row->bits);
        table_text(table, "%s", row->group);
        table_text(table, "%s", row->label);
        table_interval(table, row->kl.mean, row->kl.half, 4);
        table_number(table, row->ratio.mean, "%.3f");
        table_interval(table, row->perplexity.mean, row->perplexity.half, 4);
        table_interval(table, row->agreement.mean, row->agreement.half, 4);
        for (int64_t t = 0; t < runs->n_tasks; t++) table_interval(table, row->scores[t].mean, row->scores[t].half, 4);
        table_number(table, (double)row->n, "%.0f");
    }
    table_note(table, "KL to the original and perplexity on the validation windows. ± is half the 95 %% interval over "
                      "seeds (Student's t), "
                      "where there are at least two.");
    *out = table;
done:
    method_runs_free(runs);
    return status;
}

enum status table_methods(const struct run_set *set, struct table **out) {
    return method_table(set, "table2", "Tables 2, 3", "Methods on the same grids", method_is_plain, NULL, out);
}

enum status table_incoherence(const struct run_set *set, struct table **out) {
    return method_table(set, "table5", "Tables 5, 6", "Methods with incoherence processing", method_is_incoherent, NULL,
                        out);
}

// Only where one of the runs is what the table is about.
static enum status table_about(const struct run_set *set, bool (*about)(const struct run_info *run), const char *id,
                               const char *place, const char *title, bool (*keep)(const struct run_info *run),
                               struct table **out) {
    for (int64_t i = 0; i < set->n; i++)
        if (about(&set->runs[i])) return method_table(set, id, place, title, keep, about, out);
    return STATUS_OK;
}

enum status table_qat(const struct run_set *set, struct table **out) {
    return table_about(set, method_is_qat, "table4", "Table 4",
                       "Training with straight-through gradients beside rounding", method_is_qat_or_discquant, out);
}

enum status table_lora(const struct run_set *set, struct table **out) {
    return table_about(set, method_has_adapter, "table7", "Table 7", "Low-rank adapters on the rounded model",
                       method_is_adapter_or_base, out);
}

enum status table_objectives(const struct run_set *set, struct table **out) {
    return table_about(set, method_has_objective, "table8", "Table 8", "Objectives of distillation",
                       method_is_objective_or_kl, out);
}

enum status table_directions(const struct run_set *set, struct table **out) {
    return table_about(set, method_has_random_direction, "table9", "Table 9", "Random directions c beside 1 - 2y",
                       method_is_direction_or_closest, out);
}

// ---- walks on a network ----

static bool is_walk(const struct run_info *run) { return run_is(run, "discquant-walk round"); }

static void walk_row(struct table *table, const struct run_info *run, const char *label, const char *suffix) {
    char *keys[] = {mem_format("qe%s", suffix),          mem_format("qe_ci_low%s", suffix),
                    mem_format("qe_ci_high%s", suffix),  mem_format("qe_predicted%s", suffix),
                    mem_format("loss_change%s", suffix), mem_format("kl%s", suffix),
                    mem_format("perplexity%s", suffix)};
    double qe = run_number(run, keys[0]);
    if (!isnan(qe)) {
        table_row(table);
        table_number(table, run_setting(run, "bits"), "%.0f");
        table_number(table, run_setting(run, "group_size"), "%.0f");
        table_number(table, run_number(run, "m"), "%.0f");
        table_text(table, "%s", label);
        table_number(table, qe, "%.3g");
        table_text(table, "%.3g to %.3g", run_number(run, keys[1]), run_number(run, keys[2]));
        table_number(table, qe / run_number(run, "qe_rtn"), "%.2f");
        table_number(table, run_number(run, keys[3]), "%.3g");
        table_number(table, run_number(run, keys[4]), "%.4f");
        table_number(table, run_number(run, keys[5]), "%.4f");
        table_number(table, run_number(run, keys[6]), "%.3f");
    }
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) free(keys[k]);
}

enum status table_walks(const struct run_set *set, struct table **out) {
    int64_t i = 0;
    struct table *table = NULL;
    for (const struct run_info *run; (run = next_run(set, &i, is_walk));) {
        if (!table) {
            table = table_new("walks", "Theorem 2 on a network", "Walks beside other roundings, on fresh gradients");
            static const char *const columns[] = {"bits",      "group",    "m",   "rounding",         "QE",
                                                  "95 %",      "QE / RTN", "law", "mean loss change", "KL",
                                                  "perplexity"};
            for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) table_column(table, columns[k]);
            table_note(table, "QE = E ⟨g, x − y⟩² over gradients of windows that the walk has not seen; law: (‖x − y‖² "
                              "/ n) tr(PΣ) with the "
                              "fresh windows' own covariance outside of the sampled span.");
        }
        walk_row(table, run, "to nearest", "_rtn");
        walk_row(table, run, "random", "_random");
        const char *engine = run_setting_text(run, "engine");
        char *before = mem_format("%s, before its final phase", engine ? engine : "walk");
        walk_row(table, run, before, "_before");
        walk_row(table, run, engine ? engine : "walk", "");
        free(before);
        walk_row(table, run, "closest vertex", "_closest");
        walk_row(table, run, "discquant", "_discquant");
    }
    *out = table;
    return STATUS_OK;
}

// ---- verdicts ----

static bool is_study(const struct run_info *run) { return run_is(run, "discquant-walk validate"); }

static bool is_verdict(const char *text) {
    return text && (strcmp(text, "holds") == 0 || strcmp(text, "fails") == 0 || strcmp(text, "undecided") == 0);
}

enum status table_theorems(const struct run_set *set, struct table **out) {
    int64_t i = 0;
    struct table *table = NULL;
    for (const struct run_info *run; (run = next_run(set, &i, is_study));) {
        const char *key;
        json_t *value;
        json_object_foreach(run->result, key, value) {
            if (!is_verdict(json_string_value(value))) continue;
            if (!table) {
                table = table_new("theorems", "Theorems", "Verdicts of the studies");
                static const char *const columns[] = {"study", "statement", "verdict", "measured"};
                for (size_t k = 0; k < sizeof columns / sizeof *columns; k++) table_column(table, columns[k]);
            }
            char *why = mem_format("%s_why", key);
            const char *reason = run_result_text(run, why), *study = run_setting_text(run, "study");
            table_row(table);
            table_text(table, "%s", study ? study : run->name);
            table_text(table, "%s", key);
            table_text(table, "%s", json_string_value(value));
            table_text(table, "%s", reason ? reason : "");
            free(why);
        }
    }
    *out = table;
    return STATUS_OK;
}
