// Broken and hostile exports: every reader says what is wrong in one line and reads nothing outside of its file; writers whose
// disk is full leave nothing that looks whole.
#include "tests/exported_runs.h"

#include "core/base/progress.h"
#include "data/gguf.h"

static struct drawn drawn;
static char *run;

static int run_make(void **state) {
    (void)state;
    static const struct run_shape small = {
        .hidden = 32, .intermediate = 32, .layers = 1, .heads = 2, .kv_heads = 2, .vocab = 640};
    struct codebook book = book_of("asymmetric", 4, 32);
    progress_set_quiet(true);
    run = run_draw(&small, &book, 3, &drawn);
    struct export_set set = set_of("gptq,compressed-tensors");
    check_ok(run_export(&set, run, false));
    return 0;
}

static int run_remove(void **state) {
    (void)state;
    drawn_free(&drawn);
    files_remove(run);
    return 0;
}

// Reads the whole export; its first complaint, or OK.
static enum status export_read_all(const char *path) {
    struct export_reader *reader = NULL;
    enum status status = export_open(path, &reader);
    for (int i = 0; status == STATUS_OK && i < drawn.n; i++) {
        const struct run_tensor *t = &drawn.tensors[i];
        float *values = mem_new((size_t)(t->rows * t->cols), sizeof *values);
        struct tensor_source source = export_source(reader);
        status = source.read(source.self, t->name, t->rows, t->cols, values, NULL);
        free(values);
    }
    export_free(reader);
    return status;
}

static void says(enum status status, const char *text) {
    if (status != STATUS_OK && strstr(status_message(), text) && !strchr(status_message(), '\n')) return;
    print_error("status %d, message: %s; want '%s'\n", (int)status, status_message(), text);
    fail();
}

// ---- folders

// The export's files once more, where entry `name` is replaced by `with` (name NULL: left out), as I32 zeros of that shape.
struct change {
    const char *export, *tensor; // suffix of the first matrix's tensor
    enum safetensors_dtype dtype;
    int64_t rank, rows, cols; // rows < 0: the tensor is left out
    uint32_t word;            // all its words
    const char *says;
};

static void folder_change(const struct change *c, const char *to) {
    char *from = mem_format("%s/export-%s", run, c->export), *path = mem_format("%s/model.safetensors", from);
    struct safetensors *file = NULL;
    struct safetensors_entry entries[128];
    const struct safetensors_tensor *sources[128];
    struct safetensors_writer *writer = NULL;
    int64_t n = 0, shape[2] = {c->rows, c->cols};
    check_ok(safetensors_open(path, &file));
    for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
        const struct safetensors_tensor *t = safetensors_at(file, i);
        bool changed =
            strncmp(t->name, "model.layers.0.self_attn.q_proj.", 32) == 0 && strcmp(t->name + 32, c->tensor) == 0;
        if (changed && c->rows < 0) continue;
        sources[n] = changed ? NULL : t;
        entries[n++] = changed ? (struct safetensors_entry){t->name, c->dtype, c->rank, shape}
                               : (struct safetensors_entry){t->name, t->dtype, t->rank, t->shape};
    }
    check_ok(whole_file_copy(files_path(from, "config.json"), files_path(to, "config.json")));
    check_ok(safetensors_writer_new(files_path(to, "model.safetensors"), entries, n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;) {
        if (sources[i]) {
            check_ok(safetensors_writer_put(writer, sources[i]->data, sources[i]->n_bytes));
            continue;
        }
        int64_t bytes = c->rows * (c->rank == 2 ? c->cols : 1) * safetensors_dtype_bits(c->dtype) / 8;
        for (int64_t k = 0; k < bytes; k += 4)
            check_ok(safetensors_writer_put(writer, &c->word, bytes - k < 4 ? bytes - k : 4));
    }
    check_ok(safetensors_writer_finish(writer));
    safetensors_writer_free(writer);
    safetensors_free(file);
    free(path);
    free(from);
}

