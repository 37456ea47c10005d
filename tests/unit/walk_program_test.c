// The program discquant-walk: command lines, run folders, resumed runs, the rounded folder. What it computes is tested in
// tests/property/walk_study_program_test.c.
#include "tests/files.h"

#include "data/json.h"

#include <sys/resource.h>

#define PROGRAM "walk/discquant-walk"

struct inputs {
    char *folder, model[4096], train[4096], valid[4096];
};

static void inputs_open(struct inputs *in) {
    check_shared("models/stories260K", in->model, sizeof in->model);
    check_shared("data/tinystories/train.txt", in->train, sizeof in->train);
    check_shared("data/tinystories/valid.txt", in->valid, sizeof in->valid);
    in->folder = files_folder();
}

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static char *file_of(const char *folder, const char *run, const char *name, size_t *n) {
    char *path = mem_format("%s/%s/%s", folder, run, name), *bytes = files_bytes(path, n);
    if (!bytes) fail_msg("%s is missing", path);
    free(path);
    return bytes;
}

// result.json without what a clock or the machine's memory decides.
static json_t *result_of(const char *folder, const char *run) {
    static const char *const measured[] = {"seconds", "seconds_walk", "planned_bytes", "peak_memory_bytes"};
    char *path = mem_format("%s/%s/result.json", folder, run);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    free(path);
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) json_object_del(result, measured[i]);
    return result;
}

static double number_of(const char *folder, const char *run, const char *key) {
    json_t *result = result_of(folder, run), *value = json_object_get(result, key);
    if (!json_is_number(value)) fail_msg("%s: no number %s", run, key);
    double number = json_number_value(value);
    json_decref(result);
    return number;
}

static void check_same_run(const char *folder, const char *a, const char *b) {
    json_t *result_a = result_of(folder, a), *result_b = result_of(folder, b);
    assert_true(json_equal(result_a, result_b));
    json_decref(result_a);
    json_decref(result_b);
    char *lines_a = file_of(folder, a, "metrics.jsonl", NULL), *lines_b = file_of(folder, b, "metrics.jsonl", NULL);
    assert_string_equal(lines_a, lines_b);
    free(lines_a);
    free(lines_b);
}

