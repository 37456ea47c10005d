// Broken and hostile checkpoints: every one is refused with the right status and one line that names the file, and what
// the format allows is not refused. The safetensors tables hold what the reference reader was found to reject and accept.
#include "tests/files.h"

#include "data/config.h"
#include "data/json.h"
#include "data/model_folder.h"
#include "data/safetensors.h"

struct file_case {
    const char *name;
    const char *header;   // the JSON
    int64_t n_data;       // bytes behind it, all zero
    const char *says;     // part of the message
    uint64_t claims;      // header length the file gives; 0 = the true one
    int64_t header_bytes; // 0 = strlen(header)
};

#define T4(offsets) "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":" offsets "}"

static const struct file_case refused[] = {
    {"header longer than the format's limit", "{}", 0, "100000000", 100000001},
    {"header of 2^64 - 1 bytes", "{}", 0, "18446744073709551615", UINT64_MAX},
    {"header beyond the end", "{}", 0, "cut off", 3},
    {"header of no bytes", "", 0, "JSON"},
    {"not JSON", "pickle", 0, "JSON"},
    {"byte order mark", "\xef\xbb\xbf{}", 0, "JSON"},
    {"invalid UTF-8 in a name", "{\"a\xff\":" T4("[0,16]") "}", 16, "decode byte 0xff"},
    {"header padded with zero bytes", "{}\0\0\0\0\0", 0, "JSON", 0, 7},
    {"trailing comma", "{\"a\":" T4("[0,16]") ",}", 16, "JSON"},
    {"text after the header", "{} {}", 0, "JSON"},
    {"NaN as a dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[NaN],\"data_offsets\":[0,16]}}", 16, "JSON"},
    {"leading zero", "{\"a\":{\"dtype\":\"F32\",\"shape\":[04],\"data_offsets\":[0,16]}}", 16, "JSON"},
    {"exponent in an integer", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1.6e1]}}", 16, "data_offsets"},
    {"real number as a dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]}}", 16, "shape"},
    {"negative zero", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-0,16]}}", 16, "-0"},
    {"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", 16, "shape"},
    {"negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}", 16, "data_offsets"},
    {"dimension of 2^64", "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,16]}}", 16, "JSON"},
    {"raw control character", "{\"a\nb\":" T4("[0,16]") "}", 16, "JSON"},
    {"lone surrogate", "{\"\\ud800\":" T4("[0,16]") "}", 16, "JSON"},
    {"field twice in a tensor", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "duplicate"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate"},
    {"no dtype", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "no dtype"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", 16, "no shape"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", 16, "no data_offsets"},
    {"unknown dtype", "{\"a\":{\"dtype\":\"F128\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "F128"},
    {"lower-case dtype", "{\"a\":{\"dtype\":\"f32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "f32"},
    {"dtype that is a number", "{\"a\":{\"dtype\":32,\"shape\":[4],\"data_offsets\":[0,16]}}", 16, "dtype"},
    {"shape that is a number", "{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}", 16, "shape"},
    {"one offset", "{\"a\":" T4("[16]") "}", 16, "entries"},
    {"three offsets", "{\"a\":" T4("[0,8,16]") "}", 16, "entries"},
    {"metadata that is a number", "{\"__metadata__\":{\"format\":1}}", 0, "__metadata__"},
    {"metadata that is a list", "{\"__metadata__\":[]}", 0, "__metadata__"},
    {"list as header", "[]", 0, "must be an object"},
    {"string as header", "\"a\"", 0, "JSON"},
    {"tensor that is a number", "{\"a\":1}", 0, "must be an object"},
    {"tensor that is null", "{\"a\":null}", 0, "must be an object"},
    {"tensor list of two", "{\"a\":[\"F32\",[4]]}", 16, "must be an object"},
    {"tensor list of four", "{\"a\":[\"F32\",[4],[0,16],1]}", 16, "must be an object"},
    {"hole between tensors", "{\"a\":" T4("[0,16]") ",\"b\":" T4("[20,36]") "}", 36, "hole"},
    {"overlapping tensors", "{\"a\":" T4("[0,16]") ",\"b\":" T4("[12,28]") "}", 28, "inside another"},
    {"two tensors at one place", "{\"a\":" T4("[0,16]") ",\"b\":" T4("[0,16]") "}", 16, "inside another"},
    {"data that do not begin at 0", "{\"a\":" T4("[4,20]") "}", 20, "hole"},
    {"range that runs backwards", "{\"a\":" T4("[16,0]") "}", 16, "backwards"},
    {"offsets beyond the file", "{\"a\":" T4("[0,16]") "}", 15, "cut off"},
    {"offsets far beyond the file", "{\"a\":" T4("[9223372036854775791,9223372036854775807]") "}", 16, "beyond the end"},
    {"bytes after the last tensor", "{\"a\":" T4("[0,16]") "}", 17, "follow the last"},
    {"bytes after no tensor", "{}", 1, "follow the last"},
    {"shape larger than the data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,16]}}", 16, "needs 20"},
    {"shape smaller than the data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}", 16, "needs 12"},
    {"product of 2^66", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,16],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"product of 2^64 before a zero", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4,0],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"bits beyond 2^64", "{\"a\":{\"dtype\":\"F64\",\"shape\":[1152921504606846976],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"half a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "whole bytes"},
    {"18 bits", "{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, "whole bytes"},
    // Stricter than the reference:
    {"name used twice", "{\"a\":" T4("[0,16]") ",\"a\":" T4("[16,32]") "}", 32, "duplicate"},
    {"zero byte in a name", "{\"a\\u0000b\":" T4("[0,16]") "}", 16, "JSON"},
    {"dimension of 2^63", "{\"a\":{\"dtype\":\"U8\",\"shape\":[0,9223372036854775808],\"data_offsets\":[0,0]}}", 0, "JSON"},
};

static const struct file_case accepted[] = {
    {"empty header", "{}", 0},
    {"length that is no multiple of 8", "{\"a\":" T4("[0,16]") "}", 16},
    {"white space before the header", " \n\t{\"a\":" T4("[0,16]") "}", 16},
    {"white space after the header", "{\"a\":" T4("[0,16]") "} \n\t\r", 16},
    {"tensors in any order", "{\"b\":" T4("[16,32]") ",\"c\":" T4("[32,48]") ",\"a\":" T4("[0,16]") "}", 48},
    {"unknown field", "{\"a\":{\"x\":[{\"y\":-1.5e3}],\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16},
    {"tensor as a list", "{\"a\":[\"F32\",[4],[0,16]]}", 16},
    {"metadata null", "{\"__metadata__\":null}", 0},
    {"metadata", "{\"__metadata__\":{\"format\":\"pt\",\"-0\":\"-0\",\"\\\\\\\"[\":\"{\"}}", 0},
    {"empty name", "{\"\":" T4("[0,16]") "}", 16},
    {"name in another script", "{\"\xe5\xb1\xa4.\\u00e9\":" T4("[0,16]") "}", 16},
    {"rank 0", "{\"a\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]}}", 8},
    {"no elements", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[0,0]}}", 0},
    {"zero before a huge dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,4],\"data_offsets\":[0,0]}}", 0},
    {"empty tensors in the middle",
     "{\"a\":" T4("[0,16]") ",\"z\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[16,16]},"
     "\"y\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[16,16]},\"b\":" T4("[16,32]") "}", 32},
    {"unaligned data", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":" T4("[2,18]") "}", 18},
    {"four F6 elements in three bytes", "{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3},
};

static void case_write(const char *path, const struct file_case *c) {
    uint64_t n = (uint64_t)(c->header_bytes ? (size_t)c->header_bytes : strlen(c->header)), claims = c->claims ? c->claims : n;
    unsigned char *bytes = mem_new(8 + n + (size_t)c->n_data, 1);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(claims >> (8 * i));
    memcpy(bytes + 8, c->header, n);
    files_put(path, bytes, 8 + n + (size_t)c->n_data);
    free(bytes);
}

// The message is there, in one line, names the file and holds `says`.
static void message_check(const char *name, enum status got, enum status want, const char *file, const char *says) {
    const char *message = status_message();
    if (got == want && message[0] && !strchr(message, '\n') && strstr(message, file) && (!says || strstr(message, says))) return;
    print_error("%s: status %d, want %d with '%s' and '%s'; message: %s\n", name, (int)got, (int)want, file, says ? says : "",
                message);
    fail();
}

static void broken_safetensors_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct safetensors *file = NULL;
        case_write(path, &refused[i]);
        message_check(refused[i].name, safetensors_open(path, &file), STATUS_FORMAT, "x.safetensors", refused[i].says);
        assert_null(file);
    }
    files_remove(folder);
}

