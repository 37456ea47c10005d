// Saving a model folder while memory, disk or process fail, and where it must not write: what stood there stands.
#include "tests/model_folders.h"

#include "data/whole_file.h"

#include <sys/resource.h>

static void nothing_of_somebody_elses_is_overwritten(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(from, &folder));
    const char *taken = in(out, "taken");
    files_put(taken, "mine", 4);
    check_fails(model_folder_save(folder, taken, NULL, true), STATUS_INVALID);
    files_check_text(taken, "mine");
    taken = in(out, "home");
    assert_int_equal(mkdir(taken, 0700), 0);
    files_put(in(taken, "letter"), "mine", 4);
    check_fails(model_folder_save(folder, taken, NULL, true), STATUS_INVALID); // no config.json in it
    files_put(in(taken, "config.json"), "{}", 2);
    check_fails(model_folder_save(folder, taken, NULL, false), STATUS_INVALID);
    files_check_text(in(taken, "letter"), "mine");
    const char *link = in(out, "link");
    assert_int_equal(symlink(taken, link), 0);
    check_fails(model_folder_save(folder, link, NULL, true), STATUS_INVALID);
    files_check_text(in(taken, "letter"), "mine");
    check_fails(model_folder_save(folder, from, NULL, true), STATUS_INVALID); // itself
    check_fails(model_folder_save(folder, in(from, "inside"), NULL, true), STATUS_INVALID);
    check_fails(model_folder_save(folder, in(from, "original/inside"), NULL, true), STATUS_INVALID);
    char *around = mem_format("%s/..", from);
    check_fails(model_folder_save(folder, around, NULL, true), STATUS_INVALID);
    free(around);
    check_fails(model_folder_save(folder, in(out, "no/such/place"), NULL, true), STATUS_IO);
    assert_true(files_has(from, "model.safetensors"));
    assert_int_equal(entries_count(out), 3);
    check_ok(model_folder_save(folder, in(out, "home/"), NULL, true));
    assert_false(files_has(taken, "letter"));
    assert_int_equal(entries_count(out), 3);
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

static void a_failed_replacement_leaves_nothing(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(from, &folder));
    for (int i = 0; i < 4; i++) {
        struct rounding rounding = {0.1f, 0, i % 2 ? -1 : 2, i % 2 ? 2 : -1};
        struct model_folder_edit edit = rounding_edit(&rounding);
        check_fails(model_folder_save(folder, in(out, "model"), &edit, false), STATUS_INVALID);
        assert_non_null(strstr(status_message(), i % 2 ? "NaN" : "no replacement for"));
        assert_int_equal(entries_count(out), 0);
    }
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

// Every write, sync and rename of a file, then every buffer, made to fail in turn: what stood there stands, and nothing
// else is left.
static void a_failure_at_any_point_leaves_the_old_folder(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    const char *copy = in(out, "model");
    struct model_folder *folder = NULL, *old = NULL;
    check_ok(model_folder_open(from, &folder));
    check_ok(model_folder_save(folder, copy, NULL, false));
    for (int kind = 0; kind < 2; kind++) {
        for (int64_t k = 0;; k++) {
            struct rounding rounding = rounding_by(0.1f);
            struct model_folder_edit edit = rounding_edit(&rounding);
            if (kind == 0)
                whole_file_fail_at(k);
            else
                mem_fail_at(k);
            enum status status = model_folder_save(folder, copy, &edit, true);
            whole_file_fail_at(-1);
            mem_fail_at(-1);
            assert_int_equal(entries_count(out), 1);
            if (status == STATUS_OK) {
                assert_true(k >= (kind == 0 ? 20 : 8));
                break;
            }
            assert_int_equal(status, kind == 0 ? STATUS_IO : STATUS_NO_MEMORY);
            check_ok(model_folder_open(copy, &old));
            bytes_check_same(in(copy, "model.safetensors"), in(from, "model.safetensors"));
            model_folder_free(old);
        }
        check_ok(model_folder_save(folder, copy, NULL, true));
    }
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

static enum status killed_replace(void *self, const char *name, int64_t rows, int64_t cols, float *data) {
    (void)self, (void)name, (void)rows, (void)cols, (void)data;
    kill(getpid(), SIGKILL);
    return STATUS_OK;
}

// PATH.part of a process that was killed is cleared away; anything else of that name is not touched.
static void the_leftover_of_a_killed_save_is_cleared(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    const char *copy = in(out, "model"), *part = in(out, "model.part");
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(from, &folder));
    pid_t child = fork();
    if (child == 0) {
        struct model_folder_edit edit = {NULL, rounding_selects, killed_replace};
        (void)model_folder_save(folder, copy, &edit, false);
        _exit(1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_true(access(part, F_OK) == 0 && access(copy, F_OK) != 0);
    check_ok(model_folder_save(folder, copy, NULL, false));
    assert_int_equal(entries_count(out), 1);
    assert_false(files_has(copy, ".discquant-unfinished"));
    assert_int_equal(mkdir(part, 0700), 0); // killed before the first file
    check_ok(model_folder_save(folder, copy, NULL, true));
    assert_int_equal(entries_count(out), 1);
    assert_false(files_has(copy, ".discquant-unfinished"));
    assert_int_equal(mkdir(part, 0700), 0);
    files_put(in(part, "letter"), "mine", 4);
    check_fails(model_folder_save(folder, copy, NULL, true), STATUS_INVALID);
    files_check_text(in(part, "letter"), "mine");
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

static void opening_fails_cleanly_when_memory_is_out(void **state) {
    (void)state;
    static const char *const names[] = {"llama_mha", "llama_headdim_sharded"};
    for (int i = 0; i < 2; i++) {
        char path[4096], *inner = mem_format("tests/golden/models/%s", names[i]);
        check_source(inner, path, sizeof path);
        struct model_folder *folder = NULL;
        int64_t k = 0, before = mem_buffer_bytes();
        for (enum status status = STATUS_NO_MEMORY; status != STATUS_OK; k++) {
            mem_fail_at(k);
            status = model_folder_open(path, &folder);
            mem_fail_at(-1);
            assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && !folder));
            assert_int_equal(mem_buffer_bytes(), before);
        }
        assert_int_equal(k, i + 2); // config.json, index
        model_folder_free(folder);
        free(inner);
    }
}

static void a_file_size_limit_leaves_nothing(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(from, &folder));
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 0; bytes < 700000; bytes = bytes ? 2 * bytes : 7) { // vocab.json has 700001
        struct rounding rounding = rounding_by(0.1f);
        struct model_folder_edit edit = rounding_edit(&rounding);
        limit = (struct rlimit){bytes, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        enum status status = model_folder_save(folder, in(out, "model"), &edit, false);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(status, STATUS_IO);
        assert_int_equal(entries_count(out), 0);
    }
    signal(SIGXFSZ, handler);
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_of_somebody_elses_is_overwritten),
        cmocka_unit_test(a_failed_replacement_leaves_nothing),
        cmocka_unit_test(a_failure_at_any_point_leaves_the_old_folder),
        cmocka_unit_test(the_leftover_of_a_killed_save_is_cleared),
        cmocka_unit_test(opening_fails_cleanly_when_memory_is_out),
        cmocka_unit_test(a_file_size_limit_leaves_nothing),
    };
    names_kept = arena_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(names_kept);
    return failed;
}
