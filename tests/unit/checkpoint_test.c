#include "tests/files.h"

#include "data/checkpoint.h"
#include "data/whole_file.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <time.h>
#include <zlib.h>

static const float floats[5] = {1, -2.5f, 0, 1e-40f, 3e38f};
static const double doubles[3] = {1e-300, -1, 2};
static const char bytes[7] = "seven b";

static struct checkpoint *example(void) {
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "step", -12345678901);
    checkpoint_add_floats(state, "x", floats, 5);
    checkpoint_add_number(state, "loss", 0.1);
    checkpoint_add_doubles(state, "moments", doubles, 3);
    checkpoint_add_bytes(state, "order", bytes, 7);
    checkpoint_add_floats(state, "nothing", NULL, 0);
    return state;
}

static void a_checkpoint_is_read_as_it_was_written(void **state) {
    (void)state;
    char *folder = files_folder();
    struct checkpoint *saved = example(), *read = NULL;
    check_ok(checkpoint_write(saved, files_path(folder, "c")));
    checkpoint_free(saved);
    check_ok(checkpoint_read(files_path(folder, "c"), &read));
    int64_t step;
    double loss, d[3];
    float x[5];
    char b[7];
    check_ok(checkpoint_integer(read, "step", INT64_MIN, INT64_MAX, &step));
    check_ok(checkpoint_number(read, "loss", &loss));
    check_ok(checkpoint_floats(read, "x", x, 5));
    check_ok(checkpoint_floats(read, "nothing", NULL, 0));
    check_ok(checkpoint_doubles(read, "moments", d, 3));
    check_ok(checkpoint_bytes(read, "order", b, 7));
    assert_true(step == -12345678901 && loss == 0.1);
    assert_memory_equal(x, floats, sizeof x);
    assert_memory_equal(d, doubles, sizeof d);
    assert_memory_equal(b, bytes, sizeof b);
    assert_true(checkpoint_has(read, "x") && !checkpoint_has(read, "y"));
    check_fails(checkpoint_floats(read, "y", x, 5), STATUS_FORMAT);
    check_fails(checkpoint_floats(read, "x", x, 4), STATUS_FORMAT);
    check_fails(checkpoint_doubles(read, "x", d, 3), STATUS_FORMAT);
    check_fails(checkpoint_integer(read, "step", 0, 10, &step), STATUS_FORMAT);
    checkpoint_free(read);
    check_fails(checkpoint_read(files_path(folder, "missing"), &read), STATUS_IO);
    check_fails(checkpoint_read(folder, &read), STATUS_IO);
    files_remove(folder);
}

// One byte changed anywhere, in each of several ways; cut at any length; longer by one.
static void damage_anywhere_is_noticed(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "c");
    struct checkpoint *saved = example(), *read = NULL;
    size_t n;
    check_ok(checkpoint_write(saved, path));
    checkpoint_free(saved);
    char *sound = files_bytes(path, &n), *bad = mem_new(n + 1, 1);
    static const unsigned char masks[] = {0x01, 0x80, 0xFF, 0x55};
    for (size_t i = 0; i < n; i++) {
        for (size_t m = 0; m < sizeof masks; m++) {
            memcpy(bad, sound, n);
            bad[i] = (char)(bad[i] ^ masks[m]);
            files_put(path, bad, n);
            check_fails(checkpoint_read(path, &read), STATUS_FORMAT);
        }
        files_put(path, sound, i);
        check_fails(checkpoint_read(path, &read), STATUS_FORMAT);
    }
    memcpy(bad, sound, n);
    bad[n] = 0;
    files_put(path, bad, n + 1);
    check_fails(checkpoint_read(path, &read), STATUS_FORMAT);
    files_put(path, sound, n);
    check_ok(checkpoint_read(path, &read));
    checkpoint_free(read);
    free(sound);
    free(bad);
    files_remove(folder);
}

// A file of 32 bytes header and `table` with right checksums, as somebody could make up.
static enum status read_made_up(const char *path, uint32_t n_entries, const void *table, uint32_t table_bytes,
                                uint64_t data_bytes) {
    unsigned char file[4096] = "DQCHKPT1";
    uint64_t file_bytes = 32 + (uint64_t)table_bytes + data_bytes;
    uint32_t table_crc = (uint32_t)crc32_z(0, table, table_bytes);
    memcpy(file + 8, &n_entries, 4);
    memcpy(file + 12, &table_bytes, 4);
    memcpy(file + 16, &file_bytes, 8);
    memcpy(file + 24, &table_crc, 4);
    uint32_t header_crc = (uint32_t)crc32_z(0, file, 28);
    memcpy(file + 28, &header_crc, 4);
    memcpy(file + 32, table, table_bytes);
    files_put(path, file, file_bytes);
    struct checkpoint *read = NULL;
    enum status status = checkpoint_read(path, &read);
    checkpoint_free(read);
    return status;
}

struct __attribute__((packed)) row {
    uint32_t name_bytes, kind;
    uint64_t n;
    uint32_t crc;
    char name[4];
};

