// The runs of an ablation in child processes: which are done, which go on, in what order.
//
// What is known of a run across processes is OUT/runs/NAME.json, written before it starts: its digest and how it ended. The
// digest is made from the words of the command line, where a file or folder stands by its content and another run by its
// digest, so that a row is done again exactly when something that decides its result has changed.
#include "bench/ablation.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "data/file.h"
#include "data/json.h"
#include "data/whole_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

struct execution {
    struct ablation *ablation;
    const struct ablation_execution *how;
    json_t *contents; // path -> digest of what is there
    int n_started, n_ended, n_used;
};

// ---- command lines ----

// With what a process needs besides; words [argc + 8].
static int full_line(const struct ablation_run *run, const char *out, const char *threads, const char *start,
                     char **words) {
    unsigned common = run->command->command->common;
    int n = 0;
    for (; n < run->argc; n++) words[n] = run->argv[n];
    words[n++] = (char *)"--out";
    words[n++] = (char *)out;
    if (threads && (common & COMMON_THREADS)) words[n++] = (char *)"--threads", words[n++] = (char *)threads;
    if (start && (common & COMMON_OUT)) words[n++] = (char *)start;
    words[n] = NULL;
    return n;
}

static bool run_is_real(const struct ablation_run *run) { return run->used && run->command; }

enum status ablation_check(const struct ablation *ablation) {
    enum status status = STATUS_OK;
    for (int i = 0; i < ablation->n_runs && status == STATUS_OK; i++) {
        const struct ablation_run *run = &ablation->runs[i];
        if (!run_is_real(run)) continue;
        char **words = mem_new((size_t)run->argc + 8, sizeof *words);
        int n = full_line(run, run->out, NULL, NULL, words);
        status = child_check(run->command, n, words);
        if (status != STATUS_OK) {
            char *complaint = mem_string(status_message());
            status_set(status, "%s, %s '%s': %s", ablation->plan, run->is_text ? "text" : "row", run->name, complaint);
            free(complaint);
        }
        free(words);
    }
    return status;
}

void ablation_print(const struct ablation *ablation) {
    int n_runs = 0;
    for (int i = 0; i < ablation->n_runs; i++) {
        const struct ablation_run *run = &ablation->runs[i];
        if (!run_is_real(run)) continue;
        char **words = mem_new((size_t)run->argc + 8, sizeof *words);
        char *line = program_command_line(full_line(run, run->out, NULL, NULL, words), words);
        printf("%s\n", line);
        free(line);
        free(words);
        n_runs++;
    }
    printf("# %d runs, %d rows\n", n_runs, ablation->n_rows);
}

// ---- digests ----

// The digest of what stands at `path`, taken once; NULL: nothing that can be read.
static const char *content_of(struct execution *e, const char *path) {
    json_t *known = json_object_get(e->contents, path);
    if (!known && (file_exists(path) || folder_exists(path))) {
        struct record *record = record_new();
        if (record_digest(record, "digest", path) == STATUS_OK) known = json_object_get(record_json(record), "digest");
        json_object_set(e->contents, path, known);
        record_free(record);
        known = json_object_get(e->contents, path);
    }
    return json_string_value(known);
}

static void digest_add(uLong *crc, const char *text) {
    *crc = crc32_z(*crc, (const unsigned char *)text, strlen(text) + 1);
}

static void run_digest(struct execution *e, struct ablation_run *run) {
    uLong crc = crc32_z(0, NULL, 0);
    for (int i = 0; i < run->argc; i++) {
        bool own = strcmp(run->said[i], run->argv[i]) != 0;
        const char *content = own || i == 0 ? NULL : content_of(e, run->argv[i]);
        digest_add(&crc, content ? content : run->said[i]);
    }
    for (int i = 0; i < run->n_needs; i++) digest_add(&crc, e->ablation->runs[run->needs[i]].digest);
    free(run->digest);
    run->digest = mem_format("%08lx", (unsigned long)crc);
}

// ---- what is on the disk ----

static char *beside(const struct ablation_run *run, const char *end) { return mem_format("%s.%s", run->out, end); }

// Whether NAME.json says that it was started with the digest it has now.
static bool same_as_before(const struct ablation_run *run) {
    char *path = beside(run, "json");
    json_t *about = NULL;
    const char *digest = "";
    bool same = file_exists(path) && json_read_file(path, &about) == STATUS_OK &&
                json_get_string(about, path, "digest", &digest) == STATUS_OK && strcmp(digest, run->digest) == 0;
    json_decref(about);
    free(path);
    return same;
}

