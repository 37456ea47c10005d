// Adapter folders that do not fit the model, are cut short, or were made to do harm: one line each, nothing attached.
#include "tests/files.h"

#include "data/adapter.h"
#include "data/model_folder.h"
#include "data/safetensors_writer.h"

struct setting {
    struct backend *backend;
    struct model_folder *folder;
    struct transformer *model;
    char *path; // of the adapter folder under attack
};

static void setting_open(struct setting *s) {
    char path[4096];
    check_ok(backend_open("cpu", &s->backend));
    check_ok(model_folder_open(check_source("tests/golden/models/llama_mha", path, sizeof path), &s->folder));
    check_ok(transformer_new(s->backend, model_folder_config(s->folder), DTYPE_F32, model_folder_source(s->folder),
                             &s->model));
    s->path = files_folder();
}

static void setting_close(struct setting *s) {
    transformer_free(s->model);
    model_folder_free(s->folder);
    backend_close(s->backend);
    files_remove(s->path);
}

static void put_config(const struct setting *s, const char *text) {
    files_put(files_path(s->path, "adapter_config.json"), text, strlen(text));
}

struct tensor {
    const char *name;
    int64_t rows, cols;
};

// Tensors full of `value`; the list ends with a tensor without name.
static void put_tensors(const struct setting *s, const struct tensor *tensors, float value) {
    struct safetensors_entry entries[8];
    int64_t shapes[8][2], n = 0;
    struct safetensors_writer *writer = NULL;
    for (; tensors[n].name; n++) {
        shapes[n][0] = tensors[n].rows, shapes[n][1] = tensors[n].cols;
        entries[n] = (struct safetensors_entry){tensors[n].name, SAFETENSORS_F32, 2, shapes[n]};
    }
    check_ok(safetensors_writer_new(files_path(s->path, "adapter_model.safetensors"), entries, n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
        for (int64_t k = 0; k < shapes[i][0] * shapes[i][1]; k++)
            check_ok(safetensors_writer_put(writer, &value, sizeof value));
    check_ok(safetensors_writer_finish(writer));
    safetensors_writer_free(writer);
}

static void check_refused(struct setting *s, enum status code, const char *word) {
    struct lora *lora = NULL;
    check_fails(adapter_open(s->path, s->model, &lora), code);
    if (!strstr(status_message(), word)) fail_msg("'%s' is not in: %s", word, status_message());
    assert_null(lora);
    for (int64_t i = 0; i < s->model->n_weights; i++) assert_null(s->model->weights[i].adapter[0]);
}

#define CONFIG "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4"
#define Q "base_model.model.model.layers.0.self_attn.q_proj"
#define A Q ".lora_A.weight"
#define B Q ".lora_B.weight"
static const struct tensor good[] = {{A, 2, 32}, {B, 32, 2}, {0}};

static void the_smallest_good_folder_is_taken(void **state) {
    (void)state;
    struct setting s;
    struct lora *lora = NULL;
    setting_open(&s);
    put_config(&s, CONFIG "}");
    put_tensors(&s, good, 0.5f);
    check_ok(adapter_open(s.path, s.model, &lora));
    assert_int_equal(lora->n_weights, 2);
    assert_int_equal(lora->parameters, 128);
    lora_free(lora);
    setting_close(&s);
}

static void configurations_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum status code;
        const char *word;
    } cases[] = {
        {"", STATUS_FORMAT, "adapter_config.json"},
        {"[]", STATUS_FORMAT, "peft_type"},
        {"{\"peft_type\": \"LORA\"", STATUS_FORMAT, "adapter_config.json"},
        {"{\"peft_type\": \"IA3\", \"r\": 2, \"lora_alpha\": 4}", STATUS_UNSUPPORTED, "IA3"},
        {"{\"peft_type\": 7, \"r\": 2, \"lora_alpha\": 4}", STATUS_FORMAT, "peft_type"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 4}", STATUS_FORMAT, "r"},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 4}", STATUS_FORMAT, "r is 0"},
        {"{\"peft_type\": \"LORA\", \"r\": -1, \"lora_alpha\": 4}", STATUS_FORMAT, "r is -1"},
        {"{\"peft_type\": \"LORA\", \"r\": 9223372036854775807, \"lora_alpha\": 4}", STATUS_FORMAT, "r is 9"},
        {"{\"peft_type\": \"LORA\", \"r\": 2.5, \"lora_alpha\": 4}", STATUS_FORMAT, "\"r\""},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": \"x\"}", STATUS_FORMAT, "lora_alpha"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1e999}", STATUS_FORMAT, "adapter_config.json"},
        {CONFIG ", \"bias\": \"all\"}", STATUS_UNSUPPORTED, "bias"},
        {CONFIG ", \"use_dora\": true}", STATUS_UNSUPPORTED, "use_dora"},
        {CONFIG ", \"modules_to_save\": [\"lm_head\"]}", STATUS_UNSUPPORTED, "modules_to_save"},
        {CONFIG ", \"rank_pattern\": {\"q_proj\": 4}}", STATUS_UNSUPPORTED, "rank_pattern"},
        {CONFIG ", \"fan_in_fan_out\": true}", STATUS_UNSUPPORTED, "fan_in_fan_out"},
        {CONFIG ", \"use_rslora\": \"yes\"}", STATUS_FORMAT, "use_rslora"},
    };
    struct setting s;
    setting_open(&s);
    put_tensors(&s, good, 0.5f);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_config(&s, cases[i].text);
        check_refused(&s, cases[i].code, cases[i].word);
    }
    setting_close(&s);
}

