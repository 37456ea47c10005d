#include "spectra/merge.h"
#include "spectra/store.h"
#include "spectra/sums.h"
#include "tests/files.h"

#include "core/base/rng.h"

#include <zlib.h>

enum { GROUPS = 2, DIRECTIONS = 1, DIM = 5, SKETCHES = 3, SAMPLES = 7, NUMBERS = GROUPS * SKETCHES * DIM };
enum { ELEMENTS_A = 6, ELEMENTS_B = 10 };

// Fails with this status and a message that holds `text`.
static void check_says(enum status status, enum status code, const char *text) {
    check_fails(status, code);
    if (strstr(status_message(), text)) return;
    print_error("'%s' is not in the message: %s\n", text, status_message());
    fail();
}

static struct settings *example(const char *model) {
    static const char *const groups[] = {"layer 0", "layer 1"};
    struct settings *s = mem_new(1, sizeof *s);
    *s = (struct settings){.model = mem_string(model),
                           .corpus = mem_string("crc32:00000001 bytes:2"),
                           .dtype = mem_string("F32"),
                           .seq_len = 8,
                           .batch = 4,
                           .seed = 5,
                           .parameters = mem_string("linear"),
                           .sketch = mem_string("rotation"),
                           .dim = DIM,
                           .sketches = SKETCHES,
                           .n_groups = GROUPS,
                           .n_weights = 2,
                           .n_directions = DIRECTIONS};
    s->groups = mem_new(GROUPS, sizeof *s->groups);
    for (int g = 0; g < GROUPS; g++) s->groups[g] = mem_string(groups[g]);
    s->directions = mem_new(1, sizeof *s->directions);
    s->directions[0] = mem_string("rtn=bits 4 group_size 32");
    s->weights = mem_new(2, sizeof *s->weights);
    s->weights[0] = (struct settings_weight){mem_string("a"), ELEMENTS_A, 0};
    s->weights[1] = (struct settings_weight){mem_string("b"), ELEMENTS_B, 1};
    return s;
}

// Numbers of sample i, a function of i alone.
struct numbers {
    double loss, norms[GROUPS], inner[DIRECTIONS];
    float sketches[NUMBERS];
    struct store_record record;
};

static void fill(struct numbers *numbers, int64_t sample) {
    struct rng rng = {.seed = (uint64_t)sample, .stream = RNG_TEST};
    numbers->loss = rng_normal(rng, 100);
    for (int i = 0; i < GROUPS; i++) numbers->norms[i] = fabs(rng_normal(rng, (uint64_t)(200 + i)));
    numbers->inner[0] = rng_normal(rng, 300);
    for (int i = 0; i < NUMBERS; i++) numbers->sketches[i] = (float)rng_normal(rng, (uint64_t)i);
    numbers->record = (struct store_record){.sample = sample,
                                            .loss = numbers->loss,
                                            .norms = numbers->norms,
                                            .inner = numbers->inner,
                                            .sketches = numbers->sketches};
}

static void append(struct store *store, int64_t n) {
    struct numbers numbers;
    for (int64_t i = 0; i < n; i++) {
        fill(&numbers, store->first + store->n);
        check_ok(store_append(store, &numbers.record));
    }
    check_ok(store_sync(store));
}

static void check_record(struct store *store, int64_t i) {
    struct numbers want;
    struct store_record record;
    fill(&want, store->first + i);
    check_ok(store_read(store, i, &record));
    assert_int_equal(record.sample, store->first + i);
    assert_memory_equal(&record.loss, &want.loss, 8);
    assert_memory_equal(record.norms, want.norms, sizeof want.norms);
    assert_memory_equal(record.inner, want.inner, sizeof want.inner);
    assert_memory_equal(record.sketches, want.sketches, sizeof want.sketches);
}

static void check_whole(const char *path, int64_t first, int64_t n) {
    struct store *store = NULL;
    check_ok(store_open(path, &store));
    assert_int_equal(store->first, first);
    assert_int_equal(store->n, n);
    for (int64_t i = n; i-- > 0;) check_record(store, i);
    store_free(store);
}