static void made_up_tables_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "c");
    const uint32_t crc = (uint32_t)crc32_z(0, (const unsigned char *)"\0\0\0\0\0\0\0", 8); // of eight zero bytes
    const struct row good = {4, 0, 1, crc, "step"};
    check_ok(read_made_up(path, 1, &good, sizeof good, 8));
    check_ok(read_made_up(path, 0, "", 0, 0));
    struct row bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].name_bytes = 0;
    bad[1].name_bytes = 5;
    bad[2].name_bytes = UINT32_MAX;
    bad[3].kind = 5;
    bad[4].kind = UINT32_MAX;
    bad[5].n = 2; // an integer is one
    bad[6].kind = 3, bad[6].n = 1u << 20;
    bad[7].kind = 3, bad[7].n = (UINT64_C(1) << 61) + 1; // times 8 is 8 in 64 bits
    bad[8].name[1] = 0;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_fails(read_made_up(path, 1, &bad[i], sizeof *bad, 8), STATUS_FORMAT);
    const struct row twice[2] = {good, good};
    check_fails(read_made_up(path, 2, twice, sizeof twice, 16), STATUS_FORMAT);
    check_fails(read_made_up(path, 1, &good, sizeof good, 9), STATUS_FORMAT); // a byte no entry owns
    check_fails(read_made_up(path, 2, &good, sizeof good, 8), STATUS_FORMAT); // an entry too many
    check_fails(read_made_up(path, 0, &good, sizeof good, 8), STATUS_FORMAT); // one too few
    check_fails(read_made_up(path, UINT32_MAX, &good, sizeof good, 8), STATUS_FORMAT);
    files_remove(folder);
}

enum { BIG = 400000 };

// Writes a checkpoint of BIG floats that all equal `value`.
static enum status write_big(const char *path, int64_t value) {
    struct checkpoint *saved = checkpoint_new();
    float *x = mem_new(BIG, sizeof *x);
    for (int i = 0; i < BIG; i++) x[i] = (float)value;
    checkpoint_add_integer(saved, "value", value);
    checkpoint_add_floats(saved, "x", x, BIG);
    enum status status = checkpoint_write(saved, path);
    checkpoint_free(saved);
    free(x);
    return status;
}

// The value of such a checkpoint, all of which must agree.
static int64_t read_big(const char *path) {
    struct checkpoint *read = NULL;
    int64_t value = -1;
    float *x = mem_new(BIG, sizeof *x);
    check_ok(checkpoint_read(path, &read));
    check_ok(checkpoint_integer(read, "value", 0, 1 << 20, &value));
    check_ok(checkpoint_floats(read, "x", x, BIG));
    for (int i = 0; i < BIG; i++) assert_true(x[i] == (float)value);
    checkpoint_free(read);
    free(x);
    return value;
}

static void a_kill_leaves_the_old_or_the_new_one_whole(void **state) {
    (void)state;
    char *folder = files_folder();
    char *path = mem_format("%s/c", folder);
    int64_t value = 0;
    check_ok(write_big(path, value));
    for (int round = 0; round < 25; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (int64_t v = value + 1; write_big(path, v) == STATUS_OK; v++) {}
            _exit(1);
        }
        struct timespec pause = {.tv_nsec = 1000000 + 1700000 * round};
        nanosleep(&pause, NULL);
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        assert_true(WIFSIGNALED(how));
        int64_t now = read_big(path);
        assert_true(now >= value);
        value = now;
    }
    check_ok(write_big(path, value + 1)); // what the killed ones left aside is in nobody's way
    assert_int_equal(read_big(path), value + 1);
    assert_true(!files_has(folder, "c.part"));
    free(path);
    files_remove(folder);
}

static void a_failed_write_leaves_the_previous_one(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "c");
    check_ok(write_big(path, 1));
    enum status status = STATUS_IO;
    for (int64_t k = 0; status != STATUS_OK; k++) {
        assert_true(k < 100);
        whole_file_fail_at(k);
        status = write_big(path, 2 + k);
        whole_file_fail_at(-1);
        if (status == STATUS_OK) break;
        assert_int_equal(status, STATUS_IO);
        assert_int_equal(read_big(path), 1);
        assert_true(!files_has(folder, "c.part"));
    }
    assert_true(read_big(path) > 1);
    files_remove(folder);
}

static void a_file_size_limit_leaves_the_previous_one(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "c");
    struct rlimit before, limit;
    check_ok(write_big(path, 1));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){1000000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    enum status status = write_big(path, 2);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, STATUS_IO);
    assert_int_equal(read_big(path), 1);
    assert_true(!files_has(folder, "c.part"));
    files_remove(folder);
}

// On a file system of 2 MB, which only root can make; where it cannot be had the test is skipped.
static void a_full_file_system_leaves_the_previous_one(void **state) {
    (void)state;
    char *folder = files_folder();
    pid_t child = fork();
    if (child == 0) { // a mount namespace of its own: the file system goes with the process
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("none", folder, "tmpfs", 0, "size=2m") != 0)
            _exit(77);
        const char *path = files_path(folder, "c");
        if (write_big(path, 1) != STATUS_OK) _exit(2);
        if (write_big(path, 2) != STATUS_IO || !strstr(status_message(), "No space left")) _exit(3);
        struct checkpoint *read = NULL;
        int64_t value = 0;
        if (checkpoint_read(path, &read) != STATUS_OK) _exit(4);
        if (checkpoint_integer(read, "value", 1, 1, &value) != STATUS_OK) _exit(5);
        checkpoint_free(read);
        _exit(files_has(folder, "c.part") ? 6 : 0);
    }
    int how;
    waitpid(child, &how, 0);
    files_remove(folder);
    if (WIFEXITED(how) && WEXITSTATUS(how) == 77) {
        print_message("skipped: a small file system cannot be mounted here\n");
        skip();
    }
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_is_read_as_it_was_written),
        cmocka_unit_test(damage_anywhere_is_noticed),
        cmocka_unit_test(made_up_tables_are_refused),
        cmocka_unit_test(a_kill_leaves_the_old_or_the_new_one_whole),
        cmocka_unit_test(a_failed_write_leaves_the_previous_one),
        cmocka_unit_test(a_file_size_limit_leaves_the_previous_one),
        cmocka_unit_test(a_full_file_system_leaves_the_previous_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
