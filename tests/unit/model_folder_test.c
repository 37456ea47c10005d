#include "tests/model_folders.h"

#include "data/json.h"

static void a_plain_copy_has_the_same_bytes(void **state) {
    (void)state;
    static const char *const names[] = {"llama_mha", "phi3_longrope_f16", "llama_headdim_sharded"};
    static const char *const files[] = {"config.json",
                                        "golden.json",
                                        "model.safetensors",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    char *out = files_folder();
    for (int i = 0; i < 3; i++) {
        struct model_folder *folder = golden_open(names[i]);
        const char *copy = in(out, names[i]);
        check_ok(model_folder_save(folder, copy, NULL, false));
        assert_int_equal(entries_count(copy), i == 2 ? 6 : 3);
        for (int f = 0; f < 6; f++) {
            if (!files_has(model_folder_path(folder), files[f]))
                assert_false(files_has(copy, files[f]));
            else
                bytes_check_same(in(model_folder_path(folder), files[f]), in(copy, files[f]));
        }
        model_folder_free(folder);
    }
    files_remove(out);
}

// Checks a saved folder against its source: names, shards, untouched bits, new values; returns how many became F32.
static int64_t saved_check(const struct model_folder *from, const struct model_folder *to, float step) {
    int64_t widened = 0;
    assert_int_equal(model_folder_n_files(from), model_folder_n_files(to));
    for (int64_t f = 0; f < model_folder_n_files(from); f++) {
        assert_string_equal(model_folder_file_name(from, f), model_folder_file_name(to, f));
        const struct safetensors *a = model_folder_file(from, f), *b = model_folder_file(to, f);
        assert_int_equal(safetensors_n_tensors(a), safetensors_n_tensors(b));
        for (int64_t i = 0; i < safetensors_n_tensors(a); i++) {
            const struct safetensors_tensor *old = safetensors_at(a, i), *new = safetensors_find(b, old->name);
            assert_non_null(new);
            assert_int_equal(old->rank, new->rank);
            assert_memory_equal(old->shape, new->shape, (size_t)old->rank * sizeof *old->shape);
            if (!rounding_selects(NULL, old->name)) {
                assert_int_equal(old->dtype, new->dtype);
                assert_memory_equal(old->data, new->data, (size_t)old->n_bytes);
                continue;
            }
            widened += new->dtype == SAFETENSORS_F32 && old->dtype != SAFETENSORS_F32;
            float *want = mem_new((size_t)old->n_elements, sizeof *want),
                  *got = mem_new((size_t)old->n_elements, sizeof *got);
            check_ok(safetensors_to_float(a, old, want));
            for (int64_t e = 0; e < old->n_elements; e++) want[e] = step * roundf(want[e] / step);
            check_ok(safetensors_to_float(b, new, got));
            assert_memory_equal(want, got, (size_t)old->n_elements * sizeof *want);
            free(want);
            free(got);
        }
    }
    return widened;
}

static void replaced_tensors_keep_their_dtype_where_it_holds_them(void **state) {
    (void)state;
    static const struct {
        const char *name;
        float step;
        bool widens; // 0.1 has no short binary form, multiples of 1/8 of this size have one
    } cases[] = {{"phi3_gqa_bf16", 0.125f, false},     {"phi3_gqa_bf16", 0.1f, true},
                 {"phi3_longrope_f16", 0.125f, false}, {"phi3_longrope_f16", 0.1f, true},
                 {"llama_mha", 0.1f, false},           {"llama_headdim_sharded", 0.125f, false},
                 {"llama_headdim_sharded", 0.1f, true}};
    char *out = files_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_folder *from = golden_open(cases[i].name), *to = NULL;
        struct rounding rounding = rounding_by(cases[i].step);
        struct model_folder_edit edit = rounding_edit(&rounding);
        const char *copy = in(out, "model");
        check_ok(model_folder_save(from, copy, &edit, true)); // from the second on it replaces the one before
        assert_int_equal(entries_count(out), 1);
        check_ok(model_folder_open(copy, &to));
        int64_t widened = saved_check(from, to, cases[i].step);
        assert_int_equal(widened, cases[i].widens ? rounding.n : 0);
        assert_true(rounding.n >= 8);
        bytes_check_same(in(model_folder_path(from), "config.json"), in(copy, "config.json"));
        model_folder_free(from);
        model_folder_free(to);
    }
    files_remove(out);
}

