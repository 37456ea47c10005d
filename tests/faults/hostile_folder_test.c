// Broken and hostile model folders: config.json, index, weights. Every one is refused with the right status and one line
// that names the file.
#include "tests/faults/hostile.h"

#include "data/config.h"
#include "data/json.h"
#include "data/model_folder.h"

static const char llama[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":1,\"num_attention_"
    "heads\":8,"
    "\"num_key_value_heads\":4,\"vocab_size\":512,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05}";

// One key of a sound config.json replaced (value NULL: removed); `with` is merged into it first.
struct config_case {
    const char *key, *value, *says;
    enum status status;
    const char *with;
};

#define LLAMA3 "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4"
#define PHI3 "{\"model_type\":\"phi3\"}"

static const struct config_case configs[] = {
    {"model_type", NULL, "model_type", STATUS_FORMAT},
    {"model_type", "7", "model_type", STATUS_FORMAT},
    {"model_type", "\"gpt2\"", "gpt2", STATUS_UNSUPPORTED},
    {"model_type", "\"\\u001b[2J\\n\"", "?", STATUS_UNSUPPORTED},
    {"hidden_size", NULL, "hidden_size", STATUS_FORMAT},
    {"hidden_size", "null", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "\"64\"", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "64.0", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "true", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "0", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "-64", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "9223372036854775807", "hidden_size", STATUS_FORMAT},
    {"hidden_size", "68", "multiple", STATUS_FORMAT},
    {"intermediate_size", "4294967296", "intermediate_size", STATUS_FORMAT},
    {"num_hidden_layers", "1000000", "num_hidden_layers", STATUS_FORMAT},
    {"num_attention_heads", "0", "num_attention_heads", STATUS_FORMAT},
    {"num_key_value_heads", "3", "multiple", STATUS_FORMAT},
    {"num_key_value_heads", "16", "multiple", STATUS_FORMAT},
    {"num_key_value_heads", "-4", "num_key_value_heads", STATUS_FORMAT},
    {"head_dim", "7", "even", STATUS_FORMAT},
    {"head_dim", "0", "head_dim", STATUS_FORMAT},
    {"head_dim", "1024", "head_dim", STATUS_FORMAT},
    {"hidden_size", "40", "even", STATUS_FORMAT},
    {"hidden_size", "8192", "head_dim", STATUS_FORMAT},
    {"vocab_size", "1000000000", "vocab_size", STATUS_FORMAT},
    {"max_position_embeddings", "-1", "max_position_embeddings", STATUS_FORMAT},
    {"rms_norm_eps", "0", "rms_norm_eps", STATUS_FORMAT},
    {"rms_norm_eps", "-1e-5", "rms_norm_eps", STATUS_FORMAT},
    {"rms_norm_eps", "1e300", "rms_norm_eps", STATUS_FORMAT},
    {"rms_norm_eps", "\"1e-5\"", "rms_norm_eps", STATUS_FORMAT},
    {"attention_bias", "true", "attention_bias", STATUS_UNSUPPORTED},
    {"attention_bias", "0", "attention_bias", STATUS_FORMAT},
    {"mlp_bias", "true", "mlp_bias", STATUS_UNSUPPORTED},
    {"hidden_act", "\"gelu\"", "gelu", STATUS_UNSUPPORTED},
    {"tie_word_embeddings", "\"yes\"", "tie_word_embeddings", STATUS_FORMAT},
    {"quantization_config", "{\"bits\":4}", "quantized already", STATUS_UNSUPPORTED},
    {"bos_token_id", "\"<s>\"", "bos_token_id", STATUS_FORMAT},
    {"bos_token_id", "-2", "bos_token_id", STATUS_FORMAT},
    {"eos_token_id", "[1,\"x\"]", "eos_token_id", STATUS_FORMAT},
    {"eos_token_id", "{}", "eos_token_id", STATUS_FORMAT},
    {"eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "eos_token_id", STATUS_FORMAT},
    {"rope_theta", "0", "rope_theta", STATUS_FORMAT},
    {"rope_theta", "-10000.0", "rope_theta", STATUS_FORMAT},
    {"rope_theta", "[]", "rope_theta", STATUS_FORMAT},
    {"partial_rotary_factor", "0.5", "partial_rotary_factor", STATUS_UNSUPPORTED},
    {"rope_scaling", "\"linear\"", "rope_scaling", STATUS_FORMAT},
    {"rope_scaling", "{\"factor\":2}", "rope_type", STATUS_FORMAT},
    {"rope_scaling", "{\"type\":\"yarn\",\"factor\":2}", "yarn", STATUS_UNSUPPORTED},
    {"rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}", "dynamic", STATUS_UNSUPPORTED},
    {"rope_scaling", "{\"type\":\"linear\"}", "factor", STATUS_FORMAT},
    {"rope_scaling", "{\"type\":\"linear\",\"factor\":0}", "factor", STATUS_FORMAT},
    {"rope_scaling", LLAMA3 "}", "original_max_position_embeddings", STATUS_FORMAT},
    {"rope_scaling", LLAMA3 ",\"original_max_position_embeddings\":-1}", "original_max_position_embeddings",
     STATUS_FORMAT},
    {"rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,\"original_max_position_"
     "embeddings\":8192}",
     "high_freq_factor", STATUS_FORMAT},
    {"rope_scaling",
     "{\"rope_type\":\"llama3\",\"factor\":0.5,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_"
     "embeddings\":8192}",
     "factor", STATUS_FORMAT},
    {"rope_parameters", "{\"rope_theta\":1e4,\"rope_type\":\"default\"}", "both", STATUS_FORMAT,
     "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}"},
    {"rope_parameters", "{\"rope_theta\":1e4,\"rope_type\":\"default\"}", "two values", STATUS_FORMAT,
     "{\"rope_theta\":5e5}"},
    {"rope_parameters", "{\"rope_type\":\"default\",\"partial_rotary_factor\":0.75}", "partial_rotary_factor",
     STATUS_UNSUPPORTED},
    {"rope_parameters", "{\"full_attention\":{\"rope_type\":\"default\"}}", "full_attention", STATUS_UNSUPPORTED},
    {"rope_scaling", "{\"type\":\"longrope\",\"long_factor\":[1,1,1,1]}", "short_factor", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1],\"short_factor\":[1,1,1,1]}", "long_factor",
     STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1,1]}", "short_factor",
     STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,0,1],\"short_factor\":[1,1,1,1]}", "factor 2",
     STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,\"1\",1],\"short_factor\":[1,1,1,1]}", "factor 2",
     STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1],\"attention_factor\":-1}",
     "attention_factor", STATUS_FORMAT, PHI3},
    {"original_max_position_embeddings", "1", "original_max_position_embeddings", STATUS_FORMAT,
     "{\"model_type\":\"phi3\",\"rope_scaling\":{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1]}"
     "}"},
    {"rope_scaling", "{\"type\":\"linear\",\"factor\":2}", "linear", STATUS_UNSUPPORTED, PHI3},
    {"sliding_window", "0", "sliding_window", STATUS_FORMAT, PHI3},
    {"sliding_window", "-1", "sliding_window", STATUS_FORMAT, PHI3},
    {"sliding_window", "2047.5", "sliding_window", STATUS_FORMAT, PHI3},
};