static void check_same_file(const char *folder, const char *a, const char *b, const char *name) {
    size_t n_a, n_b;
    char *bytes_a = file_of(folder, a, name, &n_a), *bytes_b = file_of(folder, b, name, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
}

// Starts a run and kills it as soon as it has left a checkpoint; one that is faster than that has ended.
static void run_and_kill(const char *folder, const char *run, const char *const *args) {
    char *checkpoint = mem_format("%s/%s/checkpoint", folder, run);
    process_kill_at(PROGRAM, checkpoint, args);
    free(checkpoint);
}

static void wrong_command_lines_end_with_status_2(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *out = files_path(folder, "run");
#define REFUSED(text, ...) process_check_error(process_call(PROGRAM, __VA_ARGS__, "--out", out), 2, text)
    REFUSED("power of two", "synthetic", "--n", "1000", "--m", "8");
    REFUSED("n / 16", "synthetic", "--n", "1024", "--m", "65");
    REFUSED("n / 16", "synthetic", "--n", "1024", "--m", "65", "--final", "nearest", "--engine", "leap");
    REFUSED("at most --n", "synthetic", "--n", "64", "--m", "65", "--engine", "gsw");
    REFUSED("zone|leap", "synthetic", "--engine", "brownian");
    REFUSED("--step-size", "synthetic", "--step-size", "0.7");
    REFUSED("--final", "synthetic", "--final", "up");
    REFUSED("--replicates", "synthetic", "--replicates", "0");
    REFUSED("--alpha", "synthetic", "--alpha", "nan");
    REFUSED("which study", "validate");
    REFUSED("theorem2|theorem3", "validate", "theorem4");
    REFUSED("one study", "validate", "theorem2", "theorem3");
    REFUSED("does not keep", "validate", "theorem2", "--engine", "slack");
    REFUSED("--model is missing", "round", "--calibration", "a", "--validation", "b");
    REFUSED("--calibration is missing", "round", "--model", "m", "--validation", "b");
    REFUSED("--validation is missing", "round", "--model", "m", "--calibration", "a");
    REFUSED("--bits", "round", "--bits", "1");
    REFUSED("--group-size 0", "round", "--group-size", "0");
#undef REFUSED
    process_check_error(process_call(PROGRAM, "synthetic"), 2, "--out");
    assert_false(files_has(folder, "run"));
    files_remove(folder);
}

static const char *const synthetic[] = {"synthetic",
                                        "--n",
                                        "512",
                                        "--m",
                                        "8",
                                        "--seed",
                                        "3",
                                        "--replicates",
                                        "60",
                                        "--final",
                                        "vertex",
                                        "--quiet",
                                        "--checkpoint-every",
                                        "7",
                                        "--out"};
enum { SYNTHETIC = sizeof synthetic / sizeof *synthetic };

static void synthetic_args(const char *out, const char *more, const char *args[40]) {
    int n = 0;
    for (; n < SYNTHETIC; n++) args[n] = synthetic[n];
    args[n++] = out;
    args[n++] = more;
    args[n] = NULL;
}

static struct process run_synthetic(const char *folder, const char *name, const char *more) {
    const char *args[40];
    synthetic_args(files_path(folder, name), more, args);
    return process_run(PROGRAM, NULL, args);
}

static void synthetic_runs_do_not_depend_on_threads(void **state) {
    (void)state;
    char *folder = files_folder();
    check_done(run_synthetic(folder, "one", "--threads=1"));
    check_done(run_synthetic(folder, "three", "--threads=3"));
    check_same_run(folder, "one", "three");
    assert_true(number_of(folder, "one", "fractional") <= 8);
    assert_true(number_of(folder, "one", "fractional_most") <= 16 * 8);
    assert_true(number_of(folder, "one", "residual_max") < 1e-12);
    files_remove(folder);
}

static void killed_synthetic_runs_resume_to_the_same_bits(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *args[40];
    check_done(run_synthetic(folder, "whole", NULL));
    synthetic_args(files_path(folder, "killed"), NULL, args);
    run_and_kill(folder, "killed", args);
    check_done(run_synthetic(folder, "killed", "--resume"));
    check_same_run(folder, "whole", "killed");
    process_check_error(run_synthetic(folder, "whole", NULL), 1, "--force");
    files_remove(folder);
}

static void round_args(const struct inputs *in, const char *name, const char *const *more, const char *args[48]) {
    const char *fixed[] = {"round",   "--model",
                           in->model, "--calibration",
                           in->valid, "--validation",
                           in->valid, "--seq-len",
                           "32",      "--samples",
                           "12",      "--fresh-samples",
                           "8",       "--validation-samples",
                           "2",       "--bits",
                           "3",       "--step-size",
                           "0.05",    "--checkpoint-every",
                           "60",      "--quiet",
                           "--out",   files_path(in->folder, name)};
    int n = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) args[n++] = fixed[i];
    while (*more) args[n++] = *more++;
    args[n] = NULL;
}

static struct process run_round(const struct inputs *in, const char *name, const char *const *more) {
    const char *args[48];
    round_args(in, name, more, args);
    return process_run(PROGRAM, NULL, args);
}

#define MORE(...) ((const char *const[]){__VA_ARGS__, NULL})

static void the_rounded_folder_reads_back_with_the_same_measures(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run_round(&in, "run", MORE("--engine", "leap")));
    char *model = mem_format("%s/run/model", in.folder);
    struct process eval = process_call("bench/discquant-bench", "eval", "--quiet", "--model", model, "--reference",
                                       in.model, "--data", in.valid, "--seq-len", "32", "--windows", "2");
    assert_int_equal(eval.code, 0);
    json_t *seen = json_loads(eval.out, 0, NULL);
    assert_non_null(seen);
    assert_true(json_number_value(json_object_get(seen, "kl")) == number_of(in.folder, "run", "kl"));
    assert_true(json_number_value(json_object_get(seen, "perplexity")) == number_of(in.folder, "run", "perplexity"));
    assert_true(number_of(in.folder, "run", "fractional") == 0);
    json_decref(seen);
    process_free(&eval);
    free(model);
    files_remove(in.folder);
}

