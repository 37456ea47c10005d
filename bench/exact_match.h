// `discquant-bench eval --task exact-match`: whether the greedy continuation of a prompt is the answer.
#ifndef DQ_BENCH_EXACT_MATCH_H
#define DQ_BENCH_EXACT_MATCH_H

#include "bench/task.h"

// Continues the prompts of all items, always by the most likely token, up to a newline in the text, an end-of-sequence token, `limit` tokens
// or the model's last position. `done` is told each item's text up to the newline without white space around it, in an order of its own.
typedef enum status exact_match_done(void *context, int64_t i, const char *text, int64_t n_tokens);
enum status exact_match_texts(struct model *model, const struct items *items, int64_t limit, exact_match_done *done,
                              void *context);

// Adds to an item's line: answer, text (what was generated), tokens (how many).
enum status exact_match_run(const struct program_common *common, const struct task_settings *settings);

#endif