static void absurd_configurations_are_refused(void **state) {
    (void)state;
    struct transformer_config config;
    check_ok(config_read_buffer(llama, (int64_t)strlen(llama), "config.json", &config));
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        const struct config_case *c = &configs[i];
        json_t *root = json_loads(llama, 0, NULL);
        if (c->with) json_object_update_new(root, json_loads(c->with, 0, NULL));
        if (c->value)
            assert_int_equal(json_object_set_new(root, c->key, json_loads(c->value, JSON_DECODE_ANY, NULL)), 0);
        else
            json_object_del(root, c->key);
        char *text = json_dumps(root, 0), *name = mem_format("%s = %s", c->key, c->value ? c->value : "nothing");
        memset(&config, 0x55, sizeof config);
        message_check(name, config_read_buffer(text, (int64_t)strlen(text), "folder/config.json", &config), c->status,
                      "folder/config.json", c->says);
        assert_int_equal(((unsigned char *)&config)[5], 0x55); // nothing is written on failure
        json_decref(root);
        free(text);
        free(name);
    }
}

static void configurations_that_are_no_json_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "null",
                                        "{\"model_type\":\"llama\",\"model_type\":\"llama\"}",
                                        "{\"rms_norm_eps\":NaN}",
                                        "{\"hidden_size\":99999999999999999999}",
                                        "{\"rms_norm_eps\":1e999}",
                                        "{} trailing",
                                        "\xff\xfe{"};
    struct transformer_config config;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        message_check(texts[i], config_read_buffer(texts[i], (int64_t)strlen(texts[i]), "c.json", &config),
                      STATUS_FORMAT, "c.json", NULL);
    char *deep = mem_new(100001, 1);
    memset(deep, '[', 100000);
    message_check("deep", config_read_buffer(deep, 100000, "c.json", &config), STATUS_FORMAT, "c.json", NULL);
    free(deep);
}