// The samples' losses change less than fresh ones', to first order; what clipping does to them is cancelled unless asked not to.
static void sampled_losses_are_kept(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run_round(&in, "run", MORE("--engine", "leap")));
    check_done(run_round(&in, "left", MORE("--engine", "leap", "--leave-clipping")));
    double kept = number_of(in.folder, "run", "qe_calibration"), clip = number_of(in.folder, "run", "clip_rms");
    assert_true(kept < 0.1 * number_of(in.folder, "run", "qe_calibration_random"));
    assert_true(kept < number_of(in.folder, "left", "qe_calibration"));
    assert_true(clip > 0 && clip == number_of(in.folder, "left", "clip_rms"));
    assert_true(number_of(in.folder, "run", "clip_residual") < 1e-8);
    assert_true(number_of(in.folder, "left", "shift2") == 0);
    files_remove(in.folder);
}

static struct process run_start(const struct inputs *in, const char *name, const char *start) {
    return process_call(PROGRAM, "round", "--start", start, "--model", in->model, "--calibration", in->valid,
                        "--validation", in->valid, "--seq-len", "32", "--samples", "12", "--fresh-samples", "8",
                        "--validation-samples", "2", "--engine", "leap", "--quiet", "--out",
                        files_path(in->folder, name));
}

// From the x that a run of discquant kept: figures of x and of x rounded are that run's own, sampled losses are kept, M is of x and
// not of the weights, and what is 0 or 1 there is no longer free.
static void rounding_goes_on_from_a_kept_x(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(process_call("discquant/discquant", "--model", in.model, "--calibration", in.valid, "--validation",
                            in.valid, "--bits", "3", "--group-size", "32", "--steps", "8", "--batch-size", "2",
                            "--seq-len", "32", "--validation-samples", "2", "--finish", "nearest", "--keep-x",
                            "--quiet", "--out", files_path(in.folder, "x")));
    char *start = mem_format("%s/x", in.folder);
    check_done(run_start(&in, "run", start));
    check_near(number_of(in.folder, "run", "kl_start"), number_of(in.folder, "x", "kl_x"), 1e-6, 0);
    check_near(number_of(in.folder, "run", "kl_nearest"), number_of(in.folder, "x", "kl"), 1e-6, 0);
    check_near(number_of(in.folder, "run", "kl_rtn"), number_of(in.folder, "x", "kl_rtn"), 1e-6, 0);
    assert_true(number_of(in.folder, "run", "bits") == 3 && number_of(in.folder, "run", "group_size") == 32);
    assert_true(number_of(in.folder, "run", "qe_start") == 0 && number_of(in.folder, "run", "fractional") == 0);
    assert_true(number_of(in.folder, "run", "qe_calibration_before") < 1e-20);
    assert_true(number_of(in.folder, "run", "qe_calibration") <
                0.1 * number_of(in.folder, "run", "qe_calibration_random"));
    double still_free = number_of(in.folder, "run", "weights_free"), n = number_of(in.folder, "run", "n");
    assert_true(still_free > 0 && still_free < n - number_of(in.folder, "run", "weights_fixed"));
    process_check_error(run_start(&in, "none", in.folder), 1, "x.safetensors");
    process_check_error(run_round(&in, "bits", MORE("--start", start)), 2, "--start brings its grid");
    free(start);
    files_remove(in.folder);
}

static void killed_rounds_resume_to_the_same_bits_with_any_threads(void **state) {
    (void)state;
    struct inputs in;
    const char *args[48];
    inputs_open(&in);
    check_done(run_round(&in, "whole", MORE("--threads=1")));
    round_args(&in, "killed", MORE("--threads=2"), args);
    run_and_kill(in.folder, "killed", args);
    check_done(run_round(&in, "killed", MORE("--resume", "--threads=2")));
    check_same_run(in.folder, "whole", "killed");
    check_same_file(in.folder, "whole", "killed", "model/model.safetensors");
    files_remove(in.folder);
}

// M on the disk gives the same bits, leaves nothing behind and leaves what stands at its path.
static void m_on_the_disk_rounds_to_the_same_bits(void **state) {
    (void)state;
    struct inputs in;
    size_t n;
    inputs_open(&in);
    char *path = mem_format("%s/m", in.folder);
    files_put(path, "mine", 4);
    check_done(run_round(&in, "memory", MORE("--engine", "leap")));
    check_done(run_round(&in, "disk", MORE("--engine", "leap", "--matrix", path)));
    check_same_run(in.folder, "memory", "disk");
    check_same_file(in.folder, "memory", "disk", "model/model.safetensors");
    char *mine = files_bytes(path, &n);
    assert_true(n == 4 && memcmp(mine, "mine", 4) == 0);
    assert_false(files_has(in.folder, "m.part"));
    free(mine);
    free(path);
    files_remove(in.folder);
}

