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

// Options of every run of a test, up to a NULL.
static const char *const nothing[] = {NULL}, *const *always = nothing;

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
    for (const char *const *option = always; *option; option++) args[n++] = *option;
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

// Starts a run, kills it after `microseconds` or, with 0, as soon as it has left a checkpoint.
static void run_and_kill(const struct inputs *in, const char *name, const char *more, unsigned microseconds) {
    const char *args[40];
    char *program = mem_format("%s/%s", getenv("DISCQUANT_BUILD") ? getenv("DISCQUANT_BUILD") : ".", PROGRAM),
         *argv[42] = {program}, *checkpoint = mem_format("%s/checkpoint", name);
    arguments(in, name, more, args);
    for (int i = 0; args[i]; i++) argv[i + 1] = (char *)args[i];
    extern char **environ;
    pid_t pid, ended = 0;
    int state;
    assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
    if (microseconds) usleep(microseconds);
    while (!microseconds && !ended && !files_has(in->folder, checkpoint)) {
        usleep(500);
        ended = waitpid(pid, &state, WNOHANG);
    }
    kill(pid, SIGKILL);
    while (!ended && waitpid(pid, &state, 0) < 0) {}
    free(checkpoint);
    free(program);
}

// Bytes of metrics.jsonl without the "seconds" at the end of each line.
static char *metrics_of(const struct inputs *in, const char *run_name) {
    char *text = file_of(in, run_name, "metrics.jsonl", NULL), *to = text;
    for (const char *from = text; *from;) {
        const char *end = strstr(from, ", \"seconds\""), *next = strchr(from, '\n') + 1;
        assert_true(end && end < next);
        memmove(to, from, (size_t)(end - from));
        to += end - from;
        from = next;
    }
    *to = 0;
    return text;
}

static void check_same_run(const struct inputs *in, const char *a, const char *b) {
    static const char *const keys[] = {"kl", "kl_x", "kl_x_rounded", "fraction_integral", "perplexity"};
    char *metrics_a = metrics_of(in, a), *metrics_b = metrics_of(in, b);
    check_same_model(in, a, b);
    assert_string_equal(metrics_a, metrics_b);
    for (int i = 0; i < 5; i++) assert_true(result_number(in, a, keys[i]) == result_number(in, b, keys[i]));
    free(metrics_a);
    free(metrics_b);
}

static const char *how(const struct inputs *in, const char *name) {
    char *about = mem_format("%s/run.json", name);
    const char *option = files_has(in->folder, about) ? "--resume" : "--force";
    free(about);
    return option;
}

// Killed again and again, at moments drawn at random and once right behind a checkpoint, a run ends with the bits of one that
// was left alone. Delays grow, so that it gets through however slow the machine is.
static void a_killed_run_resumes_to_the_same_bits(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "whole", NULL));
    struct rng rng = {.seed = 4, .stream = RNG_TEST};
    unsigned most = 60000;
    for (uint64_t k = 0; k < 12; k++, most += most / 3)
        run_and_kill(&in, "killed", how(&in, "killed"), 1 + rng_bits(rng, k) % most);
    check_done(run(&in, "killed", how(&in, "killed")));
    check_same_run(&in, "whole", "killed");
    run_and_kill(&in, "behind", "--force", 0);
    assert_true(files_has(in.folder, "behind/checkpoint") && !files_has(in.folder, "behind/result.json"));
    check_done(run(&in, "behind", "--resume"));
    check_same_run(&in, "whole", "behind");
    files_remove(in.folder);
}

