// Folders of rotated weights: the same bits when they are opened again, refusal where they could be taken for something else.
#include "tests/files.h"

#include "core/nn/evaluate.h"
#include "data/json.h"
#include "data/model.h"
#include "data/safetensors.h"

#define PROGRAM "discquant/discquant"

enum { SEQ_LEN = 32, WINDOWS = 3, TOKENS = SEQ_LEN * WINDOWS };

static char source[4096];

static struct model *opened(const char *path) {
    struct model *model = NULL;
    check_ok(model_open(path, "cpu", DTYPE_F32, NULL, &model));
    return model;
}

static float *logits_of(struct model *model) {
    int64_t vocab = model->transformer->config.vocab;
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i % SEQ_LEN ? 3 + i * 37 % 500 : 1;
    float *out = malloc((size_t)(TOKENS * vocab) * sizeof *out);
    struct value *hidden = NULL;
    step_begin(model->step, (struct step_options){.seq_len = SEQ_LEN});
    check_ok(transformer_forward(model->transformer, model->step, view_new(tokens, DTYPE_I32, TOKENS, 1), &hidden));
    check_ok(
        transformer_logits(model->transformer, model->step, hidden->data, view_new(out, DTYPE_F32, TOKENS, vocab)));
    return out;
}

// The bundled model, rotated and rounded to nearest with 3 bits, saved to FOLDER/model and FOLDER/model-hf; its logits.
static float *saved(const char *folder, enum rotation_kind kind) {
    struct model *model = opened(check_source("data/story-model", source, sizeof source));
    struct rounding *rounding = NULL;
    struct grid grid;
    float *before = logits_of(model), *after;
    check_ok(model_rotate(model, kind, 5));
    after = logits_of(model);
    check_all_near(after, before, TOKENS * model->transformer->config.vocab, 1e-5, 1e-5);
    free(before), free(after);
    check_ok(grid_block(3, -1, &grid));
    check_ok(rounding_new(model->transformer, &grid, DTYPE_F32, &rounding));
    check_ok(rounding_to_nearest(rounding));
    transformer_set_form(model->transformer, WEIGHT_ROUNDED);
    float *logits = logits_of(model);
    check_ok(model_save_rounded(model, rounding, files_path(folder, "model")));
    check_ok(model_save_unrotated(model, rounding, files_path(folder, "model-hf")));
    rounding_free(rounding);
    model_free(model);
    return logits;
}

static void saved_bits(enum rotation_kind kind) {
    char *folder = files_folder();
    float *want = saved(folder, kind);
    struct model *model = opened(files_path(folder, "model")), *plain = opened(files_path(folder, "model-hf"));
    float *got = logits_of(model), *back = logits_of(plain);
    size_t n = (size_t)(TOKENS * model->transformer->config.vocab);
    assert_memory_equal(got, want, n * sizeof *got);
    check_all_near(back, want, (int64_t)n, 1e-4, 1e-4); // 1e-7 of each weight
    assert_int_equal(model->incoherence->kind, kind);
    assert_null(plain->incoherence);
    free(want), free(got), free(back);
    model_free(plain);
    model_free(model);
    files_remove(folder);
}

static void a_saved_folder_has_the_bits_of_the_rounded_model(void **state) {
    (void)state;
    for (enum rotation_kind kind = ROTATION_HADAMARD; kind <= ROTATION_HADAMARD_IN; kind++) saved_bits(kind);
}

// What Transformers, vLLM and llama.cpp look for: a known model_type or architecture, model.safetensors or its index.
static void other_software_finds_nothing_it_knows(void **state) {
    (void)state;
    char *folder = files_folder();
    free(saved(folder, ROTATION_HADAMARD));
    json_t *config = NULL;
    check_ok(json_read_file(files_path(folder, "model/config.json"), &config));
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "rotated_llama");
    assert_string_equal(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
                        "RotatedLlamaForCausalLM");
    assert_false(files_has(folder, "model/model.safetensors"));
    assert_true(files_has(folder, "model/rotated.safetensors") && files_has(folder, "model/tokenizer.json"));
    assert_true(files_has(folder, "model-hf/model.safetensors"));
    assert_false(files_has(folder, "model-hf/rotation.safetensors"));
    json_decref(config);
    files_remove(folder);
}

