#include "tests/files.h"

#include "data/json.h"
#include "data/run_folder.h"
#include "data/whole_file.h"

#include <sys/ptrace.h>
#include <sys/resource.h>

enum { STEPS = 20, SAVE_EVERY = 3 };

// A run of STEPS steps whose state is one float, which begins at `bits`; logs each step and saves every third. Leaves without finishing when
// `stop_after` steps are done, as a killed process does.
static enum status simulate(const char *path, bool resume, bool force, int64_t bits, int64_t stop_after) {
    enum status status = STATUS_OK;
    struct run_folder *run = NULL;
    struct checkpoint *state = NULL;
    struct record *settings = record_new(), *line = record_new();
    int64_t step = 0;
    float x = (float)bits;
    record_integer(settings, "bits", bits);
    record_number(settings, "lr", 0.1);
    TRY(run_folder_open(&(struct run_folder_options){.path = path,
                                                     .program = "simulate",
                                                     .command_line = "simulate 1",
                                                     .seed = 7,
                                                     .resume = resume,
                                                     .force = force,
                                                     .settings = settings},
                        &run));
    if (run_folder_is_done(run)) goto done;
    TRY(run_folder_checkpoint_load(run, &state));
    if (state) {
        TRY(checkpoint_integer(state, "step", 0, STEPS, &step));
        TRY(checkpoint_floats(state, "x", &x, 1));
    }
    while (step < STEPS && step < stop_after) {
        x = 1.1f * x + (float)step++ / 3;
        record_clear(line);
        record_integer(line, "step", step);
        record_number(line, "x", x);
        TRY(run_folder_log(run, line));
        if (step % SAVE_EVERY != 0) continue;
        checkpoint_free(state);
        state = checkpoint_new();
        checkpoint_add_integer(state, "step", step);
        checkpoint_add_floats(state, "x", &x, 1);
        TRY(run_folder_checkpoint_save(run, state));
    }
    if (step < STEPS) goto killed;
    TRY(run_folder_array(run, "x", NPY_F32, &x, 1, 0));
    record_number(run_folder_result(run), "x", x);
done:
    status = run_folder_finish(run, status);
killed:
    run_folder_free(run);
    checkpoint_free(state);
    record_free(settings);
    record_free(line);
    return status;
}

static json_t *read_json(const char *folder, const char *name) {
    json_t *value = NULL;
    check_ok(json_read_file(files_path(folder, name), &value));
    return value;
}

static void check_status(const char *folder, const char *want) {
    json_t *about = read_json(folder, "run.json");
    assert_string_equal(json_string_value(json_object_get(about, "status")), want);
    json_decref(about);
}

static void a_finished_run_leaves_its_files(void **state) {
    (void)state;
    char *folder = files_folder(), *path = mem_format("%s/deep/er", folder);
    check_ok(simulate(path, false, false, 4, STEPS));
    json_t *about = read_json(path, "run.json"), *result = read_json(path, "result.json");
    assert_string_equal(json_string_value(json_object_get(about, "status")), "done");
    assert_string_equal(json_string_value(json_object_get(about, "program")), "simulate");
    assert_string_equal(json_string_value(json_object_get(about, "command_line")), "simulate 1");
    assert_string_equal(json_string_value(json_object_get(about, "device")), "cpu");
    assert_int_equal(json_integer_value(json_object_get(about, "seed")), 7);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(about, "settings"), "bits")), 4);
    static const char *const keys[] = {"start", "end", "version", "host"};
    for (int i = 0; i < 4; i++) assert_true(json_string_length(json_object_get(about, keys[i])) > 0);
    const char *start = json_string_value(json_object_get(about, "start"));
    assert_true(strlen(start) == 20 && start[10] == 'T' && start[19] == 'Z');
    assert_true(json_is_real(json_object_get(result, "x")));
    assert_true(files_has(path, "x.npy") && files_has(path, "metrics.jsonl") && !files_has(path, "checkpoint"));
    json_decref(about);
    json_decref(result);
    free(path);
    files_remove(folder);
}