static void tensors_that_do_not_fit_are_named(void **state) {
    (void)state;
    static const struct change cases[] = {
        {"gptq", "qweight", SAFETENSORS_I32, 2, 3, 32, 0, "qweight is missing or not I32 [4, 32]"},
        {"gptq", "qweight", SAFETENSORS_F32, 2, 4, 32, 0, "qweight"},
        {"gptq", "qzeros", SAFETENSORS_I32, 2, -1, 0, 0, "qzeros is missing"},
        {"gptq", "qzeros", SAFETENSORS_I32, 1, 4, 0, 0, "qzeros"},
        {"gptq", "scales", SAFETENSORS_F16, 2, 2, 32, 0, "scales"},
        {"gptq", "scales", SAFETENSORS_F16, 2, 1, 32, 0x7C007C00, "must be finite"},
        {"gptq", "g_idx", SAFETENSORS_I32, 1, 31, 0, 0, "g_idx"},
        {"gptq", "g_idx", SAFETENSORS_I32, 1, 32, 0, 1, "g_idx 0 names group 1 of 1"},
        {"gptq", "g_idx", SAFETENSORS_I32, 1, 32, 0, 0xFFFFFFFF, "g_idx 0 names group -1"},
        {"compressed-tensors", "weight_packed", SAFETENSORS_I32, 2, 32, 3, 0, "weight_packed"},
        {"compressed-tensors", "weight_scale", SAFETENSORS_F32, 2, 32, 2, 0, "weight_scale"},
        {"compressed-tensors", "weight_scale", SAFETENSORS_I32, 2, 32, 1, 0, "weight_scale"},
        {"compressed-tensors", "weight_scale", SAFETENSORS_F32, 2, 32, 1, 0x7FC00000, "must be finite"},
        {"compressed-tensors", "weight_shape", SAFETENSORS_I64, 1, 2, 0, 0x20, "weight_shape is not [32, 32]"},
        {"compressed-tensors", "weight_shape", SAFETENSORS_I64, 1, -1, 0, 0, "weight_shape is missing"},
        {"compressed-tensors", "weight_zero_point", SAFETENSORS_I32, 2, 5, 1, 0, "weight_zero_point"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *to = files_folder();
        folder_change(&cases[i], to);
        says(export_read_all(to), cases[i].says);
        files_remove(to);
    }
}

static void configurations_that_mean_nothing_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *quantization, *says;
    } cases[] = {
        {"{\"quant_method\": \"awq\", \"bits\": 4}", "quant_method 'awq'"},
        {"{\"quant_method\": \"gptq\", \"bits\": 5, \"group_size\": 32}", "must be 2, 3, 4 or 8"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4294967300, \"group_size\": 32}", "must be 2, 3, 4 or 8"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}", "group_size"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": -9}", "group_size"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4}", "group_size"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32, \"checkpoint_format\": \"marlin\"}", "marlin"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\"}", "float-quantized"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {}}",
         "config_groups"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {\"a\": "
         "{\"weights\": "
         "{\"num_bits\": 9, \"symmetric\": true, \"strategy\": \"group\", \"group_size\": 32}}}}",
         "num_bits"},
        {"{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {\"a\": "
         "{\"weights\": "
         "{\"num_bits\": 4, \"symmetric\": true, \"strategy\": \"block\", \"group_size\": 32}}}}",
         "strategy 'block'"},
        {"7", "quantization_config"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *to = files_folder(), *text = mem_format("{\"quantization_config\": %s}", cases[i].quantization);
        files_put(files_path(to, "config.json"), text, strlen(text));
        says(export_read_all(to), cases[i].says);
        free(text);
        files_remove(to);
    }
}

// ---- GGUF

static char *small_gguf(const char *folder) {
    struct gguf_writer *writer = gguf_writer_new();
    char *path = mem_format("%s/small.gguf", folder);
    static const char *const words[] = {"a", "", "bc"};
    uint8_t block[2 * 18] = {0};
    float gains[32] = {1};
    gguf_put_string(writer, "general.architecture", "llama");
    gguf_put_u32(writer, "llama.attention.head_count", 2);
    gguf_put_u32(writer, "llama.attention.head_count_kv", 2);
    gguf_put_strings(writer, "tokenizer.ggml.tokens", words, 3);
    gguf_put_bool(writer, "a.bool", true);
    gguf_put_tensor(writer, "blk.0.attn_q.weight", GGUF_Q4_0, 2, 32);
    gguf_put_tensor(writer, "output_norm.weight", GGUF_F32, 1, 32);
    check_ok(gguf_writer_begin(writer, path));
    check_ok(gguf_writer_data(writer, block, sizeof block));
    check_ok(gguf_writer_data(writer, gains, sizeof gains));
    check_ok(gguf_writer_finish(writer));
    gguf_writer_free(writer);
    return path;
}

