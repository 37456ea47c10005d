#include "bench/choice.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

static int64_t best_of(const struct choice_question *question, bool norm) {
    int64_t best = 0;
    double best_score = -INFINITY;
    for (int64_t c = 0; c < question->n_choices; c++) {
        double score = norm ? question->scores[c] / (double)question->choices[c].n_characters : question->scores[c];
        if (score > best_score) best = c, best_score = score;
    }
    return best;
}

static enum status score(struct scorer *scorer, struct choice_question *questions, int64_t n) {
    enum status status = STATUS_OK;
    int64_t n_texts = 0;
    for (int64_t i = 0; i < n; i++) n_texts += questions[i].n_choices;
    struct scored_text *texts = mem_new((size_t)n_texts, sizeof *texts), *text = texts;
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < questions[i].n_choices; c++, text++) {
            const struct item_choice *choice = &questions[i].choices[c];
            *text = (struct scored_text){
                .tokens = choice->tokens.tokens, .n = choice->tokens.n_tokens, .first = choice->first};
        }
    TRY(scorer_loglikelihoods(scorer, texts, n_texts));
    text = texts;
    for (int64_t i = 0; i < n; i++) {
        questions[i].scores = mem_new((size_t)questions[i].n_choices, sizeof *questions[i].scores);
        for (int64_t c = 0; c < questions[i].n_choices; c++) questions[i].scores[c] = text++->loglikelihood;
        questions[i].best = best_of(&questions[i], false);
        questions[i].best_norm = best_of(&questions[i], true);
    }
done:
    free(texts);
    return status;
}

// Questions first .. first + n - 1.
static enum status ask_some(struct scorer *scorer, const struct choice_asker *asker, int64_t first, int64_t n) {
    enum status status = STATUS_OK;
    struct choice_question *questions = mem_new((size_t)n, sizeof *questions);
    for (int64_t i = 0; i < n; i++) TRY(asker->begin(asker->context, first + i, &questions[i]));
    TRY(score(scorer, questions, n));
    for (int64_t i = 0; i < n; i++) TRY(asker->answered(asker->context, first + i, &questions[i]));
done:
    for (int64_t i = 0; i < n; i++) {
        free(questions[i].scores);
        if (asker->end) asker->end(&questions[i]);
    }
    free(questions);
    return status;
}

enum status choice_ask(struct scorer *scorer, const struct choice_asker *asker, int64_t n) {
    enum { GROUP = 128 }; // fills passes; a line is written now and then
    enum status status = STATUS_OK;
    for (int64_t first = 0; first < n; first += GROUP)
        TRY(ask_some(scorer, asker, first, n - first < GROUP ? n - first : GROUP));
done:
    return status;
}

enum status choice_line(const struct choice_question *question, const char *key, const char *where,
                        struct record *line) {
    record_integer(line, "gold", question->gold);
    record_integer(line, "best", question->best);
    record_integer(line, "best_norm", question->best_norm);
    record_bool(line, "correct_norm", question->best_norm == question->gold);
    for (int64_t c = 0; c < question->n_choices; c++) {
        if (!isfinite(question->scores[c]))
            return status_set(STATUS_INVALID, "%s: the model's probability of choice %lld is not a number", where,
                              (long long)c);
        char *name = mem_format("%s_%lld", key, (long long)c);
        record_number(line, name, question->scores[c]);
        free(name);
    }
    return STATUS_OK;
}

static enum status begin(void *context, int64_t i, struct choice_question *question) {
    const struct task *task = context;
    const struct item *item = &task->items->items[i];
    *question = (struct choice_question){.choices = item->choices, .n_choices = item->n_choices, .gold = item->gold};
    return STATUS_OK;
}

static enum status answered(void *context, int64_t i, const struct choice_question *question) {
    enum status status = STATUS_OK;
    struct task *task = context;
    task->right[i] = question->best == question->gold;
    task->right_norm[i] = question->best_norm == question->gold;
    TRY(choice_line(question, "score", items_where(task->items, &task->items->items[i]), task_line(task, i)));
    TRY(task_answered(task, i));
done:
    return status;
}

static enum status ask(struct task *task) {
    const struct choice_asker asker = {.begin = begin, .answered = answered, .context = task};
    return choice_ask(task->scorer, &asker, task->items->n_items);
}

static void choice_summary(const struct task *task, struct record *result) {
    double chance = 0, n = (double)task->items->n_items;
    for (int64_t i = 0; i < task->items->n_items; i++) chance += 1 / (double)task->items->items[i].n_choices / n;
    items_accuracy(task->items, task->right_norm, "accuracy_norm", result);
    record_number(result, "chance", chance);
}

enum status choice_run(const struct program_common *common, const struct task_settings *settings) {
    static const struct task_fns fns = {
        .name = "multiple-choice", .format = ITEMS_CHOICE, .ask = ask, .summary = choice_summary};
    return task_run(common, settings, &fns);
}
