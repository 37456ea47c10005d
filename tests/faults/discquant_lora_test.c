// Runs of the program discquant with --lora-rank: killed and resumed, what they save, command lines that are refused.
#include "tests/files.h"

#include "data/json.h"

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

// A small run into FOLDER/name, then the options of `more` up to NULL.
static void arguments(const struct inputs *in, const char *name, const char *const *more, const char *args[48]) {
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
                           "4",
                           "--samples",
                           "7",
                           "--lora-steps",
                           "10",
                           "--lora-rank",
                           "3",
                           "--lora-lr",
                           "0.005",
                           "--quiet",
                           "--checkpoint-every=2",
                           "--report-every=4",
                           "--validation-samples=2",
                           "--threads=2",
                           "--out",
                           files_path(in->folder, name)};
    int n = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) args[n++] = fixed[i];
    for (; *more; more++) args[n++] = *more;
    args[n] = NULL;
}

#define MORE(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static struct process run(const struct inputs *in, const char *name, const char *const *more) {
    const char *args[48];
    arguments(in, name, more, args);
    return process_run(PROGRAM, NULL, args);
}

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

static json_t *result_of(const struct inputs *in, const char *run_name) {
    char *path = mem_format("%s/%s/result.json", in->folder, run_name);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    free(path);
    return result;
}

static double number(json_t *result, const char *key) {
    json_t *value = json_object_get(result, key);
    if (!json_is_number(value)) fail_msg("result.json has no number %s", key);
    return json_number_value(value);
}

static void check_same_file(const struct inputs *in, const char *a, const char *b, const char *name) {
    size_t n_a, n_b;
    char *path_a = mem_format("%s/%s/%s", in->folder, a, name), *path_b = mem_format("%s/%s/%s", in->folder, b, name);
    char *bytes_a = files_bytes(path_a, &n_a), *bytes_b = files_bytes(path_b, &n_b);
    assert_non_null(bytes_a);
    assert_non_null(bytes_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
    free(path_a);
    free(path_b);
}

// All of result.json but what the clock and the machine say.
static void check_same_result(const struct inputs *in, const char *a, const char *b) {
    static const char *const measured[] = {"seconds", "tokens_per_second", "peak_memory_bytes"};
    json_t *of_a = result_of(in, a), *of_b = result_of(in, b);
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++) {
        json_object_del(of_a, measured[i]);
        json_object_del(of_b, measured[i]);
    }
    assert_true(json_object_size(of_a) > 20);
    assert_true(json_equal(of_a, of_b));
    json_decref(of_a);
    json_decref(of_b);
}

static int64_t lines_of(const struct inputs *in, const char *run_name) {
    char *path = mem_format("%s/%s/metrics.jsonl", in->folder, run_name), *text = files_bytes(path, NULL);
    int64_t n = 0;
    for (const char *at = text; *at; at++) n += *at == '\n';
    free(text);
    free(path);
    return n;
}

// Round-to-nearest leaves no state of its own: the first one is of the adapters. The others, GPTQ with latent weights, are killed when the
// rounded model is there, which may be before or behind the first state of the adapters.
static void a_run_killed_among_the_adapters_ends_with_the_same_bits(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    static const char *const methods[] = {"rtn", "discquant", "gptq"}, *const marks[] = {"checkpoint", "model",
                                                                                         "model"};
    for (int k = 0; k < 3; k++) {
        const char *args[48];
        char *mark = mem_format("%s/killed-%s/%s", in.folder, methods[k], marks[k]);
        char *whole = mem_format("whole-%s", methods[k]), *killed = mem_format("killed-%s", methods[k]);
        check_done(run(&in, whole, MORE("--method", methods[k])));
        arguments(&in, killed, MORE("--method", methods[k]), args);
        process_kill_at(PROGRAM, mark, args);
        check_done(run(&in, killed, MORE("--method", methods[k], "--resume")));
        check_same_file(&in, whole, killed, "model/model.safetensors");
        check_same_file(&in, whole, killed, "adapter/adapter_model.safetensors");
        check_same_result(&in, whole, killed);
        assert_int_equal(lines_of(&in, whole), lines_of(&in, killed));
        free(mark);
        free(whole);
        free(killed);
    }
    files_remove(in.folder);
}

static json_t *eval(const struct inputs *in, const char *model, const char *adapter) {
    struct process eval =
        process_call("bench/discquant-bench", "eval", "--quiet", "--model", model, "--reference", in->model, "--data",
                     in->valid, "--seq-len", "64", "--windows", "2", adapter ? "--adapter" : NULL, adapter);
    if (eval.code != 0) fail_msg("%s", eval.err);
    json_t *seen = json_loads(eval.out, 0, NULL);
    assert_non_null(seen);
    process_free(&eval);
    return seen;
}