static enum status gguf_try(const char *path, const void *bytes, size_t n) {
    struct gguf *gguf = NULL;
    files_put(path, bytes, n);
    enum status status = gguf_open(path, &gguf);
    for (int64_t i = 0; status == STATUS_OK && i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *t = gguf_at(gguf, i);
        struct gguf_type_facts facts = gguf_type_facts_of(t->type);
        if (!facts.name || t->rows > 1000 || t->cols > 1000) continue;
        float *values = mem_new((size_t)(t->rows * t->cols), sizeof *values);
        gguf_to_float((enum gguf_type)t->type, t->data, t->rows * t->cols, values); // the sanitizer watches
        free(values);
    }
    gguf_free(gguf);
    return status;
}

static void every_shorter_gguf_is_refused(void **state) {
    (void)state;
    size_t n;
    char *path = small_gguf(run), *bytes = files_bytes(path, &n);
    check_ok(gguf_try(path, bytes, n));
    for (size_t cut = 0; cut < n; cut++) check_fails(gguf_try(path, bytes, cut), STATUS_FORMAT);
    free(bytes);
    free(path);
}

// Every byte of the header in turn set to other values: refused or read, never a byte outside of the file.
static void changed_gguf_headers_read_nothing_outside(void **state) {
    (void)state;
    static const uint8_t values[] = {0, 1, 0x7F, 0x80, 0xFF};
    size_t n, header;
    int refused = 0;
    char *path = small_gguf(run), *bytes = files_bytes(path, &n);
    header = n - 128 - 64;
    for (size_t at = 0; at < header; at++) {
        char kept = bytes[at];
        for (size_t v = 0; v < sizeof values; v++) {
            bytes[at] = (char)values[v];
            refused += gguf_try(path, bytes, n) != STATUS_OK;
        }
        bytes[at] = kept;
    }
    assert_true(refused > 500);
    free(bytes);
    free(path);
}

static void gguf_files_of_other_models_are_named(void **state) {
    (void)state;
    size_t n;
    char *path = small_gguf(run), *bytes = files_bytes(path, &n), *at = NULL;
    for (size_t i = 0; i + 5 < n && !at; i++)
        if (memcmp(bytes + i, "llama", 5) == 0) at = bytes + i;
    memcpy(at, "mamba", 5);
    files_put(path, bytes, n);
    says(export_read_all(path), "architecture 'mamba'");
    memcpy(at, "llama", 5);
    files_put(path, bytes, n);
    says(export_read_all(path), "missing");
    bytes[4] = 1;
    files_put(path, bytes, n);
    says(export_read_all(path), "version 1");
    says(export_read_all(files_path(run, "nothing.gguf")), "nothing.gguf");
    free(bytes);
    free(path);
}

// ---- codes files

static void codes_files_that_contradict_themselves_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *grid, *says;
    } cases[] = {
        {NULL, "is no codes file"},
        {"{}", "kind"},
        {"{\"kind\": \"block\", \"bits\": 9, \"group_size\": 1, \"offsets\": false, \"levels\": [0, 1]}", "bits"},
        {"{\"kind\": \"block\", \"bits\": 4, \"group_size\": 0, \"offsets\": false, \"levels\": [0, 1]}", "group_size"},
        {"{\"kind\": \"block\", \"bits\": 1, \"group_size\": 1, \"offsets\": false, \"levels\": [0, 1, 2]}", "levels"},
        {"{\"kind\": \"block\", \"bits\": 4, \"group_size\": 1, \"offsets\": false, \"levels\": [0, 0]}", "ascending"},
        {"{\"kind\": \"block\", \"bits\": 4, \"group_size\": 1, \"offsets\": false, \"levels\": [0, \"1\"]}",
         "ascending"},
        {"{\"kind\": \"block\", \"bits\": 4, \"group_size\": -1, \"offsets\": false, \"levels\": [0, 1]}",
         "do not fit together"},
        {"{\"kind\": \"block-of-a-very-long-name\", \"bits\": 4, \"group_size\": -1, \"offsets\": false, \"levels\": "
         "[0, 1]}",
         "too long"},
    };
    int64_t wrong_shape[2] = {3, 5}, sizes[3][2] = {{2, 0}, {3, 1}, {3, 2}};
    const struct safetensors_entry entries[] = {{"w.shape", SAFETENSORS_I64, 1, sizes[0]},
                                                {"w.scales", SAFETENSORS_F32, 2, sizes[1]},
                                                {"w.codes", SAFETENSORS_U8, 2, sizes[2]}};
    const unsigned char zeros[64] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = files_path(run, "broken.safetensors");
        struct safetensors_pair grid = {"discquant.grid", cases[i].grid};
        struct safetensors_writer *writer = NULL;
        struct codes *codes = NULL;
        check_ok(safetensors_writer_new(path, entries, 3, &grid, cases[i].grid ? 1 : 0, &writer));
        check_ok(safetensors_writer_put(writer, wrong_shape, sizeof wrong_shape));
        check_ok(safetensors_writer_put(writer, zeros, 12));
        check_ok(safetensors_writer_put(writer, zeros, 6));
        check_ok(safetensors_writer_finish(writer));
        safetensors_writer_free(writer);
        says(codes_open(path, &codes), cases[i].says);
    }
}

