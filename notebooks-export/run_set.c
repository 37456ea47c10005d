#include "notebooks-export/run_set.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 3 };

// The run in the folder `path`; *is_plan, and nothing added, where it only holds the runs of a plan.
static enum status run_add(struct run_set *set, const char *path, bool *is_plan) {
    enum status status = STATUS_OK;
    char *about_path = mem_format("%s/run.json", path), *result_path = mem_format("%s/result.json", path);
    struct run_info run = {0};
    const char *state = NULL;
    json_t *settings = NULL;
    TRY(json_read_file(about_path, &run.about));
    TRY(json_get_string(run.about, about_path, "program", &run.program));
    if (strcmp(run.program, "discquant-bench ablate") == 0) {
        *is_plan = true;
        goto done;
    }
    TRY(json_get_string(run.about, about_path, "status", &state));
    TRY(json_get_object_or(run.about, about_path, "settings", NULL, &settings));
    if (strcmp(state, "done") != 0) {
        set->left_out = mem_resize(set->left_out, (size_t)set->n_left_out + 1, sizeof *set->left_out);
        set->left_out[set->n_left_out++] = mem_format("%s: %s", path, state);
        goto done;
    }
    TRY(json_read_file(result_path, &run.result));
    if (!json_is_object(run.result)) TRY(status_set(STATUS_FORMAT, "%s: must hold an object", result_path));
    run.settings = settings;
    run.path = mem_string(path);
    const char *slash = strrchr(path, '/');
    run.name = mem_string(slash ? slash + 1 : path);
    set->runs = mem_resize(set->runs, (size_t)set->n + 1, sizeof *set->runs);
    set->runs[set->n++] = run;
    run = (struct run_info){0};
done:
    json_decref(run.about);
    json_decref(run.result);
    free(about_path);
    free(result_path);
    return status;
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static enum status folder_scan(struct run_set *set, const char *path, int depth) {
    enum status status = STATUS_OK;
    char *about = mem_format("%s/run.json", path);
    struct dirent **entries = NULL;
    int n = 0;
    bool is_plan = false;
    if (file_exists(about)) {
        status = run_add(set, path, &is_plan);
        if (!is_plan) goto done;
    }
    if (depth == DEPTH_MAX) goto done;
    n = scandir(path, &entries, not_hidden, alphasort);
    for (int i = 0; i < n; i++) {
        char *below = mem_format("%s/%s", path, entries[i]->d_name);
        if (status == STATUS_OK && folder_exists(below)) status = folder_scan(set, below, depth + 1);
        free(below);
        free(entries[i]);
    }
done:
    free(entries);
    free(about);
    return status;
}

enum status run_set_read(const char *const *paths, int n_paths, struct run_set **out) {
    enum status status = STATUS_OK;
    struct run_set *set = mem_new(1, sizeof *set);
    for (int i = 0; i < n_paths; i++) {
        char *path = mem_string(paths[i]);
        size_t length = strlen(path);
        while (length > 1 && path[length - 1] == '/') path[--length] = 0;
        int64_t before = set->n;
        if (!folder_exists(path))
            status = status_set(STATUS_IO, "%s: there is no such folder", path);
        else
            status = folder_scan(set, path, 0);
        if (status == STATUS_OK && set->n == before)
            status =
                status_set(STATUS_INVALID, "%s: holds no finished run (a folder with run.json and result.json)", path);
        free(path);
        if (status != STATUS_OK) goto done;
    }
    *out = set;
    set = NULL;
done:
    run_set_free(set);
    return status;
}

void run_set_free(struct run_set *set) {
    if (!set) return;
    for (int64_t i = 0; i < set->n; i++) {
        json_decref(set->runs[i].about);
        json_decref(set->runs[i].result);
        free(set->runs[i].path);
        free(set->runs[i].name);
    }
    for (int64_t i = 0; i < set->n_left_out; i++) free(set->left_out[i]);
    free(set->left_out);
    free(set->runs);
    free(set);
}

bool run_is(const struct run_info *run, const char *program) { return strcmp(run->program, program) == 0; }

static double number_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double run_number(const struct run_info *run, const char *key) { return number_of(run->result, key); }
double run_setting(const struct run_info *run, const char *key) { return number_of(run->settings, key); }

const char *run_setting_text(const struct run_info *run, const char *key) {
    return json_string_value(json_object_get(run->settings, key));
}

const char *run_result_text(const struct run_info *run, const char *key) {
    return json_string_value(json_object_get(run->result, key));
}
