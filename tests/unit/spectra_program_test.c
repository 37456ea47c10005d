// The program discquant-spectra: command lines, run folders, killed runs, shards. What it computes is tested in
// tests/property/spectra_collect_test.c and beside the estimators.
#include "tests/files.h"

#include "core/base/rng.h"
#include "data/json.h"

#define PROGRAM "spectra/discquant-spectra"
#define MORE(...) ((const char *const[]){__VA_ARGS__, NULL})

struct inputs {
    char *folder, model[4096], text[4096];
};

// Sentences of words drawn from a few, so that windows differ.
static void inputs_open(struct inputs *in) {
    static const char *const words[] = {"the",  "cat", "dog", "saw", "a",   "red",
                                        "ball", "and", "ran", "to",  "was", "happy"};
    check_source("data/story-model", in->model, sizeof in->model);
    in->folder = files_folder();
    snprintf(in->text, sizeof in->text, "%s/text.txt", in->folder);
    FILE *file = fopen(in->text, "w");
    assert_non_null(file);
    struct rng rng = {.seed = 3, .stream = RNG_TEST};
    for (uint64_t i = 0; i < 12000; i++) fprintf(file, "%s%s", words[rng_bits(rng, i) % 12], i % 9 == 8 ? ".\n" : " ");
    assert_int_equal(fclose(file), 0);
}

static void inputs_close(struct inputs *in) { files_remove(in->folder); }

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static void spectrum_args(const struct inputs *in, const char *run, const char *const *more, const char *args[48]) {
    static char out[2][4096];
    static int next;
    char *path = out[next++ % 2];
    snprintf(path, sizeof out[0], "%s/%s", in->folder, run);
    const char *fixed[] = {"spectrum", "--model",      in->model, "--corpus",   in->text, "--seq-len", "16",    "--dim",
                           "96",       "--group-size", "32",      "--sketches", "2",      "--quiet",   "--out", path};
    int n = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) args[n++] = fixed[i];
    while (*more) args[n++] = *more++;
    args[n] = NULL;
}

static struct process run_spectrum(const struct inputs *in, const char *run, const char *const *more) {
    const char *args[48];
    spectrum_args(in, run, more, args);
    return process_run(PROGRAM, NULL, args);
}

static char *file_of(const struct inputs *in, const char *run, const char *name, size_t *n) {
    char *path = mem_format("%s/%s/%s", in->folder, run, name), *bytes = files_bytes(path, n);
    if (!bytes) fail_msg("%s is missing", path);
    free(path);
    return bytes;
}

static void check_same_file(const struct inputs *in, const char *a, const char *b, const char *name) {
    size_t n_a, n_b;
    char *bytes_a = file_of(in, a, name, &n_a), *bytes_b = file_of(in, b, name, &n_b);
    if (n_a != n_b || memcmp(bytes_a, bytes_b, n_a) != 0) fail_msg("%s of %s and %s differ", name, a, b);
    free(bytes_a);
    free(bytes_b);
}

// result.json without what a clock or the machine's memory decides, and without what only a run with the model knows.
static json_t *result_of(const struct inputs *in, const char *run) {
    static const char *const measured[] = {"seconds", "seconds_samples", "tokens_per_second", "peak_memory_bytes",
                                           "peak_memory_bytes_samples"};
    char *path = mem_format("%s/%s/result.json", in->folder, run);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    free(path);
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) json_object_del(result, measured[i]);
    return result;
}

static double number_of(const struct inputs *in, const char *run, const char *key) {
    json_t *result = result_of(in, run), *value = json_object_get(result, key);
    if (!json_is_number(value)) fail_msg("%s: no number %s", run, key);
    double number = json_number_value(value);
    json_decref(result);
    return number;
}

static const char *const arrays[] = {"eigenvalues.npy", "eigenvalue_roots.npy", "eigenvalues_centred.npy", "losses.npy",
                                     "norms2.npy"};

static void check_same_run(const struct inputs *in, const char *a, const char *b) {
    json_t *result_a = result_of(in, a), *result_b = result_of(in, b);
    assert_true(json_equal(result_a, result_b));
    json_decref(result_a);
    json_decref(result_b);
    check_same_file(in, a, b, "records");
    check_same_file(in, a, b, "sums");
    check_same_file(in, a, b, "metrics.jsonl");
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) check_same_file(in, a, b, arrays[i]);
}

// Starts a run and kills it as soon as it has a state on the disk; one that is faster than that has ended.
static void run_and_kill(const struct inputs *in, const char *run, const char *const *more) {
    const char *args[48];
    char *sums = mem_format("%s/%s/sums", in->folder, run);
    spectrum_args(in, run, more, args);
    process_kill_at(PROGRAM, sums, args);
    free(sums);
}