static void a_resumed_run_leaves_the_same_bytes(void **state) {
    (void)state;
    static const char *const names[] = {"metrics.jsonl", "result.json", "x.npy"};
    char *folder = files_folder(), *whole = mem_format("%s/whole", folder);
    check_ok(simulate(whole, false, false, 4, STEPS));
    for (int64_t stop = 0; stop <= STEPS; stop++) {
        char *path = mem_format("%s/stop%lld", folder, (long long)stop);
        check_ok(simulate(path, false, false, 4, stop));
        if (stop < STEPS) {
            check_status(path, "running");
            FILE *metrics = fopen(files_path(path, "metrics.jsonl"), "a"); // a line cut short by the kill
            fputs("{\"step\": 9", metrics);
            fclose(metrics);
        }
        if (stop % 2 && stop + 2 < STEPS) check_ok(simulate(path, true, false, 4, stop + 2));
        check_ok(simulate(path, true, false, 4, STEPS));
        check_status(path, "done");
        for (int i = 0; i < 3; i++) {
            size_t n_want, n_got;
            char *want = files_bytes(files_path(whole, names[i]), &n_want);
            char *got = files_bytes(files_path(path, names[i]), &n_got);
            assert_int_equal(n_got, n_want);
            assert_memory_equal(got, want, n_want);
            free(want);
            free(got);
        }
        free(path);
    }
    free(whole);
    files_remove(folder);
}

static void an_earlier_run_is_not_overwritten_unasked(void **state) {
    (void)state;
    char *folder = files_folder(), *path = mem_format("%s/run", folder);
    check_ok(simulate(path, false, false, 4, STEPS));
    check_fails(simulate(path, false, false, 4, STEPS), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "--force"));
    files_put(files_path(path, "checkpoint"), "x", 1); // as if it had been killed between saying "done" and removing it
    check_ok(simulate(path, true, false, 4, STEPS));   // resuming a finished run: nothing else to do
    assert_false(files_has(path, "checkpoint"));
    files_put(files_path(path, "old.npy"), "x", 1);
    files_put(files_path(path, "notes.txt"), "x", 1);
    check_ok(simulate(path, false, true, 4, 5));
    assert_true(!files_has(path, "old.npy") && !files_has(path, "result.json") && files_has(path, "notes.txt"));
    check_fails(simulate(path, false, false, 4, STEPS), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "--resume"));
    check_ok(simulate(path, false, true, 4, STEPS));
    free(path);
    files_remove(folder);
}

static void a_folder_with_other_files_is_not_taken(void **state) {
    (void)state;
    char *folder = files_folder();
    files_put(files_path(folder, "thesis.tex"), "x", 1);
    files_put(files_path(folder, "data.npy"), "x", 1);
    check_fails(simulate(folder, false, false, 4, STEPS), STATUS_INVALID);
    check_fails(simulate(folder, true, false, 4, STEPS), STATUS_INVALID);
    assert_true(!files_has(folder, "run.json"));
    check_ok(simulate(folder, false, true, 4, STEPS));
    assert_true(files_has(folder, "thesis.tex") && files_has(folder, "data.npy"));
    check_fails(simulate(files_path(folder, "thesis.tex"), false, false, 4, STEPS), STATUS_IO);
    files_remove(folder);
}

static void resume_names_the_first_setting_that_differs(void **state) {
    (void)state;
    char *folder = files_folder();
    check_ok(simulate(folder, false, false, 4, 7));
    check_fails(simulate(folder, true, false, 3, STEPS), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "bits = 4, now it is 3"));
    check_ok(simulate(folder, true, false, 4, STEPS));
    check_fails(simulate(folder, true, false, 3, STEPS), STATUS_INVALID); // also of a finished run
    files_remove(folder);
}

