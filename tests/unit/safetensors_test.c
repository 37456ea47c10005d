#include "tests/files.h"

#include "data/safetensors.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

#include <sys/resource.h>

// Writes tensors whose bytes count up from the tensor's index in `entries`.
static enum status counting_write(const char *path, const struct safetensors_entry *entries, int64_t n) {
    enum status status = STATUS_OK;
    struct safetensors_writer *writer = NULL;
    unsigned char *bytes = NULL;
    TRY(safetensors_writer_new(path, entries, n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) {
        int64_t n_bytes = safetensors_dtype_bits(entries[i].dtype);
        for (int64_t d = 0; d < entries[i].rank; d++) n_bytes *= entries[i].shape[d];
        n_bytes /= 8;
        bytes = mem_resize(bytes, (size_t)n_bytes, 1);
        for (int64_t b = 0; b < n_bytes; b++) bytes[b] = (unsigned char)(i + b);
        TRY(safetensors_writer_put(writer, bytes, n_bytes / 3)); // in pieces
        TRY(safetensors_writer_put(writer, bytes + n_bytes / 3, n_bytes - n_bytes / 3));
    }
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    free(bytes);
    return status;
}

// Byte for byte what the reference writes: dtype descending, name ascending, compact JSON, spaces to a multiple of 8.
static void writer_writes_as_the_reference(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    static const int64_t shape[] = {2, 1};
    const struct safetensors_entry entries[] = {{"b", SAFETENSORS_BF16, 2, shape},
                                                {"i", SAFETENSORS_I64, 0, NULL},
                                                {"a\"\n\x01\xc3\xa9", SAFETENSORS_BF16, 1, shape},
                                                {"z", SAFETENSORS_F32, 1, shape + 1},
                                                {"e", SAFETENSORS_U8, 0, NULL}};
    check_ok(counting_write(path, entries, 5));
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"i\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
        "\"a\\\"\\n\\u0001\xc3\xa9\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[12,16]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[16,20]},"
        "\"e\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[20,21]}}";
    enum { N = sizeof header - 1, PADDED = (N + 7) / 8 * 8 };
    unsigned char want[8 + PADDED + 21] = {PADDED & 255, PADDED >> 8};
    memset(want + 8, ' ', PADDED);
    memcpy(want + 8, header, N);
    static const unsigned char data[21] = {1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 2, 3, 4, 5, 0, 1, 2, 3, 4};
    memcpy(want + 8 + PADDED, data, sizeof data);
    size_t n = 0;
    char *got = files_bytes(path, &n);
    assert_int_equal(n, sizeof want);
    assert_memory_equal(got, want, n);
    free(got);
    files_remove(folder);
}

// A file that the Python package wrote, taken apart and written again.
static void files_of_the_reference_come_out_the_same(void **state) {
    (void)state;
    static const char *const names[] = {"llama_mha/model.safetensors", "phi3_gqa_bf16/model.safetensors",
                                        "llama_headdim_sharded/model-00002-of-00003.safetensors"};
    char *folder = files_folder();
    const char *copy = files_path(folder, "copy");
    for (int f = 0; f < 3; f++) {
        char *name = mem_format("tests/golden/models/%s", names[f]), path[4096];
        struct safetensors *file = NULL;
        struct safetensors_writer *writer = NULL;
        check_ok(safetensors_open(check_source(name, path, sizeof path), &file));
        int64_t n = safetensors_n_tensors(file);
        struct safetensors_entry *entries = mem_new((size_t)n, sizeof *entries);
        for (int64_t i = 0; i < n; i++) { // in reverse, so that the writer has to sort
            const struct safetensors_tensor *tensor = safetensors_at(file, n - 1 - i);
            entries[i] = (struct safetensors_entry){tensor->name, tensor->dtype, tensor->rank, tensor->shape};
        }
        struct safetensors_pair metadata = safetensors_metadata(file, 0);
        check_ok(safetensors_writer_new(copy, entries, n, &metadata, 1, &writer));
        for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
            check_ok(safetensors_writer_put(writer, safetensors_at(file, n - 1 - i)->data,
                                            safetensors_at(file, n - 1 - i)->n_bytes));
        check_ok(safetensors_writer_finish(writer));
        size_t n_want = 0, n_got = 0;
        char *want = files_bytes(path, &n_want), *got = files_bytes(copy, &n_got);
        assert_int_equal(n_got, n_want);
        assert_memory_equal(got, want, n_want);
        free(want);
        free(got);
        free(entries);
        free(name);
        safetensors_writer_free(writer);
        safetensors_free(file);
    }
    files_remove(folder);
}

static void reader_returns_what_was_written_for_every_dtype(void **state) {
    (void)state;
    char *folder = files_folder(), names[SAFETENSORS_DTYPE_COUNT][32];
    const char *path = files_path(folder, "x.safetensors");
    static const int64_t shape[] = {2, 0, 4, 3};
    struct safetensors_entry entries[2 * SAFETENSORS_DTYPE_COUNT];
    enum { N = SAFETENSORS_DTYPE_COUNT };
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "empty %d", i);
        entries[i] = (struct safetensors_entry){safetensors_dtype_name(i), i, 2, shape + 2};
        entries[N + i] = (struct safetensors_entry){names[i], i, 3, shape};
    }
    check_ok(counting_write(path, entries, 2 * N));
    struct safetensors *file = NULL;
    check_ok(safetensors_open(path, &file));
    assert_int_equal(safetensors_n_tensors(file), 2 * N);
    for (int i = 0; i < 2 * N; i++) {
        const struct safetensors_tensor *tensor = safetensors_find(file, entries[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, entries[i].dtype);
        assert_int_equal(tensor->rank, entries[i].rank);
        assert_memory_equal(tensor->shape, entries[i].shape, (size_t)tensor->rank * sizeof *shape);
        assert_int_equal(tensor->n_elements, i < N ? 12 : 0);
        assert_int_equal(tensor->n_bytes, i < N ? 12 * safetensors_dtype_bits((enum safetensors_dtype)i) / 8 : 0);
        for (int64_t b = 0; b < tensor->n_bytes; b++) assert_int_equal(tensor->data[b], (i + b) & 255);
    }
    assert_null(safetensors_find(file, "absent"));
    assert_null(safetensors_find(file, ""));
    safetensors_free(file);
    files_remove(folder);
}

