#include "tests/files.h"

#include "data/json.h"

static void getters_return_what_is_there(void **state) {
    (void)state;
    static const char text[] = "{\"i\": 9007199254740993, \"n\": 1e-05, \"s\": \"\xc3\xa9\\u00e9\", \"b\": true, "
                               "\"o\": {}, \"a\": [1], \"z\": null}";
    json_t *root = NULL, *value = NULL;
    int64_t integer = 0;
    double number = 0;
    bool truth = false;
    const char *string = NULL;
    check_ok(json_read_buffer(text, sizeof text - 1, "x.json", &root));
    check_ok(json_get_integer(root, "x.json", "i", &integer));
    assert_int_equal(integer, 9007199254740993); // no detour through double
    check_ok(json_get_number(root, "x.json", "n", &number));
    check_near(number, 1e-5, 0, 0);
    check_ok(json_get_number(root, "x.json", "i", &number));
    check_ok(json_get_string(root, "x.json", "s", &string));
    assert_string_equal(string, "\xc3\xa9\xc3\xa9");
    check_ok(json_get_bool(root, "x.json", "b", &truth));
    assert_true(truth);
    check_ok(json_get_object(root, "x.json", "o", &value));
    assert_true(json_is_object(value));
    check_ok(json_get_array(root, "x.json", "a", &value));
    assert_int_equal(json_array_size(value), 1);
    json_decref(root);
}

static void absent_and_null_take_the_default(void **state) {
    (void)state;
    json_t *root = NULL, *value = NULL;
    int64_t integer = 0;
    const char *string = NULL;
    bool truth = false;
    check_ok(json_read_buffer("{\"z\": null, \"x\": 1.5}", 21, "x.json", &root));
    check_ok(json_get_integer_or(root, "x.json", "z", 7, &integer));
    assert_int_equal(integer, 7);
    check_ok(json_get_integer_or(root, "x.json", "absent", 8, &integer));
    assert_int_equal(integer, 8);
    check_ok(json_get_string_or(root, "x.json", "z", NULL, &string));
    assert_null(string);
    check_ok(json_get_bool_or(root, "x.json", "z", true, &truth));
    assert_true(truth);
    check_ok(json_get_array_or(root, "x.json", "z", root, &value));
    assert_ptr_equal(value, root);
    check_fails(json_get_integer_or(root, "x.json", "x", 7, &integer), STATUS_FORMAT); // there, but of another type
    assert_int_equal(integer, 8);
    json_decref(root);
}

static void wrong_types_name_file_and_key(void **state) {
    (void)state;
    json_t *root = NULL, *value = NULL;
    int64_t integer = 0;
    double number = 0;
    const char *string = NULL;
    bool truth = false;
    check_ok(json_read_buffer("{\"k\": [], \"z\": null, \"r\": 4.0}", 30, "x.json", &root));
#define CHECK(call)                                                                                                    \
    check_fails(call, STATUS_FORMAT);                                                                                  \
    assert_non_null(strstr(status_message(), "x.json"));                                                               \
    assert_non_null(strstr(status_message(), "\"k\""))
    CHECK(json_get_integer(root, "x.json", "k", &integer));
    CHECK(json_get_number(root, "x.json", "k", &number));
    CHECK(json_get_string(root, "x.json", "k", &string));
    CHECK(json_get_bool(root, "x.json", "k", &truth));
    CHECK(json_get_object(root, "x.json", "k", &value));
    CHECK(json_get_string(json_object_get(root, "k"), "x.json", "k", &string)); // not in an object at all
    CHECK(json_get_string(NULL, "x.json", "k", &string));
#undef CHECK
    check_fails(json_get_integer(root, "x.json", "z", &integer), STATUS_FORMAT);
    check_fails(json_get_integer(root, "x.json", "r", &integer), STATUS_FORMAT);
    check_fails(json_get_integer(root, "x.json", "absent", &integer), STATUS_FORMAT);
    json_decref(root);
}

static void loose_json_is_refused_with_its_place(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "{",
                                        "{}}",
                                        "{\"a\":1,}",
                                        "{\"a\":1,\"a\":2}",
                                        "{a:1}",
                                        "{\"a\":NaN}",
                                        "{\"a\":01}",
                                        "{\"a\":'b'}",
                                        "{\"a\":\"\t\"}",
                                        "{\"a\":1e999}",
                                        "{\"a\":9223372036854775808}",
                                        "\xef\xbb\xbf{}",
                                        "{\"a\":\"\xed\xa0\x80\"}",
                                        "{\"a\":\"\xc0\x80\"}",
                                        "// x\n{}",
                                        "7",
                                        "\"x\"",
                                        "null"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *root = NULL;
        check_fails(json_read_buffer(texts[i], (int64_t)strlen(texts[i]), "x.json", &root), STATUS_FORMAT);
        assert_null(root);
        assert_non_null(strstr(status_message(), "x.json: not valid JSON: line "));
    }
}

static void files_have_a_greatest_size(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.json");
    json_t *root = NULL;
    files_put(path, "{}", 2);
    check_ok(json_read_file(path, &root));
    json_decref(root);
    root = NULL;
    mem_fail_at(0);
    check_fails(json_read_file(path, &root), STATUS_NO_MEMORY);
    assert_int_equal(truncate(path, ((off_t)256 << 20) + 1), 0); // sparse
    check_fails(json_read_file(path, &root), STATUS_FORMAT);
    check_fails(json_read_file(folder, &root), STATUS_IO);
    check_fails(json_read_file("/dev/zero", &root), STATUS_IO);
    assert_null(root);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(getters_return_what_is_there),  cmocka_unit_test(absent_and_null_take_the_default),
        cmocka_unit_test(wrong_types_name_file_and_key), cmocka_unit_test(loose_json_is_refused_with_its_place),
        cmocka_unit_test(files_have_a_greatest_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