static void the_index_gives_the_new_size(void **state) {
    (void)state;
    char *out = files_folder();
    const char *copy = in(out, "model"), *index_path;
    struct model_folder *from = golden_open("llama_headdim_sharded"), *to = NULL;
    struct rounding rounding = rounding_by(0.1f);
    struct model_folder_edit edit = rounding_edit(&rounding);
    check_ok(model_folder_save(from, copy, &edit, false));
    check_ok(model_folder_open(copy, &to));
    int64_t want = 0, got = 0;
    for (int64_t f = 0; f < model_folder_n_files(to); f++)
        for (int64_t i = 0; i < safetensors_n_tensors(model_folder_file(to, f)); i++)
            want += safetensors_at(model_folder_file(to, f), i)->n_bytes;
    json_t *old = NULL, *new = NULL, *metadata = NULL;
    index_path = in(copy, "model.safetensors.index.json");
    check_ok(json_read_file(index_path, &new));
    check_ok(json_read_file(in(model_folder_path(from), "model.safetensors.index.json"), &old));
    check_ok(json_get_object(new, index_path, "metadata", &metadata));
    check_ok(json_get_integer(metadata, index_path, "total_size", &got));
    assert_int_equal(got, want);
    assert_true(got > 46872);
    assert_true(json_equal(json_object_get(old, "weight_map"), json_object_get(new, "weight_map")));
    char *text = files_bytes(index_path, NULL);
    assert_int_equal(strncmp(text, "{\n  \"metadata\": {\n    \"total_size\": ", 36), 0);
    assert_string_equal(text + strlen(text) - 2, "}\n");
    free(text);
    json_decref(old);
    json_decref(new);
    model_folder_free(from);
    model_folder_free(to);
    files_remove(out);
}

static void other_files_are_carried_over(void **state) {
    (void)state;
    char *from = full_folder(), *out = files_folder();
    const char *copy = in(out, "model");
    struct model_folder *folder = NULL;
    check_ok(model_folder_open(from, &folder));
    struct rounding rounding = rounding_by(0.1f);
    struct model_folder_edit edit = rounding_edit(&rounding);
    check_ok(model_folder_save(folder, copy, &edit, false));
    static const char *const same[] = {"config.json", "tokenizer.json", "modeling_phi3.py",    "empty.txt",
                                       "vocab.json",  "link.json",      "original/params.json"};
    for (int i = 0; i < 7; i++) bytes_check_same(in(from, same[i]), in(copy, same[i]));
    assert_int_equal(entries_count(copy), 8); // and model.safetensors; no other weights
    assert_int_equal(entries_count(in(copy, "original")), 1);
    assert_false(files_has(copy, ".gitattributes"));
    model_folder_free(folder);
    files_remove(from);
    files_remove(out);
}

static void a_pretrained_model_is_read_and_copied(void **state) {
    (void)state;
    char path[4096], *out = NULL;
    struct model_folder *folder = NULL;
    enum dtype dtype = DTYPE_U8;
    check_shared("models/stories260K/model.safetensors", path, sizeof path);
    *strrchr(path, '/') = 0;
    check_ok(model_folder_open(path, &folder));
    struct tensor_source source = model_folder_source(folder);
    float *values = mem_new(512 * 64, sizeof *values);
    check_ok(source.read(source.self, "model.embed_tokens.weight", 512, 64, values, &dtype));
    assert_int_equal(dtype, DTYPE_F32);
    double norm2 = 0;
    for (int i = 0; i < 512 * 64; i++) norm2 += (double)values[i] * (double)values[i];
    assert_true(norm2 > 1 && norm2 < 1e6);
    check_ok(source.read(source.self, "model.norm.weight", 1, 64, values, NULL));
    check_fails(source.read(source.self, "lm_head.weight", 512, 64, values, NULL), STATUS_FORMAT); // tied
    out = files_folder();
    check_ok(model_folder_save(folder, in(out, "copy"), NULL, false));
    bytes_check_same(in(path, "model.safetensors"), in(out, "copy/model.safetensors"));
    bytes_check_same(in(path, "tokenizer.json"), in(out, "copy/tokenizer.json"));
    free(values);
    model_folder_free(folder);
    files_remove(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_copy_has_the_same_bytes),
        cmocka_unit_test(replaced_tensors_keep_their_dtype_where_it_holds_them),
        cmocka_unit_test(the_index_gives_the_new_size),
        cmocka_unit_test(other_files_are_carried_over),
        cmocka_unit_test(a_pretrained_model_is_read_and_copied),
    };
    names_kept = arena_new();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_free(names_kept);
    return failed;
}
