// Choices, of which a model takes the one whose tokens are the most probable; `discquant-bench eval --task multiple-choice`.
#ifndef DQ_BENCH_CHOICE_H
#define DQ_BENCH_CHOICE_H

#include "bench/task.h"

struct choice_question {
    struct item_choice *choices; // [n_choices], the caller's
    int64_t n_choices, gold;
    // results
    double *scores;          // [n_choices], log-probability of the choice's tokens after those before them, nats
    int64_t best, best_norm; // of the largest score, and score per character; the first of equals
};

// Where questions come from and go to. Many are asked at once, so that passes are full.
struct choice_asker {
    enum status (*begin)(void *context, int64_t i,
                         struct choice_question *question); // choices, n_choices, gold of question i
    enum status (*answered)(void *context, int64_t i, const struct choice_question *question); // in the order of i
    void (*end)(struct choice_question *question); // frees what `begin` made, also where it failed; may be NULL
    void *context;
};

enum status choice_ask(struct scorer *scorer, const struct choice_asker *asker, int64_t n);

// Adds gold, best, best_norm, correct_norm, KEY_0, KEY_1, … STATUS_INVALID, beginning with `where`, when a score is not a number.
enum status choice_line(const struct choice_question *question, const char *key, const char *where,
                        struct record *line);

// Adds to the summary of task_run: accuracy_norm, accuracy_norm_se (of the best score per character), chance (accuracy of
// guessing); to an item's line what choice_line adds, with score_0, score_1, …
enum status choice_run(const struct program_common *common, const struct task_settings *settings);

#endif