// A limit on the size of files stands for a full disk: room for M is refused in the same way.
static void a_disk_without_room_for_m_is_one_line(void **state) {
    (void)state;
    struct inputs in;
    struct rlimit before;
    inputs_open(&in);
    char *path = mem_format("%s/m", in.folder);
    getrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1 << 20, .rlim_max = before.rlim_max});
    struct process process = run_round(&in, "run", MORE("--engine", "leap", "--matrix", path));
    setrlimit(RLIMIT_FSIZE, &before);
    process_check_error(process, 1, "cannot make room for this file");
    assert_false(files_has(in.folder, "m") || files_has(in.folder, "m.part") ||
                 files_has(in.folder, "run/result.json"));
    process_check_error(run_round(&in, "two", MORE("--matrix", "/nowhere/m")), 1, "/nowhere/m");
    free(path);
    files_remove(in.folder);
}

// A folder on the same grid is measured as the same rounding made here is; one on another grid is refused.
static void other_roundings_are_measured_beside(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    static const char *const grids[][2] = {{"3", "same"}, {"4", "other"}};
    for (int i = 0; i < 2; i++)
        check_done(process_call("discquant/discquant", "--method", "rtn", "--bits", grids[i][0], "--model", in.model,
                                "--calibration", in.valid, "--validation", in.valid, "--seq-len", "32",
                                "--validation-samples", "2", "--quiet", "--out", files_path(in.folder, grids[i][1])));
    char *same = mem_format("beside=%s/same/model", in.folder), *other = mem_format("o=%s/other/model", in.folder);
    check_done(run_round(&in, "run", MORE("--engine", "leap", "--compare", same)));
    static const char *const figures[] = {"distance2", "qe", "qe_calibration", "loss_change", "kl", "perplexity"};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        char *here = mem_format("%s_rtn", figures[i]), *there = mem_format("%s_beside", figures[i]);
        assert_true(number_of(in.folder, "run", here) == number_of(in.folder, "run", there));
        free(here);
        free(there);
    }
    assert_true(number_of(in.folder, "run", "qe_calibration_before") < number_of(in.folder, "run", "qe_calibration"));
    process_check_error(run_round(&in, "b", MORE("--engine", "leap", "--compare", other)), 1, "no neighbour");
    process_check_error(run_round(&in, "c", MORE("--compare", "rtn=model")), 2, "taken");
    process_check_error(run_round(&in, "c", MORE("--compare", "model")), 2, "NAME=DIR");
    free(same);
    free(other);
    files_remove(in.folder);
}

static void rounds_with_wrong_input_end_with_status_1(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    process_check_error(run_round(&in, "a", MORE("--calibration", "/nowhere.txt")), 1, "/nowhere.txt");
    process_check_error(run_round(&in, "b", MORE("--model", "/nowhere")), 1, "/nowhere");
    process_check_error(run_round(&in, "c", MORE("--samples", "1000000")), 1, "take fewer --samples");
    process_check_error(
        run_round(&in, "d",
                  MORE("--calibration", in.train, "--seq-len", "4", "--samples", "15000", "--final", "nearest")),
        1, "n / 16");
    assert_false(files_has(in.folder, "c/model"));
    files_remove(in.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines_end_with_status_2),
        cmocka_unit_test(synthetic_runs_do_not_depend_on_threads),
        cmocka_unit_test(killed_synthetic_runs_resume_to_the_same_bits),
        cmocka_unit_test(the_rounded_folder_reads_back_with_the_same_measures),
        cmocka_unit_test(sampled_losses_are_kept),
        cmocka_unit_test(rounding_goes_on_from_a_kept_x),
        cmocka_unit_test(killed_rounds_resume_to_the_same_bits_with_any_threads),
        cmocka_unit_test(m_on_the_disk_rounds_to_the_same_bits),
        cmocka_unit_test(a_disk_without_room_for_m_is_one_line),
        cmocka_unit_test(other_roundings_are_measured_beside),
        cmocka_unit_test(rounds_with_wrong_input_end_with_status_1),
    };
    return cmocka_run_group_tests_name("walk_program", tests, NULL, NULL);
}