static void a_broken_folder_is_refused_in_one_line(void **state) {
    (void)state;
    static const char *const texts[] = {"", "{", "[]", "{\"status\": 3}", "\xff\xfe", "{\"status\": \"done\"} x"};
    char *folder = files_folder();
    check_ok(simulate(folder, false, false, 4, 7));
    char *sound = files_bytes(files_path(folder, "run.json"), NULL);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        files_put(files_path(folder, "run.json"), texts[i], strlen(texts[i]));
        check_fails(simulate(folder, true, false, 4, STEPS), STATUS_INVALID);
        check_fails(simulate(folder, false, false, 4, STEPS), STATUS_INVALID);
    }
    const char *bare = "{\"status\": \"running\"}"; // sound JSON that lacks everything else
    files_put(files_path(folder, "run.json"), bare, strlen(bare));
    check_fails(simulate(folder, true, false, 4, STEPS), STATUS_INVALID);
    files_put(files_path(folder, "run.json"), sound, strlen(sound));
    files_put(files_path(folder, "metrics.jsonl"), "", 0); // shorter than the checkpoint says
    check_fails(simulate(folder, true, false, 4, STEPS), STATUS_FORMAT);
    check_status(folder, "failed");
    check_ok(simulate(folder, false, true, 4, STEPS));
    free(sound);
    files_remove(folder);
}

static void a_folder_in_use_is_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct run_folder *run = NULL;
    check_ok(run_folder_open(&(struct run_folder_options){.path = folder, .program = "first"}, &run));
    check_fails(simulate(folder, false, true, 4, STEPS), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "another process"));
    run_folder_free(run);
    check_ok(simulate(folder, false, true, 4, STEPS));
    files_remove(folder);
}

static void a_failed_run_says_why(void **state) {
    (void)state;
    char *folder = files_folder();
    struct run_folder *run = NULL;
    check_ok(run_folder_open(&(struct run_folder_options){.path = folder, .program = "p"}, &run));
    enum status status = run_folder_finish(run, status_set(STATUS_FORMAT, "model.safetensors: is broken"));
    assert_int_equal(status, STATUS_FORMAT);
    assert_string_equal(status_message(), "model.safetensors: is broken");
    run_folder_free(run);
    check_status(folder, "failed");
    json_t *about = read_json(folder, "run.json");
    assert_string_equal(json_string_value(json_object_get(about, "error")), "model.safetensors: is broken");
    assert_true(!files_has(folder, "result.json"));
    json_decref(about);
    files_remove(folder);
}

static void without_a_folder_nothing_is_written(void **state) {
    (void)state;
    check_ok(simulate(NULL, false, false, 4, STEPS));
}

static void numbers_keep_their_bits_and_are_short(void **state) {
    (void)state;
    struct record *record = record_new();
    record_number(record, "tenth", 0.1);
    record_number(record, "third", 1.0 / 3);
    record_number(record, "one", 1);
    record_number(record, "nan", NAN);
    record_number(record, "inf", -INFINITY);
    record_number(record, "big", 1e300);
    record_integer(record, "n", INT64_MIN);
    record_bool(record, "yes", true);
    record_string(record, "text", "\xc3\xa9\n\"\xff\xe2\x82 end\xc3");
    record_string(record, "none", NULL);
    record_number(record, "tenth", 0.2);
    char *text = record_text(record, 0);
    assert_string_equal(text,
                        "{\"tenth\": 0.2, \"third\": 0.3333333333333333, \"one\": 1.0, \"nan\": null, \"inf\": null, "
                        "\"big\": 1e+300, \"n\": -9223372036854775808, \"yes\": true, "
                        "\"text\": \"\xc3\xa9\\n\\\"??? end?\", \"none\": null}");
    free(text);
    record_clear(record);
    for (uint64_t i = 0; i < 20000; i++) { // any bit pattern that is a number
        uint64_t bits = (i + 1) * 0x9E3779B97F4A7C15u;
        double value;
        memcpy(&value, &bits, 8);
        if (!isfinite(value)) continue;
        record_number(record, "v", value);
        text = record_text(record, 0);
        assert_true(strtod(text + 6, NULL) == value);
        free(text);
    }
    record_free(record);
}