// 1.5, -0, 2^-14 in all four float formats, behind one byte that leaves nothing aligned.
static void unaligned_floats_are_read_exactly(void **state) {
    (void)state;
    static const char header[] = "{\"u\":[\"U8\",[1],[0,1]],\"h\":[\"F16\",[3],[1,7]],\"b\":[\"BF16\",[3],[7,13]],"
                                 "\"f\":[\"F32\",[3],[13,25]],\"d\":[\"F64\",[3],[25,49]]}";
    enum { N = sizeof header - 1 };
    static const float want[3] = {1.5f, -0.0f, 0x1p-14f};
    double doubles[3] = {1.5, -0.0, 0x1p-14};
    unsigned char *bytes = malloc(8 + N + 49);
    memset(bytes, 0, 8);
    bytes[0] = N & 255, bytes[1] = N >> 8;
    memcpy(bytes + 8, header, N);
    unsigned char *data = bytes + 8 + N;
    data[0] = 9;
    dtype_from_float(DTYPE_F16, want, data + 1, 3);
    dtype_from_float(DTYPE_BF16, want, data + 7, 3);
    memcpy(data + 13, want, sizeof want);
    memcpy(data + 25, doubles, sizeof doubles);
    struct safetensors *file = NULL;
    check_ok(safetensors_from_buffer(bytes, 8 + N + 49, "memory", &file));
    for (const char *name = "hbfd"; *name; name++) {
        float got[3];
        check_ok(safetensors_to_float(file, safetensors_find(file, (char[]){*name, 0}), got));
        assert_memory_equal(got, want, sizeof want);
    }
    float byte;
    check_fails(safetensors_to_float(file, safetensors_find(file, "u"), &byte), STATUS_UNSUPPORTED);
    safetensors_free(file);
    free(bytes);
}

