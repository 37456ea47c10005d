#include "data/run_folder.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/base/threads.h"
#include "data/json.h"
#include "data/version.h"
#include "data/whole_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct run_folder {
    char *path;            // NULL: nothing is written
    int lock;              // the folder, locked while the run lives
    int metrics;           // metrics.jsonl, opened for appending
    int64_t metrics_bytes; // of whole lines
    json_t *about;         // run.json
    struct record *result;
    double begun;   // clock_seconds() at the start of this part of the run
    double earlier; // seconds of the parts before
    bool done;      // finished before and only looked at
    bool resumed;
    bool loaded; // metrics.jsonl has been cut back to the checkpoint
};

enum found { FOUND_NOTHING, FOUND_STRANGER, FOUND_UNREADABLE, FOUND_UNFINISHED, FOUND_DONE };

char *run_folder_file(const struct run_folder *run, const char *name) {
    return run->path ? mem_format("%s/%s", run->path, name) : NULL;
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

// Left by a killed process (data/whole_file.h).
static bool is_aside(const char *name) {
    static const char *const names[] = {"run.json.part", "result.json.part", "checkpoint.part"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return ends_with(name, ".npy.part");
}

static enum status lock_folder(struct run_folder *run) {
    run->lock = open(run->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run->lock < 0) return status_set(STATUS_IO, "%s: cannot open the folder: %s", run->path, strerror(errno));
    // Other errors mean a file system without locks: the run goes on without one.
    if (flock(run->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return status_set(STATUS_INVALID, "%s: another process is writing this run folder", run->path);
    return STATUS_OK;
}

// What the folder holds; *about is its run.json where there is a sound one.
static enum status look(const struct run_folder *run, enum found *found, json_t **about) {
    enum status status = STATUS_OK;
    char *path = run_folder_file(run, "run.json");
    *found = FOUND_NOTHING;
    if (access(path, F_OK) == 0) {
        const char *state = NULL;
        *found = FOUND_UNREADABLE;
        if (json_read_file(path, about) == STATUS_OK && json_is_object(*about) &&
            json_get_string(*about, path, "status", &state) == STATUS_OK)
            *found = strcmp(state, "done") == 0 ? FOUND_DONE : FOUND_UNFINISHED;
    } else {
        DIR *folder = opendir(run->path);
        const struct dirent *entry;
        while (folder && (entry = readdir(folder)))
            if (entry->d_name[0] != '.' && !is_aside(entry->d_name)) *found = FOUND_STRANGER;
        if (!folder)
            status = status_set(STATUS_IO, "%s: cannot read the folder: %s", run->path, strerror(errno));
        else
            closedir(folder);
    }
    free(path);
    return status;
}

static enum status differs(const char *path, const char *key, const json_t *stored, const json_t *asked) {
    char *was = stored ? record_json_text(stored, 0) : mem_string("not given");
    char *is = asked ? record_json_text(asked, 0) : mem_string("not given");
    enum status status = status_set(STATUS_INVALID,
                                    "%s: this run was started with %s = %.200s, now it is %.200s; "
                                    "--resume needs the same settings, --force starts anew",
                                    path, key, was, is);
    free(was);
    free(is);
    return status;
}

// The first value of `asked` that `stored` has otherwise, then the first that only `stored` has.
static enum status compare(const char *path, json_t *stored, json_t *asked) {
    const char *key;
    json_t *value;
    json_object_foreach(asked, key, value) {
        json_t *was = json_object_get(stored, key);
        if (!was || !json_equal(was, value)) return differs(path, key, was, value);
    }
    json_object_foreach(stored, key, value) {
        if (!json_object_get(asked, key)) return differs(path, key, value, NULL);
    }
    return STATUS_OK;
}

static enum status same_run(const char *path, const json_t *before, const json_t *now) {
    static const char *const keys[] = {"program", "seed", "device"};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        json_t *was = json_object_get(before, keys[i]), *is = json_object_get(now, keys[i]);
        if (!was || !json_equal(was, is)) return differs(path, keys[i], was, is);
    }
    TRY(compare(path, json_object_get(before, "settings"), json_object_get(now, "settings")));
    if (!json_equal(json_object_get(before, "version"), json_object_get(now, "version")))
        progress_say("note: %s was started by another version of this program", path);
done:
    return status;
}

static json_t *time_now(void) {
    char text[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    return json_string(text);
}

static json_t *describe(const struct run_folder_options *options) {
    json_t *about = json_object(), *settings = json_object();
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    json_object_set_new(about, "program", record_json_string(options->program));
    json_object_set_new(about, "command_line", record_json_string(options->command_line ? options->command_line : ""));
    json_object_set_new(about, "version", json_string(version_text()));
    json_object_set_new(about, "seed", json_integer((json_int_t)options->seed));
    json_object_set_new(about, "host", record_json_string(host));
    json_object_set_new(about, "device", record_json_string(options->device ? options->device : "cpu"));
    json_object_set_new(about, "threads", json_integer(threads_count()));
    json_object_set_new(about, "start", time_now());
    json_object_set_new(about, "end", json_null());
    json_object_set_new(about, "status", json_string("running"));
    json_object_set_new(about, "resumed", json_integer(0));
    if (options->settings) json_object_update(settings, (json_t *)record_json(options->settings));
    json_object_set_new(about, "settings", settings);
    return about;
}

static enum status write_json(const struct run_folder *run, const char *name, const json_t *value) {
    char *path = run_folder_file(run, name), *text = record_json_text(value, 2);
    enum status status = whole_file_put(path, text, strlen(text));
    free(path);
    free(text);
    return status;
}

static void remove_file(const struct run_folder *run, const char *name) {
    char *path = run_folder_file(run, name);
    unlink(path);
    free(path);
}

// Removes what killed processes left half-written; `earlier`: also what an earlier run left under the names of this one;
// `arrays`: also its arrays.
static void clean(const struct run_folder *run, bool earlier, bool arrays) {
    static const char *const names[] = {"result.json", "metrics.jsonl", "checkpoint"};
    for (size_t i = 0; earlier && i < sizeof names / sizeof *names; i++) remove_file(run, names[i]);
    DIR *folder = opendir(run->path);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder)))
        if (is_aside(entry->d_name) || (arrays && ends_with(entry->d_name, ".npy"))) remove_file(run, entry->d_name);
    if (folder) closedir(folder);
}

static enum status open_metrics(struct run_folder *run) {
    char *path = run_folder_file(run, "metrics.jsonl");
    enum status status = STATUS_OK;
    struct stat info;
    run->metrics = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (run->metrics < 0 || fstat(run->metrics, &info) != 0)
        status = status_set(STATUS_IO, "%s: cannot open it: %s", path, strerror(errno));
    else
        run->metrics_bytes = info.st_size;
    free(path);
    return status;
}

static enum status refuse(const char *path, enum found found, const struct run_folder_options *options) {
    if (options->force || found == FOUND_NOTHING) return STATUS_OK;
    if (found == FOUND_STRANGER)
        return status_set(STATUS_INVALID, "%s: is not empty and holds no run; choose another --out, or --force", path);
    if (found == FOUND_UNREADABLE)
        return status_set(STATUS_INVALID, "%s/run.json: cannot be understood; --force starts anew", path);
    if (options->resume) return STATUS_OK;
    if (found == FOUND_DONE)
        return status_set(STATUS_INVALID, "%s: holds a finished run; choose another --out, or --force", path);
    return status_set(STATUS_INVALID, "%s: holds an unfinished run; --resume goes on with it, --force starts anew",
                      path);
}

// Goes on with the run described by `before`.
static enum status resume(struct run_folder *run, const json_t *before, enum found found) {
    enum status status = STATUS_OK;
    TRY(same_run(run->path, before, run->about));
    run->done = found == FOUND_DONE;
    if (run->done) remove_file(run, "checkpoint"); // where it was killed between saying "done" and removing it
    if (run->done) goto done;
    run->resumed = true;
    json_object_set(run->about, "start", json_object_get(before, "start"));
    json_int_t times = json_integer_value(json_object_get(before, "resumed"));
    json_object_set_new(run->about, "resumed", json_integer(times + 1));
    bool clearing = strcmp(json_string_value(json_object_get(before, "status")), "clearing") == 0;
    clean(run, clearing, clearing);
    TRY(write_json(run, "run.json", run->about));
    TRY(open_metrics(run));
done:
    return status;
}

// Makes the folder that of a new run. What an earlier one left goes under a run.json that says so: killed at any moment, the folder is
// the earlier run's, or is cleared when it is used next.
static enum status begin(struct run_folder *run, enum found found) {
    enum status status = STATUS_OK;
    bool earlier = found == FOUND_DONE || found == FOUND_UNFINISHED || found == FOUND_UNREADABLE;
    if (earlier) {
        json_object_set_new(run->about, "status", json_string("clearing"));
        TRY(write_json(run, "run.json", run->about));
    }
    clean(run, true, earlier); // a stranger's .npy files are not ours
    json_object_set_new(run->about, "status", json_string("running"));
    TRY(write_json(run, "run.json", run->about));
    TRY(open_metrics(run));
done:
    return status;
}

enum status run_folder_open(const struct run_folder_options *options, struct run_folder **out) {
    REQUIRE(options->program && !(options->force && options->resume),
            "a program's name; not both --force and --resume");
    enum status status = STATUS_OK;
    struct run_folder *run = mem_new(1, sizeof *run);
    json_t *before = NULL;
    enum found found = FOUND_NOTHING;
    run->lock = run->metrics = -1;
    run->about = describe(options);
    run->result = record_new();
    run->begun = clock_seconds();
    if (options->path) {
        run->path = mem_string(options->path);
        TRY(whole_file_folder(run->path));
        TRY(lock_folder(run));
        TRY(look(run, &found, &before));
        TRY(refuse(run->path, found, options));
        if (options->resume && found != FOUND_NOTHING) {
            TRY(resume(run, before, found));
        } else {
            TRY(begin(run, found));
        }
    }
    *out = run;
    run = NULL;
done:
    json_decref(before);
    run_folder_free(run);
    return status;
}

bool run_folder_is_done(const struct run_folder *run) { return run->done; }

struct record *run_folder_result(struct run_folder *run) {
    return run->result;
}

double run_folder_seconds(const struct run_folder *run) { return run->earlier + clock_seconds() - run->begun; }

enum status run_folder_log(struct run_folder *run, const struct record *line) {
    REQUIRE(!run->done && (!run->resumed || run->loaded), "a resumed run loads its checkpoint before it logs");
    if (!run->path) return STATUS_OK;
    char *text = record_text(line, 0);
    size_t n = strlen(text);
    text[n++] = '\n'; // instead of the terminating zero: one write() for the whole line
    enum status status = STATUS_OK;
    for (size_t written = 0; written < n;) {
        ssize_t got = write(run->metrics, text + written, n - written);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            int reason = errno;
            if (ftruncate(run->metrics, run->metrics_bytes) != 0) reason = errno;
            status = status_set(STATUS_IO, "%s/metrics.jsonl: cannot write it: %s", run->path, strerror(reason));
            goto done;
        }
        written += (size_t)got;
    }
    run->metrics_bytes += (int64_t)n;
done:
    free(text);
    return status;
}

