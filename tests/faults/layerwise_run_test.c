// Runs of the methods that go layer by layer, killed, resumed, and on input that does not do.
#include "tests/files.h"

#include "core/base/rng.h"
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

static void arguments(const struct inputs *in, const char *name, const char *method, const char *more,
                      const char *args[40]) {
    const char *fixed[] = {"--model",
                           in->model,
                           "--calibration",
                           in->train,
                           "--validation",
                           in->valid,
                           "--method",
                           method,
                           "--bits",
                           "3",
                           "--seq-len",
                           "64",
                           "--samples",
                           "40",
                           "--validation-samples",
                           "2",
                           "--adaround-steps",
                           "30",
                           "--signround-steps",
                           "6",
                           "--checkpoint-layers",
                           "1",
                           "--quiet",
                           "--out",
                           files_path(in->folder, name),
                           more};
    int n = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) args[n++] = fixed[i];
    args[n] = NULL;
}

static struct process run(const struct inputs *in, const char *name, const char *method, const char *more) {
    const char *args[40];
    arguments(in, name, method, more, args);
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

static json_t *result_of(const struct inputs *in, const char *run_name) {
    char *path = mem_format("%s/%s/result.json", in->folder, run_name);
    json_t *result = NULL;
    check_ok(json_read_file(path, &result));
    free(path);
    return result;
}

// Without the times at the ends of lines.
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
    static const char *const keys[] = {"kl", "output_error", "dead_inputs", "fallbacks", "perplexity"};
    size_t n_a, n_b;
    char *model_a = file_of(in, a, "model/model.safetensors", &n_a),
         *model_b = file_of(in, b, "model/model.safetensors", &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(model_a, model_b, n_a);
    char *metrics_a = metrics_of(in, a), *metrics_b = metrics_of(in, b);
    assert_string_equal(metrics_a, metrics_b);
    json_t *result_a = result_of(in, a), *result_b = result_of(in, b);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_true(json_number_value(json_object_get(result_a, keys[i])) ==
                    json_number_value(json_object_get(result_b, keys[i])));
    json_t *layers_a = json_object_get(result_a, "fallback_layers"),
           *layers_b = json_object_get(result_b, "fallback_layers");
    if (layers_a || layers_b) assert_string_equal(json_string_value(layers_a), json_string_value(layers_b));
    json_decref(result_a);
    json_decref(result_b);
    free(metrics_a);
    free(metrics_b);
    free(model_a);
    free(model_b);
}

// Killed once at its first state, with what it had written by then.
static void a_killed_run_resumes_to_the_same_bits(void **state) {
    (void)state;
    static const char *const methods[] = {"gptq", "adaround", "signround"};
    struct inputs in;
    inputs_open(&in);
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        char *whole = mem_format("whole-%s", methods[m]), *killed = mem_format("killed-%s", methods[m]);
        char *checkpoint = mem_format("%s/%s/checkpoint", in.folder, killed);
        const char *args[40];
        const char *more = m == 0 ? "--damping=0" : "--threads=1"; // and other numbers of threads
        check_done(run(&in, whole, methods[m], more));
        arguments(&in, killed, methods[m], more, args);
        process_kill_at(PROGRAM, checkpoint, args);
        int n = 0;
        arguments(&in, killed, methods[m], m == 0 ? "--damping=0" : "--threads=3", args);
        while (args[n]) n++;
        args[n++] = "--resume";
        args[n] = NULL;
        check_done(process_run(PROGRAM, NULL, args));
        check_same_run(&in, whole, killed);
        free(whole);
        free(killed);
        free(checkpoint);
    }
    files_remove(in.folder);
}

// What is saved is what was measured.
static void reading_the_saved_model_gives_the_same_measures(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    check_done(run(&in, "run", "gptq", NULL));
    char *model = mem_format("%s/run/model", in.folder);
    struct process eval = process_call("bench/discquant-bench", "eval", "--quiet", "--model", model, "--reference",
                                       in.model, "--data", in.valid, "--seq-len", "64", "--windows", "2");
    assert_int_equal(eval.code, 0);
    json_t *seen = json_loads(eval.out, 0, NULL), *result = result_of(&in, "run");
    assert_true(json_number_value(json_object_get(seen, "kl")) == json_number_value(json_object_get(result, "kl")));
    json_decref(seen);
    json_decref(result);
    process_free(&eval);
    free(model);
    files_remove(in.folder);
}

// One line that says what, where, what to do.
static void bad_input_is_refused_in_one_line(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char *text = mem_format("%s/short.txt", in.folder);
    files_put(text, "Once upon a time.", 17);
    const char *args[40];
    arguments(&in, "short", "gptq", NULL, args);
    args[3] = text;
    process_check_error(process_run(PROGRAM, NULL, args), 1, "short.txt");
    process_check_error(run(&in, "long", "gptq", "--seq-len=513"), 1, "512 positions");
    process_check_error(run(&in, "damping", "gptq", "--damping=-1"), 2, "--damping");
    process_check_error(run(&in, "order", "gptq", "--column-order=backwards"), 2, "activation|natural");
    process_check_error(run(&in, "steps", "adaround", "--adaround-steps=0"), 2, "--adaround-steps");
    check_done(run(&in, "run", "gptq", NULL));
    process_check_error(run(&in, "run", "gptq", NULL), 1, "--force");
    free(text);
    files_remove(in.folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_run_resumes_to_the_same_bits),
        cmocka_unit_test(reading_the_saved_model_gives_the_same_measures),
        cmocka_unit_test(bad_input_is_refused_in_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