static void sound_safetensors_are_accepted(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        struct safetensors *file = NULL;
        case_write(path, &accepted[i]);
        if (safetensors_open(path, &file) != STATUS_OK) {
            print_error("%s: %s\n", accepted[i].name, status_message());
            fail();
        }
        int64_t bytes = 0;
        for (int64_t t = 0; t < safetensors_n_tensors(file); t++) {
            const struct safetensors_tensor *tensor = safetensors_at(file, t);
            for (int64_t b = 0; b < tensor->n_bytes; b++) bytes += 1 + tensor->data[b];
            assert_ptr_equal(safetensors_find(file, tensor->name), tensor);
        }
        assert_int_equal(bytes, accepted[i].n_data);
        safetensors_free(file);
    }
    files_remove(folder);
}

static void short_and_strange_files_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct safetensors *file = NULL;
    const char *path = files_path(folder, "x.safetensors");
    for (size_t n = 0; n < 8; n++) {
        files_put(path, "\2\0\0\0\0\0\0", n);
        message_check("short file", safetensors_open(path, &file), STATUS_FORMAT, "x.safetensors", "too few");
    }
    message_check("no file", safetensors_open(files_path(folder, "y"), &file), STATUS_IO, "/y", "No such file");
    message_check("folder", safetensors_open(folder, &file), STATUS_IO, folder, "folder");
    path = files_path(folder, "pipe");
    assert_int_equal(mkfifo(path, 0600), 0);
    message_check("pipe", safetensors_open(path, &file), STATUS_IO, "pipe", "regular");
    message_check("device", safetensors_open("/dev/zero", &file), STATUS_IO, "/dev/zero", "regular");
    files_remove(folder);
}

