// `discquant-bench eval --task multiple-choice`: the choice whose tokens are the most probable after the query.
#ifndef DQ_BENCH_CHOICE_H
#define DQ_BENCH_CHOICE_H

#include "bench/task.h"

// scores [n_choices]: sum of the log-probabilities of the choice's tokens after those before them, nats.
enum status choice_scores(struct scorer *scorer, const struct item *item, double *scores);

// Index of the largest score, the first of equals; divided by the choice's characters when `norm`.
int64_t choice_best(const struct item *item, const double *scores, bool norm);

// Adds to the summary of task_run: accuracy_norm, accuracy_norm_se (of the best score per character), chance (accuracy of
// guessing); to an item's line: gold, best, best_norm, correct_norm, score_0, score_1, …
enum status choice_run(const struct program_common *common, const struct task_settings *settings);

#endif
