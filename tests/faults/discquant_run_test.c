// Runs of the program discquant that are killed, resumed, or find the disk full.
#include "tests/files.h"

#include "core/base/rng.h"
#include "data/json.h"

#include <sys/resource.h>

#define PROGRAM "discquant/discquant"

struct inputs {
    char *folder, model[4096], train[4096], valid[4096];
};

static void inputs_open(struct inputs *in) {
    check_shared("models/stories260K", in->model, sizeof in->model);
    check_shared("data/tinystories/train.txt", in->train, sizeof in->train);
    check_shared("data/tinystories/valid.txt", in->valid, sizeof in->valid);
    in->folder = files_folder();
}

// The command line of a small run into FOLDER/name; `more` is one more option or NULL.
static void arguments(const struct inputs *in, const char *name, const char *more, const char *args[40]) {
    const char *fixed[] = {"--model",
                           in->model,
                           "--calibration",
                           in->train,
                           "--validation",
                           in->valid,
                           "--bits",
                           "3",
                           "--seq-len",
                           "64",
                           "--batch-size",
                           "2",
                           "--steps",
                           "12",
                           "--warmup",
                           "2",
                           "--samples",
                           "7",
                           "--validation-samples",
                           "2",
                           "--report-every",
                           "3",
                           "--checkpoint-every",
                           "2",
                           "--quiet",
                           "--out",
                           files_path(in->folder, name),
                           more};
    int n = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) args[n++] = fixed[i];
    args[n] = NULL;
}

static struct process run(const struct inputs *in, const char *name, const char *more) {
    const char *args[40];
    arguments(in, name, more, args);
    return process_run(PROGRAM, NULL, args);
}

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static char *file_of(const struct inputs *in, const char *run_name, const char *name, size_t *n) {
    char *path = mem_format("%s/%s/%s", in->folder, run_name, name), *bytes = files_bytes(path, n);
    if (!bytes) fail_msg("%s is missing", path);
    free(path);
    return bytes;
}

static void check_same_model(const struct inputs *in, const char *a, const char *b) {
    size_t n_a, n_b;
    char *bytes_a = file_of(in, a, "model/model.safetensors", &n_a),
         *bytes_b = file_of(in, b, "model/model.safetensors", &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
}

static double result_number(const struct inputs *in, const char *run_name, const char *key) {
    char *path = mem_format("%s/%s/result.json", in->folder, run_name);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    double value = json_number_value(json_object_get(result, key));
    json_decref(result);
    free(path);
    return value;
}

// Starts a run and kills it after `microseconds`.
static void run_and_kill(const struct inputs *in, const char *name, const char *more, unsigned microseconds) {
    const char *args[40];
    char *program = mem_format("%s/%s", getenv("DISCQUANT_BUILD") ? getenv("DISCQUANT_BUILD") : ".", PROGRAM),
         *argv[42] = {program};
    arguments(in, name, more, args);
    for (int i = 0; args[i]; i++) argv[i + 1] = (char *)args[i];
    extern char **environ;
    pid_t pid;
    int state;
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    usleep(microseconds);
    kill(pid, SIGKILL);
    while (waitpid(pid, &state, 0) < 0) {}
    free(program);
}

// Killed again and again at moments drawn at random until it is through, a run ends with the bits of one that was left
// alone. Delays grow, so that it gets through however slow the machine is.
static void a_killed_run_resumes_to_the_same_bits(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "whole", NULL));
    struct rng rng = {.seed = 4, .stream = RNG_TEST};
    unsigned most = 60000;
    for (uint64_t k = 0; k < 12; k++, most += most / 3)
        run_and_kill(&in, "killed", files_has(in.folder, "killed/run.json") ? "--resume" : "--force",
                     rng_bits(rng, k) % most);
    check_done(run(&in, "killed", files_has(in.folder, "killed/run.json") ? "--resume" : "--force"));
    check_same_model(&in, "whole", "killed");
    assert_true(result_number(&in, "whole", "kl") == result_number(&in, "killed", "kl"));
    files_remove(in.folder);
}

// A limit on the size of files stands for a full disk: writes beyond it fail in the same way.
static struct process run_with_small_files(const struct inputs *in, const char *name, const char *more) {
    struct rlimit before, small = {.rlim_cur = 100000, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    struct process process = run(in, name, more);
    setrlimit(RLIMIT_FSIZE, &before);
    return process;
}

static void a_full_disk_loses_nothing_that_was_complete(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "whole", NULL));
    process_check_error(run_with_small_files(&in, "state", NULL), 1, "checkpoint");
    process_check_error(run_with_small_files(&in, "model", "--checkpoint-every=1000"), 1, "model");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "model" : "state";
        char *path = mem_format("%s/%s", in.folder, name);
        assert_true(files_has(path, "run.json"));
        assert_false(files_has(path, "model"));
        assert_false(files_has(path, "result.json"));
        check_done(run(&in, name, i ? "--force" : "--resume"));
        check_same_model(&in, "whole", name);
        free(path);
    }
    files_remove(in.folder);
}

static void other_settings_are_not_resumed(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", NULL));
    process_check_error(run(&in, "run", NULL), 1, "--force");
    check_done(run(&in, "run", "--resume"));
    char *about = mem_format("%s/run/run.json", in.folder), *text = files_bytes(about, NULL),
         *done = strstr(text, "\"done\"");
    assert_non_null(done);
    memcpy(done, "\"fail\"", 6); // as if it had not ended
    files_put(about, text, strlen(text));
    process_check_error(run(&in, "run", "--clamp=0.5"), 1, "run");
    free(text);
    free(about);
    files_remove(in.folder);
}

static void reading_the_saved_model_gives_the_same_measures(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", NULL));
    char *model = mem_format("%s/run/model", in.folder);
    struct process eval = process_call("bench/discquant-bench", "eval", "--quiet", "--model", model, "--reference",
                                       in.model, "--data", in.valid, "--seq-len", "64", "--windows", "2");
    assert_int_equal(eval.code, 0);
    json_t *seen = json_loads(eval.out, 0, NULL);
    assert_non_null(seen);
    assert_true(json_number_value(json_object_get(seen, "kl")) == result_number(&in, "run", "kl"));
    assert_true(json_number_value(json_object_get(seen, "perplexity")) == result_number(&in, "run", "perplexity"));
    json_decref(seen);
    process_free(&eval);
    free(model);
    files_remove(in.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_run_resumes_to_the_same_bits),
        cmocka_unit_test(a_full_disk_loses_nothing_that_was_complete),
        cmocka_unit_test(other_settings_are_not_resumed),
        cmocka_unit_test(reading_the_saved_model_gives_the_same_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
