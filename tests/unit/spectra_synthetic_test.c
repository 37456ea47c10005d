// The program's subcommand `synthetic`: what a run leaves, on any number of threads, by every sketch; command lines that make no
// sense.
#include "tests/files.h"

#include "data/json.h"

#define PROGRAM "spectra/discquant-spectra"

static struct process run(const char *folder, const char *name, const char *const *more) {
    const char *args[40] = {"synthetic", "--n", "2048",    "--samples", "200",
                            "--dim",     "64",  "--quiet", "--out",     files_path(folder, name)};
    int n = 10;
    while (*more) args[n++] = *more++;
    args[n] = NULL;
    return process_run(PROGRAM, NULL, args);
}

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static json_t *result_of(const char *folder, const char *name) {
    char *path = mem_format("%s/%s/result.json", folder, name);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    json_object_del(result, "seconds");
    free(path);
    return result;
}

static double number_of(const json_t *result, const char *key) {
    const json_t *value = json_object_get(result, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

static double *array_of(const char *folder, const char *name, const char *array) {
    char *path = mem_format("%s/%s/%s.npy", folder, name, array);
    size_t n;
    char *bytes = files_bytes(path, &n);
    if (!bytes) fail_msg("%s is missing", path);
    assert_int_equal(n, 128 + 64 * 8);
    double *values = calloc(64, sizeof *values);
    memcpy(values, bytes + 128, 64 * sizeof *values);
    free(bytes);
    free(path);
    return values;
}

static void a_run_gives_back_what_was_planted(void **state) {
    (void)state;
    char *folder = files_folder();
    check_done(run(folder, "one", (const char *[]){"--alpha=1.3", "--c=5", "--replicates=3", "--threads=1", NULL}));
    check_done(run(folder, "two", (const char *[]){"--alpha=1.3", "--c=5", "--replicates=3", "--threads=2", NULL}));
    json_t *one = result_of(folder, "one"), *two = result_of(folder, "two");
    assert_true(json_equal(one, two));
    check_near(number_of(one, "alpha"), 1.3, 0, 4 * number_of(one, "alpha_se"));
    check_near(number_of(one, "c"), 5, 0.5, 0);
    assert_true(number_of(one, "replicates") == 3 && number_of(one, "alpha_within") >= 1);
    assert_true(number_of(one, "naive_slope") < number_of(one, "alpha") - 0.05);
    double *truth = array_of(folder, "one", "eigenvalues_true"), *seen = array_of(folder, "one", "eigenvalues");
    double *debiased = array_of(folder, "one", "eigenvalues_debiased"),
           *expected = array_of(folder, "one", "eigenvalues_expected");
    double off_seen = 0, off_debiased = 0;
    for (int k = 9; k < 38; k++) { // ranks 10 to 38, the last of the fit
        check_near(truth[k], 5 * pow(k + 1, -1.3), 1e-12, 0);
        off_seen += fabs(log(seen[k] / truth[k])), off_debiased += fabs(log(debiased[k] / truth[k]));
        check_near(expected[k], seen[k], 0.4, 0);
    }
    assert_true(off_debiased < 0.7 * off_seen && isnan(debiased[40]));
    double *error = array_of(folder, "one", "eigenvalues_debiased_se"), z2 = 0;
    for (int k = 9; k < 38; k++) z2 += pow((debiased[k] - truth[k]) / error[k], 2) / 29;
    assert_true(z2 > 0.02 && z2 < 9); // of about one direction: neighbours move together
    free(truth), free(seen), free(debiased), free(expected), free(error);
    json_decref(one);
    json_decref(two);
    process_check_error(run(folder, "one", (const char *[]){NULL}), 1, "--force");
    files_remove(folder);
}

// Dense sketches see spectra along the axes too; 4 stated errors: false alarm below 0.1 % each.
static void every_sketch_gives_back_what_was_planted(void **state) {
    (void)state;
    static const char *const more[][5] = {
        {"--sketch=gaussian", "--basis=identity", "--spread=0.3", "--sketches=2", NULL},
        {"--sketch=rademacher", "--distribution=heavy", "--centred", "--sketches=2", NULL},
        {"--sketch=rotation", "--sketches=1", "--exact-jackknife", "--alternatives", NULL}};
    char *folder = files_folder();
    for (size_t i = 0; i < 3; i++) {
        check_done(run(folder, "run", more[i]));
        json_t *result = result_of(folder, "run");
        check_near(number_of(result, "alpha"), 1.5, 0, 4 * number_of(result, "alpha_se"));
        assert_true(number_of(result, "alpha_se") > 0.005 && number_of(result, "alpha_se") < 0.15);
        json_decref(result);
        files_remove(folder);
        folder = files_folder();
    }
    files_remove(folder);
}

static void requests_without_sense_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    process_check_error(run(folder, "a", (const char *[]){"--n=3000", NULL}), 2, "power of two");
    process_check_error(run(folder, "a", (const char *[]){"--samples=30", NULL}), 2, "--groups");
    process_check_error(run(folder, "a", (const char *[]){"--alpha=nan", NULL}), 2, "--alpha");
    process_check_error(run(folder, "a", (const char *[]){"--sketch=none", NULL}), 2, "--sketch");
    process_check_error(run(folder, "a", (const char *[]){"--dim=12", NULL}), 1, "needs at least 8");
    assert_false(files_has(folder, "a/result.json"));
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_gives_back_what_was_planted),
        cmocka_unit_test(every_sketch_gives_back_what_was_planted),
        cmocka_unit_test(requests_without_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