// A code beyond the levels and a scale that is no number are found when the matrix is read.
static void codes_and_scales_are_judged_when_they_are_read(void **state) {
    (void)state;
    for (int broken = 0; broken < 3; broken++) {
        const char *path = files_path(run, "broken.safetensors");
        int64_t shape[2] = {1, 4}, sizes[3][2] = {{2, 0}, {1, 1}, {1, 1}};
        const struct safetensors_entry entries[] = {{"w.shape", SAFETENSORS_I64, 1, sizes[0]},
                                                    {"w.scales", SAFETENSORS_F32, 2, sizes[1]},
                                                    {"w.codes", SAFETENSORS_U8, 2, sizes[2]}};
        struct safetensors_pair grid = {
            "discquant.grid",
            "{\"kind\": \"block\", \"bits\": 2, \"group_size\": -1, \"offsets\": false, \"levels\": [-1, 0, 1]}"};
        struct safetensors_writer *writer = NULL;
        struct codes *codes = NULL;
        struct coded_matrix matrix;
        float scale = broken == 1 ? NAN : 1;
        uint8_t packed = broken == 2 ? 0xC0 : 0x24;
        check_ok(safetensors_writer_new(path, entries, 3, &grid, 1, &writer));
        check_ok(safetensors_writer_put(writer, shape, sizeof shape));
        check_ok(safetensors_writer_put(writer, &scale, 4));
        check_ok(safetensors_writer_put(writer, &packed, 1));
        check_ok(safetensors_writer_finish(writer));
        safetensors_writer_free(writer);
        check_ok(codes_open(path, &codes));
        enum status status = codes_read(codes, 0, true, &matrix);
        if (broken)
            says(status, broken == 1 ? "scale 0 is nan" : "code 3, but there are 3 levels");
        else
            coded_matrix_free(&matrix);
        codes_free(codes);
    }
}

// ---- full disks

// The k-th write or rename fails, for every k: an error, and what stands there is whole or nothing.
static void a_full_disk_leaves_no_export_that_looks_whole(void **state) {
    (void)state;
    for (int f = EXPORT_HF; f <= EXPORT_GPTQ; f++) {
        struct export_set set = set_of(export_names[f]);
        char *place = export_place(run, (enum export_format)f);
        enum status status = STATUS_IO;
        int failures = 0;
        nftw(place, files_remove_one, 16, FTW_DEPTH | FTW_PHYS);
        for (int64_t k = 0; status != STATUS_OK; k++) {
            whole_file_fail_at(k);
            status = run_export(&set, run, false);
            whole_file_fail_at(-1);
            if (status == STATUS_OK) break;
            failures++;
            assert_int_not_equal(access(place, F_OK), 0);
        }
        assert_true(failures > 5);
        export_check_weights(place, &drawn);
        free(place);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_that_do_not_fit_are_named),
        cmocka_unit_test(configurations_that_mean_nothing_are_refused),
        cmocka_unit_test(every_shorter_gguf_is_refused),
        cmocka_unit_test(changed_gguf_headers_read_nothing_outside),
        cmocka_unit_test(gguf_files_of_other_models_are_named),
        cmocka_unit_test(codes_files_that_contradict_themselves_are_refused),
        cmocka_unit_test(codes_and_scales_are_judged_when_they_are_read),
        cmocka_unit_test(a_full_disk_leaves_no_export_that_looks_whole),
    };
    return cmocka_run_group_tests(tests, run_make, run_remove);
}
