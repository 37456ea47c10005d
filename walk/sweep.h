// Many independent pieces of work whose results are rows of numbers: replicates of a walk, points of a study. Every row
// becomes a line of metrics.jsonl; a run that was killed goes on after the last row that was saved, to the same bits.
//
//     struct sweep sweep = {.what = "walking", .tasks = 50, .width = 3, .columns = names, .work = work, .context = &run};
//     TRY(sweep_run(&sweep, folder, &rows));      // rows [50, 3]
#ifndef DQ_WALK_SWEEP_H
#define DQ_WALK_SWEEP_H

#include "data/run_folder.h"

struct sweep {
    const char *what;
    int64_t tasks, width;
    const char *const *columns; // [width] keys of the line; NULL: not in it
    // Fills row [width], which begins as NaN. What it does depends on `task` and the settings alone.
    enum status (*work)(void *context, int64_t task, double *row);
    void (*describe)(void *context, int64_t task, struct record *line); // first keys of the line; may be NULL
    void *context;
    int64_t checkpoint_every; // tasks; 0: about every 5 seconds
};

// *rows [tasks, width]; free with mem_buffer_free. Loads and saves the checkpoint of `folder`.
enum status sweep_run(const struct sweep *sweep, struct run_folder *folder, double **rows);

#endif
