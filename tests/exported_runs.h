// Runs to export from, for tests: a random model folder of a given shape, rounded to a grid by the test itself, with its
// codes file.
#ifndef DQ_TESTS_EXPORTED_RUNS_H
#define DQ_TESTS_EXPORTED_RUNS_H

#include "tests/files.h"

#include "core/base/rng.h"
#include "core/tensor/dtype.h"
#include "data/codes.h"
#include "data/export.h"
#include "data/model_folder.h"
#include "data/safetensors_writer.h"
#include "data/whole_file.h"

struct run_shape {
    bool phi3;
    int hidden, intermediate, layers, heads, kv_heads, vocab;
    bool tied;
    const char *rope; // JSON of rope_scaling; NULL: "null"
};

static const struct run_shape shape_story = {
    .hidden = 64, .intermediate = 96, .layers = 2, .heads = 4, .kv_heads = 2, .vocab = 640};
static const struct run_shape shape_wide = {
    .hidden = 256, .intermediate = 512, .layers = 1, .heads = 4, .kv_heads = 4, .vocab = 640, .tied = true};
static const struct run_shape shape_phi3 = {
    .phi3 = true, .hidden = 64, .intermediate = 96, .layers = 2, .heads = 4, .kv_heads = 2, .vocab = 640};
static const struct run_shape shape_odd = {
    .hidden = 64, .intermediate = 172, .layers = 1, .heads = 4, .kv_heads = 4, .vocab = 640};

struct run_tensor {
    char name[96];
    int64_t rows, cols;
    bool coded;
};

static inline struct run_tensor run_tensor_of(int64_t rows, int64_t cols, const char *format, int layer) {
    struct run_tensor t = {.rows = rows, .cols = cols};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(t.name, sizeof t.name, format, layer);
#pragma GCC diagnostic pop
    t.coded = strstr(t.name, "proj") != NULL;
    return t;
}

static inline int run_tensors(const struct run_shape *s, struct run_tensor *out) {
    int n = 0, c = s->hidden, d = c / s->heads, q = d * s->heads, kv = d * s->kv_heads, wide = s->intermediate;
    out[n++] = run_tensor_of(s->vocab, c, "model.embed_tokens.weight", 0);
    out[n++] = run_tensor_of(1, c, "model.norm.weight", 0);
    if (!s->tied) out[n++] = run_tensor_of(s->vocab, c, "lm_head.weight", 0);
    for (int l = 0; l < s->layers; l++) {
        out[n++] = run_tensor_of(1, c, "model.layers.%d.input_layernorm.weight", l);
        out[n++] = run_tensor_of(1, c, "model.layers.%d.post_attention_layernorm.weight", l);
        if (s->phi3) {
            out[n++] = run_tensor_of(q + 2 * kv, c, "model.layers.%d.self_attn.qkv_proj.weight", l);
            out[n++] = run_tensor_of(2 * wide, c, "model.layers.%d.mlp.gate_up_proj.weight", l);
        } else {
            out[n++] = run_tensor_of(q, c, "model.layers.%d.self_attn.q_proj.weight", l);
            out[n++] = run_tensor_of(kv, c, "model.layers.%d.self_attn.k_proj.weight", l);
            out[n++] = run_tensor_of(kv, c, "model.layers.%d.self_attn.v_proj.weight", l);
            out[n++] = run_tensor_of(wide, c, "model.layers.%d.mlp.gate_proj.weight", l);
            out[n++] = run_tensor_of(wide, c, "model.layers.%d.mlp.up_proj.weight", l);
        }
        out[n++] = run_tensor_of(c, q, "model.layers.%d.self_attn.o_proj.weight", l);
        out[n++] = run_tensor_of(c, wide, "model.layers.%d.mlp.down_proj.weight", l);
    }
    return n;
}

enum { RUN_TENSORS_MAX = 64 };

// Codes and affine maps that a test drew, and the weights that they are.
struct drawn {
    struct codebook book;
    struct run_tensor tensors[RUN_TENSORS_MAX];
    int n;
    uint8_t *codes[RUN_TENSORS_MAX]; // [rows, cols]; NULL: not on the grid
    float *scales[RUN_TENSORS_MAX];  // [rows, groups or 2 groups]
    float *weights[RUN_TENSORS_MAX]; // [rows, cols]
    int64_t coded[RUN_TENSORS_MAX], n_coded;
};