static void tensors_that_do_not_fit_are_refused(void **state) {
    (void)state;
    static const struct {
        struct tensor tensors[4];
        float value;
        const char *word;
    } cases[] = {
        {{{0}}, 0, "holds no adapter"},
        {{{A, 2, 32}}, 0, "lora_B.weight' is missing"},
        {{{B, 32, 2}}, 0, "lora_A.weight' is missing"},
        {{{A, 3, 32}, {B, 32, 2}}, 0, "[2, 32]"},
        {{{A, 2, 31}, {B, 32, 2}}, 0, "[2, 32]"},
        {{{A, 2, 32}, {B, 2, 32}}, 0, "[32, 2]"},
        {{{A, 0, 32}, {B, 32, 0}}, 0, "[2, 32]"},
        {{{A, 2, 32}, {B, 32, 2}, {"model.layers.0.self_attn.q_proj.weight", 32, 32}}, 0, "belongs to no matrix"},
        {{{"base_model.model.lm_head.lora_A.weight", 2, 32}}, 0, "belongs to no matrix"},
        {{{"base_model.model.model.embed_tokens.lora_A.weight", 2, 32}}, 0, "belongs to no matrix"},
        {{{"base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", 2, 32}}, 0, "layers.7"},
        {{{"base_model.model.model.layers.0.input_layernorm.lora_A.weight", 2, 32}}, 0, "input_layernorm"},
        {{{Q ".lora_C.weight", 2, 32}}, 0, "lora_C"},
        {{{"base_model.model..lora_A.weight", 2, 32}}, 0, "belongs to no matrix"},
        {{{".lora_A.weight", 2, 32}}, 0, "belongs to no matrix"},
        {{{"", 2, 32}}, 0, "belongs to no matrix"},
        {{{A, 2, 32}, {B, 32, 2}}, NAN, "must be finite"},
        {{{A, 2, 32}, {B, 32, 2}}, 3e38f, "must be finite"}, // alpha / r is 2
    };
    struct setting s;
    setting_open(&s);
    put_config(&s, CONFIG "}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_tensors(&s, cases[i].tensors, cases[i].value);
        check_refused(&s, STATUS_FORMAT, cases[i].word);
    }
    setting_close(&s);
}

static void a_file_cut_anywhere_is_refused(void **state) {
    (void)state;
    struct setting s;
    size_t n = 0;
    setting_open(&s);
    put_config(&s, CONFIG "}");
    put_tensors(&s, good, 0.5f);
    const char *path = files_path(s.path, "adapter_model.safetensors");
    char *bytes = files_bytes(path, &n);
    for (size_t k = 0; k < n; k += 1 + k / 16) {
        files_put(files_path(s.path, "adapter_model.safetensors"), bytes, k);
        check_refused(&s, STATUS_FORMAT, "adapter_model.safetensors");
    }
    free(bytes);
    setting_close(&s);
}

static void files_that_are_missing_are_named(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    check_refused(&s, STATUS_FORMAT, "adapter_config.json");
    put_config(&s, CONFIG "}");
    check_refused(&s, STATUS_IO, "adapter_model.safetensors");
    struct lora *lora = NULL;
    check_fails(adapter_open("/nowhere/adapter", s.model, &lora), STATUS_IO);
    setting_close(&s);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s);
    put_config(&s, CONFIG "}");
    put_tensors(&s, good, 0.5f);
    int64_t k = 0, before = mem_buffer_bytes();
    for (enum status status = STATUS_NO_MEMORY; status != STATUS_OK; k++) {
        struct lora *lora = NULL;
        mem_fail_at(k);
        status = adapter_open(s.path, s.model, &lora);
        mem_fail_at(-1);
        if (status != STATUS_OK) assert_int_equal(status, STATUS_NO_MEMORY);
        lora_free(lora);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(k > 3);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_good_folder_is_taken),
        cmocka_unit_test(configurations_that_do_not_fit_are_refused),
        cmocka_unit_test(tensors_that_do_not_fit_are_refused),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(files_that_are_missing_are_named),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
