#include "bench/choice.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum status choice_scores(struct scorer *scorer, const struct item *item, double *scores) {
    enum status status = STATUS_OK;
    for (int64_t c = 0; c < item->n_choices; c++) {
        const struct item_choice *choice = &item->choices[c];
        TRY(scorer_loglikelihood(scorer, choice->tokens.tokens, choice->tokens.n_tokens, choice->first, &scores[c]));
    }
done:
    return status;
}

int64_t choice_best(const struct item *item, const double *scores, bool norm) {
    int64_t best = 0;
    double best_score = -INFINITY;
    for (int64_t c = 0; c < item->n_choices; c++) {
        double score = norm ? scores[c] / (double)item->choices[c].n_characters : scores[c];
        if (score > best_score) best = c, best_score = score;
    }
    return best;
}

static enum status choice_item(struct task *task, int64_t i, struct record *line) {
    enum status status = STATUS_OK;
    const struct item *item = &task->items->items[i];
    double *scores = mem_new((size_t)item->n_choices, sizeof *scores);
    TRY(choice_scores(task->scorer, item, scores));
    for (int64_t c = 0; c < item->n_choices; c++)
        if (!isfinite(scores[c]))
            TRY(status_set(STATUS_INVALID, "%s: the model's probability of \"choices\"[%lld] is not a number",
                           items_where(task->items, item), (long long)c));
    int64_t best = choice_best(item, scores, false), best_norm = choice_best(item, scores, true);
    task->right[i] = best == item->gold;
    task->right_norm[i] = best_norm == item->gold;
    record_integer(line, "gold", item->gold);
    record_integer(line, "best", best);
    record_integer(line, "best_norm", best_norm);
    record_bool(line, "correct_norm", task->right_norm[i]);
    for (int64_t c = 0; c < item->n_choices; c++) {
        char *key = mem_format("score_%lld", (long long)c);
        record_number(line, key, scores[c]);
        free(key);
    }
done:
    free(scores);
    return status;
}

static void choice_summary(const struct task *task, struct record *result) {
    double chance = 0, n = (double)task->items->n_items;
    for (int64_t i = 0; i < task->items->n_items; i++) chance += 1 / (double)task->items->items[i].n_choices / n;
    items_accuracy(task->items, task->right_norm, "accuracy_norm", result);
    record_number(result, "chance", chance);
}

enum status choice_run(const struct program_common *common, const struct task_settings *settings) {
    static const struct task_fns fns = {
        .name = "multiple-choice", .format = ITEMS_CHOICE, .item = choice_item, .summary = choice_summary};
    return task_run(common, settings, &fns);
}