static void digests_follow_the_bytes(void **state) {
    (void)state;
    char *folder = files_folder();
    struct record *record = record_new();
    files_put(files_path(folder, "a.json"), "123456789", 9);
    check_ok(record_digest(record, "file", files_path(folder, "a.json")));
    // The check value of CRC-32.
    assert_string_equal(json_string_value(json_object_get(record_json(record), "file")), "crc32:cbf43926 bytes:9");
    check_ok(record_digest(record, "folder", folder));
    char *before = mem_string(json_string_value(json_object_get(record_json(record), "folder")));
    files_put(files_path(folder, "log.txt"), "1", 1);
    check_ok(record_digest(record, "folder", folder));
    assert_string_equal(json_string_value(json_object_get(record_json(record), "folder")), before);
    files_put(files_path(folder, "b.safetensors"), "1", 1);
    check_ok(record_digest(record, "folder", folder));
    assert_string_not_equal(json_string_value(json_object_get(record_json(record), "folder")), before);
    check_fails(record_digest(record, "x", files_path(folder, "missing")), STATUS_IO);
    free(before);
    record_free(record);
    files_remove(folder);
}

static void arrays_are_what_numpy_reads(void **state) {
    (void)state;
    char *folder = files_folder();
    const double values[6] = {1, -2, 3.5, 0, 1e300, -0.0};
    size_t n;
    check_ok(npy_write(files_path(folder, "a.npy"), NPY_F64, values, 2, 3));
    char *bytes = files_bytes(files_path(folder, "a.npy"), &n);
    const char *want = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }";
    assert_int_equal(n, 128 + sizeof values);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(bytes + 10, want, strlen(want));
    assert_int_equal(bytes[127], '\n');
    assert_memory_equal(bytes + 128, values, sizeof values);
    free(bytes);
    check_ok(npy_write(files_path(folder, "b.npy"), NPY_I64, NULL, 0, 0));
    bytes = files_bytes(files_path(folder, "b.npy"), &n);
    assert_int_equal(n, 128);
    assert_non_null(strstr(bytes + 10, "'<i8', 'fortran_order': False, 'shape': (0,), }"));
    free(bytes);
    files_remove(folder);
}

// Every system call of a run that writes is made to fail in turn; whatever then lies there, --resume ends with the same
// result, or the folder is as empty as a new one.
static void a_run_survives_a_failure_of_any_write(void **state) {
    (void)state;
    char *folder = files_folder();
    bool failed = true;
    for (int64_t k = 0; failed; k++) {
        assert_true(k < 500);
        char *path = mem_format("%s/%lld", folder, (long long)k);
        whole_file_fail_at(k);
        enum status status = simulate(path, false, false, 4, STEPS);
        whole_file_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) {
            assert_int_equal(status, STATUS_IO);
            assert_non_null(strstr(status_message(), "No space left"));
        }
        check_ok(simulate(path, true, false, 4, STEPS));
        check_status(path, "done");
        char *result = files_bytes(files_path(path, "result.json"), NULL), *first;
        first = files_bytes(files_path(folder, "0/result.json"), NULL);
        assert_string_equal(result, first);
        free(result);
        free(first);
        free(path);
    }
    files_remove(folder);
}

// simulate(path, false, true, 5, STEPS) in a process that is killed behind its k-th system call; false once it ends before.
static bool replaced_and_killed(const char *path, int64_t k) {
    int state;
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(2);
        raise(SIGSTOP);
        _exit(simulate(path, false, true, 5, STEPS) == STATUS_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &state, 0), child);
    if (WIFEXITED(state) && WEXITSTATUS(state) == 2) skip();                // a machine where no process may be traced
    for (int64_t stops = 2 * k; stops >= 0 && WIFSTOPPED(state); stops--) { // before and behind each call
        ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        assert_int_equal(waitpid(child, &state, 0), child);
    }
    bool killed = WIFSTOPPED(state);
    if (!killed) assert_true(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    if (killed) {
        kill(child, SIGKILL);
        waitpid(child, &state, 0);
    }
    return killed;
}

