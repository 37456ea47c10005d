// Broken and hostile safetensors files: every one is refused with the right status and one line that names the file, and
// what the format allows is not. The tables hold what the reference reader was found to reject and to accept.
#include "tests/faults/hostile.h"

#include "data/safetensors.h"

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
    {"exponent in an integer", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1.6e1]}}", 16,
     "data_offsets"},
    {"real number as a dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4.0],\"data_offsets\":[0,16]}}", 16, "shape"},
    {"negative zero", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-0,16]}}", 16, "-0"},
    {"negative dimension", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", 16, "shape"},
    {"negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-16,0]}}", 16, "data_offsets"},
    {"dimension of 2^64", "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,16]}}", 16,
     "JSON"},
    {"raw control character", "{\"a\nb\":" T4("[0,16]") "}", 16, "JSON"},
    {"lone surrogate", "{\"\\ud800\":" T4("[0,16]") "}", 16, "JSON"},
    {"field twice in a tensor", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
     16, "duplicate"},
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
    {"offsets far beyond the file", "{\"a\":" T4("[9223372036854775791,9223372036854775807]") "}", 16,
     "beyond the end"},
    {"bytes after the last tensor", "{\"a\":" T4("[0,16]") "}", 17, "follow the last"},
    {"bytes after no tensor", "{}", 1, "follow the last"},
    {"shape larger than the data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,16]}}", 16, "needs 20"},
    {"shape smaller than the data", "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,16]}}", 16,
     "needs 12"},
    {"product of 2^66", "{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,16],\"data_offsets\":[0,0]}}", 0,
     "overflows"},
    {"product of 2^64 before a zero",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4,0],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"bits beyond 2^64", "{\"a\":{\"dtype\":\"F64\",\"shape\":[1152921504606846976],\"data_offsets\":[0,0]}}", 0,
     "overflows"},
    {"half a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "whole bytes"},
    {"18 bits", "{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, "whole bytes"},
    // Stricter than the reference:
    {"name used twice", "{\"a\":" T4("[0,16]") ",\"a\":" T4("[16,32]") "}", 32, "duplicate"},
    {"zero byte in a name", "{\"a\\u0000b\":" T4("[0,16]") "}", 16, "JSON"},
    {"dimension of 2^63", "{\"a\":{\"dtype\":\"U8\",\"shape\":[0,9223372036854775808],\"data_offsets\":[0,0]}}", 0,
     "JSON"},
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
    {"zero before a huge dimension",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807,4],\"data_offsets\":[0,0]}}", 0},
    {"empty tensors in the middle",
     "{\"a\":" T4("[0,16]") ",\"z\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[16,16]},"
                            "\"y\":{\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[16,16]},\"b\":" T4("[16,32]") "}",
     32},
    {"unaligned data", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":" T4("[2,18]") "}", 18},
    {"four F6 elements in three bytes", "{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3},
};

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
        char *header = mem_format("        {\"a\":{\"x\":%s%s,\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                                  open, close);
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
    static const char text[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T4(
        "[0,16]") ",\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]}}";
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_safetensors_are_refused),      cmocka_unit_test(sound_safetensors_are_accepted),
        cmocka_unit_test(short_and_strange_files_are_refused), cmocka_unit_test(limits_of_the_header_are_the_formats),
        cmocka_unit_test(no_cut_or_flipped_byte_does_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
