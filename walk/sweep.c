#include "walk/sweep.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"

#include <math.h>

static const double checkpoint_seconds = 5;

static enum status load(const struct sweep *sweep, struct run_folder *folder, double *rows, int64_t *done) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    TRY(run_folder_checkpoint_load(folder, &state));
    if (!state) goto done;
    TRY(checkpoint_doubles(state, "rows", rows, sweep->tasks * sweep->width));
    TRY(checkpoint_integer(state, "done", 0, sweep->tasks, done));
done:
    checkpoint_free(state);
    return status;
}

static enum status save(const struct sweep *sweep, struct run_folder *folder, const double *rows, int64_t done) {
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_doubles(state, "rows", rows, sweep->tasks * sweep->width);
    checkpoint_add_integer(state, "done", done);
    enum status status = run_folder_checkpoint_save(folder, state);
    checkpoint_free(state);
    return status;
}

static enum status log_row(const struct sweep *sweep, struct run_folder *folder, int64_t task, const double *row) {
    struct record *line = record_new();
    if (sweep->describe) sweep->describe(sweep->context, task, line);
    for (int64_t k = 0; k < sweep->width; k++)
        if (sweep->columns[k]) record_number(line, sweep->columns[k], row[k]);
    enum status status = run_folder_log(folder, line);
    record_free(line);
    return status;
}

enum status sweep_run(const struct sweep *sweep, struct run_folder *folder, double **rows) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    struct progress *progress = NULL;
    int64_t bytes = 0, done = 0;
    if (__builtin_mul_overflow(sweep->tasks, sweep->width * 8, &bytes))
        return status_set(STATUS_NO_MEMORY, "%lld results fit nowhere", (long long)sweep->tasks);
    TRY(mem_buffer_new(bytes, "the results", &buffer));
    double *values = buffer;
    for (int64_t i = 0; i < sweep->tasks * sweep->width; i++) values[i] = NAN;
    TRY(load(sweep, folder, values, &done));
    progress = progress_new(sweep->what, "draw", sweep->tasks, done);
    double saved = clock_seconds();
    while (done < sweep->tasks) {
        double *row = values + done * sweep->width;
        TRY(sweep->work(sweep->context, done, row));
        TRY(log_row(sweep, folder, done, row));
        progress_update(progress, ++done, NULL);
        bool due = sweep->checkpoint_every ? done % sweep->checkpoint_every == 0
                                           : clock_seconds() - saved > checkpoint_seconds;
        if (!due || done == sweep->tasks) continue;
        TRY(save(sweep, folder, values, done));
        saved = clock_seconds();
    }
    *rows = values;
    buffer = NULL;
done:
    progress_free(progress);
    mem_buffer_free(buffer);
    return status;
}