// A run that is told to replace an unfinished one with other settings is killed behind each of its system calls: what lies
// there is the one or the other, and goes on as such.
static void a_replaced_run_leaves_nothing_to_its_successor(void **state) {
    (void)state;
    char *folder = files_folder(), *wants[2];
    for (int64_t i = 0; i < 2; i++) {
        check_ok(simulate(files_path(folder, i ? "b" : "a"), false, false, 4 + i, STEPS));
        wants[i] = files_bytes(files_path(folder, i ? "b/result.json" : "a/result.json"), NULL);
    }
    assert_string_not_equal(wants[0], wants[1]);
    bool killed = true, was[2] = {false};
    for (int64_t k = 0; killed; k++) {
        assert_true(k < 2000);
        char *path = mem_format("%s/%lld", folder, (long long)k);
        check_ok(simulate(path, false, false, 4, STEPS - 1));
        files_put(files_path(path, "result.json"), "{}", 2);
        files_put(files_path(path, "old.npy"), "x", 1);
        killed = replaced_and_killed(path, k);
        int which = simulate(path, true, false, 5, STEPS - 1) == STATUS_OK;
        was[which] = true;
        char *left = files_bytes(files_path(path, "result.json"), NULL);
        if (which && left) assert_string_not_equal(left, "{}");
        assert_true(files_has(path, "old.npy") == !which);
        free(left);
        check_ok(simulate(path, true, false, 4 + which, STEPS));
        check_status(path, "done");
        assert_false(files_has(path, "checkpoint"));
        char *result = files_bytes(files_path(path, "result.json"), NULL);
        assert_string_equal(result, wants[which]);
        free(result);
        free(path);
    }
    assert_true(was[0] && was[1]);
    free(wants[0]);
    free(wants[1]);
    files_remove(folder);
}

// The size of files is limited, so that write() itself fails: metrics.jsonl ends with a whole line.
static void a_full_disk_leaves_whole_lines(void **state) {
    (void)state;
    char *folder = files_folder();
    struct run_folder *run = NULL;
    struct record *line = record_new();
    struct rlimit before, limit = {10000, RLIM_INFINITY};
    enum status status = STATUS_OK;
    check_ok(run_folder_open(&(struct run_folder_options){.path = folder, .program = "p"}, &run));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int step = 0; step < 1000 && status == STATUS_OK; step++) {
        record_integer(line, "step", step);
        status = run_folder_log(run, line);
    }
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, STATUS_IO);
    run_folder_finish(run, status);
    run_folder_free(run);
    size_t n;
    char *text = files_bytes(files_path(folder, "metrics.jsonl"), &n);
    assert_true(n > 9900 && n <= 10000 && text[n - 1] == '\n');
    free(text);
    record_free(line);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_run_leaves_its_files),
        cmocka_unit_test(a_resumed_run_leaves_the_same_bytes),
        cmocka_unit_test(an_earlier_run_is_not_overwritten_unasked),
        cmocka_unit_test(a_folder_with_other_files_is_not_taken),
        cmocka_unit_test(resume_names_the_first_setting_that_differs),
        cmocka_unit_test(a_broken_folder_is_refused_in_one_line),
        cmocka_unit_test(a_folder_in_use_is_refused),
        cmocka_unit_test(a_failed_run_says_why),
        cmocka_unit_test(without_a_folder_nothing_is_written),
        cmocka_unit_test(numbers_keep_their_bits_and_are_short),
        cmocka_unit_test(digests_follow_the_bytes),
        cmocka_unit_test(arrays_are_what_numpy_reads),
        cmocka_unit_test(a_run_survives_a_failure_of_any_write),
        cmocka_unit_test(a_replaced_run_leaves_nothing_to_its_successor),
        cmocka_unit_test(a_full_disk_leaves_whole_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