// A whole store with the sums of what its samples' numbers say: entry e of sample i is a multiple of 2^-40.
static void make_part(const char *folder, const struct settings *settings, int64_t first, int64_t n) {
    struct store *store = NULL;
    struct sums *sums = NULL;
    char *records = mem_format("%s/records", folder), *sums_path = mem_format("%s/sums", folder);
    assert_int_equal(mkdir(folder, 0777), 0);
    check_ok(store_create(records, settings, first, n, &store));
    append(store, n);
    check_ok(sums_new(settings, &sums));
    for (int64_t i = first; i < first + n; i++)
        for (int64_t w = 0; w < settings->n_weights; w++)
            for (int64_t e = 0; e < settings->weights[w].elements; e++) {
                struct rng rng = {.seed = (uint64_t)i, .stream = RNG_TEST + 1 + (uint64_t)w};
                sums->values[w][e] += rint(rng_normal(rng, (uint64_t)e) * 0x1p40) * 0x1p-40;
            }
    sums->samples = n;
    check_ok(sums_write(sums, sums_path, first));
    sums_free(sums);
    store_free(store);
    free(records);
    free(sums_path);
}

static void records_come_back_bit_for_bit(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct settings *settings = example("crc32:12345678 bytes:9");
    struct store *store = NULL;
    check_ok(store_create(path, settings, 3, SAMPLES, &store));
    append(store, SAMPLES);
    store_free(store);
    check_whole(path, 3, SAMPLES);
    check_ok(store_open(path, &store));
    check_ok(settings_same(store->settings, path, settings, "this run"));
    store_free(store);
    settings_free(settings);
    files_remove(folder);
}

static void unfinished_stores_are_not_read(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct settings *settings = example("m");
    struct store *store = NULL;
    check_ok(store_create(path, settings, 0, SAMPLES, &store));
    append(store, 4);
    store_free(store);
    check_says(store_open(path, &store), STATUS_INVALID, "holds 4 of 7 samples");
    settings_free(settings);
    files_remove(folder);
}

// Every length that a kill can leave: what follows the last kept record is cut, the rest written again, and the file is the
// same as without interruption.
static void resume_cuts_a_torn_tail(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct settings *settings = example("m");
    struct store *store = NULL;
    size_t whole_bytes, bytes;
    check_ok(store_create(path, settings, 0, SAMPLES, &store));
    append(store, SAMPLES);
    int64_t header = store->header_bytes, record = store->record_bytes;
    store_free(store);
    char *whole = files_bytes(path, &whole_bytes);
    assert_int_equal(whole_bytes, header + SAMPLES * record);
    for (int64_t keep = 0; keep < SAMPLES; keep += 2)
        for (int64_t torn = 0; torn <= 2 * record && keep * record + torn <= SAMPLES * record; torn += 13) {
            files_put(path, whole, (size_t)(header + keep * record + torn));
            check_ok(store_resume(path, settings, 0, SAMPLES, keep, &store));
            assert_int_equal(store->n, keep);
            free(files_bytes(path, &bytes));
            assert_int_equal(bytes, header + keep * record);
            append(store, SAMPLES - keep);
            store_free(store);
            char *again = files_bytes(path, &bytes);
            assert_int_equal(bytes, whole_bytes);
            assert_memory_equal(again, whole, bytes);
            free(again);
        }
    files_put(path, whole, (size_t)(header + 3 * record - 1));
    check_says(store_resume(path, settings, 0, SAMPLES, 3, &store), STATUS_FORMAT,
               "holds 2 samples, 3 had been written");
    free(whole);
    settings_free(settings);
    files_remove(folder);
}

static void stores_of_another_model_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct settings *mine = example("crc32:11111111 bytes:9"), *other = example("crc32:22222222 bytes:9");
    struct store *store = NULL;
    check_ok(store_create(path, mine, 0, SAMPLES, &store));
    append(store, 2);
    store_free(store);
    check_says(store_resume(path, other, 0, SAMPLES, 2, &store), STATUS_INVALID, "'model' is");
    other->model[6] = mine->model[6];
    settings_free(other);
    other = example(mine->model);
    other->seq_len = 9;
    check_says(store_resume(path, other, 0, SAMPLES, 2, &store), STATUS_INVALID, "'seq_len' is 8 there, but 9");
    other->seq_len = 8;
    other->weights[1].elements++;
    check_says(store_resume(path, other, 0, SAMPLES, 2, &store), STATUS_INVALID, "'weights'");
    check_says(store_resume(path, mine, 1, SAMPLES, 2, &store), STATUS_INVALID, "from 1 on");
    settings_free(mine);
    settings_free(other);
    files_remove(folder);
}