enum status run_folder_array(struct run_folder *run, const char *name, enum npy_type type, const void *values,
                             int64_t rows, int64_t cols) {
    if (!run->path) return STATUS_OK;
    char *path = mem_format("%s/%s.npy", run->path, name);
    enum status status = npy_write(path, type, values, rows, cols);
    free(path);
    return status;
}

enum status run_folder_checkpoint_save(struct run_folder *run, struct checkpoint *state) {
    if (!run->path) return STATUS_OK;
    char *path = run_folder_file(run, "checkpoint");
    enum status status = STATUS_OK;
    // The lines must last at least as long as the checkpoint that counts them.
    if (fsync(run->metrics) != 0) {
        status = status_set(STATUS_IO, "%s/metrics.jsonl: cannot write it: %s", run->path, strerror(errno));
        goto done;
    }
    checkpoint_add_integer(state, "run.metrics_bytes", run->metrics_bytes);
    checkpoint_add_number(state, "run.seconds", run_folder_seconds(run));
    TRY(checkpoint_write(state, path));
done:
    free(path);
    return status;
}

enum status run_folder_checkpoint_load(struct run_folder *run, struct checkpoint **out) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    char *path = run_folder_file(run, "checkpoint");
    int64_t keep = 0;
    if (!run->resumed) goto found;
    if (access(path, F_OK) == 0) {
        TRY(checkpoint_read(path, &state));
        TRY(checkpoint_integer(state, "run.metrics_bytes", 0, run->metrics_bytes, &keep));
        TRY(checkpoint_number(state, "run.seconds", &run->earlier));
    }
    if (ftruncate(run->metrics, keep) != 0) {
        status = status_set(STATUS_IO, "%s/metrics.jsonl: cannot cut it back: %s", run->path, strerror(errno));
        goto done;
    }
    run->metrics_bytes = keep;
    run->loaded = true;
