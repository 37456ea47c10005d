// --grid and --scale-search of the programs that round: every grid from the command line to the saved model and back.
#include "tests/files.h"

#include "data/json.h"
#include "data/model_folder.h"

#define DISCQUANT "discquant/discquant"
#define WALK "walk/discquant-walk"

static const struct {
    const char *name;
    int bits, group, levels; // group -1: the whole row
    double bits_per_weight;  // of rows of 256
} grids[] = {
    {"block", 4, -1, 16, 4.0625}, {"asymmetric", 4, -1, 16, 4.078125}, {"nf4", 4, 64, 16, 4.25},
    {"mxfp4", 4, 32, 15, 4.25},   {"nvfp4", 4, 16, 15, 4.5},           {"q4_0", 4, 32, 16, 4.5},
    {"q4_1", 4, 32, 16, 5},       {"q8_0", 8, 32, 256, 8.5},           {"q3_k", 3, 16, 8, 3.4375},
};
enum { GRIDS = sizeof grids / sizeof *grids };

struct inputs {
    char *folder, *model, *text;
};

static void check_done(struct process process) {
    if (process.code != 0) fail_msg("exit status %d: %s", process.code, process.err);
    process_free(&process);
}

// A model of 256 inputs everywhere, trained a little on the synthetic language.
static void inputs_open(struct inputs *in) {
    in->folder = files_folder();
    in->text = mem_string(files_path(in->folder, "text.jsonl"));
    in->model = mem_format("%s/trained/model", in->folder);
    check_done(process_call("data/discquant-data", "corpus", "--documents", "60", "--quiet", "--out", in->text));
    check_done(process_call("data/discquant-data", "pretrain", "--corpus", in->text, "--validation", in->text,
                            "--hidden", "256", "--intermediate", "256", "--layers", "1", "--vocab-size", "300",
                            "--seq-len", "32", "--steps", "30", "--warmup", "5", "--batch-size", "4", "--report-every",
                            "0", "--quiet", "--out", files_path(in->folder, "trained")));
}

static void inputs_close(struct inputs *in) {
    files_remove(in->folder);
    free(in->text);
    free(in->model);
}

static json_t *json_of(const char *folder, const char *run, const char *name) {
    char *path = mem_format("%s/%s/%s", folder, run, name);
    json_t *json = NULL;
    check_ok(json_read_file(path, &json));
    free(path);
    return json;
}

static double number(const json_t *json, const char *key) {
    const json_t *value = json_object_get(json, key);
    if (!json_is_number(value)) fail_msg("no number %s", key);
    return json_number_value(value);
}

static void check_text(const json_t *json, const char *key, const char *want) {
    const char *text = json_string_value(json_object_get(json, key));
    assert_non_null(text);
    assert_string_equal(text, want);
}

// No group of the saved model holds more values than the grid has levels.
static void check_few_values(const struct inputs *in, const char *run, int group, int levels) {
    char *path = mem_format("%s/%s/model", in->folder, run);
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(path, &folder));
    struct tensor_source source = model_folder_source(folder);
    static float w[256 * 256];
    static const char *const names[] = {"model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.mlp.down_proj.weight"};
    for (int k = 0; k < 2; k++) {
        check_ok(source.read(source.self, names[k], 256, 256, w, NULL));
        for (int first = 0; first < 256 * 256; first += group) {
            float seen[256];
            int n = 0;
            for (int i = 0; i < group; i++) {
                int j = 0;
                while (j < n && seen[j] != w[first + i]) j++;
                if (j == n) seen[n++] = w[first + i];
            }
            assert_true(n <= levels);
        }
    }
    model_folder_free(folder);
    free(path);
}

static void check_reads_back(const struct inputs *in, const char *run, double kl) {
    char *model = mem_format("%s/%s/model", in->folder, run);
    struct process eval = process_call("bench/discquant-bench", "eval", "--quiet", "--model", model, "--reference",
                                       in->model, "--data", in->text, "--seq-len", "32", "--windows", "8");
    assert_int_equal(eval.code, 0);
    json_t *seen = json_loads(eval.out, 0, NULL);
    assert_true(number(seen, "kl") == kl);
    json_decref(seen);
    process_free(&eval);
    free(model);
}

