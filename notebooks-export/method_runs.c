#include "notebooks-export/method_runs.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- kinds ----

static bool rounds(const struct run_info *run) { return run_is(run, "discquant"); }

static bool has_text(const struct run_info *run, const char *key, const char *value) {
    const char *text = run_setting_text(run, key);
    return text && strcmp(text, value) == 0;
}

// Absent settings are the default.
static bool differs(const struct run_info *run, const char *key, const char *standard) {
    const char *text = run_setting_text(run, key);
    return text && strcmp(text, standard) != 0;
}

bool method_is_qat(const struct run_info *run) { return rounds(run) && has_text(run, "method", "qat"); }
bool method_has_adapter(const struct run_info *run) { return rounds(run) && run_setting(run, "lora_rank") > 0; }
bool method_has_objective(const struct run_info *run) { return rounds(run) && differs(run, "objective", "kl"); }
bool method_has_random_direction(const struct run_info *run) {
    return rounds(run) && differs(run, "direction", "closest");
}
bool method_is_mixed(const struct run_info *run) { return rounds(run) && run_setting(run, "second_share") >= 0; }

static bool is_incoherent(const struct run_info *run) { return differs(run, "incoherence", "none"); }

enum variation { VARIES_ADAPTER = 1, VARIES_OBJECTIVE = 2, VARIES_DIRECTION = 4, VARIES_CORPUS = 8 };

// Nothing but what may vary differs from the paper's main setting.
static bool is_standard_but(const struct run_info *run, int may_vary) {
    return rounds(run) && !is_incoherent(run) && ((may_vary & VARIES_ADAPTER) || !method_has_adapter(run)) &&
           ((may_vary & VARIES_OBJECTIVE) || !method_has_objective(run)) &&
           ((may_vary & VARIES_DIRECTION) || !method_has_random_direction(run)) &&
           ((may_vary & VARIES_CORPUS) || !method_is_mixed(run));
}

bool method_is_plain(const struct run_info *run) { return is_standard_but(run, 0); }
bool method_is_incoherent(const struct run_info *run) { return rounds(run) && is_incoherent(run); }

static bool is_discquant(const struct run_info *run) { return has_text(run, "method", "discquant"); }

bool method_is_qat_or_discquant(const struct run_info *run) {
    return is_standard_but(run, 0) && (is_discquant(run) || method_is_qat(run));
}
bool method_is_adapter_or_base(const struct run_info *run) { return is_standard_but(run, VARIES_ADAPTER); }
bool method_is_objective_or_kl(const struct run_info *run) {
    return is_standard_but(run, VARIES_OBJECTIVE) && is_discquant(run);
}
bool method_is_direction_or_closest(const struct run_info *run) {
    return is_standard_but(run, VARIES_DIRECTION) && is_discquant(run);
}

// ---- scores of tasks ----

// The figure of a run of eval that tables show; NULL where it has none.
static const char *score_key(const struct run_info *run) {
    static const char *const keys[] = {"accuracy", "acc", "exact_match_flexible", "word_perplexity"};
    if (!run_is(run, "discquant-bench eval") || !run_setting_text(run, "task")) return NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!isnan(run_number(run, keys[i]))) return keys[i];
    return NULL;
}

static void task_add(struct method_runs *runs, const struct run_info *run) {
    const char *task = run_setting_text(run, "task"), *key = score_key(run);
    for (int64_t t = 0; key && t < runs->n_tasks; t++)
        if (strcmp(runs->tasks[t].name, task) == 0) return;
    if (!key) return;
    runs->tasks = mem_resize(runs->tasks, (size_t)runs->n_tasks + 1, sizeof *runs->tasks);
    runs->tasks[runs->n_tasks++] = (struct method_task){task, key};
}

// What `discquant-bench eval` calls a file or folder of the run: a digest of it; NULL where there is none. A new string.
static enum status digest_of(const struct run_info *run, const char *name, char **out) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/%s", run->path, name);
    struct record *record = record_new();
    *out = NULL;
    if (folder_exists(path)) {
        TRY(record_digest(record, "digest", path));
        *out = mem_string(json_string_value(json_object_get(record_json(record), "digest")));
    }
done:
    record_free(record);
    free(path);
    return status;
}

// Of the evaluation of a model, with an adapter unless that is NULL.
static double score_of(const struct run_set *set, struct method_task task, const char *model, const char *adapter) {
    for (int64_t i = 0; i < set->n && model; i++) {
        const struct run_info *run = &set->runs[i];
        const char *asked = run_setting_text(run, "adapter");
        if (score_key(run) && has_text(run, "task", task.name) && has_text(run, "model", model) &&
            (adapter ? asked && strcmp(asked, adapter) == 0 : !asked))
            return run_number(run, task.key);
    }
    return NAN;
}

// scores [n_tasks] of what the run has made: the rounded model; of one with an adapter, the two merged or together.
static enum status run_scores(const struct run_set *set, const struct method_runs *runs, const struct run_info *run,
                              double *scores) {
    enum status status = STATUS_OK;
    char *model = NULL, *merged = NULL, *adapter = NULL;
    TRY(digest_of(run, "model", &model));
    if (method_has_adapter(run)) {
        TRY(digest_of(run, "merged", &merged));
        TRY(digest_of(run, "adapter", &adapter));
    }
    for (int64_t t = 0; t < runs->n_tasks; t++) {
        scores[t] = score_of(set, runs->tasks[t], merged ? merged : model, merged ? NULL : adapter);
        if (isnan(scores[t]) && merged) scores[t] = score_of(set, runs->tasks[t], model, adapter);
    }
done:
    free(model);
    free(merged);
    free(adapter);
    return status;
}

