#include "tests/files.h"

#include "data/info.h"

static void info_describes_files_and_folders(void **state) {
    (void)state;
    char *text = NULL, path[4096];
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    check_ok(info_print(check_source("tests/golden/models/llama_headdim_sharded", path, sizeof path), out));
    assert_non_null(strstr(text, "heads 3 of size 12, key/value heads 1"));
    assert_non_null(strstr(text, "model-00003-of-00003.safetensors"));
    assert_non_null(strstr(text, "lm_head.weight  F16  [77, 36]  5544 bytes"));
    assert_non_null(strstr(text, "total: 21 tensors, 23436 elements, 46872 bytes (F16 46872)"));
    rewind(out);
    check_ok(info_print(check_source("tests/golden/models/llama_mha/model.safetensors", path, sizeof path), out));
    assert_null(strstr(text, "heads 3"));
    fclose(out);
    free(text);
    // A file that is neither says why, and prints nothing.
    text = NULL;
    out = open_memstream(&text, &n);
    check_fails(info_print(check_source("tests/golden/models/llama_mha/config.json", path, sizeof path), out),
                STATUS_FORMAT);
    check_fails(info_print(check_source("tests/golden", path, sizeof path), out), STATUS_FORMAT);
    check_fails(info_print(check_source("tests/absent", path, sizeof path), out), STATUS_IO);
    fclose(out);
    assert_int_equal(n, 0);
    free(text);
}

static void hostile_names_do_not_reach_the_terminal(void **state) {
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"\\u009b2J\":\"\\u0007\"},\"\\u001b[2J\\u007f\\n\":[\"U8\",[],[0,1]]}";
    enum { N = sizeof header - 1 };
    unsigned char bytes[8 + N + 1] = {N};
    memcpy(bytes + 8, header, N);
    char *folder = files_folder(), *text = NULL;
    size_t n = 0;
    files_put(files_path(folder, "x"), bytes, sizeof bytes);
    FILE *out = open_memstream(&text, &n);
    check_ok(info_print(files_path(folder, "x"), out));
    fclose(out);
    assert_non_null(strstr(text, "?2J: ?"));
    assert_non_null(strstr(text, "?[2J??  U8  []  1 bytes"));
    for (size_t i = 0; i < n; i++) assert_true(text[i] == '\n' || ((unsigned char)text[i] >= 0x20 && text[i] != 0x7F));
    free(text);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_describes_files_and_folders),
        cmocka_unit_test(hostile_names_do_not_reach_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