static void check_run(const struct inputs *in, const char *run, int k) {
    json_t *result = json_of(in->folder, run, "result.json"), *about = json_of(in->folder, run, "run.json");
    const json_t *settings = json_object_get(about, "settings") ? json_object_get(about, "settings") : about;
    check_text(result, "grid", grids[k].name);
    check_text(settings, "grid", grids[k].name);
    check_text(result, "scale_search", "none");
    assert_int_equal((int)number(result, "bits"), grids[k].bits);
    assert_int_equal((int)number(result, "group_size"), grids[k].group);
    check_near(number(result, "bits_per_weight"), grids[k].bits_per_weight, 0, 1e-3); // nvfp4: 32 bits per matrix
    check_few_values(in, run, grids[k].group < 0 ? 256 : grids[k].group, grids[k].levels);
    check_reads_back(in, run, number(result, "kl"));
    json_decref(result);
    json_decref(about);
}

// 60 steps lower the KL of rounding to nearest on every grid; 8 bits round to nearly nothing and are left out.
static void discquant_rounds_to_every_grid(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    for (int k = 0; k < GRIDS; k++) {
        const char *name = grids[k].name;
        check_done(process_call(DISCQUANT, "--model", in.model, "--calibration", in.text, "--validation", in.text,
                                "--grid", name, "--seq-len", "32", "--steps", "60", "--batch-size", "4", "--warmup",
                                "8", "--validation-samples", "8", "--report-every", "0", "--quiet", "--out",
                                files_path(in.folder, name)));
        check_run(&in, name, k);
        json_t *result = json_of(in.folder, name, "result.json");
        if (grids[k].bits < 8) assert_true(number(result, "kl") < number(result, "kl_rtn"));
        json_decref(result);
    }
    inputs_close(&in);
}

static void the_walk_rounds_to_every_grid(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    for (int k = 0; k < GRIDS; k++) {
        const char *name = grids[k].name;
        check_done(process_call(WALK, "round", "--model", in.model, "--calibration", in.text, "--validation", in.text,
                                "--grid", name, "--engine", "leap", "--seq-len", "32", "--samples", "8",
                                "--fresh-samples", "8", "--validation-samples", "8", "--quiet", "--out",
                                files_path(in.folder, name)));
        check_run(&in, name, k);
        json_t *result = json_of(in.folder, name, "result.json");
        assert_true(number(result, "qe_calibration") < 0.5 * number(result, "qe_calibration_random"));
        json_decref(result);
    }
    inputs_close(&in);
}

// Scales of least squared error are no worse in that; step2 is 12 times the mean of it over matrices.
static void the_search_lowers_the_squared_error(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    for (int k = 0; k < GRIDS; k++) {
        double error[2];
        for (int mse = 0; mse < 2; mse++) {
            const char *name = mse ? "mse" : "none";
            check_done(process_call(DISCQUANT, "--model", in.model, "--validation", in.text, "--method", "rtn",
                                    "--grid", grids[k].name, "--scale-search", name, "--seq-len", "32",
                                    "--validation-samples", "2", "--quiet", "--force", "--out",
                                    files_path(in.folder, name)));
            json_t *result = json_of(in.folder, name, "result.json");
            error[mse] = number(result, "delta2");
            check_text(result, "scale_search", name);
            json_decref(result);
        }
        assert_true(error[1] < error[0]);
    }
    inputs_close(&in);
}

