// An ablation: a plan (JSON, bench/README.md) laid out as command lines, run in child processes, and tabulated.
//
//     TRY(ablation_read(&(struct ablation_options){.plan = "bench/plans/table2.json", .out = "runs/t2"}, &ablation));
//     TRY(ablation_check(ablation));                          // every command line, before anything runs
//     TRY(ablation_execute(ablation, &(struct ablation_execution){.jobs = 1, .threads = 2, .folder = folder}));
//   done:
//     ablation_free(ablation);                                // accepts NULL
//
// A row of the table is one run of a method and the evaluations of its model; a run is one command line.
#ifndef DQ_BENCH_ABLATION_H
#define DQ_BENCH_ABLATION_H

#include "bench/child.h"
#include "data/run_folder.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum ablation_state { RUN_WAITING, RUN_STARTED, RUN_DONE, RUN_FAILED };

struct ablation_run {
    const char *name;                    // "discquant-3-0", "discquant-3-0.choice"; of a text its file name
    const struct child_command *command; // NULL: nothing runs, the row is a model as it is
    int argc;
    char **argv;     // ends with NULL; without what ablation_execute adds: --out, --threads, --resume or --force
    char **said;     // the same with {runs}, {texts} in place of the folders: does not change when OUT moves
    const char *out; // OUT/runs/NAME, a run folder, or OUT/texts/NAME, a file
    bool is_text;
    int *needs; // runs whose output it reads
    int n_needs;
    bool used; // a text that no row needs is not made

    enum ablation_state state;
    bool kept; // done before, by an earlier process
    pid_t pid;
    double begun, seconds, cpu_seconds; // of this process only
    char *error;                        // RUN_FAILED
    char *digest;                       // of the command line, of the files it names and of what it needs
    json_t *result;                     // result.json, RUN_DONE and no text
};

struct ablation_row {
    const char *name, *block; // block: "" for the axes of the plan itself
    const char **labels;      // [n_axes]; NULL where its block has no such axis
    int run;
    int *evaluations; // [n_evaluations], runs; -1: none
};

struct ablation {
    struct arena *arena; // strings and arrays
    json_t *held;        // the JSON that others point into
    const char *title, *about, *out, *plan;
    const char **axes; // of all blocks, in the order in which they appear
    bool *over;        // [n_axes]: the summary takes the mean over it
    const char **evaluations, **columns;
    struct ablation_run *runs;
    struct ablation_row *rows;
    int n_axes, n_evaluations, n_columns, n_runs, n_rows;
};

struct ablation_options {
    const char *plan;    // path
    const char *out;     // folder; need not be there
    json_t *shared;      // overrides of the shared options: name -> value; NULL: none. Borrowed
    json_t *evaluations; // overrides of the evaluations' options: evaluation -> {name: value}; NULL: none. Borrowed
};

// STATUS_FORMAT or STATUS_INVALID: the plan and the place in it. Starts nothing, writes nothing.
enum status ablation_read(const struct ablation_options *options, struct ablation **out);
void ablation_free(struct ablation *ablation);

// Lets the commands' own parsers read every command line. STATUS_INVALID names the row and what is wrong.
enum status ablation_check(const struct ablation *ablation);

// One command line per run that can be pasted into a shell, then how many runs and rows there are.
void ablation_print(const struct ablation *ablation);

struct ablation_execution {
    int jobs, threads; // runs at once; threads of all of them together
    bool force;        // start anew what is done already
    struct run_folder *folder;
};

// Runs what is not done yet, OUT/table.csv and OUT/summary.md are written anew after each run. STATUS_INVALID: rows failed; the
// others are done.
enum status ablation_execute(struct ablation *ablation, const struct ablation_execution *how);

// ---- tables ----

// A row whose runs have all ended.
bool ablation_row_ended(const struct ablation *ablation, const struct ablation_row *row);
const char *ablation_row_error(const struct ablation *ablation, const struct ablation_row *row); // NULL: none

// OUT/table.csv and OUT/summary.md from the rows that have ended; *summary is the latter's text as a new string.
enum status ablation_tables(const struct ablation *ablation, char **summary);

#endif
