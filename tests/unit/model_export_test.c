// Exports of rounded models: every format holds the weights that were drawn, bit for bit, in the layouts that its readers
// publish; what a format cannot hold is refused before the work.
#include "tests/exported_runs.h"

#include "core/base/progress.h"
#include "data/bit_stream.h"
#include "data/gguf.h"
#include "data/json.h"

#include <dirent.h>

// ---- bit streams

// Bit k of the stream is bit k % b of number k / b.
static void a_bit_stream_is_its_numbers_bits_in_order(void **state) {
    (void)state;
    uint64_t random = 1;
    for (int bits = 1; bits <= 8; bits++) {
        for (int n = 1; n <= 70; n++) {
            uint8_t numbers[70], bytes[80], back[70];
            for (int i = 0; i < n; i++) numbers[i] = (uint8_t)(drawn_number(&random) & ((1u << bits) - 1));
            memset(bytes, 0xAA, sizeof bytes);
            bit_stream_pack(numbers, n, bits, bytes);
            assert_int_equal(bit_stream_bytes(n, bits), (n * bits + 7) / 8);
            for (int k = 0; k < (n * bits + 7) / 8 * 8; k++) {
                int want = k < n * bits ? numbers[k / bits] >> (k % bits) & 1 : 0;
                assert_int_equal(bytes[k / 8] >> (k % 8) & 1, want);
            }
            assert_int_equal(bytes[(n * bits + 7) / 8], 0xAA);
            bit_stream_unpack(bytes, n, bits, back);
            assert_memory_equal(back, numbers, (size_t)n);
        }
    }
}

// ---- whole exports

struct holding {
    const char *format, *kind;
    int bits;
    int64_t group_size;
    const struct run_shape *shape;
};

static void every_format_gives_back_the_weights_it_was_made_of(void **state) {
    (void)state;
    static const struct holding cases[] = {
        {"hf,gptq,compressed-tensors", "block", 2, -1, &shape_story},
        {"gptq,compressed-tensors,gguf", "block", 3, 32, &shape_story},
        {"gptq,compressed-tensors,gguf", "block", 4, 32, &shape_story},
        {"gptq,compressed-tensors,gguf", "block", 8, -1, &shape_story},
        {"compressed-tensors,gguf", "block", 5, 32, &shape_story},
        {"compressed-tensors,gguf", "block", 6, -1, &shape_story},
        {"compressed-tensors", "block", 7, 16, &shape_story},
        {"hf,gptq,compressed-tensors", "asymmetric", 2, 32, &shape_story},
        {"gptq,compressed-tensors", "asymmetric", 3, -1, &shape_story},
        {"gptq,compressed-tensors", "asymmetric", 4, 32, &shape_story},
        {"gptq,compressed-tensors", "asymmetric", 8, 16, &shape_story},
        {"gptq,compressed-tensors,gguf", "q4_0", 4, 32, &shape_story},
        {"gguf", "q4_1", 4, 32, &shape_story},
        {"gptq,compressed-tensors,gguf", "q8_0", 8, 32, &shape_story},
        {"gguf", "q3_k", 3, 16, &shape_wide},
        {"gguf", "mxfp4", 4, 32, &shape_story},
        {"hf,gptq,compressed-tensors,gguf", "block", 3, -1, &shape_wide},
        {"hf,gptq,compressed-tensors,gguf", "block", 4, 32, &shape_phi3},
        {"hf,compressed-tensors,gguf", "block", 3, -1, &shape_odd},
        {"hf", "nf4", 4, 64, &shape_story},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct holding *c = &cases[i];
        struct codebook book = book_of(c->kind, c->bits, c->group_size);
        struct drawn drawn;
        char *run = run_draw(c->shape, &book, i + 1, &drawn);
        struct export_set set = set_of(c->format);
        check_ok(run_export(&set, run, false));
        for (int f = 0; f < EXPORT_FORMATS; f++) {
            if (!set.wanted[f]) continue;
            char *place = export_place(run, (enum export_format)f);
            export_check_weights(place, &drawn);
            free(place);
        }
        drawn_free(&drawn);
        files_remove(run);
    }
}

// The words of tensor NAME in the export FOLDER.
static struct safetensors *file_of(const char *run, const char *folder) {
    struct safetensors *file = NULL;
    char *path = mem_format("%s/%s/model.safetensors", run, folder);
    check_ok(safetensors_open(path, &file));
    free(path);
    return file;
}