static void what_is_saved_gives_the_measures_of_the_run(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", MORE("--lora-merge", "--method=rtn")));
    json_t *result = result_of(&in, "run");
    char *model = mem_format("%s/run/model", in.folder), *adapter = mem_format("%s/run/adapter", in.folder);
    char *merged = mem_format("%s/run/merged", in.folder);
    json_t *bare = eval(&in, model, NULL), *with = eval(&in, model, adapter), *one = eval(&in, merged, NULL);
    assert_true(number(result, "kl_lora") < number(result, "kl"));
    assert_true(number(bare, "kl") == number(result, "kl"));
    assert_true(number(with, "kl") == number(result, "kl_lora"));
    assert_true(number(with, "perplexity") == number(result, "perplexity_lora"));
    check_near(number(one, "kl"), number(result, "kl_lora"), 1e-5, 0);
    check_near(number(one, "perplexity"), number(result, "perplexity_lora"), 1e-6, 0);
    json_t *seen[] = {result, bare, with, one};
    for (int i = 0; i < 4; i++) json_decref(seen[i]);
    free(model);
    free(adapter);
    free(merged);
    files_remove(in.folder);
}

// An adapter is on the layer's function, so it goes with the rotated folder, with the plain one and into the merged one alike.
static void rotated_weights_take_adapters_too(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", MORE("--lora-merge", "--method=rtn", "--incoherence=hadamard-blocks")));
    json_t *result = result_of(&in, "run");
    static const char *const folders[] = {"model", "model-hf", "merged"};
    char *adapter = mem_format("%s/run/adapter", in.folder);
    assert_true(number(result, "kl_lora") < number(result, "kl"));
    for (int k = 0; k < 3; k++) {
        char *model = mem_format("%s/run/%s", in.folder, folders[k]);
        json_t *seen = eval(&in, model, k < 2 ? adapter : NULL);
        check_near(number(seen, "kl"), number(result, "kl_lora"), 1e-4, 0);
        json_decref(seen);
        free(model);
    }
    process_check_error(
        run(&in, "again", MORE("--lora-merge", "--method=rtn", "--model", files_path(in.folder, "run/model"))), 1,
        "--lora-merge");
    json_decref(result);
    free(adapter);
    files_remove(in.folder);
}

static void command_lines_without_sense_are_refused(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    process_check_error(run(&in, "run", MORE("--lora-rank=0")), 2, "--lora-rank");
    process_check_error(run(&in, "run", MORE("--lora-rank=-3")), 2, "--lora-rank");
    process_check_error(run(&in, "run", MORE("--lora-alpha=0")), 2, "--lora-alpha");
    process_check_error(run(&in, "run", MORE("--lora-steps=0")), 2, "--lora-steps");
    process_check_error(run(&in, "run", MORE("--lora-targets=q_proj,w_proj")), 1, "w_proj");
    process_check_error(process_call(PROGRAM, "--model", in.model, "--validation", in.valid, "--method=rtn", "--out",
                                     files_path(in.folder, "run"), "--lora-steps", "5"),
                        2, "--lora-rank");
    process_check_error(process_call(PROGRAM, "--model", in.model, "--validation", in.valid, "--method=rtn", "--out",
                                     files_path(in.folder, "run"), "--lora-rank", "5"),
                        2, "--calibration");
    assert_false(files_has(in.folder, "run"));
    process_check_error(
        process_call("bench/discquant-bench", "eval", "--model", in.model, "--data", in.valid, "--adapter", in.folder),
        1, "adapter_config.json");
    files_remove(in.folder);
}

static void other_adapters_are_not_resumed(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    const char *args[48];
    char *mark = mem_format("%s/run/checkpoint", in.folder);
    arguments(&in, "run", MORE("--method=rtn"), args);
    process_kill_at(PROGRAM, mark, args);
    process_check_error(run(&in, "run", MORE("--method=rtn", "--resume", "--lora-targets=q_proj")), 1, "lora_targets");
    process_check_error(run(&in, "run", MORE("--method=rtn", "--resume", "--lora-rank=4")), 1, "lora_rank");
    free(mark);
    files_remove(in.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_killed_among_the_adapters_ends_with_the_same_bits),
        cmocka_unit_test(what_is_saved_gives_the_measures_of_the_run),
        cmocka_unit_test(rotated_weights_take_adapters_too),
        cmocka_unit_test(command_lines_without_sense_are_refused),
        cmocka_unit_test(other_adapters_are_not_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
