// `discquant-bench eval --task exact-match`: whether the greedy continuation of a prompt is the answer.
#ifndef DQ_BENCH_EXACT_MATCH_H
#define DQ_BENCH_EXACT_MATCH_H

#include "bench/task.h"

// The continuation, always the most likely token, up to a newline in its text, an end-of-sequence token, `limit` tokens or
// the model's last position; its text up to the newline without white space around it. Free `text` with free().
enum status exact_match_text(struct model *model, struct scorer *scorer, const struct item *item, int64_t limit,
                             char **text, int64_t *n_tokens);

// Adds to an item's line: answer, text (what was generated), tokens (how many).
enum status exact_match_run(const struct program_common *common, const struct task_settings *settings);

#endif