static uint32_t word_of(const struct safetensors *file, const char *name, int64_t i) {
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    uint32_t word;
    assert_non_null(tensor);
    assert_true((i + 1) * 4 <= tensor->n_bytes);
    memcpy(&word, tensor->data + i * 4, 4);
    return word;
}

static const char Q0[] = "model.layers.0.self_attn.q_proj";

static const char *with(const char *suffix) {
    static char name[128];
    snprintf(name, sizeof name, "%s.%s", Q0, suffix);
    return name;
}

static void symmetric_zeros_are_the_constants_that_gptq_files_have(void **state) {
    (void)state;
    static const struct {
        int bits, n;
        uint32_t words[3];
    } cases[] = {
        {2, 1, {0x55555555}}, {3, 3, {0xDB6DB6DB, 0xB6DB6DB6, 0x6DB6DB6D}}, {4, 1, {0x77777777}}, {8, 1, {0x7F7F7F7F}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct codebook book = book_of("block", cases[i].bits, 32);
        struct drawn drawn;
        char *run = run_draw(&shape_story, &book, 5, &drawn);
        struct export_set set = set_of("gptq");
        check_ok(run_export(&set, run, false));
        struct safetensors *file = file_of(run, "export-gptq");
        const struct safetensors_tensor *zeros = safetensors_find(file, with("qzeros"));
        assert_int_equal(zeros->shape[0], 2);
        assert_int_equal(zeros->shape[1], 64 / 32 * cases[i].bits);
        for (int64_t k = 0; k < zeros->n_elements; k++)
            assert_int_equal(word_of(file, with("qzeros"), k), cases[i].words[k % cases[i].n]);
        safetensors_free(file);
        drawn_free(&drawn);
        files_remove(run);
    }
}

// As AutoGPTQ spells it: ten numbers and the low bits of one, its rest and ten and the low bits of one, its rest and ten.
static void three_bit_codes_lie_in_words_as_ten_one_ten_one_ten(void **state) {
    (void)state;
    struct codebook book = book_of("block", 3, -1);
    struct drawn drawn;
    char *run = run_draw(&shape_story, &book, 6, &drawn);
    struct export_set set = set_of("gptq");
    check_ok(run_export(&set, run, false));
    struct safetensors *file = file_of(run, "export-gptq");
    int64_t q = -1;
    for (int i = 0; i < drawn.n; i++)
        if (strncmp(drawn.tensors[i].name, Q0, strlen(Q0)) == 0) q = i;
    for (int64_t row = 0; row < 64; row++) {
        for (int64_t block = 0; block < 2; block++) {
            const uint8_t *c = drawn.codes[q] + row * 64 + block * 32;
            uint32_t words[3] = {0, 0, 0};
            for (int j = 0; j < 10; j++) {
                words[0] |= (uint32_t)c[j] << 3 * j;
                words[1] |= (uint32_t)c[11 + j] << (3 * j + 1);
                words[2] |= (uint32_t)c[22 + j] << (3 * j + 2);
            }
            words[0] |= (uint32_t)c[10] << 30;
            words[1] |= (uint32_t)(c[10] >> 2) | (uint32_t)c[21] << 31;
            words[2] |= (uint32_t)(c[21] >> 1);
            for (int64_t w = 0; w < 3; w++)
                assert_int_equal(word_of(file, with("qweight"), (block * 3 + w) * 64 + row), words[w]);
        }
    }
    safetensors_free(file);
    drawn_free(&drawn);
    files_remove(run);
}

static char *gptq_format_of(const char *run) {
    json_t *root = NULL;
    const char *format = NULL;
    check_ok(json_read_file(files_path(run, "export-gptq/quantize_config.json"), &root));
    check_ok(json_get_string(root, "x", "checkpoint_format", &format));
    char *copy = mem_string(format);
    json_decref(root);
    return copy;
}

// Zero points 1 .. 15 fit the first version, which stores zero - 1; a single 0 does not.
static void a_zero_point_of_zero_takes_the_second_version(void **state) {
    (void)state;
    for (int with_zero = 0; with_zero < 2; with_zero++) {
        struct codebook book = book_of("asymmetric", 4, 32);
        struct drawn drawn;
        char *run = run_draw(&shape_story, &book, 7, &drawn);
        struct codes_shape shapes[RUN_TENSORS_MAX];
        int64_t last = drawn.coded[drawn.n_coded - 1], groups = codebook_groups(&book, drawn.tensors[last].cols);
        if (with_zero) { // group 0 of the last matrix begins at 0: offset -0 scale
            drawn.scales[last][groups] = 0;
            for (int64_t k = 0; k < 32; k++)
                drawn.weights[last][k] = drawn.scales[last][0] * book.levels[drawn.codes[last][k]];
            for (int64_t i = 0; i < drawn.n_coded; i++) {
                const struct run_tensor *t = &drawn.tensors[drawn.coded[i]];
                shapes[i] = (struct codes_shape){t->name, t->rows, t->cols};
            }
            run_weights_put(&drawn, files_path(run, "model/model.safetensors"));
            check_ok(codes_write(files_path(run, "codes.safetensors"), &book, shapes, drawn.n_coded,
                                 (struct codes_source){&drawn, drawn_scales, drawn_codes}));
        }
        struct export_set set = set_of("gptq");
        check_ok(run_export(&set, run, false));
        char *format = gptq_format_of(run);
        assert_string_equal(format, with_zero ? "gptq_v2" : "gptq");
        free(format);
        export_check_weights(files_path(run, "export-gptq"), &drawn);
        drawn_free(&drawn);
        files_remove(run);
    }
}

// ---- GGUF

// Transformers' order of a head's rows is (half, j), llama.cpp's (j, half): reshape(heads, 2, dim / 2).swapaxes(1, 2).
static void q_and_k_rows_are_paired_as_llama_cpp_wants_them(void **state) {
    (void)state;
    struct codebook book = book_of("block", 4, 32);
    struct drawn drawn;
    char *run = run_draw(&shape_story, &book, 8, &drawn);
    struct export_set set = set_of("gguf");
    struct gguf *gguf = NULL;
    check_ok(run_export(&set, run, false));
    check_ok(gguf_open(files_path(run, "export.gguf"), &gguf));
    static const struct {
        const char *ours, *theirs;
        int heads;
    } cases[] = {{"model.layers.1.self_attn.q_proj.weight", "blk.1.attn_q.weight", 4},
                 {"model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", 2},
                 {"model.layers.1.self_attn.v_proj.weight", "blk.1.attn_v.weight", 0}};
    for (size_t c = 0; c < 3; c++) {
        const struct gguf_tensor *tensor = gguf_find(gguf, cases[c].theirs);
        int i = 0;
        while (strcmp(drawn.tensors[i].name, cases[c].ours) != 0) i++;
        assert_non_null(tensor);
        assert_int_equal(tensor->type, GGUF_Q4_0);
        assert_int_equal(tensor->rows, drawn.tensors[i].rows);
        float row[64];
        enum { DIM = 16 };
        for (int h = 0; h < cases[c].heads; h++)
            for (int half = 0; half < 2; half++)
                for (int j = 0; j < DIM / 2; j++) {
                    int theirs = (h * (DIM / 2) + j) * 2 + half, ours = (h * 2 + half) * (DIM / 2) + j;
                    gguf_to_float(GGUF_Q4_0, tensor->data + theirs * 36, 64, row);
                    check_all_near(row, drawn.weights[i] + ours * 64, 64, 0, 0);
                }
        gguf_to_float(GGUF_Q4_0, tensor->data + 5 * 36, 64, row);
        if (!cases[c].heads) check_all_near(row, drawn.weights[i] + 5 * 64, 64, 0, 0);
    }
    gguf_free(gguf);
    drawn_free(&drawn);
    files_remove(run);
}

static void the_type_of_a_matrix_follows_from_grid_and_width(void **state) {
    (void)state;
    static const struct {
        const char *kind;
        int bits;
        int64_t group_size;
        const struct run_shape *shape;
        const char *tensor;
        enum gguf_type type;
    } cases[] = {
        {"block", 4, -1, &shape_wide, "blk.0.ffn_down.weight", GGUF_Q4_0},
        {"block", 3, -1, &shape_wide, "blk.0.ffn_down.weight", GGUF_Q3_K},
        {"block", 3, 256, &shape_wide, "blk.0.attn_q.weight", GGUF_Q3_K},
        {"block", 3, 32, &shape_wide, "blk.0.ffn_down.weight", GGUF_Q4_0},
        {"block", 3, -1, &shape_story, "blk.0.ffn_down.weight", GGUF_Q4_0},
        {"block", 5, -1, &shape_wide, "blk.0.ffn_up.weight", GGUF_Q8_0},
        {"q3_k", 3, 16, &shape_wide, "blk.0.ffn_up.weight", GGUF_Q3_K},
        {"q4_1", 4, 32, &shape_wide, "blk.0.ffn_up.weight", GGUF_Q4_1},
        {"block", 4, -1, &shape_odd, "blk.0.ffn_up.weight", GGUF_Q4_0},
        {"block", 4, -1, &shape_odd, "blk.0.ffn_down.weight", GGUF_F32},
        {"block", 4, -1, &shape_odd, "token_embd.weight", GGUF_F16},
        {"block", 4, -1, &shape_odd, "output_norm.weight", GGUF_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct codebook book = book_of(cases[i].kind, cases[i].bits, cases[i].group_size);
        struct drawn drawn;
        struct gguf *gguf = NULL;
        struct export_set set = set_of("gguf");
        char *run = run_draw(cases[i].shape, &book, i, &drawn);
        check_ok(run_export(&set, run, false));
        check_ok(gguf_open(files_path(run, "export.gguf"), &gguf));
        const struct gguf_tensor *tensor = gguf_find(gguf, cases[i].tensor);
        assert_non_null(tensor);
        assert_int_equal(tensor->type, cases[i].type);
        gguf_free(gguf);
        drawn_free(&drawn);
        files_remove(run);
    }
}

// ---- refusals

static const struct run_shape shape_narrow = {
    .hidden = 48, .intermediate = 80, .layers = 1, .heads = 4, .kv_heads = 4, .vocab = 640};
static const struct run_shape shape_long = {.hidden = 64,
                                            .intermediate = 96,
                                            .layers = 1,
                                            .heads = 8,
                                            .kv_heads = 8,
                                            .vocab = 640,
                                            .rope = "{\"type\": \"longrope\", \"long_factor\": [1, 1, 1, 1], "
                                                    "\"short_factor\": [1, 1, 1, 1], "
                                                    "\"original_max_position_embeddings\": 64}"};

static void what_a_format_cannot_hold_is_refused_with_the_reason(void **state) {
    (void)state;
    static const struct {
        const char *format, *kind;
        int bits;
        int64_t group_size;
        const struct run_shape *shape;
        const char *says;
    } cases[] = {
        {"gptq", "block", 5, -1, &shape_story, "2, 3, 4 and 8 bits, not 5"},
        {"gptq", "block", 4, -1, &shape_odd, "172 x 64"},
        {"gptq", "block", 4, 48, &shape_story, "no multiple of the group size 48"},
        {"gptq", "mxfp4", 4, 32, &shape_story, "no consecutive integers"},
        {"gptq", "q4_1", 4, 32, &shape_story, "no whole multiples of the scale"},
        {"gptq", "q3_k", 3, 16, &shape_wide, "no fp16 numbers"},
        {"compressed-tensors", "mxfp4", 4, 32, &shape_story, "no consecutive integers"},
        {"compressed-tensors", "block", 4, 128, &shape_story, "no multiple of the group size 128"},
        {"compressed-tensors", "q4_1", 4, 32, &shape_story, "no whole multiples of the scale"},
        {"gguf", "asymmetric", 4, 32, &shape_story, "minima are no fp16 numbers"},
        {"gguf", "block", 4, 16, &shape_story, "no multiple of 32"},
        {"gguf", "unheard-of", 4, 32, &shape_story, "no fp16 numbers"},
        {"gguf", "block", 4, -1, &shape_narrow, "no width of this model (48, 80)"},
        {"gguf", "block", 4, -1, &shape_long, "no longrope for the architecture llama"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct codebook book = book_of(cases[i].kind, cases[i].bits, cases[i].group_size);
        struct drawn drawn;
        char *run = run_draw(cases[i].shape, &book, i, &drawn);
        struct export_set set = set_of(cases[i].format);
        for (int before = 0; before < 2; before++) { // both before the work and with the codes at hand
            enum status status =
                before ? export_check(&set, &book, files_path(run, "model")) : run_export(&set, run, false);
            check_fails(status, STATUS_UNSUPPORTED);
            if (!strstr(status_message(), cases[i].says)) {
                print_error("message: %s; want '%s'\n", status_message(), cases[i].says);
                fail();
            }
        }
        int entries = 0;
        DIR *folder = opendir(run);
        while (readdir(folder)) entries++;
        closedir(folder);
        assert_int_equal(entries, 4); // ., .., model, codes.safetensors
        drawn_free(&drawn);
        files_remove(run);
    }
    struct export_set set;
    check_fails(export_set_parse("gptq,onnx", &set), STATUS_INVALID);
    check_fails(export_set_parse("", &set), STATUS_INVALID);
    check_fails(export_set_parse("gguf,", &set), STATUS_INVALID);
}

// A file of codes that says fp16 scales and has others: found out while writing, and nothing is left behind.
static void scales_that_a_format_cannot_hold_are_found_while_writing(void **state) {
    (void)state;
    struct codebook book = book_of("block", 4, 32);
    struct drawn drawn;
    char *run = run_draw(&shape_story, &book, 9, &drawn);
    struct codes_shape shapes[RUN_TENSORS_MAX];
    for (int64_t i = 0; i < drawn.n_coded; i++) {
        const struct run_tensor *t = &drawn.tensors[drawn.coded[i]];
        shapes[i] = (struct codes_shape){t->name, t->rows, t->cols};
    }
    drawn.scales[drawn.coded[2]][3] = 0.1f;
    check_ok(codes_write(files_path(run, "codes.safetensors"), &book, shapes, drawn.n_coded,
                         (struct codes_source){&drawn, drawn_scales, drawn_codes}));
    struct export_set gptq = set_of("gptq"), gguf = set_of("gguf");
    check_fails(run_export(&gptq, run, false), STATUS_UNSUPPORTED);
    check_fails(run_export(&gguf, run, false), STATUS_UNSUPPORTED);
    assert_false(files_has(run, "export-gptq"));
    assert_false(files_has(run, "export-gptq.part"));
    assert_false(files_has(run, "export.gguf"));
    assert_false(files_has(run, "export.gguf.part"));
    // compressed-tensors stores scales as F32: there the file is sound, but not the model beside it.
    struct export_set packed = set_of("compressed-tensors");
    check_fails(run_export(&packed, run, false), STATUS_FORMAT);
    assert_non_null(strstr(status_message(), "differs at element"));
    drawn_free(&drawn);
    files_remove(run);
}

// ---- the programs

static void the_programs_export_and_verify_and_say_what_is_wrong(void **state) {
    (void)state;
    struct codebook book = book_of("block", 4, 32);
    struct drawn drawn;
    char *run = run_draw(&shape_story, &book, 10, &drawn), *model = mem_format("%s/model", run);
    char *gguf = mem_format("%s/export.gguf", run), *gptq = mem_format("%s/export-gptq", run);
    struct process done = process_call("data/discquant-data", "export", run, "--to", "gptq,gguf");
    if (done.code) print_error("%s", done.err);
    assert_int_equal(done.code, 0);
    process_free(&done);
    done = process_call("data/discquant-data", "verify", gguf, "--against", model);
    assert_int_equal(done.code, 0);
    assert_non_null(strstr(done.out, "14 stored as integers"));
    process_free(&done);
    process_check_error(process_call("data/discquant-data", "export", run, "--to", "gptq"), 1, "exists already");
    process_check_error(process_call("data/discquant-data", "export", run, "--to", "gptq,awq"), 2, "awq");
    process_check_error(process_call("data/discquant-data", "export", run), 2, "--to is missing");
    process_check_error(process_call("data/discquant-data", "export", model, "--to", "hf"), 1, "model");
    drawn.weights[3][5] += 1;
    run_weights_put(&drawn, files_path(model, "model.safetensors"));
    process_check_error(process_call("data/discquant-data", "verify", gptq, "--against", model), 1,
                        "differs at element 5");
    process_check_error(process_call("data/discquant-data", "verify", gguf, "--against", model), 1,
                        "differs at element 5");
    drawn.weights[3][5] -= 1;
    run_weights_put(&drawn, files_path(model, "model.safetensors"));
    done = process_call("data/discquant-data", "export", run, "--to", "gptq,gguf", "--force");
    assert_int_equal(done.code, 0);
    process_free(&done);
    free(gptq);
    free(gguf);
    free(model);
    drawn_free(&drawn);
    files_remove(run);
}

// Text for the bundled model.
static char *text_put(const char *folder) {
    char *path = mem_format("%s/text.txt", folder);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    for (int i = 0; i < 60; i++) fputs("Ben is in the barn. Rosa has a red kite. Tom goes to the park.\n", out);
    fclose(out);
    return path;
}

static void discquant_exports_what_it_rounds_and_refuses_before_the_work(void **state) {
    (void)state;
    static const char *const grids[][3] = {{"block", "4", "hf,gptq,compressed-tensors,gguf"},
                                           {"block", "3", "gptq,compressed-tensors,gguf"},
                                           {"asymmetric", "3", "hf,gptq,compressed-tensors"},
                                           {"q4_0", "4", "gptq,compressed-tensors,gguf"},
                                           {"q4_1", "4", "gguf"},
                                           {"q8_0", "8", "gptq,compressed-tensors,gguf"},
                                           {"mxfp4", "4", "gguf"},
                                           {"nf4", "4", "hf"}};
    char model[4096], *folder = files_folder(), *text = text_put(folder), *out = mem_format("%s/run", folder);
    check_source("data/story-model", model, sizeof model);
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        struct process done =
            process_call("discquant/discquant", "--model", model, "--method", "rtn", "--validation", text, "--seq-len",
                         "32", "--validation-samples", "2", "--force", "--grid", grids[i][0], "--bits", grids[i][1],
                         "--group-size", i == 7 ? "64" : "32", "--out", out, "--export", grids[i][2]);
        if (done.code) print_error("%s %s", grids[i][0], done.err);
        assert_int_equal(done.code, 0);
        process_free(&done);
        struct export_set set = set_of(grids[i][2]);
        for (int f = 0; f < EXPORT_FORMATS; f++) {
            if (!set.wanted[f]) continue;
            struct export_difference same;
            char *place = export_place(out, (enum export_format)f), *rounded = mem_format("%s/model", out);
            check_ok(export_compare(place, rounded, &same));
            assert_int_equal(same.coded, f == EXPORT_HF ? 0 : 28);
            free(rounded);
            free(place);
        }
    }
    struct process later = process_call("data/discquant-data", "export", out, "--to", "hf", "--force");
    assert_int_equal(later.code, 0);
    process_free(&later);
    out[strlen(out) - 1] = 'x'; // a folder that is not there, and is not made
    process_check_error(process_call("discquant/discquant", "--model", model, "--method", "rtn", "--validation", text,
                                     "--seq-len", "32", "--bits", "5", "--out", out, "--export", "gguf,gptq"),
                        1, "--export gptq: has 2, 3, 4 and 8 bits, not 5");
    process_check_error(process_call("discquant/discquant", "--model", model, "--method", "rtn", "--validation", text,
                                     "--seq-len", "32", "--out", out, "--export", "awq"),
                        2, "--export 'awq'");
    process_check_error(process_call("discquant/discquant", "--model", model, "--method", "rtn", "--validation", text,
                                     "--seq-len", "32", "--out", out, "--export", "gguf", "--incoherence", "hadamard"),
                        1, "--export gguf: has no place for rotated weights");
    assert_int_not_equal(access(out, F_OK), 0);
    later = process_call("discquant/discquant", "--model", model, "--method", "rtn", "--validation", text, "--seq-len",
                         "32", "--validation-samples", "2", "--out", out, "--incoherence", "hadamard");
    assert_int_equal(later.code, 0);
    process_free(&later);
    process_check_error(process_call("data/discquant-data", "export", out, "--to", "gguf"), 1,
                        "no place for rotated weights");
    free(out);
    free(text);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bit_stream_is_its_numbers_bits_in_order),
        cmocka_unit_test(every_format_gives_back_the_weights_it_was_made_of),
        cmocka_unit_test(symmetric_zeros_are_the_constants_that_gptq_files_have),
        cmocka_unit_test(three_bit_codes_lie_in_words_as_ten_one_ten_one_ten),
        cmocka_unit_test(a_zero_point_of_zero_takes_the_second_version),
        cmocka_unit_test(q_and_k_rows_are_paired_as_llama_cpp_wants_them),
        cmocka_unit_test(the_type_of_a_matrix_follows_from_grid_and_width),
        cmocka_unit_test(what_a_format_cannot_hold_is_refused_with_the_reason),
        cmocka_unit_test(scales_that_a_format_cannot_hold_are_found_while_writing),
        cmocka_unit_test(the_programs_export_and_verify_and_say_what_is_wrong),
        cmocka_unit_test(discquant_exports_what_it_rounds_and_refuses_before_the_work),
    };
    progress_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
