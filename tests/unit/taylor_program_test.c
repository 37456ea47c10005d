// discquant-spectra taylor: command lines, run folders, resumed runs, other people's folders. The numbers themselves are tested in
// tests/property/taylor_test.c and tests/unit/agreement_test.c.
#include "tests/check.h"
#include "tests/files.h"

#include "core/base/rng.h"
#include "data/json.h"
#include "data/model_folder.h"

#define PROGRAM "spectra/discquant-spectra"

struct inputs {
    char *folder, model[4096], corpus[4096], tiny[4096];
};

static void inputs_open(struct inputs *in) {
    in->folder = files_folder();
    check_source("data/story-model", in->model, sizeof in->model);
    snprintf(in->corpus, sizeof in->corpus, "%s/story.jsonl", in->folder);
    snprintf(in->tiny, sizeof in->tiny, "%s/tiny.txt", in->folder);
    struct process process = process_call("data/discquant-data", "corpus", "--documents", "40", "--split", "test",
                                          "--out", in->corpus, "--quiet");
    assert_int_equal(process.code, 0);
    process_free(&process);
    files_put(in->tiny, "Tom went home.", 14);
}

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static json_t *result_of(const char *folder, const char *run) {
    char *path = mem_format("%s/%s/result.json", folder, run);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    json_object_del(result, "seconds");
    free(path);
    return result;
}

static double number_of(const char *folder, const char *run, const char *key) {
    json_t *result = result_of(folder, run), *value = json_object_get(result, key);
    if (!json_is_number(value)) fail_msg("%s: no number %s", run, key);
    double number = json_number_value(value);
    json_decref(result);
    return number;
}