static void a_kept_x_brings_its_grid(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char *start = mem_string(files_path(in.folder, "start"));
    check_done(process_call(DISCQUANT, "--model", in.model, "--calibration", in.text, "--validation", in.text, "--grid",
                            "q4_1", "--scale-search", "mse", "--seq-len", "32", "--steps", "10", "--batch-size", "2",
                            "--warmup", "2", "--validation-samples", "8", "--report-every", "0", "--keep-x", "--quiet",
                            "--out", start));
    check_done(process_call(WALK, "round", "--model", in.model, "--calibration", in.text, "--validation", in.text,
                            "--start", start, "--engine", "leap", "--seq-len", "32", "--samples", "8",
                            "--fresh-samples", "8", "--validation-samples", "8", "--quiet", "--out",
                            files_path(in.folder, "walk")));
    json_t *result = json_of(in.folder, "walk", "result.json");
    check_text(result, "grid", "q4_1");
    check_text(result, "scale_search", "mse");
    check_reads_back(&in, "walk", number(result, "kl"));
    json_decref(result);
    process_check_error(process_call(WALK, "round", "--model", in.model, "--calibration", in.text, "--validation",
                                     in.text, "--start", start, "--grid", "q4_1", "--out",
                                     files_path(in.folder, "other")),
                        2, "leave out --grid");
    free(start);
    inputs_close(&in);
}

static void what_a_grid_does_not_take_is_refused(void **state) {
    (void)state;
    struct inputs in;
    inputs_open(&in);
    char *out = mem_string(files_path(in.folder, "run"));
#define REFUSED(code, want, ...)                                                                                       \
    process_check_error(process_call(DISCQUANT, "--model", in.model, "--method", "rtn", "--validation", in.text,       \
                                     "--seq-len", "32", "--out", out, __VA_ARGS__),                                    \
                        code, want)
    REFUSED(2, "block|asymmetric", "--grid", "q5_0");
    REFUSED(2, "none|mse", "--scale-search", "best");
    REFUSED(2, "--bits 3: the grid q4_0 has 4 bits", "--grid", "q4_0", "--bits", "3");
    REFUSED(2, "--bits 4: the grid q3_k has 3 bits", "--bits", "4", "--grid", "q3_k");
    REFUSED(2, "--group-size 64: the grid mxfp4 has groups of 32", "--grid", "mxfp4", "--group-size", "64");
    REFUSED(2, "--group-size -1: the grid nvfp4 has groups of 16", "--grid", "nvfp4", "--group-size", "-1");
    REFUSED(2, "--bits 3: the grid nf4 has 4 bits", "--grid", "nf4", "--bits", "3");
#undef REFUSED
    char story[4096];
    process_check_error(process_call(DISCQUANT, "--model", check_source("data/story-model", story, sizeof story),
                                     "--plan", "--grid", "q3_k"),
                        1, "q_proj.weight: 128 columns are no multiple of 256, which the grid q3_k needs");
    process_check_error(process_call(WALK, "round", "--model", in.model, "--calibration", in.text, "--validation",
                                     in.text, "--grid", "q8_0", "--bits", "4", "--out", out),
                        2, "--bits 4: the grid q8_0 has 8 bits");
    assert_false(files_has(in.folder, "run"));
    free(out);
    inputs_close(&in);
}

static void the_plan_counts_offsets(void **state) {
    (void)state;
    char story[4096];
    check_source("data/story-model", story, sizeof story);
    struct process q4_0 =
        process_call(DISCQUANT, "--model", story, "--plan", "--grid", "q4_0", "--method", "rtn", "--seq-len", "64");
    struct process q4_1 =
        process_call(DISCQUANT, "--model", story, "--plan", "--grid", "q4_1", "--method", "rtn", "--seq-len", "64");
    assert_int_equal(q4_0.code + q4_1.code, 0);
    const int64_t weights = 4 * (4 * 128 * 128 + 3 * 128 * 256);
    long long scales[2] = {0};
    assert_int_equal(sscanf(strstr(q4_0.out, "scales"), "scales %lld", &scales[0]), 1);
    assert_int_equal(sscanf(strstr(q4_1.out, "scales"), "scales %lld", &scales[1]), 1);
    assert_int_equal(scales[0], weights / 32 * 4);
    assert_int_equal(scales[1], weights / 32 * 8);
    process_free(&q4_0);
    process_free(&q4_1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(discquant_rounds_to_every_grid),       cmocka_unit_test(the_walk_rounds_to_every_grid),
        cmocka_unit_test(the_search_lowers_the_squared_error),  cmocka_unit_test(a_kept_x_brings_its_grid),
        cmocka_unit_test(what_a_grid_does_not_take_is_refused), cmocka_unit_test(the_plan_counts_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