// A folder with a sound config.json and, in one or two shards, tensors a and b [4].
static void folder_fill(const char *folder, const char *index) {
    static const struct file_case a = {"", "{\"a\":" T4("[0,16]") "}", 16}, b = {"", "{\"b\":" T4("[0,16]") "}", 16};
    files_put(files_path(folder, "config.json"), llama, strlen(llama));
    case_write(files_path(folder, "1.safetensors"), &a);
    case_write(files_path(folder, "2.safetensors"), &b);
    files_put(files_path(folder, "model.safetensors.index.json"), index, strlen(index));
}

#define MAP(map) "{\"metadata\":{\"total_size\":32},\"weight_map\":" map "}"

static void broken_indices_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *index, *says;
        enum status status;
    } cases[] = {
        {"", "JSON", STATUS_FORMAT},
        {"[]", "weight_map", STATUS_FORMAT},
        {"{}", "weight_map", STATUS_FORMAT},
        {MAP("[]"), "weight_map", STATUS_FORMAT},
        {MAP("{}"), "empty", STATUS_FORMAT},
        {MAP("{\"a\":1}"), "file name", STATUS_FORMAT},
        {MAP("{\"a\":\"\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"../1.safetensors\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"x/../1.safetensors\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"/etc/passwd\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"/etc/x.safetensors\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"..\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"config.json\"}"), "plain", STATUS_FORMAT},
        {MAP("{\"a\":\"3.safetensors\"}"), "No such file", STATUS_IO},
        {MAP("{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}"), "'b' is not in", STATUS_FORMAT},
        {MAP("{\"b\":\"1.safetensors\"}"), "'b' is not in", STATUS_FORMAT},
        {MAP("{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}"), "duplicate", STATUS_FORMAT},
    };
    char *folder = files_folder();
    struct model_folder *model = NULL;
    folder_fill(folder, MAP("{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}"));
    check_ok(model_folder_open(folder, &model));
    model_folder_free(model);
    model = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_fill(folder, cases[i].index);
        message_check(cases[i].index, model_folder_open(folder, &model), cases[i].status, folder, cases[i].says);
    }
    static const struct file_case both = {"", "{\"a\":" T4("[0,16]") ",\"b\":" T4("[16,32]") "}", 32};
    folder_fill(folder, MAP("{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}"));
    case_write(files_path(folder, "1.safetensors"), &both);
    message_check("b twice", model_folder_open(folder, &model), STATUS_FORMAT, folder, "'b' is in");
    folder_fill(folder, MAP("{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}"));
    case_write(files_path(folder, "model.safetensors"), &both);
    message_check("index and model.safetensors", model_folder_open(folder, &model), STATUS_FORMAT, folder, "both");
    assert_null(model);
    files_remove(folder);
}