// Whether every record can be read.
static bool reads(const char *path) {
    struct store *store = NULL;
    struct store_record record;
    bool good = store_open(path, &store) == STATUS_OK;
    for (int64_t i = 0; good && i < store->n; i++) good = store_read(store, i, &record) == STATUS_OK;
    store_free(store);
    return good;
}

static void every_damaged_byte_and_every_cut_is_seen(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct settings *settings = example("m");
    struct store *store = NULL;
    size_t n;
    check_ok(store_create(path, settings, 0, 2, &store));
    append(store, 2);
    store_free(store);
    char *bytes = files_bytes(path, &n);
    assert_true(reads(path));
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= 0x20;
        files_put(path, bytes, n);
        assert_false(reads(path));
        bytes[i] ^= 0x20;
        files_put(path, bytes, i);
        assert_false(reads(path));
    }
    files_put(path, bytes, n);
    assert_true(reads(path));
    free(bytes);
    settings_free(settings);
    files_remove(folder);
}

// A header whose CRC is right, but whose text lies.
static void check_header(const char *path, const char *text, const char *message) {
    struct {
        char magic[8];
        uint32_t text_bytes, record_bytes, crc, zero;
    } header = {.text_bytes = (uint32_t)strlen(text), .record_bytes = 64};
    struct store *store = NULL;
    char *bytes = mem_new(1, sizeof header + strlen(text));
    memcpy(header.magic, "DQSAMPLE", 8);
    header.crc = (uint32_t)crc32_z(crc32_z(0, (const Bytef *)&header, 16), (const Bytef *)text, strlen(text));
    memcpy(bytes, &header, sizeof header);
    memcpy(bytes + sizeof header, text, strlen(text));
    files_put(path, bytes, sizeof header + strlen(text));
    check_says(store_open(path, &store), STATUS_FORMAT, message);
    free(bytes);
}