static void check_same_file(const struct inputs *in, const char *a, const char *b, const char *name) {
    size_t n_a, n_b;
    char *bytes_a = file_of(in, a, name, &n_a), *bytes_b = file_of(in, b, name, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
}

// States before and in the finish, which freezing keeps among the moments; the x that was kept is the same too.
static void every_finish_resumes_to_the_same_bits(void **state) {
    (void)state;
    static const char *const finishes[] = {"--finish=nearest", "--finish=freeze", "--finish=anneal"};
    struct inputs in;
    inputs_open(&in);
    for (int i = 0; i < 3; i++) {
        always = (const char *const[]){"--keep-x", finishes[i], NULL};
        check_done(run(&in, "whole", "--force"));
        unsigned most = 60000;
        run_and_kill(&in, "killed", "--force", 0);
        for (uint64_t k = 0; k < 6; k++, most += most / 2)
            run_and_kill(&in, "killed", how(&in, "killed"),
                         1 + rng_bits((struct rng){.seed = 9, .stream = RNG_TEST}, k) % most);
        check_done(run(&in, "killed", how(&in, "killed")));
        check_same_run(&in, "whole", "killed");
        check_same_file(&in, "whole", "killed", "x.safetensors");
        if (i == 1) assert_true(result_number(&in, "whole", "fraction_integral_end") == 1);
    }
    always = nothing;
    files_remove(in.folder);
}

// Latent weights, a learning rate that is searched, other objectives and mixed texts.
static void variants_of_the_optimizer_resume_to_the_same_bits(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    const char *const variants[][5] = {
        {"--method=qat", "--lr=search", NULL},
        {"--objective=kl:0.5,layer:0.25,linear:0.25,ground-truth:0.1", "--direction=random", NULL},
        {"--second-calibration", in.valid, "--second-share=0.4", NULL}};
    for (int i = 0; i < 3; i++) {
        always = variants[i];
        check_done(run(&in, "whole", "--force"));
        unsigned most = 60000;
        run_and_kill(&in, "killed", "--force", 0);
        for (uint64_t k = 0; k < 4; k++, most += most / 2)
            run_and_kill(&in, "killed", how(&in, "killed"),
                         1 + rng_bits((struct rng){.seed = 10, .stream = RNG_TEST}, k) % most);
        check_done(run(&in, "killed", how(&in, "killed")));
        char *metrics_a = metrics_of(&in, "whole"), *metrics_b = metrics_of(&in, "killed");
        check_same_model(&in, "whole", "killed");
        assert_string_equal(metrics_a, metrics_b);
        assert_true(result_number(&in, "whole", "kl") == result_number(&in, "killed", "kl"));
        assert_true(result_number(&in, "whole", "lr") == result_number(&in, "killed", "lr"));
        if (i == 0) assert_non_null(strstr(metrics_a, "lr_search"));
        if (i == 0) assert_true(result_number(&in, "whole", "kl") < result_number(&in, "whole", "kl_rtn"));
        if (i == 1) assert_non_null(strstr(metrics_a, "objective_calibration"));
        if (i == 2) assert_true(result_number(&in, "whole", "second_windows") == 3); // of 7
        free(metrics_a);
        free(metrics_b);
    }
    always = nothing;
    files_remove(in.folder);
}

static void options_of_variants_are_checked(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    static const struct {
        const char *first, *second, *names;
    } bad[] = {{"--objective=kl:0.5,lyer:0.5", NULL, "--objective"},
               {"--objective=kl:-1", NULL, "--objective"},
               {"--direction=away", NULL, "--direction"},
               {"--second-share=0.5", NULL, "--second-calibration"},
               {"--second-share=1.5", NULL, "--second-share"},
               {"--method=qat", "--direction=random", "--direction"},
               {"--method=qat", "--lambda=100", "--lambda"},
               {"--method=qat", "--finish=freeze", "--finish"},
               {"--method=qat", "--keep-x", "--keep-x"},
               {"--lr=fast", NULL, "--lr"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        always = (const char *const[]){bad[i].first, bad[i].second, NULL};
        process_check_error(run(&in, "a", NULL), 2, bad[i].names);
    }
    always = (const char *const[]){"--lr=search", "--force", NULL};
    process_check_error(run(&in, "a", "--samples=1"), 1, "--lr search");
    always = (const char *const[]){"--second-calibration=/no/such/file", NULL};
    process_check_error(run(&in, "a", "--force"), 1, "/no/such/file");
    always = nothing;
    files_remove(in.folder);
}

// x of another run does not stay behind in a folder that is used again; what a finish cannot do is refused.
static void options_of_finishes_are_checked(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", "--keep-x"));
    assert_true(files_has(in.folder, "run/x.safetensors"));
    check_done(run(&in, "run", "--force"));
    assert_false(files_has(in.folder, "run/x.safetensors"));
    always = (const char *const[]){"--finish", "freeze", NULL};
    process_check_error(run(&in, "a", "--weight-decay=0.01"), 2, "freeze");
    always = (const char *const[]){"--finish", "nearest", NULL};
    process_check_error(run(&in, "a", "--finish-from=0.5"), 2, "--finish-from");
    always = nothing;
    process_check_error(run(&in, "a", "--finish=none"), 2, "--finish");
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

static struct process run_changed(const struct inputs *in, const char *name) {
    const char *args[40];
    int n = 0;
    arguments(in, name, "--resume", args);
    while (args[n]) n++;
    args[n++] = "--clamp=0.5";
    args[n] = NULL;
    return process_run(PROGRAM, NULL, args);
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
    process_check_error(run_changed(&in, "run"), 1, "clamp");
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
        cmocka_unit_test(every_finish_resumes_to_the_same_bits),
        cmocka_unit_test(variants_of_the_optimizer_resume_to_the_same_bits),
        cmocka_unit_test(options_of_finishes_are_checked),
        cmocka_unit_test(options_of_variants_are_checked),
        cmocka_unit_test(a_full_disk_loses_nothing_that_was_complete),
        cmocka_unit_test(other_settings_are_not_resumed),
        cmocka_unit_test(reading_the_saved_model_gives_the_same_measures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