// A reader that has only what data/rotation.h says: signs and factors from the files, W = S_out H_out^T W~ H_in S_in.
static void the_files_alone_give_the_unrotated_weights(void **state) {
    (void)state;
    static const char name[] = "model.layers.1.mlp.down_proj.weight";
    char *folder = files_folder();
    free(saved(folder, ROTATION_HADAMARD));
    struct safetensors *files[3];
    check_ok(safetensors_open(files_path(folder, "model/rotated.safetensors"), &files[0]));
    check_ok(safetensors_open(files_path(folder, "model/rotation.safetensors"), &files[1]));
    check_ok(safetensors_open(files_path(folder, "model-hf/model.safetensors"), &files[2]));
    const struct safetensors_tensor *w = safetensors_find(files[0], name), *plain = safetensors_find(files[2], name);
    const int8_t *in = (const int8_t *)safetensors_find(files[1], "model.layers.1.mlp.down_proj.weight.signs_in")->data;
    const int8_t *out =
        (const int8_t *)safetensors_find(files[1], "model.layers.1.mlp.down_proj.weight.signs_out")->data;
    int64_t rows = w->shape[0], cols = w->shape[1]; // powers of two: Sylvester's matrices
    float *rotated = malloc((size_t)(rows * cols) * 4), *want = malloc((size_t)(rows * cols) * 4);
    double *half = calloc((size_t)(rows * cols), sizeof *half);
    check_ok(safetensors_to_float(files[0], w, rotated));
    check_ok(safetensors_to_float(files[2], plain, want));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            for (int64_t k = 0; k < cols; k++)
                half[i * cols + j] += (double)rotated[i * cols + k] * (__builtin_parityll((uint64_t)(k & j)) ? -1 : 1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            double sum = 0;
            for (int64_t k = 0; k < rows; k++)
                sum += half[k * cols + j] * (__builtin_parityll((uint64_t)(k & i)) ? -1 : 1);
            check_near((double)want[i * cols + j], out[i] * in[j] * sum / sqrt((double)(rows * cols)), 1e-5, 1e-6);
        }
    free(rotated), free(want), free(half);
    for (int i = 0; i < 3; i++) safetensors_free(files[i]);
    files_remove(folder);
}

static void open_fails(const char *path, const char *text) {
    struct model *model = NULL;
    check_fails(model_open(path, "cpu", DTYPE_F32, NULL, &model), STATUS_FORMAT);
    if (!strstr(status_message(), text)) fail_msg("'%s' does not say '%s'", status_message(), text);
}

static void damaged_folders_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    free(saved(folder, ROTATION_HADAMARD));
    const char *path = files_path(folder, "model/rotation.safetensors");
    size_t n = 0;
    char *bytes = files_bytes(path, &n);
    bytes[n - 5] = 0; // a sign of the last tensor
    files_put(path, bytes, n);
    open_fails(files_path(folder, "model"), "signs are 1 and -1");
    assert_int_equal(unlink(path), 0);
    open_fails(files_path(folder, "model"), "is missing, and with it the rotations");
    assert_int_equal(
        rename(files_path(folder, "model/rotated.safetensors"), files_path(folder, "model/model.safetensors")), 0);
    check_fails(model_open(files_path(folder, "model"), "cpu", DTYPE_F32, NULL, &(struct model *){NULL}), STATUS_IO);
    free(bytes);
    files_remove(folder);
}

static void folders_in_other_coordinates_are_not_compared(void **state) {
    (void)state;
    char *folder = files_folder();
    free(saved(folder, ROTATION_HADAMARD));
    struct model_folder *rotated = NULL, *plain = NULL, *again = NULL;
    check_ok(model_folder_open(files_path(folder, "model"), &rotated));
    check_ok(model_folder_open(files_path(folder, "model"), &again));
    check_ok(model_folder_open(files_path(folder, "model-hf"), &plain));
    check_ok(rotation_same(rotated, again));
    check_ok(rotation_same(plain, plain));
    check_fails(rotation_same(plain, rotated), STATUS_INVALID);
    check_fails(rotation_same(rotated, plain), STATUS_INVALID);
    model_folder_free(rotated);
    model_folder_free(plain);
    model_folder_free(again);
    files_remove(folder);
}