// 128 nested lists in an unknown field are refused, 100 are not; neither is a header of exactly the greatest length.
static void limits_of_the_header_are_the_formats(void **state) {
    (void)state;
    struct safetensors *file = NULL;
    for (int depth = 100; depth < 100000; depth *= 30) {
        char *open = mem_new((size_t)depth + 1, 1), *close = mem_new((size_t)depth + 1, 1);
        memset(open, '[', (size_t)depth);
        memset(close, ']', (size_t)depth);
        char *header = mem_format("        {\"a\":{\"x\":%s%s,\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", open, close);
        uint64_t n = strlen(header) - 8;
        memcpy(header, &n, 8);
        enum status status = safetensors_from_buffer(header, (int64_t)n + 8, "deep", &file);
        if (depth == 100) {
            check_ok(status);
            safetensors_free(file);
        } else {
            message_check("deep nesting", status, STATUS_FORMAT, "deep", NULL);
        }
        free(open);
        free(close);
        free(header);
    }
    uint64_t n = 100000000;
    char *large = mem_new(n + 8, 1);
    memcpy(large, &n, 8);
    memcpy(large + 8, "{}", 2);
    memset(large + 10, ' ', n - 2);
    check_ok(safetensors_from_buffer(large, (int64_t)n + 8, "large", &file));
    safetensors_free(file);
    free(large);
}