static inline uint32_t drawn_number(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

// A book with consecutive levels, or the 16 of mxfp4 without a second zero.
static inline struct codebook book_of(const char *kind, int bits, int64_t group_size) {
    struct codebook book = {.bits = bits, .group_size = group_size, .n_levels = 1 << bits};
    snprintf(book.kind, sizeof book.kind, "%s", kind);
    book.has_offset = strcmp(kind, "asymmetric") == 0 || strcmp(kind, "q4_1") == 0;
    for (int i = 0; i < book.n_levels; i++) book.levels[i] = (float)(i - (book.has_offset ? 0 : 1 << (bits - 1)));
    if (strcmp(kind, "mxfp4") == 0) {
        static const float magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
        book.n_levels = 15;
        for (int i = 0; i < 8; i++) book.levels[7 + i] = magnitudes[i], book.levels[7 - i] = -magnitudes[i];
        book.levels[7] = 0;
    }
    return book;
}

// One affine map as the grid has them.
static inline void affine_draw(const struct codebook *book, uint64_t *state, int64_t group, uint16_t super,
                               float *scale, float *offset) {
    float half = fp16_to_float(fp16_from_float(0.001f + 1e-6f * (float)(drawn_number(state) % 50000)));
    *scale = half, *offset = 0;
    if (strcmp(book->kind, "q4_0") == 0 && drawn_number(state) % 2) *scale = -half;
    if (strcmp(book->kind, "mxfp4") == 0) *scale = ldexpf(1, -3 - (int)(drawn_number(state) % 8));
    if (strcmp(book->kind, "q3_k") == 0)
        *scale = fp16_to_float(super) * (float)(group % 16 == 0 ? -32 : (int)(drawn_number(state) % 64) - 32);
    if (strcmp(book->kind, "asymmetric") == 0)
        *offset = -half * (float)(1 + drawn_number(state) % (book->n_levels - 1));
    if (strcmp(book->kind, "q4_1") == 0)
        *offset = fp16_to_float(fp16_from_float(-0.3f + 1e-5f * (float)(drawn_number(state) % 30000)));
}

static inline void matrix_draw(struct drawn *drawn, int i, uint64_t *state) {
    const struct run_tensor *t = &drawn->tensors[i];
    int64_t groups = codebook_groups(&drawn->book, t->cols), wide = groups * (drawn->book.has_offset ? 2 : 1);
    float *weights = drawn->weights[i] = mem_new((size_t)(t->rows * t->cols), sizeof(float));
    if (!t->coded) {
        for (int64_t k = 0; k < t->rows * t->cols; k++) // bf16 numbers, which F16 holds here
            weights[k] = bf16_to_float(bf16_from_float(ldexpf((float)(drawn_number(state) % 255) + 1, -9)));
        return;
    }
    drawn->coded[drawn->n_coded++] = i;
    drawn->codes[i] = mem_new((size_t)(t->rows * t->cols), 1);
    drawn->scales[i] = mem_new((size_t)(t->rows * wide), sizeof(float));
    for (int64_t row = 0; row < t->rows; row++) {
        uint16_t super = 0;
        for (int64_t g = 0; g < groups; g++) {
            float offset;
            if (g % 16 == 0) super = fp16_from_float(1e-4f + 1e-7f * (float)(drawn_number(state) % 9000));
            affine_draw(&drawn->book, state, g, super, &drawn->scales[i][row * wide + g], &offset);
            if (drawn->book.has_offset) drawn->scales[i][row * wide + groups + g] = offset;
        }
        for (int64_t k = 0; k < t->cols; k++) {
            int64_t g = k / codebook_group_cols(&drawn->book, t->cols);
            uint8_t code = (uint8_t)(drawn_number(state) % (unsigned)drawn->book.n_levels);
            double value = (double)drawn->scales[i][row * wide + g] * (double)drawn->book.levels[code];
            if (drawn->book.has_offset) value += (double)drawn->scales[i][row * wide + groups + g];
            drawn->codes[i][row * t->cols + k] = code;
            weights[row * t->cols + k] = (float)value; // products are exact in double
        }
    }
}

static inline void drawn_free(struct drawn *drawn) {
    for (int i = 0; i < drawn->n; i++) {
        free(drawn->codes[i]);
        free(drawn->scales[i]);
        free(drawn->weights[i]);
    }
}

static inline enum status drawn_scales(void *self, int64_t i, float *scales) {
    struct drawn *drawn = self;
    int64_t k = drawn->coded[i], groups = codebook_groups(&drawn->book, drawn->tensors[k].cols);
    memcpy(scales, drawn->scales[k], (size_t)(drawn->tensors[k].rows * groups * (drawn->book.has_offset ? 2 : 1)) * 4);
    return STATUS_OK;
}

static inline enum status drawn_codes(void *self, int64_t i, uint8_t *codes) {
    struct drawn *drawn = self;
    int64_t k = drawn->coded[i];
    memcpy(codes, drawn->codes[k], (size_t)(drawn->tensors[k].rows * drawn->tensors[k].cols));
    return STATUS_OK;
}

static inline void run_config_put(const struct run_shape *s, const char *folder) {
    char *text = mem_format(
        "{\"architectures\": [\"x\"], \"model_type\": \"%s\", \"hidden_size\": %d, \"intermediate_size\": %d,\n"
        "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d,\n"
        "\"max_position_embeddings\": 256, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"rope_scaling\": %s,\n"
        "\"tie_word_embeddings\": %s, \"bos_token_id\": 1, \"eos_token_id\": 2, \"torch_dtype\": \"float32\"}\n",
        s->phi3 ? "phi3" : "llama", s->hidden, s->intermediate, s->layers, s->heads, s->kv_heads, s->vocab,
        s->rope ? s->rope : "null", s->tied ? "true" : "false");
    files_put(files_path(folder, "config.json"), text, strlen(text));
    free(text);
}

static inline void run_weights_put(const struct drawn *drawn, const char *path) {
    struct safetensors_writer *writer = NULL;
    struct safetensors_entry entries[RUN_TENSORS_MAX];
    int64_t shapes[RUN_TENSORS_MAX][2];
    for (int i = 0; i < drawn->n; i++) {
        const struct run_tensor *t = &drawn->tensors[i];
        shapes[i][0] = t->rows == 1 ? t->cols : t->rows, shapes[i][1] = t->cols;
        entries[i] = (struct safetensors_entry){t->name, SAFETENSORS_F32, t->rows == 1 ? 1 : 2, shapes[i]};
    }
    check_ok(safetensors_writer_new(path, entries, drawn->n, NULL, 0, &writer));
    for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
        check_ok(
            safetensors_writer_put(writer, drawn->weights[i], drawn->tensors[i].rows * drawn->tensors[i].cols * 4));
    check_ok(safetensors_writer_finish(writer));
    safetensors_writer_free(writer);
}

// A new folder with model/ and codes.safetensors; `drawn` receives what is in them. Free both.
static inline char *run_draw(const struct run_shape *shape, const struct codebook *book, uint64_t seed,
                             struct drawn *drawn) {
    char *run = files_folder(), path[4096];
    char *model = mem_format("%s/model", run);
    struct codes_shape shapes[RUN_TENSORS_MAX];
    uint64_t state = seed;
    *drawn = (struct drawn){.book = *book};
    drawn->n = run_tensors(shape, drawn->tensors);
    for (int i = 0; i < drawn->n; i++) matrix_draw(drawn, i, &state);
    for (int64_t i = 0; i < drawn->n_coded; i++) {
        const struct run_tensor *t = &drawn->tensors[drawn->coded[i]];
        shapes[i] = (struct codes_shape){t->name, t->rows, t->cols};
    }
    assert_int_equal(mkdir(model, 0700), 0);
    run_config_put(shape, model);
    run_weights_put(drawn, files_path(model, "model.safetensors"));
    check_ok(whole_file_copy(check_source("data/story-model/tokenizer.json", path, sizeof path),
                             files_path(model, "tokenizer.json")));
    check_ok(codes_write(files_path(run, "codes.safetensors"), book, shapes, drawn->n_coded,
                         (struct codes_source){drawn, drawn_scales, drawn_codes}));
    free(model);
    return run;
}

static inline struct export_set set_of(const char *list) {
    struct export_set set;
    check_ok(export_set_parse(list, &set));
    return set;
}

// Every weight read from the export is the drawn one.
static inline void export_check_weights(const char *path, const struct drawn *drawn) {
    struct export_reader *reader = NULL;
    check_ok(export_open(path, &reader));
    struct tensor_source source = export_source(reader);
    for (int i = 0; i < drawn->n; i++) {
        const struct run_tensor *t = &drawn->tensors[i];
        float *got = mem_new((size_t)(t->rows * t->cols), sizeof *got);
        check_ok(source.read(source.self, t->name, t->rows, t->cols, got, NULL));
        for (int64_t k = 0; k < t->rows * t->cols; k++) {
            if (got[k] == drawn->weights[i][k]) continue;
            print_error("%s: %s[%lld] = %.9g, want %.9g\n", path, t->name, (long long)k, (double)got[k],
                        (double)drawn->weights[i][k]);
            fail();
        }
        free(got);
    }
    export_free(reader);
}

#endif
