// discquant --plan: the models of the paper fit where they should, the plan is what a run takes, and what cannot fit is refused.
#include "tests/files.h"

#include "core/nn/random_source.h"
#include "data/model_folder.h"
#include "discquant/method.h"
#include "discquant/plan.h"

#define PROGRAM "discquant/discquant"

static const char phi3_mini[] =
    "{\"model_type\": \"phi3\", \"hidden_size\": 3072, \"intermediate_size\": 8192, \"num_hidden_layers\": 32, "
    "\"num_attention_heads\": 32, \"num_key_value_heads\": 32, \"vocab_size\": 32064, \"max_position_embeddings\": "
    "4096, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"tie_word_embeddings\": false, \"hidden_act\": \"silu\"}";
static const char llama_8b[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": 32, "
    "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 128256, \"max_position_embeddings\": "
    "131072, \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"tie_word_embeddings\": false, \"hidden_act\": "
    "\"silu\"}";
static const double phi3_mini_parameters = 3821079552, llama_8b_parameters = 8030261248;

// A model folder with nothing but this config.json.
static char *config_folder(const char *config) {
    char *folder = files_folder();
    files_put(files_path(folder, "config.json"), config, strlen(config));
    return folder;
}

// The bytes of a row of the table.
static double row_bytes(const char *table, const char *name) {
    char *line = mem_format("\n%s ", name);
    const char *at = strstr(table, line);
    if (!at) fail_msg("no row %s in %s", name, table);
    double bytes = strtod(at + strlen(line), NULL);
    free(line);
    return bytes;
}

static char *plan_of(const char *config, const char *more, const char *value) {
    char *folder = config_folder(config);
    struct process p = process_call(PROGRAM, "--plan", "--device", "cuda", "--model", folder, "--batch-size", "8",
                                    "--seq-len", "2048", "--bits", "3", "--group-size", "128", more, value);
    assert_string_equal(p.err, "");
    assert_int_equal(p.code, 0);
    char *table = mem_string(p.out);
    process_free(&p);
    files_remove(folder);
    return table;
}

static void check_sum(const char *table) {
    static const char *const rows[] = {"weights", "scales",      "x",      "gradients",
                                       "moments", "activations", "tables", "reserve"};
    double sum = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) sum += row_bytes(table, rows[i]);
    assert_true(sum == row_bytes(table, "total"));
}

static void the_models_of_the_paper_fit_on_one_card(void **state) {
    (void)state;
    const struct {
        const char *config;
        double parameters, most;
    } models[] = {{phi3_mini, phi3_mini_parameters, 60e9}, {llama_8b, llama_8b_parameters, 110e9}};
    for (int i = 0; i < 2; i++) {
        char *table = plan_of(models[i].config, NULL, NULL);
        double weights = row_bytes(table, "weights");
        check_sum(table);
        // Two bytes each, but for the gains of norms.
        assert_true(weights >= 2 * models[i].parameters && weights < 2.001 * models[i].parameters);
        assert_true(row_bytes(table, "moments") == 2 * row_bytes(table, "x"));
        assert_true(row_bytes(table, "total") < models[i].most);
        free(table);
    }
}

static void the_plan_follows_the_options(void **state) {
    (void)state;
    char *plain = plan_of(phi3_mini, NULL, NULL), *fp32 = plan_of(phi3_mini, "--state-precision", "fp32");
    char *parts = plan_of(phi3_mini, "--micro-batch", "4"), *kept = plan_of(phi3_mini, "--keep-activations", NULL);
    assert_true(row_bytes(fp32, "x") == 2 * row_bytes(plain, "x"));
    assert_true(row_bytes(fp32, "weights") == row_bytes(plain, "weights"));
    assert_true(row_bytes(plain, "gradients") == 0 && row_bytes(parts, "gradients") == row_bytes(parts, "x"));
    assert_true(row_bytes(parts, "activations") < 0.6 * row_bytes(plain, "activations"));
    assert_true(row_bytes(kept, "activations") > 5 * row_bytes(plain, "activations"));
    free(plain);
    free(fp32);
    free(parts);
    free(kept);
}

