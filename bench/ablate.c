#include "bench/ablate.h"

#include "bench/ablation.h"
#include "core/base/mem.h"
#include "core/base/threads.h"
#include "data/file.h"
#include "data/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static struct ablate_settings {
    const char *plan;
    int64_t jobs;
    bool dry_run;
    json_t *shared, *evaluations; // overrides
} ablate = {.jobs = 1};

enum { KEY_CALIBRATION = 0x100, KEY_VALIDATION, KEY_OPTION, KEY_JOBS, KEY_DRY_RUN };

static const struct argp_option options[] = {
    {"jobs", KEY_JOBS, "N", 0, "runs at once, each with its share of --threads (default: 1)", 1},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "check every command line, print them and how many there are, run nothing", 1},
    {0, 0, 0, 0, "Instead of the plan's shared options:", 2},
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 2},
    {"calibration", KEY_CALIBRATION, "FILE", 0, "text to optimize on; may be given more than once", 2},
    {"validation", KEY_VALIDATION, "FILE", 0, "text to measure on", 2},
    {"option", KEY_OPTION, "NAME=VALUE", 0,
     "any other: --option seq-len=2048, --option device=cuda; NAME alone is an option without value; "
     "EVALUATION.NAME=VALUE is one of an evaluation: --option choice.data=items.jsonl",
     2},
    {0},
};

static void set_option(struct ablate_settings *s, const char *arg) {
    const char *equals = strchr(arg, '='), *dot = strchr(arg, '.');
    if (equals == arg || dot == arg || !*arg) args_fail("--option '%s': want NAME=VALUE", arg);
    if (dot && equals && dot > equals) dot = NULL;
    const char *from = dot ? dot + 1 : arg;
    char *name = mem_string_n(from, equals ? (size_t)(equals - from) : strlen(from));
    json_t *value = equals ? json_string(equals + 1) : json_true(), *set = s->shared;
    if (!value || !*name) args_fail("--option '%s': want NAME=VALUE in UTF-8", arg);
    if (dot) {
        char *evaluation = mem_string_n(arg, (size_t)(dot - arg));
        set = json_object_get(s->evaluations, evaluation);
        if (!set) json_object_set_new(s->evaluations, evaluation, set = json_object());
        free(evaluation);
    }
    json_object_set_new(set, name, value);
    free(name);
}

