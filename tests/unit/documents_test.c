// Texts cut into documents.
#include "tests/files.h"

#include "data/documents.h"

// What documents_each saw: "LINE[text]LINE[text]".
static enum status visit(void *self, const char *where, const char *text, int64_t n_bytes) {
    char *seen = self;
    size_t n = strlen(seen);
    snprintf(seen + n, 4096 - n, "%s[%.*s]", strrchr(where, ':') + 1, (int)n_bytes, text);
    return STATUS_OK;
}

static enum status each(const char *name, const char *text, size_t n, char seen[4096]) {
    char *folder = files_folder();
    const char *path = files_path(folder, name);
    files_put(path, text, n);
    seen[0] = 0;
    enum status status = documents_each(path, visit, seen);
    files_remove(folder);
    return status;
}

static void check_each(const char *name, const char *text, const char *want) {
    char seen[4096];
    check_ok(each(name, text, strlen(text), seen));
    assert_string_equal(seen, want);
}

static void blank_lines_separate_documents(void **state) {
    (void)state;
    check_each("a.txt", "one", "1[one]");
    check_each("a.txt", "one\n", "1[one]");
    check_each("a.txt", "one\ntwo\n\nthree\n", "1[one\ntwo]4[three]");
    check_each("a.txt", "\n \t\r\n one \r\n\r\n\n\ntwo\n\n", "3[ one \r]7[two]");
}

static void json_lines_are_documents(void **state) {
    (void)state;
    check_each("a.jsonl", "{\"text\": \"one\\n\\ntwo\"}\n\n{\"text\": \"\"}\n{\"id\": 1, \"text\": \"three\"}",
               "1[one\n\ntwo]4[three]");
}

static void what_holds_no_text_is_refused(void **state) {
    (void)state;
    char seen[4096];
    check_fails(each("a.txt", "", 0, seen), STATUS_FORMAT);
    check_fails(each("a.txt", "\n\n \n", 4, seen), STATUS_FORMAT);
    check_fails(each("a.txt", "a\xC3", 2, seen), STATUS_FORMAT);
    check_fails(each("a.jsonl", "{\"text\": \"\"}\n", 13, seen), STATUS_FORMAT);
    check_fails(each("a.jsonl", "{\"body\": \"x\"}\n", 14, seen), STATUS_FORMAT);
    check_fails(each("a.jsonl", "{\"text\": 3}\n", 12, seen), STATUS_FORMAT);
    check_fails(each("a.jsonl", "[\"text\"]\n", 9, seen), STATUS_FORMAT);
    check_fails(documents_each("there/is/no/such.txt", visit, seen), STATUS_IO);
}

static enum status refuse(void *self, const char *where, const char *text, int64_t n_bytes) {
    (void)self, (void)text, (void)n_bytes;
    return status_set(STATUS_INVALID, "%s: refused", where);
}

static void a_visit_that_fails_ends_it(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "a.txt");
    files_put(path, "a\n\nb\n", 5);
    check_fails(documents_each(path, refuse, NULL), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "a.txt:1: refused"));
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blank_lines_separate_documents),
        cmocka_unit_test(json_lines_are_documents),
        cmocka_unit_test(what_holds_no_text_is_refused),
        cmocka_unit_test(a_visit_that_fails_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
