#include "bench/answers.h"

#include "core/base/mem.h"
#include "core/base/progress.h"

#include <stdlib.h>

struct answers {
    struct run_folder *folder;
    struct progress *progress;
    struct record **lines; // [n]; NULL before and after
    bool *done;            // [n]
    int64_t n, n_done, n_right, next;
};

struct answers *answers_new(struct run_folder *folder, const char *task, int64_t n) {
    struct answers *self = mem_new(1, sizeof *self);
    *self = (struct answers){.folder = folder, .n = n};
    self->progress = progress_new(task, "item", n, 0);
    self->lines = mem_new((size_t)n, sizeof *self->lines);
    self->done = mem_new((size_t)n, sizeof *self->done);
    return self;
}

void answers_free(struct answers *self) {
    if (!self) return;
    for (int64_t i = self->next; i < self->n; i++) record_free(self->lines[i]);
    progress_free(self->progress);
    free(self->lines);
    free(self->done);
    free(self);
}

struct record *answers_line(struct answers *self, int64_t i) {
    if (!self->lines[i]) {
        self->lines[i] = record_new();
        record_integer(self->lines[i], "item", i);
    }
    return self->lines[i];
}

enum status answers_done(struct answers *self, int64_t i, bool right) {
    enum status status = STATUS_OK;
    self->done[i] = true;
    self->n_right += right;
    self->n_done++;
    for (; self->next < self->n && self->done[self->next]; self->next++) {
        TRY(run_folder_log(self->folder, self->lines[self->next]));
        record_free(self->lines[self->next]);
        self->lines[self->next] = NULL;
    }
    progress_update(self->progress, self->n_done, "accuracy %.3f", (double)self->n_right / (double)self->n_done);
done:
    return status;
}