static void what_cannot_fit_is_refused_before_anything_starts(void **state) {
    (void)state;
    static const char giant[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 65536, \"intermediate_size\": 262144, \"num_hidden_layers\": "
        "1000, \"num_attention_heads\": 512, \"num_key_value_heads\": 512, \"vocab_size\": 100000, "
        "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\"}";
    char *folder = config_folder(giant), *out = mem_format("%s/out", folder);
    process_check_error(
        process_call(PROGRAM, "--model", folder, "--calibration", "none", "--validation", "none", "--out", out), 1,
        "--plan");
    assert_int_equal(access(out, F_OK), -1);
    struct process p = process_call(PROGRAM, "--plan", "--model", folder);
    assert_int_equal(p.code, 0);
    assert_true(row_bytes(p.out, "total") > 1e15);
    process_free(&p);
    free(out);
    files_remove(folder);
}

static void a_precision_that_the_device_lacks_is_refused(void **state) {
    (void)state;
    char *folder = config_folder(phi3_mini);
    process_check_error(process_call(PROGRAM, "--plan", "--model", folder, "--precision", "bf16"), 1,
                        "--precision bf16");
    process_check_error(process_call(PROGRAM, "--plan", "--model", folder, "--state-precision", "bf16"), 1,
                        "--state-precision bf16");
    process_check_error(process_call(PROGRAM, "--model", folder, "--calibration", "a", "--validation", "b"), 2,
                        "--out is missing");
    files_remove(folder);
}

// The same network, planned and run on the CPU: buffers of the run and what the plan says of them.
static void the_plan_is_what_a_run_takes(void **state) {
    (void)state;
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 3, "
        "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 300, \"max_position_embeddings\": "
        "64, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", \"tie_word_embeddings\": false}";
    for (int micro_batch = 2; micro_batch <= 4; micro_batch += 2) {
        char *folder = config_folder(config);
        struct program_common common = {.device = "cpu"};
        struct run_settings settings = {
            .model = folder, .method = &method_discquant, .grid = {.bits = 3, .group_size = 32}};
        settings.optimizer = (struct optimizer_options){.steps = 2,
                                                        .finish.from = 2,
                                                        .batch = 4,
                                                        .micro_batch = micro_batch,
                                                        .seq_len = 32,
                                                        .lambda = 200,
                                                        .clamp = 1,
                                                        .rate = 0.1,
                                                        .strength = 1};
        struct memory_plan plan;
        check_ok(memory_plan_make(&common, &settings, &plan));
        struct random_source random = {.seed = 1, .gain = 1};
        struct transformer_config sizes;
        struct backend *backend = NULL;
        struct transformer *model = NULL;
        struct step *step = NULL;
        struct rounding *rounding = NULL;
        struct optimizer *optimizer = NULL;
        struct grid grid;
        int32_t tokens[4 * 32] = {0};
        double kl;
        check_ok(model_folder_read_config(folder, &sizes));
        check_ok(backend_open("cpu", &backend));
        check_ok(step_new(backend, &step));
        int64_t before = mem_buffer_bytes(), host = micro_batch * 32 * 8; // the losses that the optimizer reads
        check_ok(step_reserve(step, plan.activations));
        check_ok(grid_block(3, 32, &grid));
        check_ok(transformer_new(backend, &sizes, DTYPE_F32, random_source(&random), &model));
        check_ok(rounding_new(model, &grid, DTYPE_F32, &rounding));
        check_ok(rounding_to_nearest(rounding));
        check_ok(optimizer_new(rounding, step, &settings.optimizer, &optimizer));
        check_ok(optimizer_step(optimizer, tokens, &kl));
        assert_int_equal(mem_buffer_bytes() - before - host, memory_plan_total(&plan));
        optimizer_free(optimizer);
        rounding_free(rounding);
        transformer_free(model);
        step_free(step);
        backend_close(backend);
        files_remove(folder);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_models_of_the_paper_fit_on_one_card),
        cmocka_unit_test(the_plan_follows_the_options),
        cmocka_unit_test(what_cannot_fit_is_refused_before_anything_starts),
        cmocka_unit_test(a_precision_that_the_device_lacks_is_refused),
        cmocka_unit_test(the_plan_is_what_a_run_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