static enum status row_scores(const struct run_set *set, const struct run_group *group, const struct method_runs *runs,
                              struct method_row *row) {
    enum status status = STATUS_OK;
    int64_t n_tasks = runs->n_tasks;
    double *scores = mem_new((size_t)(group->n * n_tasks + 1), sizeof *scores);
    double *values = mem_new((size_t)group->n, sizeof *values);
    row->scores = mem_new((size_t)(n_tasks + 1), sizeof *row->scores);
    for (int64_t i = 0; i < group->n && n_tasks; i++) TRY(run_scores(set, runs, group->runs[i], scores + i * n_tasks));
    for (int64_t t = 0; t < n_tasks; t++) {
        for (int64_t i = 0; i < group->n; i++) values[i] = scores[i * n_tasks + t];
        row->scores[t] = student_of(values, group->n);
    }
done:
    free(scores);
    free(values);
    return status;
}

// ---- rows ----

// NaN before every number: qsort wants one order of all.
static int ascending(double x, double y) {
    if (isnan(x) || isnan(y)) return !isnan(x) - !isnan(y);
    return (x > y) - (x < y);
}

static int by_bits_and_kl(const void *a, const void *b) {
    const struct method_row *x = a, *y = b;
    int bits = ascending(x->bits_per_weight, y->bits_per_weight), kl = ascending(-x->kl.mean, -y->kl.mean);
    return bits ? bits : kl ? kl : strcmp(x->run->path, y->run->path);
}

static char *whole_number(double value) { return isnan(value) ? mem_string("") : mem_format("%.0f", value); }

static char *label_of(const struct run_groups *groups, const struct run_group *group) {
    // What the row shows elsewhere, or what follows from it.
    static const char *const same[] = {"method", "bits", "group_size", NULL};
    const char *method = run_setting_text(group->runs[0], "method");
    char *extra = run_group_label(groups, group, same);
    char *label = extra[0] ? mem_format("%s (%s)", method ? method : "?", extra) : mem_string(method ? method : "?");
    free(extra);
    return label;
}

// Of every run to round-to-nearest in its own setting: the signs of a rotation are a seed's.
static struct student ratio_to_rtn(const struct run_group *group, const char *key) {
    double *values = mem_new((size_t)group->n, sizeof *values);
    for (int64_t i = 0; i < group->n; i++)
        values[i] = run_number(group->runs[i], key) / run_number(group->runs[i], "kl_rtn");
    struct student of = student_of(values, group->n);
    free(values);
    return of;
}

static enum status row_fill(const struct run_set *set, const struct run_groups *groups, const struct run_group *group,
                            const struct method_runs *runs, struct method_row *row) {
    const struct run_info *run = group->runs[0];
    *row = (struct method_row){.run = run,
                               .n = group->n,
                               .label = label_of(groups, group),
                               .bits = whole_number(run_setting(run, "bits")),
                               .group = whole_number(run_setting(run, "group_size")),
                               .bits_per_weight = run_number(run, "bits_per_weight")};
    bool adapter = method_has_adapter(run);
    row->kl = run_group_figure(group, adapter ? "kl_lora" : "kl");
    if (row->kl.n) row->n = row->kl.n;
    row->ratio = ratio_to_rtn(group, adapter ? "kl_lora" : "kl");
    row->perplexity = run_group_figure(group, adapter ? "perplexity_lora" : "perplexity");
    row->agreement = run_group_figure(group, adapter ? "top1_agreement_lora" : "top1_agreement");
    return row_scores(set, group, runs, row);
}

enum status method_runs_new(const struct run_set *set, bool (*keep)(const struct run_info *run),
                            struct method_runs **out) {
    enum status status = STATUS_OK;
    struct method_runs *runs = mem_new(1, sizeof *runs);
    struct run_groups *groups = run_groups_new(set, keep);
    for (int64_t i = 0; i < set->n; i++) task_add(runs, &set->runs[i]);
    runs->rows = mem_new((size_t)groups->n, sizeof *runs->rows);
    runs->original = mem_new((size_t)(runs->n_tasks + 1), sizeof *runs->original);
    runs->perplexity_original = NAN;
    for (int64_t g = 0; g < groups->n; g++) {
        runs->n++;
        TRY(row_fill(set, groups, &groups->groups[g], runs, &runs->rows[g]));
    }
    if (runs->n) {
        const struct run_info *run = runs->rows[0].run;
        runs->perplexity_original = run_number(run, "perplexity_original");
        for (int64_t t = 0; t < runs->n_tasks; t++)
            runs->original[t] = score_of(set, runs->tasks[t], run_setting_text(run, "model"), NULL);
        qsort(runs->rows, (size_t)runs->n, sizeof *runs->rows, by_bits_and_kl);
    }
    *out = runs;
    runs = NULL;
done:
    run_groups_free(groups);
    method_runs_free(runs);
    return status;
}

void method_runs_free(struct method_runs *runs) {
    if (!runs) return;
    for (int64_t i = 0; i < runs->n; i++) {
        free(runs->rows[i].label);
        free(runs->rows[i].bits);
        free(runs->rows[i].group);
        free(runs->rows[i].scores);
    }
    free(runs->tasks);
    free(runs->original);
    free(runs->rows);
    free(runs);
}