static void broken_folders_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct model_folder *model = NULL;
    static const struct file_case cut = {"", "{\"a\":" T4("[0,16]") "}", 15};
    message_check("no folder", model_folder_open(files_path(folder, "x"), &model), STATUS_IO, "/x", "no such folder");
    message_check("empty folder", model_folder_open(folder, &model), STATUS_FORMAT, folder, "config.json");
    files_put(files_path(folder, "config.json"), llama, strlen(llama));
    message_check("file for a folder", model_folder_open(files_path(folder, "config.json"), &model), STATUS_IO,
                  "config.json", "no such folder");
    message_check("no weights", model_folder_open(folder, &model), STATUS_IO, "model.safetensors", "No such file");
    case_write(files_path(folder, "model.safetensors"), &cut);
    message_check("cut weights", model_folder_open(folder, &model), STATUS_FORMAT, "model.safetensors", "cut off");
    remove(files_path(folder, "model.safetensors"));
    assert_int_equal(mkdir(files_path(folder, "model.safetensors"), 0700), 0);
    message_check("folder for weights", model_folder_open(folder, &model), STATUS_IO, "model.safetensors", "folder");
    remove(files_path(folder, "config.json"));
    assert_int_equal(mkfifo(files_path(folder, "config.json"), 0600), 0);
    message_check("pipe for config.json", model_folder_open(folder, &model), STATUS_IO, "config.json", "regular");
    assert_null(model);
    files_remove(folder);
}

static void bad_tensors_are_refused_when_read(void **state) {
    (void)state;
    char *folder = files_folder();
    struct model_folder *model = NULL;
    static const char header[] =
        "{\"nan\":" T4("[0,16]") ",\"inf\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[16,24]},"
                                 "\"large\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[24,32]},"
                                 "\"int\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[32,36]},"
                                 "\"cube\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[36,40]}}";
    enum { N = sizeof header - 1 };
    unsigned char file[8 + N + 40] = {N & 255, N >> 8};
    memcpy(file + 8, header, N);
    float nan_value = NAN;
    double large = 1e300;
    memcpy(file + 8 + N + 8, &nan_value, 4);
    memcpy(file + 8 + N + 20, "\x80\xff", 2); // -infinity
    memcpy(file + 8 + N + 24, &large, 8);
    files_put(files_path(folder, "config.json"), llama, strlen(llama));
    files_put(files_path(folder, "model.safetensors"), file, sizeof file);
    check_ok(model_folder_open(folder, &model));
    struct tensor_source source = model_folder_source(model);
    static const struct {
        const char *name, *says;
        int64_t rows, cols;
        enum status status;
    } cases[] = {
        {"nan", "'nan' holds nan at element 2", 1, 4, STATUS_FORMAT},
        {"inf", "-inf at element 2", 2, 2, STATUS_FORMAT},
        {"large", "inf at element 0", 1, 1, STATUS_FORMAT},
        {"int", "I32", 1, 1, STATUS_UNSUPPORTED},
        {"cube", "shape [1, 1, 1], must be [1]", 1, 1, STATUS_FORMAT},
        {"inf", "shape [2, 2], must be [5]", 1, 5, STATUS_FORMAT},
        {"inf", "shape [2, 2], must be [4, 1]", 4, 1, STATUS_FORMAT},
        {"nan", "shape [4], must be [4, 1]", 4, 1, STATUS_FORMAT},
        {"absent\x1b[2J", "'absent?[2J' is missing", 1, 4, STATUS_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float out[8];
        message_check(cases[i].name, source.read(source.self, cases[i].name, cases[i].rows, cases[i].cols, out, NULL),
                      cases[i].status, folder, cases[i].says);
    }
    model_folder_free(model);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_configurations_are_refused),
        cmocka_unit_test(configurations_that_are_no_json_are_refused),
        cmocka_unit_test(broken_indices_are_refused),
        cmocka_unit_test(broken_folders_are_refused),
        cmocka_unit_test(bad_tensors_are_refused_when_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
