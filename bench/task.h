// What `discquant-bench eval` does for tasks made of items (bench/items.h): reads them, asks a task about each, and writes
// the summary as one JSON line on stdout and to the run folder, if there is one:
//   task, items, accuracy, accuracy_se, [what the task adds,] accuracy_KIND for each kind, seconds, items_per_second.
// metrics.jsonl has a line per item: item, what the task adds, kind, correct.
#ifndef DQ_BENCH_TASK_H
#define DQ_BENCH_TASK_H

#include "bench/answers.h"
#include "bench/items.h"
#include "bench/scorer.h"
#include "data/program.h"

struct task_settings {
    const char *model;
    const char *adapter; // adapters on the model, or NULL
    const char *data;    // items, JSON lines
    int64_t items;       // from the start of the file; 0 = all
    int64_t tokens;      // exact match: most tokens to generate, > 0
};

struct task {
    const struct program_common *common;
    const struct task_settings *settings;
    struct model *model;
    struct scorer *scorer;
    struct items *items;
    struct run_folder *folder;
    struct answers *answers;
    bool *right;      // [n_items]
    bool *right_norm; // [n_items]
};

struct task_fns {
    const char *name; // as in --task
    enum items_format format;
    void (*about)(const struct task *task, struct record *settings); // settings of its own; NULL = none
    // Of every item, in any order: fills right[i], and right_norm[i] if it likes; adds to task_line, and calls task_answered.
    enum status (*ask)(struct task *task);
    void (*summary)(const struct task *task, struct record *result); // NULL = nothing
};

struct record *task_line(struct task *task, int64_t i);
enum status task_answered(struct task *task, int64_t i);

enum status task_run(const struct program_common *common, const struct task_settings *settings,
                     const struct task_fns *fns);

#endif
