// Finished run folders, read for tables and figures.
//
//     TRY(run_set_read(paths, n_paths, &set));
//     for (int64_t i = 0; i < set->n; i++)
//         if (run_is(&set->runs[i], "discquant")) kl = run_number(&set->runs[i], "kl");
//   done:
//     run_set_free(set);
#ifndef DQ_NOTEBOOKS_EXPORT_RUN_SET_H
#define DQ_NOTEBOOKS_EXPORT_RUN_SET_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct run_info {
    char *path, *name;      // name: the folder's own
    const char *program;    // "discquant", "discquant-walk validate", …
    json_t *about, *result; // run.json, result.json
    const json_t *settings; // of run.json
};

struct run_set {
    struct run_info *runs; // by path
    int64_t n;
    char **left_out; // "PATH: why", runs that have not finished
    int64_t n_left_out;
};

// A path is a run folder, or holds some up to three folders deep; that of a plan (`discquant-bench ablate`) stands for the runs in it. STATUS_INVALID where a path holds none that is finished;
// STATUS_FORMAT for files that are no run's.
enum status run_set_read(const char *const *paths, int n_paths, struct run_set **out);
void run_set_free(struct run_set *set); // accepts NULL

bool run_is(const struct run_info *run, const char *program);
double run_number(const struct run_info *run, const char *key);            // of the result; NaN where there is none
double run_setting(const struct run_info *run, const char *key);           // NaN where there is none
const char *run_setting_text(const struct run_info *run, const char *key); // NULL where there is none
const char *run_result_text(const struct run_info *run, const char *key);  // NULL where there is none

#endif