static void wrong_command_lines_end_with_status_2(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *out = files_path(folder, "run");
#define REFUSED(text, ...) process_check_error(process_call(PROGRAM, __VA_ARGS__, "--out", out), 2, text)
    REFUSED("--model is missing", "spectrum", "--corpus", "a");
    REFUSED("--corpus is missing", "spectrum", "--model", "a");
    REFUSED("--seq-len", "spectrum", "--seq-len", "1");
    REFUSED("rotation|gaussian", "spectrum", "--sketch", "hadamard");
    REFUSED("--dim", "spectrum", "--dim", "0");
    REFUSED("--sketches", "spectrum", "--sketches", "257");
    REFUSED("linear|all", "spectrum", "--parameters", "some");
    REFUSED("--bits", "spectrum", "--bits", "1");
    REFUSED("NAME=DIR", "spectrum", "--quantized", "folder");
    REFUSED("the name is taken", "spectrum", "--quantized", "rtn=folder");
    REFUSED("--model and --corpus are not used", "spectrum", "--store", "a", "--model", "b");
    REFUSED("--exact needs the model", "spectrum", "--store", "a", "--exact");
    REFUSED("want numbers and ranges", "spectrum", "--layers", "3-1");
    REFUSED("want numbers and ranges", "spectrum", "--layers", "0,,1");
    REFUSED("which runs", "merge");
#undef REFUSED
    process_check_error(process_call(PROGRAM, "spectrum", "--model", "a", "--corpus", "b"), 2, "--out");
    files_remove(folder);
}

static void killed_runs_resume_to_the_same_bits_with_any_threads(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run_spectrum(&in, "whole", MORE("--samples=200", "--per-layer", "--threads=1")));
    run_and_kill(&in, "killed", MORE("--samples=200", "--per-layer", "--threads=2", "--checkpoint-every=16"));
    check_done(run_spectrum(&in, "killed",
                            MORE("--samples=200", "--per-layer", "--threads=2", "--checkpoint-every=16", "--resume")));
    check_same_run(&in, "whole", "killed");
    check_same_file(&in, "whole", "killed", "eigenvalues_by_group.npy");
    process_check_error(run_spectrum(&in, "whole", MORE("--samples=200", "--per-layer")), 1, "--force");
    inputs_close(&in);
}

static void shards_are_merged_to_the_bits_and_figures_of_one_run(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char *a = mem_format("%s/a", in.folder), *b = mem_format("%s/b", in.folder), *all = mem_format("%s/all", in.folder);
    check_done(run_spectrum(&in, "one", MORE("--samples=150")));
    check_done(run_spectrum(&in, "b", MORE("--samples-only", "--first-sample=91", "--samples=59")));
    check_done(run_spectrum(&in, "a", MORE("--samples-only", "--samples=91")));
    check_done(process_call(PROGRAM, "merge", b, a, "--quiet", "--out", all));
    check_same_file(&in, "one", "all", "records");
    check_same_file(&in, "one", "all", "sums");
    check_done(process_call(PROGRAM, "spectrum", "--store", all, "--quiet", "--out", files_path(in.folder, "figures")));
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) check_same_file(&in, "one", "figures", arrays[i]);
    assert_true(number_of(&in, "one", "mean_norm2") == number_of(&in, "figures", "mean_norm2"));
    assert_true(number_of(&in, "one", "beta_rtn") == number_of(&in, "figures", "beta_rtn"));
    process_check_error(process_call(PROGRAM, "merge", a, a, "--out", files_path(in.folder, "c")), 1, "sample 0 is in");
    process_check_error(process_call(PROGRAM, "merge", in.model, "--out", files_path(in.folder, "d")), 1, "records");
    free(a);
    free(b);
    free(all);
    inputs_close(&in);
}

// Squared norms of disjoint sets of layers add up, and their samples are not mixed.
static void layers_that_count_are_chosen(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run_spectrum(&in, "all", MORE("--samples=64")));
    check_done(run_spectrum(&in, "some", MORE("--samples=64", "--layers=0,2-3")));
    check_done(run_spectrum(&in, "rest", MORE("--samples=64", "--layers=1", "--first-sample=0")));
    double all = number_of(&in, "all", "norm2_mean"), some = number_of(&in, "some", "norm2_mean");
    assert_true(some > 0 && some < all);
    check_near(some + number_of(&in, "rest", "norm2_mean"), all, 1e-9, 0);
    char *a = mem_format("%s/some", in.folder), *b = mem_format("%s/rest", in.folder);
    process_check_error(process_call(PROGRAM, "merge", a, b, "--out", files_path(in.folder, "mixed")), 1, "weights");
    process_check_error(run_spectrum(&in, "none", MORE("--samples=64", "--layers=0,9")), 1, "no layer 9");
    free(a);
    free(b);
    inputs_close(&in);
}