// Any prefix of a sound file, and any one byte of its header replaced, is refused or read without harm.
static void no_cut_or_flipped_byte_does_harm(void **state) {
    (void)state;
    static const char text[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T4("[0,16]") ",\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]}}";
    enum { N = sizeof text - 1, ALL = 8 + N + 28 };
    unsigned char whole[ALL] = {N & 255, N >> 8};
    memcpy(whole + 8, text, N);
    for (int64_t n = 0; n <= ALL; n++) {
        struct safetensors *file = NULL;
        void *part = malloc((size_t)n + !n); // exact size, so that a read behind it is seen
        memcpy(part, whole, (size_t)n);
        enum status status = safetensors_from_buffer(part, n, "cut", &file);
        assert_int_equal(status, n == ALL ? STATUS_OK : STATUS_FORMAT);
        safetensors_free(file);
        free(part);
    }
    static const unsigned char flips[] = {0, '"', '[', '}', ',', '9', '-', 'e', '\\', 0x80, 0xFF, ' '};
    for (int at = 0; at < 8 + N; at++) {
        for (size_t f = 0; f < sizeof flips; f++) {
            struct safetensors *file = NULL;
            unsigned char kept = whole[at];
            whole[at] = flips[f];
            if (safetensors_from_buffer(whole, ALL, "flip", &file) == STATUS_OK) {
                float values[8];
                for (int64_t t = 0; t < safetensors_n_tensors(file); t++) {
                    const struct safetensors_tensor *tensor = safetensors_at(file, t);
                    if (tensor->n_elements <= 8) (void)safetensors_to_float(file, tensor, values);
                }
                safetensors_free(file);
            }
            whole[at] = kept;
        }
    }
}

static const char llama[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":172,\"num_hidden_layers\":1,\"num_attention_heads\":8,"
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
    {"rope_scaling", LLAMA3 ",\"original_max_position_embeddings\":-1}", "original_max_position_embeddings", STATUS_FORMAT},
    {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
     "high_freq_factor", STATUS_FORMAT},
    {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":0.5,\"low_freq_factor\":1,\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}",
     "factor", STATUS_FORMAT},
    {"rope_parameters", "{\"rope_theta\":1e4,\"rope_type\":\"default\"}", "both", STATUS_FORMAT,
     "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}}"},
    {"rope_parameters", "{\"rope_theta\":1e4,\"rope_type\":\"default\"}", "two values", STATUS_FORMAT, "{\"rope_theta\":5e5}"},
    {"rope_parameters", "{\"rope_type\":\"default\",\"partial_rotary_factor\":0.75}", "partial_rotary_factor", STATUS_UNSUPPORTED},
    {"rope_parameters", "{\"full_attention\":{\"rope_type\":\"default\"}}", "full_attention", STATUS_UNSUPPORTED},
    {"rope_scaling", "{\"type\":\"longrope\",\"long_factor\":[1,1,1,1]}", "short_factor", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1],\"short_factor\":[1,1,1,1]}", "long_factor", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1,1]}", "short_factor", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,0,1],\"short_factor\":[1,1,1,1]}", "factor 2", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,\"1\",1],\"short_factor\":[1,1,1,1]}", "factor 2", STATUS_FORMAT, PHI3},
    {"rope_scaling", "{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1],\"attention_factor\":-1}",
     "attention_factor", STATUS_FORMAT, PHI3},
    {"original_max_position_embeddings", "1", "original_max_position_embeddings", STATUS_FORMAT,
     "{\"model_type\":\"phi3\",\"rope_scaling\":{\"type\":\"su\",\"long_factor\":[1,1,1,1],\"short_factor\":[1,1,1,1]}}"},
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
        if (c->value) assert_int_equal(json_object_set_new(root, c->key, json_loads(c->value, JSON_DECODE_ANY, NULL)), 0);
        else json_object_del(root, c->key);
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
    static const char *const texts[] = {"", "{", "[]", "null", "{\"model_type\":\"llama\",\"model_type\":\"llama\"}", "{\"rms_norm_eps\":NaN}",
                                        "{\"hidden_size\":99999999999999999999}", "{\"rms_norm_eps\":1e999}", "{} trailing", "\xff\xfe{"};
    struct transformer_config config;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        message_check(texts[i], config_read_buffer(texts[i], (int64_t)strlen(texts[i]), "c.json", &config), STATUS_FORMAT, "c.json", NULL);
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
    message_check("file for a folder", model_folder_open(files_path(folder, "config.json"), &model), STATUS_IO, "config.json",
                  "no such folder");
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
    static const char header[] = "{\"nan\":" T4("[0,16]") ",\"inf\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[16,24]},"
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
        {"nan", "'nan' holds nan at element 2", 1, 4, STATUS_FORMAT},      {"inf", "-inf at element 2", 2, 2, STATUS_FORMAT},
        {"large", "inf at element 0", 1, 1, STATUS_FORMAT},                {"int", "I32", 1, 1, STATUS_UNSUPPORTED},
        {"cube", "shape [1, 1, 1], must be [1]", 1, 1, STATUS_FORMAT},     {"inf", "shape [2, 2], must be [5]", 1, 5, STATUS_FORMAT},
        {"inf", "shape [2, 2], must be [4, 1]", 4, 1, STATUS_FORMAT},      {"nan", "shape [4], must be [4, 1]", 4, 1, STATUS_FORMAT},
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
        cmocka_unit_test(broken_safetensors_are_refused),
        cmocka_unit_test(sound_safetensors_are_accepted),
        cmocka_unit_test(short_and_strange_files_are_refused),
        cmocka_unit_test(limits_of_the_header_are_the_formats),
        cmocka_unit_test(no_cut_or_flipped_byte_does_harm),
        cmocka_unit_test(absurd_configurations_are_refused),
        cmocka_unit_test(configurations_that_are_no_json_are_refused),
        cmocka_unit_test(broken_indices_are_refused),
        cmocka_unit_test(broken_folders_are_refused),
        cmocka_unit_test(bad_tensors_are_refused_when_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