found:
    *out = state;
    state = NULL;
done:
    checkpoint_free(state);
    free(path);
    return status;
}

static enum status finish_done(struct run_folder *run) {
    enum status status = STATUS_OK;
    if (fsync(run->metrics) != 0)
        return status_set(STATUS_IO, "%s/metrics.jsonl: cannot write it: %s", run->path, strerror(errno));
    TRY(write_json(run, "result.json", record_json(run->result)));
    json_object_set_new(run->about, "status", json_string("done"));
    TRY(write_json(run, "run.json", run->about));
    remove_file(run, "checkpoint");
done:
    return status;
}

enum status run_folder_finish(struct run_folder *run, enum status outcome) {
    if (!run || !run->path || run->done) return outcome;
    json_object_set_new(run->about, "end", time_now());
    if (outcome == STATUS_OK) outcome = finish_done(run);
    if (outcome == STATUS_OK) return outcome;
    // The reason of the failure is what the user is told, also where run.json can no longer be written.
    char *message = mem_string(status_message());
    json_object_set_new(run->about, "status", json_string("failed"));
    json_object_set_new(run->about, "error", record_json_string(message));
    write_json(run, "run.json", run->about);
    status_set(outcome, "%s", message);
    free(message);
    return outcome;
}

void run_folder_free(struct run_folder *run) {
    if (!run) return;
    if (run->metrics >= 0) close(run->metrics);
    if (run->lock >= 0) close(run->lock);
    json_decref(run->about);
    record_free(run->result);
    free(run->path);
    free(run);
}