static void the_first_value_that_is_not_finite_is_found(void **state) {
    (void)state;
    enum { N = 5000 };
    float *values = mem_new(N, sizeof *values);
    assert_int_equal(safetensors_not_finite(values, N), -1);
    static const int places[] = {N - 1, 1024, 1023, 0};
    for (int i = 0; i < 4; i++) {
        values[places[i]] = i % 2 ? -INFINITY : NAN;
        assert_int_equal(safetensors_not_finite(values, N), places[i]);
        assert_int_equal(safetensors_not_finite(values, places[i]), -1);
    }
    free(values);
}

static void impossible_tensors_are_not_written(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    static const int64_t one[] = {1}, huge[] = {INT64_MAX, 2}, negative[] = {-1};
    const struct safetensors_entry cases[][2] = {
        {{"a", SAFETENSORS_F32, 1, one}, {"a", SAFETENSORS_F16, 1, one}},
        {{"__metadata__", SAFETENSORS_F32, 1, one}, {"b", SAFETENSORS_F16, 1, one}},
        {{"a", SAFETENSORS_F32, 2, huge}, {"b", SAFETENSORS_F16, 1, one}},
        {{"a", SAFETENSORS_F32, 1, negative}, {"b", SAFETENSORS_F16, 1, one}},
        {{"a", SAFETENSORS_F4, 1, one}, {"b", SAFETENSORS_F16, 1, one}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_fails(counting_write(path, cases[i], 2), STATUS_INVALID);
        assert_int_equal(rmdir(folder), 0); // empty
        assert_int_equal(mkdir(folder, 0700), 0);
    }
    files_remove(folder);
}

// Every write, sync and rename made to fail in turn: an error each time, the old file stands, nothing else is there.
static void a_full_disk_leaves_the_old_file(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    static const int64_t shape[] = {300000};
    const struct safetensors_entry entries[] = {{"a", SAFETENSORS_F32, 1, shape}, {"b", SAFETENSORS_F16, 1, shape}};
    files_put(path, "old", 3);
    int64_t failures = 0;
    for (enum status status = STATUS_IO; status != STATUS_OK; failures++) {
        whole_file_fail_at(failures);
        status = counting_write(path, entries, 2);
        whole_file_fail_at(-1);
        if (status == STATUS_OK) break;
        assert_int_equal(status, STATUS_IO);
        files_check_text(path, "old");
        assert_int_equal(remove(path), 0);
        assert_int_equal(rmdir(folder), 0); // nothing else in it
        assert_int_equal(mkdir(folder, 0700), 0);
        files_put(path, "old", 3);
    }
    assert_true(failures >= 5); // create, write twice, sync, rename
    struct safetensors *file = NULL;
    check_ok(safetensors_open(path, &file));
    safetensors_free(file);
    files_remove(folder);
}

// The same with a limit that the system itself enforces.
static void a_file_size_limit_leaves_nothing(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "x.safetensors");
    static const int64_t shape[] = {300000};
    const struct safetensors_entry entry = {"a", SAFETENSORS_F32, 1, shape};
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    for (rlim_t bytes = 0; bytes < 1300000; bytes = bytes ? bytes * 3 : 50) {
        limit = (struct rlimit){bytes, before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        enum status status = counting_write(path, &entry, 1);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(status, bytes > 1200000 ? STATUS_OK : STATUS_IO);
        if (status == STATUS_OK) remove(path);
        assert_int_equal(rmdir(folder), 0);
        assert_int_equal(mkdir(folder, 0700), 0);
    }
    signal(SIGXFSZ, handler);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_writes_as_the_reference),
        cmocka_unit_test(files_of_the_reference_come_out_the_same),
        cmocka_unit_test(reader_returns_what_was_written_for_every_dtype),
        cmocka_unit_test(unaligned_floats_are_read_exactly),
        cmocka_unit_test(the_first_value_that_is_not_finite_is_found),
        cmocka_unit_test(impossible_tensors_are_not_written),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_file_size_limit_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