// The sum of the eigenvalues is the mean squared length of the sketches, whose relative error is at most sqrt(2 / (k J)) where
// all samples point one way; the exact ones add up to the mean squared norm.
static void eigenvalues_add_up_to_the_mean_squared_norm(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run_spectrum(&in, "run", MORE("--samples=64", "--exact")));
    double want = number_of(&in, "run", "norm2_mean");
    static const struct {
        const char *name;
        double tolerance;
    } cases[] = {{"eigenvalues.npy", 0.4}, {"eigenvalues_exact.npy", 1e-5}};
    for (int c = 0; c < 2; c++) {
        size_t n;
        char *bytes = file_of(&in, "run", cases[c].name, &n);
        const double *values = (const double *)(const void *)(bytes + n - 64 * sizeof(double));
        double sum = 0;
        for (int i = 0; i < 64; i++) sum += values[i];
        for (int i = 1; i < 64; i++) assert_true(values[i] <= values[i - 1]);
        check_near(sum, want, cases[c].tolerance, 0);
        free(bytes);
    }
    inputs_close(&in);
}

static void stores_of_other_models_and_unfinished_ones_are_refused(void **state) {
    (void)state;
    struct inputs in;
    char *model = NULL;
    inputs_open(&in);
    run_and_kill(&in, "killed", MORE("--samples=1400", "--checkpoint-every=16"));
    const char *killed = files_path(in.folder, "killed");
    process_check_error(process_call(PROGRAM, "spectrum", "--store", killed, "--out", files_path(in.folder, "figures")),
                        1, "of 1400 samples: finish that run with --resume");
    model = mem_format("%s/rtn", in.folder);
    check_done(process_call("discquant/discquant", "--method", "rtn", "--bits", "4", "--model", in.model,
                            "--calibration", in.text, "--validation", in.text, "--seq-len", "16",
                            "--validation-samples", "2", "--quiet", "--out", model));
    char *rounded = mem_format("%s/model", model), *named = mem_format("other=%s/model", model);
    snprintf(in.model, sizeof in.model, "%s", rounded);
    process_check_error(run_spectrum(&in, "killed", MORE("--samples=1400", "--checkpoint-every=16", "--resume")), 1,
                        "model");
    // The rounded model is its own direction's end: no direction.
    process_check_error(run_spectrum(&in, "same", MORE("--samples=64", "--quantized", named)), 1, "the model itself");
    free(model);
    free(rounded);
    free(named);
    inputs_close(&in);
}

static void samples_that_say_nothing_are_refused(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    process_check_error(run_spectrum(&in, "few", MORE("--samples=30")), 1, "30 samples are too few");
    char *few = mem_format("%s/few/result.json", in.folder);
    assert_int_not_equal(access(few, F_OK), 0);
    free(few);
    process_check_error(run_spectrum(&in, "many", MORE("--samples=100000")), 1, "are needed: take fewer --samples");
    // Four words repeated: every window begins at the same one of them.
    FILE *file = fopen(in.text, "w");
    assert_non_null(file);
    for (int i = 0; i < 4000; i++) fputs("the cat saw a ", file);
    assert_int_equal(fclose(file), 0);
    process_check_error(run_spectrum(&in, "constant", MORE("--samples=64")), 1, "gradients");
    inputs_close(&in);
}

// A folder written by the program discquant has the direction that is made here.
static void directions_of_folders_are_those_of_their_roundings(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char *rtn = mem_format("%s/rtn", in.folder), *named = mem_format("folder=%s/model", rtn);
    check_done(process_call("discquant/discquant", "--method", "rtn", "--bits", "4", "--group-size", "32", "--model",
                            in.model, "--calibration", in.text, "--validation", in.text, "--seq-len", "16",
                            "--validation-samples", "2", "--quiet", "--out", rtn));
    check_done(run_spectrum(&in, "run", MORE("--samples=64", "--quantized", named)));
    static const char *const figures[] = {"distance2", "rms_product", "beta"};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        char *here = mem_format("%s_rtn", figures[i]), *there = mem_format("%s_folder", figures[i]);
        assert_true(number_of(&in, "run", here) > 0);
        assert_true(number_of(&in, "run", here) == number_of(&in, "run", there));
        free(here);
        free(there);
    }
    free(rtn);
    free(named);
    inputs_close(&in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines_end_with_status_2),
        cmocka_unit_test(killed_runs_resume_to_the_same_bits_with_any_threads),
        cmocka_unit_test(shards_are_merged_to_the_bits_and_figures_of_one_run),
        cmocka_unit_test(layers_that_count_are_chosen),
        cmocka_unit_test(eigenvalues_add_up_to_the_mean_squared_norm),
        cmocka_unit_test(stores_of_other_models_and_unfinished_ones_are_refused),
        cmocka_unit_test(samples_that_say_nothing_are_refused),
        cmocka_unit_test(directions_of_folders_are_those_of_their_roundings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
