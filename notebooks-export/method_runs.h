// Runs of `discquant` as rows of tables: one per setting, means over seeds, scores of tasks asked of the rounded models.
#ifndef DQ_NOTEBOOKS_EXPORT_METHOD_RUNS_H
#define DQ_NOTEBOOKS_EXPORT_METHOD_RUNS_H

#include "notebooks-export/run_groups.h"

struct method_row {
    const struct run_info *run; // the first of them
    int64_t n;                  // runs with a KL that is a number; all where there is none
    char *label;                // method, and the settings that tell it from its neighbours
    char *bits, *group;
    double bits_per_weight;
    struct student kl, ratio, perplexity, agreement; // with the adapter where there is one
    struct student *scores;                          // [n_tasks]
};

struct method_task {
    const char *name,
        *key; // of --task, and of its figure in result.json: accuracy, acc, exact_match_flexible, word_perplexity
};

struct method_runs {
    struct method_row *rows; // by bits per weight, then KL falling, NaN first
    int64_t n;
    struct method_task *tasks; // of runs of `discquant-bench eval`
    int64_t n_tasks;
    double *original; // [n_tasks] scores of the original model; NaN where it was not asked
    double perplexity_original;
};

enum status method_runs_new(const struct run_set *set, bool (*keep)(const struct run_info *run),
                            struct method_runs **out);
void method_runs_free(struct method_runs *runs); // accepts NULL

// Which runs belong to which table.
bool method_is_plain(
    const struct run_info *run); // on the grid as it is, the paper's objective and direction, no adapter, one corpus
bool method_is_incoherent(const struct run_info *run);
bool method_is_qat(const struct run_info *run);
bool method_is_qat_or_discquant(const struct run_info *run);
bool method_has_adapter(const struct run_info *run);
bool method_is_adapter_or_base(const struct run_info *run);
bool method_has_objective(const struct run_info *run); // other than KL
bool method_is_objective_or_kl(const struct run_info *run);
bool method_has_random_direction(const struct run_info *run);
bool method_is_direction_or_closest(const struct run_info *run);
bool method_is_mixed(const struct run_info *run); // with a second corpus

#endif
