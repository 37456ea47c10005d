// The run folder that every program writes alike:
//
//   run.json       program, command line, version, seed, host, device, threads, settings, start, end, status
//                  (clearing | running | done | failed); written when the run starts and when it ends; "clearing": what lies beside
//                  it is an earlier run's, which --force replaces
//   result.json    the summary: flat keys; written when the run is done
//   metrics.jsonl  one JSON line per logged step
//   NAME.npy       arrays
//   checkpoint     state for --resume; removed when the run is done
//
// Files appear complete or not at all; metrics.jsonl grows by whole lines and is cut back to the last checkpoint when a
// run is resumed, so that a resumed run leaves the same lines as one that was never interrupted.
//
//     TRY(run_folder_open(&options, &run));
//     if (run_folder_is_done(run)) goto done;                     // --resume of a finished run
//     TRY(run_folder_checkpoint_load(run, &state));               // NULL: begin at the beginning
//     …  TRY(run_folder_log(run, line));  TRY(run_folder_checkpoint_save(run, state));
//     record_number(run_folder_result(run), "kl", kl);
//   done:
//     status = run_folder_finish(run, status);
//     run_folder_free(run);
#ifndef DQ_DATA_RUN_FOLDER_H
#define DQ_DATA_RUN_FOLDER_H

#include "core/base/status.h"
#include "data/checkpoint.h"
#include "data/npy.h"
#include "data/record.h"

#include <stdbool.h>
#include <stdint.h>

struct run_folder;

struct run_folder_options {
    const char *path;    // made if it is not there; NULL: the same calls work and write nothing
    const char *program; // "discquant", "discquant-bench eval"
    const char *command_line;
    const char *device; // NULL = "cpu"
    uint64_t seed;
    bool force;                    // start anew whatever the folder holds of an earlier run
    bool resume;                   // go on with an interrupted run
    const struct record *settings; // all that decides the result: options, digests of input files; NULL = none
};

// STATUS_INVALID says why the folder is refused: finished (--force), unfinished (--resume or --force), not empty and no
// run folder (--force), in use by another process, or resumed with settings that differ (the first one is named).
// With --force the files named above are removed; other files of the folder stay.
enum status run_folder_open(const struct run_folder_options *options, struct run_folder **out);

// The folder holds a finished run with these settings, and --resume was given: there is nothing to do.
bool run_folder_is_done(const struct run_folder *run);

// PATH/NAME as a new string for files that the program writes itself (see data/whole_file.h); NULL without a folder.
char *run_folder_file(const struct run_folder *run, const char *name);

// Appends one line to metrics.jsonl.
enum status run_folder_log(struct run_folder *run, const struct record *line);

// Writes NAME.npy: values [rows, cols], or [rows] for cols = 0.
enum status run_folder_array(struct run_folder *run, const char *name, enum npy_type type, const void *values,
                             int64_t rows, int64_t cols);

// The record that becomes result.json; belongs to the run.
struct record *run_folder_result(struct run_folder *run);

// Adds what the folder needs to know (names "run.…") to `state` and writes it. Each save takes a new `state`.
enum status run_folder_checkpoint_save(struct run_folder *run, struct checkpoint *state);

// *out = NULL when there is none: the run begins at the beginning. Cuts metrics.jsonl back to the checkpoint. Must be
// called before the first run_folder_log of a resumed run.
enum status run_folder_checkpoint_load(struct run_folder *run, struct checkpoint **out);

// Seconds this run has worked, the parts before the checkpoint it was resumed from included.
double run_folder_seconds(const struct run_folder *run);

// Ends the run as done (outcome STATUS_OK: result.json, then run.json) or failed (run.json with status_message()).
// Returns `outcome`, or why the files could not be written. run = NULL is accepted.
enum status run_folder_finish(struct run_folder *run, enum status outcome);

// Accepts NULL. A run that was not finished stays "running", as after a kill.
void run_folder_free(struct run_folder *run);

#endif
