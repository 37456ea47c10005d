// What a program says on stderr while it works.
//
// On a terminal one line is redrawn: what, done/total, rate, time left and the last text (the loss, say). Elsewhere plain
// lines come after 5 s, 10 s, 20 s, … and then every minute, and one at the end. Under --quiet nothing comes.
//
//     struct progress *progress = progress_new("rounding", "step", 256, first_step);
//     for (int64_t step = first_step; step < 256; step++) {
//         …
//         progress_update(progress, step + 1, "loss %.4f", loss);
//     }
//     progress_free(progress);   // ends the line
//
// For the main thread only.
#ifndef DQ_CORE_BASE_PROGRESS_H
#define DQ_CORE_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct progress;

// `what` and `unit` are copied. total = 0: not known. `done` is what an earlier part of the run has done already; it
// does not count for the rate.
struct progress *progress_new(const char *what, const char *unit, int64_t total, int64_t done);

// `format` may be NULL: no text. Cheap enough for every step: most calls only look at the clock.
void progress_update(struct progress *progress, int64_t done, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void progress_free(struct progress *progress); // accepts NULL

// A line of its own on stderr, above the progress line if there is one. Silent under --quiet.
void progress_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Takes the progress line off the terminal, so that something else can be printed.
void progress_clear(void);

void progress_set_quiet(bool quiet);

#ifdef __cplusplus
}
#endif
#endif