// One file is a string, so that {calibration} is one; more are a list.
static void add_calibration(struct ablate_settings *s, const char *arg) {
    json_t *file = record_json_string(arg), *before = json_object_get(s->shared, "calibration");
    if (!before)
        json_object_set_new(s->shared, "calibration", file);
    else if (json_is_array(before))
        json_array_append_new(before, file);
    else
        json_object_set_new(s->shared, "calibration", json_pack("[O,o]", before, file));
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct ablate_settings *s = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        s->shared = json_object();
        s->evaluations = json_object();
        return 0;
    case 'm': json_object_set_new(s->shared, "model", record_json_string(arg)); return 0;
    case KEY_CALIBRATION: add_calibration(s, arg); return 0;
    case KEY_VALIDATION: json_object_set_new(s->shared, "validation", record_json_string(arg)); return 0;
    case KEY_OPTION: set_option(s, arg); return 0;
    case KEY_JOBS: s->jobs = args_integer("--jobs", arg, 1, 1024); return 0;
    case KEY_DRY_RUN: s->dry_run = true; return 0;
    case ARGP_KEY_ARG:
        if (s->plan) args_fail("'%s': one PLAN.json at a time", arg);
        s->plan = arg;
        return 0;
    case ARGP_KEY_END:
        if (!s->plan) args_fail("PLAN.json is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

// The processes of an ablation share the lock of its folder. Those of one that was killed die with it, but not in the same
// instant: this gives them a few seconds.
static void wait_for_the_dying(const char *path) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int tries = 0; folder >= 0 && tries < 250 && flock(folder, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (errno != EWOULDBLOCK) break;
        usleep(20000);
    }
    if (folder >= 0) close(folder);
}

// A folder that is not empty and holds no ablation is somebody's.
static enum status folder_check(const char *path) {
    enum status status = STATUS_OK;
    char *about_path = mem_format("%s/run.json", path);
    const char *program = "";
    json_t *about = NULL;
    DIR *folder = opendir(path);
    bool empty = true;
    for (const struct dirent *entry; folder && (entry = readdir(folder));) empty = empty && entry->d_name[0] == '.';
    if (folder) closedir(folder);
    if (empty) goto done;
    if (file_exists(about_path)) TRY(json_read_file(about_path, &about));
    if (!about || json_get_string(about, about_path, "program", &program) != STATUS_OK ||
        strcmp(program, "discquant-bench ablate") != 0)
        status = status_set(STATUS_INVALID, "%s: is not empty and holds no ablation; choose another --out, or --force",
                            path);
done:
    json_decref(about);
    free(about_path);
    return status;
}

static enum status run_folder_make(const struct program_common *common, const struct ablation *ablation,
                                   struct run_folder **folder) {
    enum status status = STATUS_OK;
    struct record *about = record_new();
    // What is done is known row by row; the folder of the whole is described anew each time.
    struct program_common anew = *common;
    anew.force = true;
    anew.resume = false;
    wait_for_the_dying(common->out);
    if (!common->force) TRY(folder_check(common->out));
    record_string(about, "title", ablation->title);
    TRY(record_digest(about, "plan", ablation->plan));
    TRY(program_run_folder(&anew, about, folder));
done:
    record_free(about);
    return status;
}

static enum status run(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    const struct ablate_settings *s = input;
    struct ablation *ablation = NULL;
    struct run_folder *folder = NULL;
    if (!common->out && !s->dry_run) args_fail("--out is missing");
    TRY(ablation_read(&(struct ablation_options){.plan = s->plan,
                                                 .out = common->out ? common->out : "OUT",
                                                 .shared = s->shared,
                                                 .evaluations = s->evaluations},
                      &ablation));
    TRY(ablation_check(ablation));
    if (s->dry_run) {
        ablation_print(ablation);
        goto done;
    }
    TRY(run_folder_make(common, ablation, &folder));
    struct ablation_execution how = {
        .jobs = (int)s->jobs, .threads = threads_count(), .force = common->force, .folder = folder};
    status = run_folder_finish(folder, ablation_execute(ablation, &how));
done:
    run_folder_free(folder);
    ablation_free(ablation);
    json_decref(s->shared);
    json_decref(s->evaluations);
    return status;
}

static const bool without_device = true;

const struct command ablate_command = {
    .name = "ablate",
    .doc =
        "Runs a plan of roundings and evaluations, and tabulates what they give.\v"
        "A plan is JSON: \"title\", \"options\" of all rows, \"axes\" (methods, bits, seeds, …: lists of values or "
        "named "
        "sets of options; every combination is a row), \"exclude\", further \"rows\", \"evaluations\" of every row's "
        "model, \"texts\" to make, \"columns\" of the summary, the axes it takes means \"over\" (seed). Options are "
        "the "
        "long options of discquant, or of the \"command\" they name. bench/README.md has the format, bench/plans the "
        "paper's tables.\n"
        "OUT/table.csv has a line per row, OUT/summary.md means with 95 % intervals, OUT/runs/NAME the run folders, "
        "OUT/runs/NAME.log what they said. Started again, what is done is kept, what was interrupted goes on, and what "
        "has another command line or other input is done anew; --force does all of it anew. A row that fails does not "
        "stop the others; the exit status is then 1.",
    .args_doc = "PLAN.json",
    .options = options,
    .parse = parse,
    .common = COMMON_THREADS | COMMON_OUT | COMMON_RESUME,
    .without_device = &without_device,
    .run = run,
    .settings = &ablate,
};