// ---- programs

static double number_in(const char *path, const char *key) {
    json_t *json = NULL;
    check_ok(json_read_file(path, &json));
    double value = json_number_value(json_object_get(json, key));
    json_decref(json);
    return value;
}

static void run_ok(struct process p) {
    if (p.code != 0) fail_msg("exit status %d: %s", p.code, p.err);
    process_free(&p);
}

static void programs_open_rotated_folders(void **state) {
    (void)state;
    char *folder = files_folder();
    static const char text[] =
        "The old woman walks to the red house. She sees a small dog. \"Where is my bread?\" asks the dog.\n";
    const char *valid = check_source("data/story-model", source, sizeof source);
    char *long_text = mem_new(80, sizeof text);
    for (int i = 0; i < 60; i++) strcat(long_text, text);
    char *file = mem_format("%s/valid.txt", folder), *run = mem_format("%s/run", folder);
    char *model = mem_format("%s/model", run), *plain = mem_format("%s/model-hf", run),
         *eval = mem_format("%s/eval", folder);
    char *again = mem_format("%s/again", folder);
    files_put(file, long_text, strlen(long_text));
    run_ok(process_call(PROGRAM, "--model", valid, "--method", "rtn", "--bits", "3", "--incoherence", "hadamard",
                        "--validation", file, "--seq-len", "32", "--out", run, "--quiet", "--seed", "7"));
    char *result = mem_format("%s/result.json", run), *measured = mem_format("%s/result.json", eval);
    run_ok(process_call("bench/discquant-bench", "eval", "--model", model, "--reference", valid, "--data", file,
                        "--seq-len", "32", "--windows", "64", "--out", eval, "--quiet"));
    check_near(number_in(measured, "perplexity"), number_in(result, "perplexity"), 1e-6, 0);
    check_near(number_in(measured, "kl"), number_in(result, "kl"), 1e-4, 1e-6);
    run_ok(process_call("bench/discquant-bench", "eval", "--model", plain, "--data", file, "--seq-len", "32",
                        "--windows", "64", "--out", eval, "--force", "--quiet"));
    check_near(number_in(measured, "perplexity"), number_in(result, "perplexity"), 1e-4, 0);
    run_ok(process_call("data/discquant-data", "info", model));
    // A rotated folder is rounded in its coordinates and stays one.
    run_ok(process_call(PROGRAM, "--model", model, "--method", "rtn", "--bits", "8", "--validation", file, "--seq-len",
                        "32", "--out", again, "--quiet"));
    assert_true(files_has(again, "model/rotated.safetensors") && files_has(again, "model/rotation.safetensors"));
    assert_false(files_has(again, "model-hf"));
    char *other = mem_format("%s/other", folder);
    process_check_error(process_call(PROGRAM, "--model", model, "--method", "rtn", "--incoherence", "hadamard",
                                     "--validation", file, "--seq-len", "32", "--out", other, "--quiet"),
                        1, "rotated already");
    process_check_error(process_call(PROGRAM, "--model", model, "--method", "rtn", "--incoherence", "walsh",
                                     "--validation", file, "--out", other, "--quiet"),
                        2, "hadamard-in");
    process_check_error(process_call(PROGRAM, "--model", valid, "--method", "rtn", "--incoherence", "hadamard",
                                     "--export", "hf", "--validation", file, "--seq-len", "32", "--out", other,
                                     "--quiet"),
                        1, "no place for rotated weights");
    process_check_error(process_call("data/discquant-data", "export", run, "--to", "hf"), 1, "rotated weights");
    free(long_text), free(file), free(run), free(model), free(plain), free(eval), free(again), free(result),
        free(measured);
    free(other);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_saved_folder_has_the_bits_of_the_rounded_model),
        cmocka_unit_test(other_software_finds_nothing_it_knows),
        cmocka_unit_test(the_files_alone_give_the_unrotated_weights),
        cmocka_unit_test(damaged_folders_are_refused),
        cmocka_unit_test(folders_in_other_coordinates_are_not_compared),
        cmocka_unit_test(programs_open_rotated_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