static void hostile_settings_are_refused(void **state) {
    (void)state;
    static const char rest[] =
        "\"model\":\"m\",\"corpus\":\"c\",\"dtype\":\"F32\",\"seq_len\":8,\"batch\":4,\"seed\":5,"
        "\"parameters\":\"linear\",\"sketch\":\"rotation\"";
    char *folder = files_folder();
    const char *path = files_path(folder, "records");
    struct {
        const char *text, *message;
    } cases[] = {
        {"\"version\":2", "'version' is 2"},
        {"\"version\":1,\"dim\":1099511627776,\"sketches\":1", "'dim' is 1099511627776"},
        {"\"version\":1,\"dim\":-4,\"sketches\":1", "'dim' is -4"},
        {"\"version\":1,\"dim\":4,\"sketches\":1,\"groups\":[]", "no group"},
        {"\"version\":1,\"dim\":4,\"sketches\":1,\"groups\":[1]", "must hold strings"},
        {"\"version\":1,\"dim\":4,\"sketches\":1,\"groups\":[\"g\"],\"weights\":[{\"name\":\"a\",\"elements\":4,"
         "\"group\":1}]",
         "'group' is 1"},
        {"\"version\":1,\"dim\":4,\"sketches\":1,\"groups\":[\"g\"],\"weights\":[],\"directions\":[],\"first_sample\":-"
         "1,"
         "\"samples\":1",
         "cannot be"},
        {"\"version\":1,\"dim\":16777216,\"sketches\":1024,\"groups\":[\"g\"],\"weights\":[],\"directions\":[],"
         "\"first_sample\":0,\"samples\":1",
         "do not fit the settings"},
        {"\"version\":1,\"dim\":4,\"sketches\":1,\"groups\":[\"g\"],\"weights\":[],\"directions\":[],\"first_sample\":"
         "0,"
         "\"samples\":1",
         "do not fit the settings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = mem_format("{%s,%s}", cases[i].text, rest);
        check_header(path, text, cases[i].message);
        free(text);
    }
    check_header(path, "{", "records");
    files_remove(folder);
}

static void merged_shards_have_the_bytes_of_one_run(void **state) {
    (void)state;
    char *folder = files_folder();
    const char *const names[] = {"c", "a", "b"};
    static const int64_t firsts[] = {6, 2, 3}, counts[] = {3, 1, 3};
    struct settings *settings = example("m");
    char *paths[3];
    int64_t first, samples;
    for (int i = 0; i < 3; i++) {
        paths[i] = mem_string(files_path(folder, names[i]));
        make_part(paths[i], settings, firsts[i], counts[i]);
    }
    make_part(files_path(folder, "one"), settings, 2, 7);
    mkdir(files_path(folder, "all"), 0777);
    check_ok(merge((const char *const *)paths, 3, files_path(folder, "all"), &first, &samples));
    assert_int_equal(first, 2);
    assert_int_equal(samples, 7);
    check_whole(files_path(folder, "all/records"), 2, 7);
    for (int i = 0; i < 2; i++) {
        size_t n, want_n;
        char *bytes = files_bytes(files_path(folder, i ? "all/sums" : "all/records"), &n);
        char *want = files_bytes(files_path(folder, i ? "one/sums" : "one/records"), &want_n);
        assert_int_equal(n, want_n);
        assert_memory_equal(bytes, want, n);
        free(bytes);
        free(want);
    }
    for (int i = 0; i < 3; i++) free(paths[i]);
    settings_free(settings);
    files_remove(folder);
}

static void shards_with_gaps_overlaps_or_other_settings_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct settings *settings = example("m"), *other = example("another");
    char *a = mem_string(files_path(folder, "a")), *b = mem_string(files_path(folder, "b"));
    char *c = mem_string(files_path(folder, "c")), *d = mem_string(files_path(folder, "d"));
    int64_t first, samples;
    make_part(a, settings, 0, 4);
    make_part(b, settings, 3, 2);
    make_part(c, settings, 5, 2);
    make_part(d, other, 4, 1);
    check_says(merge((const char *[]){a, b}, 2, folder, &first, &samples), STATUS_INVALID, "sample 3 is in");
    check_says(merge((const char *[]){c, a}, 2, folder, &first, &samples), STATUS_INVALID,
               "samples 4 to 4 are missing");
    check_says(merge((const char *[]){a, d}, 2, folder, &first, &samples), STATUS_INVALID, "'model'");
    assert_false(files_has(folder, "records"));
    char *paths[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) free(paths[i]);
    settings_free(settings);
    settings_free(other);
    files_remove(folder);
}

static void sums_of_other_samples_are_refused(void **state) {
    (void)state;
    char *folder = files_folder();
    struct settings *settings = example("m"), *other = example("another");
    struct sums *sums = NULL;
    make_part(files_path(folder, "a"), settings, 2, 3);
    const char *path = files_path(folder, "a/sums");
    check_says(sums_read(path, other, 2, &sums), STATUS_FORMAT, "other samples");
    check_says(sums_read(path, settings, 3, &sums), STATUS_FORMAT, "other samples");
    check_ok(sums_read(path, settings, 2, &sums));
    assert_int_equal(sums->samples, 3);
    double squares[GROUPS], want[GROUPS] = {0};
    sums_squares(sums, squares);
    for (int64_t w = 0; w < 2; w++)
        for (int64_t e = 0; e < settings->weights[w].elements; e++) want[w] += sums->values[w][e] * sums->values[w][e];
    for (int g = 0; g < GROUPS; g++) check_near(squares[g], want[g], 1e-14, 0);
    sums->values[1][3] = 4095;
    struct sums *more = NULL;
    check_ok(sums_read(path, settings, 2, &more));
    more->values[1][3] = 2;
    check_says(sums_add(sums, more), STATUS_INVALID, "kept exactly");
    sums_free(sums);
    sums_free(more);
    settings_free(settings);
    settings_free(other);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_back_bit_for_bit),
        cmocka_unit_test(unfinished_stores_are_not_read),
        cmocka_unit_test(resume_cuts_a_torn_tail),
        cmocka_unit_test(stores_of_another_model_are_refused),
        cmocka_unit_test(every_damaged_byte_and_every_cut_is_seen),
        cmocka_unit_test(hostile_settings_are_refused),
        cmocka_unit_test(merged_shards_have_the_bytes_of_one_run),
        cmocka_unit_test(shards_with_gaps_overlaps_or_other_settings_are_refused),
        cmocka_unit_test(sums_of_other_samples_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
