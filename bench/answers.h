// What was answered, item by item: lines of metrics.jsonl in the order of the items, in whatever order they are answered; progress.
//
//     struct answers *answers = answers_new(folder, "piqa", n);
//     record_bool(answers_line(answers, i), "correct", right);
//     TRY(answers_done(answers, i, right));                      // line i is complete
//     answers_free(answers);                                     // accepts NULL
#ifndef DQ_BENCH_ANSWERS_H
#define DQ_BENCH_ANSWERS_H

#include "data/run_folder.h"

struct answers;

struct answers *answers_new(struct run_folder *folder, const char *task, int64_t n);
void answers_free(struct answers *answers);

// Of item i, which "item" begins; good until the item is done.
struct record *answers_line(struct answers *answers, int64_t i);

// Writes the lines that all earlier items have gone before.
enum status answers_done(struct answers *answers, int64_t i, bool right);

#endif