static void check_same_file(const char *folder, const char *a, const char *b) {
    size_t n_a, n_b;
    char *bytes_a = files_bytes(files_path(folder, a), &n_a), *bytes_b = files_bytes(files_path(folder, b), &n_b);
    assert_non_null(bytes_a);
    assert_non_null(bytes_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
}

static void check_same_run(const char *folder, const char *a, const char *b) {
    json_t *result_a = result_of(folder, a), *result_b = result_of(folder, b);
    assert_true(json_equal(result_a, result_b));
    json_decref(result_a);
    json_decref(result_b);
    static const char *const names[] = {"delta_rtn.npy", "first_order_rtn.npy", "order_rtn.npy", "loss.npy",
                                        "metrics.jsonl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *x = mem_format("%s/%s", a, names[i]), *y = mem_format("%s/%s", b, names[i]);
        check_same_file(folder, x, y);
        free(x);
        free(y);
    }
}

// A copy of the model with other numbers in its matrices.
enum change { CHANGE_NOISE, CHANGE_HUGE };

static bool is_matrix(void *self, const char *name) {
    (void)self;
    return strstr(name, "proj.weight");
}

static enum status change_matrix(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    (void)name;
    for (int64_t i = 0; i < rows * cols; i++)
        data[i] = *(enum change *)self == CHANGE_HUGE
                      ? data[i] * 1e36f
                      : (float)(0.1 * rng_normal((struct rng){.seed = 3, .stream = RNG_TEST}, (uint64_t)i));
    return STATUS_OK;
}

static void copy_model(const char *from, const char *to, enum change change) {
    struct model_folder *folder = NULL;
    struct model_folder_edit edit = {.self = &change, .selects = is_matrix, .replace = change_matrix};
    check_ok(model_folder_open(from, &folder));
    check_ok(model_folder_save(folder, to, &edit, false));
    model_folder_free(folder);
}

#define SMALL "--samples", "10", "--seq-len", "48", "--order-samples", "3", "--halvings", "6", "--quiet"

static void wrong_command_lines_end_with_status_2(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *out = files_path(folder, "run");
#define REFUSED(text, ...) process_check_error(process_call(PROGRAM, "taylor", __VA_ARGS__, "--out", out), 2, text)
    REFUSED("--model is missing", "--corpus", "x");
    REFUSED("--corpus is missing", "--model", "x");
    REFUSED("NAME=DIR", "--quantized", "folder");
    REFUSED("NAME=DIR", "--quantized", "=folder");
    REFUSED("NAME=DIR", "--quantized", "a=");
    REFUSED("letters", "--quantized", "a/b=folder");
    REFUSED("letters", "--quantized", "an_awfully_long_name_for_a_rounding=folder");
    REFUSED("--bits", "--quantized", "rtn=folder");
    REFUSED("taken", "--quantized", "a=folder", "--quantized", "a=other");
    REFUSED("--bits", "--bits", "1");
    REFUSED("--group-size", "--group-size", "0");
    REFUSED("--samples", "--samples", "1");
    REFUSED("--seq-len", "--seq-len", "1");
    REFUSED("--halvings", "--halvings", "1");
    REFUSED("--halvings", "--halvings", "32");
#undef REFUSED
    process_check_error(process_call(PROGRAM, "taylor", "--model", "m", "--corpus", "c"), 2, "--out");
    assert_false(files_has(folder, "run"));
    files_remove(folder);
}

static void bad_input_gives_one_line(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char other[4096], noise[4096], huge[4096], nan_folder[4096], weights[8192], argument[8192];
    check_source("tests/golden/models/phi3_gqa_bf16", other, sizeof other);
    snprintf(noise, sizeof noise, "%s/noise", in.folder);
    snprintf(huge, sizeof huge, "%s/huge", in.folder);
    snprintf(nan_folder, sizeof nan_folder, "%s/nan", in.folder);
    copy_model(in.model, noise, CHANGE_NOISE);
    copy_model(in.model, huge, CHANGE_HUGE);
    copy_model(in.model, nan_folder, CHANGE_NOISE);
    snprintf(weights, sizeof weights, "%s/model.safetensors", nan_folder);
    size_t n;
    char *bytes = files_bytes(weights, &n);
    uint32_t nan_bits = 0x7fc00000;
    memcpy(bytes + n - 4000, &nan_bits, 4);
    files_put(weights, bytes, n);
    free(bytes);
    int runs = 0;
#define REFUSED(text, ...)                                                                                             \
    do {                                                                                                               \
        char *out = mem_format("%s/run%d", in.folder, runs++);                                                         \
        process_check_error(process_call(PROGRAM, "taylor", SMALL, "--out", out, __VA_ARGS__), 1, text);               \
        snprintf(argument, sizeof argument, "%s/result.json", out);                                                    \
        assert_int_not_equal(access(argument, F_OK), 0);                                                               \
        free(out);                                                                                                     \
    } while (0)
#define WITH(path) (snprintf(argument, sizeof argument, "q=%s", path), argument)
    REFUSED("nowhere", "--model", in.model, "--corpus", in.corpus, "--quantized", WITH("nowhere"));
    REFUSED("shape", "--model", in.model, "--corpus", in.corpus, "--quantized", WITH(other));
    REFUSED("is no rounding of", "--model", in.model, "--corpus", in.corpus, "--quantized", WITH(noise));
    REFUSED("the model itself", "--model", in.model, "--corpus", in.corpus, "--quantized", WITH(in.model));
    REFUSED("nan", "--model", in.model, "--corpus", in.corpus, "--quantized", WITH(nan_folder));
    REFUSED("is not finite at t = 0 of the way to q", "--model", in.model, "--corpus", in.corpus, "--quantized",
            WITH(huge));
    REFUSED("nan", "--model", nan_folder, "--corpus", in.corpus);
    REFUSED("one window of 48", "--model", in.model, "--corpus", in.tiny);
    REFUSED("windows", "--model", in.model, "--corpus", in.corpus, "--samples", "100000");
    REFUSED("positions", "--model", in.model, "--corpus", in.corpus, "--seq-len", "100000", "--samples", "2");
#undef WITH
#undef REFUSED
    files_remove(in.folder);
}

// The rounding that is made here and the one that `discquant` saves and this program reads are the same to the last bit.
static void own_rounding_equals_the_saved_one(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    const char *rounded = files_path(in.folder, "rounded"), *out = files_path(in.folder, "run");
    char argument[4096];
    snprintf(argument, sizeof argument, "saved=%s/model", rounded);
    check_done(process_call("discquant/discquant", "--model", in.model, "--method", "rtn", "--bits", "3",
                            "--group-size", "32", "--validation", in.corpus, "--seq-len", "48", "--validation-samples",
                            "2", "--quiet", "--out", rounded));
    check_done(process_call(PROGRAM, "taylor", SMALL, "--model", in.model, "--corpus", in.corpus, "--bits", "3",
                            "--group-size", "32", "--quantized", argument, "--out", out));
    check_same_file(in.folder, "run/first_order_rtn.npy", "run/first_order_saved.npy");
    check_same_file(in.folder, "run/delta_rtn.npy", "run/delta_saved.npy");
    check_same_file(in.folder, "run/order_rtn.npy", "run/order_saved.npy");
    assert_true(number_of(in.folder, "run", "pearson_saved") == number_of(in.folder, "run", "pearson_rtn"));
    assert_true(number_of(in.folder, "run", "distance_saved") == number_of(in.folder, "run", "distance_rtn"));
    assert_true(number_of(in.folder, "run", "tokens") == 10 * 47);
    files_remove(in.folder);
}

static void run_and_kill(const char *folder, const char *run, const char *const *args) {
    char *checkpoint = mem_format("%s/%s/checkpoint", folder, run);
    process_kill_at(PROGRAM, checkpoint, args);
    free(checkpoint);
}

static void threads_and_interruption_do_not_change_a_bit(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char one[4096], two[4096], killed[4096];
    snprintf(one, sizeof one, "%s/one", in.folder);
    snprintf(two, sizeof two, "%s/two", in.folder);
    snprintf(killed, sizeof killed, "%s/killed", in.folder);
    check_done(process_call(PROGRAM, "taylor", SMALL, "--model", in.model, "--corpus", in.corpus, "--batch-size", "3",
                            "--threads", "1", "--out", one));
    check_done(process_call(PROGRAM, "taylor", SMALL, "--model", in.model, "--corpus", in.corpus, "--batch-size", "3",
                            "--threads", "2", "--out", two));
    const char *args[] = {
        "taylor", SMALL,   "--model", in.model, "--corpus", in.corpus, "--batch-size", "3", "--checkpoint-every",
        "3",      "--out", killed,    NULL,     NULL};
    run_and_kill(in.folder, "killed", args);
    assert_true(files_has(in.folder, "killed/checkpoint") || files_has(in.folder, "killed/result.json"));
    for (int i = 0; args[i]; i++)
        if (!args[i + 1]) {
            args[i + 1] = "--resume";
            break;
        }
    check_done(process_run(PROGRAM, NULL, args));
    assert_false(files_has(in.folder, "killed/checkpoint"));
    check_same_run(in.folder, "one", "two");
    check_same_run(in.folder, "one", "killed");
    files_remove(in.folder);
}

// The remainder falls with the square of the way; its order's error, an error of sampling, is far below the bar.
static void remainder_of_stories260k_has_order_two(void **state) {
    (void)state;
    char model[4096], corpus[4096];
    check_shared("models/stories260K", model, sizeof model);
    check_shared("data/tinystories/valid.txt", corpus, sizeof corpus);
    char *folder = files_folder();
    check_done(process_call(PROGRAM, "taylor", "--model", model, "--corpus", corpus, "--samples", "24", "--seq-len",
                            "128", "--group-size", "32", "--order-samples", "12", "--quiet", "--out",
                            files_path(folder, "run")));
    double order = number_of(folder, "run", "order_rtn"), even = number_of(folder, "run", "order_even_rtn");
    print_message("order %.4f +- %.4f, even %.4f, pearson %.3f\n", order, number_of(folder, "run", "order_se_rtn"),
                  even, number_of(folder, "run", "pearson_rtn"));
    check_near(order, 2, 0, 0.05);
    check_near(even, 2, 0, 0.05);
    assert_true(number_of(folder, "run", "order_points_rtn") >= 3);
    assert_true(number_of(folder, "run", "central_error_rtn") < 1e-3);
    assert_true(number_of(folder, "run", "pearson_ci_low_rtn") > 0.5);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_command_lines_end_with_status_2),
        cmocka_unit_test(bad_input_gives_one_line),
        cmocka_unit_test(own_rounding_equals_the_saved_one),
        cmocka_unit_test(threads_and_interruption_do_not_change_a_bit),
        cmocka_unit_test(remainder_of_stories260k_has_order_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
