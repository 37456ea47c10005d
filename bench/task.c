#include "bench/task.h"

#include "core/base/clock.h"
#include "core/base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct record *task_line(struct task *task, int64_t i) {
    return answers_line(task->answers, i);
}

enum status task_answered(struct task *task, int64_t i) {
    const struct item *item = &task->items->items[i];
    if (item->kind >= 0) record_string(task_line(task, i), "kind", task->items->kinds[item->kind]);
    record_bool(task_line(task, i), "correct", task->right[i]);
    return answers_done(task->answers, i, task->right[i]);
}

static void summarize(const struct task *task, const struct task_fns *fns, double seconds) {
    struct record *result = run_folder_result(task->folder);
    record_string(result, "task", fns->name);
    record_integer(result, "items", task->items->n_items);
    items_accuracy(task->items, task->right, "accuracy", result);
    if (fns->summary) fns->summary(task, result);
    items_accuracy_by_kind(task->items, task->right, "accuracy", result);
    record_number(result, "seconds", seconds);
    record_number(result, "items_per_second", (double)task->items->n_items / seconds);
    char *text = record_text(result, 0);
    printf("%s\n", text);
    free(text);
}

static enum status work(struct task *task, const struct task_fns *fns) {
    enum status status = STATUS_OK;
    const struct task_settings *s = task->settings;
    TRY(model_open(s->model, task->common->device, DTYPE_F32, NULL, &task->model));
    TRY(model_adapt(task->model, s->adapter));
    TRY(scorer_new(task->model, &task->scorer));
    struct items_options how = {.format = fns->format, .model = task->model, .limit = s->items};
    TRY(items_read(s->data, &how, &task->items));
    task->right = mem_new((size_t)task->items->n_items, sizeof *task->right);
    task->right_norm = mem_new((size_t)task->items->n_items, sizeof *task->right_norm);
    double start = clock_seconds();
    task->answers = answers_new(task->folder, fns->name, task->items->n_items);
    TRY(fns->ask(task));
    summarize(task, fns, clock_seconds() - start);
done:
    return status;
}

enum status task_run(const struct program_common *common, const struct task_settings *settings,
                     const struct task_fns *fns) {
    enum status status = STATUS_OK;
    struct task task = {.common = common, .settings = settings};
    struct record *about = record_new();
    record_string(about, "task", fns->name);
    record_integer(about, "items", settings->items);
    if (fns->about) fns->about(&task, about);
    TRY(record_digest(about, "model", settings->model));
    if (settings->adapter) TRY(record_digest(about, "adapter", settings->adapter));
    TRY(record_digest(about, "data", settings->data));
    TRY(program_run_folder(common, about, &task.folder));
    status = run_folder_finish(task.folder, work(&task, fns));
done:
    free(task.right);
    free(task.right_norm);
    answers_free(task.answers);
    items_free(task.items);
    scorer_free(task.scorer);
    model_free(task.model);
    run_folder_free(task.folder);
    record_free(about);
    return status;
}