static enum status note(const struct ablation_run *run, const char *state) {
    struct record *record = record_new();
    char *path = beside(run, "json"), *line = program_command_line(run->argc, run->argv), *text;
    record_string(record, "name", run->name);
    record_string(record, "command_line", line);
    record_string(record, "digest", run->digest);
    record_string(record, "status", state);
    if (run->error) record_string(record, "error", run->error);
    if (run->state != RUN_STARTED) record_number(record, "seconds", run->seconds);
    text = record_text(record, 2);
    enum status status = whole_file_put(path, text, strlen(text));
    free(text);
    free(line);
    free(path);
    record_free(record);
    return status;
}

// The output of a run that has ended well; false: there is none.
static bool result_load(struct ablation_run *run) {
    if (run->is_text) return file_exists(run->out);
    char *about_path = mem_format("%s/run.json", run->out), *path = mem_format("%s/result.json", run->out);
    json_t *about = NULL;
    const char *state = "";
    bool done = file_exists(about_path) && json_read_file(about_path, &about) == STATUS_OK &&
                json_get_string(about, about_path, "status", &state) == STATUS_OK && strcmp(state, "done") == 0;
    json_decref(run->result);
    run->result = NULL;
    done = done && json_read_file(path, &run->result) == STATUS_OK && json_is_object(run->result);
    json_decref(about);
    free(about_path);
    free(path);
    return done;
}

// ---- running ----

static enum status log_run(struct execution *e, const struct ablation_run *run) {
    struct record *line = record_new();
    record_string(line, "run", run->name);
    record_string(line, "status", run->state == RUN_DONE ? "done" : "failed");
    record_bool(line, "kept", run->kept);
    if (run->error) record_string(line, "error", run->error);
    record_number(line, "seconds", run->seconds);
    record_number(line, "cpu_seconds", run->cpu_seconds);
    enum status status = run_folder_log(e->how->folder, line);
    record_free(line);
    return status;
}

static enum status run_end(struct execution *e, struct ablation_run *run, char *error) {
    enum status status = STATUS_OK;
    char *summary = NULL;
    run->error = error;
    run->state = error ? RUN_FAILED : RUN_DONE;
    e->n_ended++;
    if (!run->kept) {
        TRY(note(run, error ? "failed" : "done"));
        progress_say("%d of %d, %s: %s%s, %.0f s", e->n_ended, e->n_used, run->name, error ? "failed: " : "done",
                     error ? error : "", run->seconds);
    }
    TRY(log_run(e, run));
    if (!run->kept && !run->is_text) TRY(ablation_tables(e->ablation, &summary));
done:
    free(summary);
    return status;
}

static enum status run_start(struct execution *e, struct ablation_run *run) {
    enum status status = STATUS_OK;
    char *log = beside(run, "log"), **words = mem_new((size_t)run->argc + 8, sizeof *words);
    const struct ablation_execution *how = e->how;
    run_digest(e, run);
    bool same = !how->force && same_as_before(run);
    if (same && result_load(run)) {
        run->kept = true;
        TRY(run_end(e, run, NULL));
        goto done;
    }
    bool goes_on = same && (run->command->command->common & COMMON_RESUME);
    char threads[24];
    snprintf(threads, sizeof threads, "%d", how->threads / how->jobs > 0 ? how->threads / how->jobs : 1);
    run->state = RUN_STARTED;
    run->begun = clock_seconds();
    TRY(note(run, "running"));
    int n = full_line(run, run->out, threads, goes_on ? "--resume" : "--force", words);
    TRY(child_start(run->command, n, words, log, goes_on, &run->pid));
    e->n_started++;
done:
    free(words);
    free(log);
    return status;
}

// Waits until one of the started runs ends.
static enum status wait_for_one(struct execution *e) {
    int state = 0;
    pid_t pid;
    struct rusage used;
    while ((pid = wait4(-1, &state, 0, &used)) < 0 && errno == EINTR) {}
    if (pid < 0) return status_set(STATUS_IO, "cannot wait for the runs: %s", strerror(errno));
    for (int i = 0; i < e->ablation->n_runs; i++) {
        struct ablation_run *run = &e->ablation->runs[i];
        if (run->state != RUN_STARTED || run->pid != pid) continue;
        char *log = beside(run, "log"), *complaint = child_complaint(state, log);
        free(log);
        run->seconds = clock_seconds() - run->begun;
        run->cpu_seconds = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
        e->n_started--;
        if (!complaint && !result_load(run)) complaint = mem_format("%s: holds no finished run", run->out);
        return run_end(e, run, complaint);
    }
    return STATUS_OK;
}

// Starts what is waiting and has what it needs, as far as there are places. *next: the first that may be waiting.
static enum status start_ready(struct execution *e, int *next) {
    enum status status = STATUS_OK;
    struct ablation *a = e->ablation;
    while (*next < a->n_runs && (a->runs[*next].state != RUN_WAITING || !run_is_real(&a->runs[*next]))) ++*next;
    for (int i = *next; i < a->n_runs && e->n_started < e->how->jobs; i++) {
        struct ablation_run *run = &a->runs[i];
        if (run->state != RUN_WAITING || !run_is_real(run)) continue;
        const struct ablation_run *failed = NULL;
        bool ready = true;
        for (int k = 0; k < run->n_needs; k++) {
            const struct ablation_run *needed = &a->runs[run->needs[k]];
            if (needed->state == RUN_FAILED) failed = needed;
            ready = ready && needed->state == RUN_DONE;
        }
        if (failed) {
            run->digest = mem_string("");
            TRY(run_end(e, run, mem_format("needs %s, which failed", failed->name)));
        } else if (ready) {
            TRY(run_start(e, run));
        }
    }
done:
    return status;
}

static bool all_ended(const struct ablation *a) {
    for (int i = 0; i < a->n_runs; i++)
        if (run_is_real(&a->runs[i]) && a->runs[i].state != RUN_DONE && a->runs[i].state != RUN_FAILED) return false;
    return true;
}

// result.json, and what is left to say when rows have failed.
static enum status conclude(const struct execution *e) {
    const struct ablation *a = e->ablation;
    struct record *result = run_folder_result(e->how->folder);
    const struct ablation_row *first = NULL;
    int n_failed = 0, n_kept = 0;
    double cpu = 0;
    for (int i = 0; i < a->n_runs; i++) {
        n_kept += a->runs[i].kept;
        cpu += a->runs[i].cpu_seconds;
    }
    for (int i = 0; i < a->n_rows; i++) {
        if (!ablation_row_error(a, &a->rows[i])) continue;
        if (!first) first = &a->rows[i];
        n_failed++;
    }
    record_string(result, "title", a->title);
    record_integer(result, "rows", a->n_rows);
    record_integer(result, "rows_failed", n_failed);
    record_integer(result, "runs", e->n_used);
    record_integer(result, "runs_done_before", n_kept);
    record_number(result, "seconds", run_folder_seconds(e->how->folder));
    record_number(result, "cpu_seconds", cpu);
    if (!first) return STATUS_OK;
    return status_set(STATUS_INVALID, "%d of %d rows failed, the others are in %s/table.csv; the first, %s: %s",
                      n_failed, a->n_rows, a->out, first->name, ablation_row_error(a, first));
}

static enum status folders_make(const struct ablation *a) {
    enum status status = STATUS_OK;
    char *runs = mem_format("%s/runs", a->out), *texts = mem_format("%s/texts", a->out),
         *copy = mem_format("%s/plan.json", a->out);
    TRY(whole_file_folder(runs));
    TRY(whole_file_folder(texts));
    TRY(whole_file_copy(a->plan, copy));
done:
    free(runs);
    free(texts);
    free(copy);
    return status;
}

enum status ablation_execute(struct ablation *ablation, const struct ablation_execution *how) {
    enum status status = STATUS_OK;
    struct execution e = {.ablation = ablation, .how = how, .contents = json_object()};
    char *summary = NULL;
    int next = 0;
    for (int i = 0; i < ablation->n_runs; i++) {
        if (!run_is_real(&ablation->runs[i])) ablation->runs[i].state = RUN_DONE;
        e.n_used += run_is_real(&ablation->runs[i]);
    }
    TRY(folders_make(ablation));
    while (!all_ended(ablation)) {
        TRY(start_ready(&e, &next));
        if (e.n_started) TRY(wait_for_one(&e));
    }
    TRY(ablation_tables(ablation, &summary));
    fputs(summary, stdout);
    TRY(conclude(&e));
done:
    free(summary);
    json_decref(e.contents);
    return status;
}
