// A rounded model as a GGUF file. A matrix on the grid becomes blocks (data/gguf_blocks.h) with the same values:
//
//   whole-number levels in -8 .. 7, fp16 scales       Q4_0, d = scale, q = level + 8; groups of a multiple of 32
//   the same in -4 .. 3, groups of a multiple of 256  Q3_K, d = scale, sc = 33, q = level + 4 (3.44 bits instead of 4.5)
//   whole-number levels in -128 .. 127                Q8_0, d = scale, q = level
//   fp16 minima, up to 16 levels                      Q4_1, d = scale, m = offset, q = code
//   grid q3_k                                         Q3_K, scale = d (sc - 32), d and sc found again
//   grid mxfp4                                        MXFP4
//
// A matrix whose width is no multiple of the block is stored as F32, which is exact as well. All other tensors keep every
// bit: F16 where that holds every value, else BF16, else F32; gains of norms F32, as llama.cpp wants them.
#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/tensor/dtype.h"
#include "data/export_parts.h"
#include "data/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- names and order

struct gguf_place gguf_place_of(const struct transformer_config *c, const char *name) {
    static const struct {
        const char *from, *to;
    } inner[] = {
        {"input_layernorm", "attn_norm"},   {"post_attention_layernorm", "ffn_norm"},
        {"self_attn.q_proj", "attn_q"},     {"self_attn.k_proj", "attn_k"},
        {"self_attn.v_proj", "attn_v"},     {"self_attn.o_proj", "attn_output"},
        {"self_attn.qkv_proj", "attn_qkv"}, {"mlp.gate_proj", "ffn_gate"},
        {"mlp.up_proj", "ffn_up"},          {"mlp.down_proj", "ffn_down"},
        {"mlp.gate_up_proj", "ffn_up"},
    };
    struct gguf_place place = {0};
    long long layer;
    char part[64];
    if (strcmp(name, "model.embed_tokens.weight") == 0) strcpy(place.name, "token_embd.weight");
    if (strcmp(name, "model.norm.weight") == 0) strcpy(place.name, "output_norm.weight");
    if (strcmp(name, "lm_head.weight") == 0) strcpy(place.name, "output.weight");
    if (sscanf(name, "model.layers.%lld.%63s", &layer, part) != 2) return place;
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        size_t n = strlen(inner[i].from);
        if (strncmp(part, inner[i].from, n) != 0 || strcmp(part + n, ".weight") != 0) continue;
        snprintf(place.name, sizeof place.name, "blk.%lld.%s.weight", layer, inner[i].to);
        if (strcmp(inner[i].to, "attn_q") == 0) place.paired_heads = c->heads;
        if (strcmp(inner[i].to, "attn_k") == 0) place.paired_heads = c->kv_heads;
    }
    return place;
}

int64_t gguf_row(const struct gguf_place *place, int64_t rows, int64_t row) {
    if (!place->paired_heads) return row;
    int64_t dim = rows / place->paired_heads, in_head = row % dim;
    return row - in_head + in_head % 2 * (dim / 2) + in_head / 2;
}

// ---- types of matrices

// The type that holds a matrix of the grid with this width exactly; GGUF_F32 where the width suits none. False: the grid
// suits none, *why says why.
static bool type_find(const struct codebook *book, int64_t cols, enum gguf_type *out, const char **why) {
    struct grid_facts facts = grid_facts_of(book);
    int64_t group = book->group_size;
    bool wide = group < 0 || group >= cols, by_32 = wide || group % 32 == 0, by_256 = wide || group % 256 == 0;
    float low = book->levels[0], high = book->levels[book->n_levels - 1];
    *out = GGUF_F32;
    if (strcmp(book->kind, "q3_k") == 0 || strcmp(book->kind, "mxfp4") == 0) {
        enum gguf_type type = book->kind[0] == 'q' ? GGUF_Q3_K : GGUF_MXFP4;
        if (cols % gguf_type_facts_of(type).weights == 0) *out = type;
        return true;
    }
    if (!codebook_is_integer(book)) return *why = "its levels are no consecutive integers", false;
    if (!facts.fp16_scales) return *why = "its scales are no fp16 numbers", false;
    if (book->has_offset && !facts.fp16_offsets)
        return *why = "its minima are no fp16 numbers; the grid q4_1 has such", false;
    if (!by_32) return *why = "its group size is no multiple of 32", false;
    if (book->has_offset && book->n_levels > 16) return *why = "Q4_1 has 16 levels", false;
    if (cols % 32) return true;
    if (book->has_offset)
        *out = GGUF_Q4_1;
    else if (low >= -4 && high <= 3 && cols % 256 == 0 && by_256)
        *out = GGUF_Q3_K;
    else
        *out = low >= -8 && high <= 7 ? GGUF_Q4_0 : GGUF_Q8_0;
    return true;
}

enum status gguf_fits(const struct codebook *book, const struct transformer_config *c, const char *model) {
    enum gguf_type type;
    const char *why = NULL;
    const struct rope_config *rope = &c->rope;
    if (!type_find(book, c->hidden, &type, &why))
        return status_set(STATUS_UNSUPPORTED, "--export gguf: cannot hold the grid %s: %s", book->kind, why);
    if (c->hidden % 32 && c->intermediate % 32)
        return status_set(STATUS_UNSUPPORTED,
                          "--export gguf: no width of this model (%lld, %lld) is a multiple of the blocks' 32 inputs",
                          (long long)c->hidden, (long long)c->intermediate);
    if (c->architecture == ARCHITECTURE_LLAMA && rope->kind == ROPE_LONGROPE)
        return status_set(STATUS_UNSUPPORTED, "--export gguf: llama.cpp has no longrope for the architecture llama");
    return vocab_put(model, c, NULL);
}

// ---- blocks

// One fp16 d and 16 whole multiples of it for the 16 scales of a block of 256. Where some scale is not 0, the largest one in
// size is d k for k in 1 .. 32.
static bool super_scale_find(const float scale[16], uint16_t *d, uint8_t sc[16]) {
    float largest = 0;
    for (int i = 0; i < 16; i++)
        if (fabsf(scale[i]) > fabsf(largest)) largest = scale[i];
    for (int k = -32; k < 32; k++) {
        if (k == 0 && largest != 0) continue;
        uint16_t half = largest == 0 ? 0 : fp16_from_float(largest / (float)k);
        float unit = fp16_to_float(half);
        bool fits = largest == 0 || unit != 0;
        for (int i = 0; i < 16 && fits; i++) {
            float ratio = unit == 0 ? 0 : rintf(scale[i] / unit);
            fits = ratio >= -32 && ratio < 32 && unit * ratio == scale[i];
            sc[i] = (uint8_t)(32 + (fits ? (int)ratio : 0));
        }
        if (fits) return *d = half, true;
    }
    return false;
}

static enum status scale_wrong(const struct coded_matrix *m, int64_t row, const char *what) {
    return status_set(STATUS_UNSUPPORTED, "--export gguf: '%s': row %lld: %s", m->name, (long long)row, what);
}

static bool half_exact(float value, uint16_t *half) {
    *half = fp16_from_float(value);
    return fp16_to_float(*half) == value;
}

static enum status q3_k_row(const struct codebook *book, const struct coded_matrix *m, int64_t row, uint8_t *out) {
    bool native = strcmp(book->kind, "q3_k") == 0;
    const uint8_t *codes = m->codes + row * m->cols;
    for (int64_t at = 0; at < m->cols; at += 256, out += 110) {
        float scale[16];
        uint8_t sc[16], q[256];
        uint16_t d = 0;
        for (int i = 0; i < 16; i++) scale[i] = m->scale[row * m->groups + (at + 16 * i) / m->group_cols];
        memset(sc, 33, sizeof sc);
        if (native ? !super_scale_find(scale, &d, sc) : !half_exact(scale[0], &d))
            return scale_wrong(m, row, "16 scales are no 6-bit multiples of one fp16 number");
        for (int e = 0; e < 256; e++) q[e] = (uint8_t)(codes[at + e] + (int)book->levels[0] + 4);
        gguf_q3_k_pack(d, sc, q, out);
    }
    return STATUS_OK;
}

static enum status small_row(const struct codebook *book, enum gguf_type type, const struct coded_matrix *m,
                             int64_t row, uint8_t *out) {
    const uint8_t *codes = m->codes + row * m->cols;
    int first = (int)book->levels[0];
    for (int64_t at = 0; at < m->cols; at += 32, codes += 32, out += gguf_type_facts_of(type).bytes) {
        int64_t group = row * m->groups + at / m->group_cols;
        float scale = m->scale[group], least = m->offset ? m->offset[group] + scale * (float)first : 0;
        uint16_t d, low;
        uint8_t q[32];
        if (!half_exact(scale, &d) || !half_exact(least, &low))
            return scale_wrong(m, row, "a scale or minimum is no fp16 number");
        for (int j = 0; j < 32; j++)
            q[j] = (uint8_t)(codes[j] + (m->offset ? 0 : type == GGUF_Q4_0 ? first + 8 : first));
        if (type == GGUF_Q4_0)
            gguf_q4_0_pack(d, q, out);
        else if (type == GGUF_Q4_1)
            gguf_q4_1_pack(d, low, q, out);
        else
            gguf_q8_0_pack(d, (const int8_t *)q, out);
    }
    return STATUS_OK;
}

static enum status mxfp4_row(const struct codebook *book, const struct coded_matrix *m, int64_t row, uint8_t *out) {
    static const float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    uint8_t e2m1[CODEBOOK_LEVELS_MAX];
    for (int i = 0; i < book->n_levels; i++) {
        int k = 0;
        while (k < 8 && magnitudes[k] != fabsf(book->levels[i])) k++;
        if (k == 8) return scale_wrong(m, row, "a level is none of E2M1");
        e2m1[i] = (uint8_t)(k | (signbit(book->levels[i]) ? 8 : 0));
    }
    for (int64_t at = 0; at < m->cols; at += 32, out += 17) {
        int exponent = 0;
        float scale = m->scale[row * m->groups + at / m->group_cols];
        uint8_t codes[32];
        if (scale != 0 && (frexpf(scale, &exponent) != 0.5f || exponent < -126))
            return scale_wrong(m, row, "a scale is no power of two");
        for (int j = 0; j < 32; j++) codes[j] = scale == 0 ? 0 : e2m1[m->codes[row * m->cols + at + j]];
        gguf_mxfp4_pack((uint8_t)(scale == 0 ? 0 : exponent - 1 + 127), codes, out);
    }
    return STATUS_OK;
}

static enum status float_row(const struct codebook *book, const struct coded_matrix *m, int64_t row, uint8_t *out) {
    struct coded_matrix one = *m;
    one.rows = 1;
    one.codes += row * m->cols, one.scale += row * m->groups;
    if (one.offset) one.offset += row * m->groups;
    coded_matrix_values(book, &one, (float *)out);
    return STATUS_OK;
}

// ---- the file

// One tensor of the model folder and what becomes of it.
struct item {
    const struct safetensors *file;
    const struct safetensors_tensor *tensor;
    struct gguf_place place;
    int64_t matrix; // index into the codes; -1: none
    int64_t rows, cols;
    enum gguf_type type;
};

static enum status row_pack(const struct codebook *book, const struct item *item, const struct coded_matrix *m,
                            int64_t i, uint8_t *out) {
    int64_t row = gguf_row(&item->place, item->rows, i);
    switch (item->type) {
    case GGUF_F32: return float_row(book, m, row, out);
    case GGUF_Q3_K: return q3_k_row(book, m, row, out);
    case GGUF_MXFP4: return mxfp4_row(book, m, row, out);
    default: return small_row(book, item->type, m, row, out);
    }
}

enum { ROWS_AT_ONCE = 256 };

static enum status coded_put(const struct export_job *job, const struct item *item, struct gguf_writer *writer) {
    enum status status = STATUS_OK;
    struct coded_matrix m = {0};
    struct gguf_type_facts facts = gguf_type_facts_of(item->type);
    const struct codebook *book = codes_book(job->codes);
    int64_t row_bytes = item->cols / facts.weights * facts.bytes;
    void *memory = NULL;
    TRY(codes_read(job->codes, item->matrix, true, &m));
    TRY(mem_buffer_new(row_bytes * ROWS_AT_ONCE, m.name, &memory));
    uint8_t *bytes = memory;
    for (int64_t first = 0; first < item->rows; first += ROWS_AT_ONCE) {
        int64_t n = item->rows - first < ROWS_AT_ONCE ? item->rows - first : ROWS_AT_ONCE, wrong = n;
#pragma omp parallel for reduction(min : wrong)
        for (int64_t i = 0; i < n; i++)
            if (row_pack(book, item, &m, first + i, bytes + i * row_bytes) != STATUS_OK && i < wrong) wrong = i;
        if (wrong < n) TRY(row_pack(book, item, &m, first + wrong, bytes)); // its message, in this thread
        TRY(gguf_writer_data(writer, bytes, n * row_bytes));
    }
done:
    mem_buffer_free(memory);
    coded_matrix_free(&m);
    return status;
}

static enum dtype plain_dtype(enum gguf_type type) {
    return type == GGUF_F16 ? DTYPE_F16 : type == GGUF_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

// `back` [n]: scratch.
static bool dtype_holds(enum dtype dtype, const float *values, int64_t n, float *back) {
    char *narrow = (char *)back + n * (4 - dtype_bytes(dtype)); // its last bytes, where dtype_to_float may read from
    dtype_from_float(dtype, values, narrow, n);
    dtype_to_float(dtype, narrow, back, n);
    return memcmp(values, back, (size_t)n * sizeof *values) == 0;
}

static enum status plain_read(const struct item *item, void **values, void **scratch) {
    enum status status = STATUS_OK;
    TRY(mem_buffer_new(item->tensor->n_elements * 4, item->tensor->name, values));
    TRY(mem_buffer_new(item->tensor->n_elements * 4, item->tensor->name, scratch));
    TRY(safetensors_to_float(item->file, item->tensor, *values));
done:
    return status;
}

// The type of a tensor that is not on the grid.
static enum status plain_type(struct item *item) {
    enum status status = STATUS_OK;
    void *values = NULL, *back = NULL;
    item->type = GGUF_F32;
    if (item->rows == 1) goto done;
    TRY(plain_read(item, &values, &back));
    if (dtype_holds(DTYPE_F16, values, item->tensor->n_elements, back))
        item->type = GGUF_F16;
    else if (dtype_holds(DTYPE_BF16, values, item->tensor->n_elements, back))
        item->type = GGUF_BF16;
done:
    mem_buffer_free(values);
    mem_buffer_free(back);
    return status;
}

static enum status plain_put(const struct item *item, struct gguf_writer *writer) {
    enum status status = STATUS_OK;
    enum dtype dtype = plain_dtype(item->type);
    void *values = NULL, *bytes = NULL;
    int64_t row_bytes = item->cols * dtype_bytes(dtype);
    TRY(plain_read(item, &values, &bytes));
    for (int64_t i = 0; i < item->rows; i++) {
        int64_t row = gguf_row(&item->place, item->rows, i);
        dtype_from_float(dtype, (const float *)values + row * item->cols, bytes, item->cols);
        TRY(gguf_writer_data(writer, bytes, row_bytes));
    }
done:
    mem_buffer_free(values);
    mem_buffer_free(bytes);
    return status;
}

static enum status items_make(const struct export_job *job, const struct transformer_config *c, struct item *items,
                              int64_t *n) {
    enum status status = STATUS_OK;
    int64_t as_floats = 0, coded = 0;
    const char *why;
    for (int64_t f = 0; f < model_folder_n_files(job->folder); f++) {
        const struct safetensors *file = model_folder_file(job->folder, f);
        for (int64_t i = 0; i < safetensors_n_tensors(file); i++) {
            const struct safetensors_tensor *tensor = safetensors_at(file, i);
            struct item *item = &items[*n];
            *item = (struct item){.file = file, .tensor = tensor, .place = gguf_place_of(c, tensor->name)};
            if (!item->place.name[0] || tensor->rank < 1 || tensor->rank > 2) continue;
            if (c->tied && strcmp(item->place.name, "output.weight") == 0) continue;
            item->rows = tensor->rank == 2 ? tensor->shape[0] : 1;
            item->cols = tensor->shape[tensor->rank - 1];
            item->matrix = codes_find(job->codes, tensor->name);
            if (c->architecture != ARCHITECTURE_LLAMA) item->place.paired_heads = 0;
            if (item->matrix < 0)
                TRY(plain_type(item));
            else
                type_find(codes_book(job->codes), item->cols, &item->type, &why);
            coded += item->matrix >= 0, as_floats += item->matrix >= 0 && item->type == GGUF_F32;
            ++*n;
        }
    }
    if (as_floats)
        progress_say("%s: %lld of %lld matrices are stored as F32: their width is no multiple of a block", job->out,
                     (long long)as_floats, (long long)coded);
done:
    return status;
}

// llama.cpp's number for "mostly this type".
static uint32_t file_type(const struct item *items, int64_t n) {
    static const uint32_t numbers[] = {
        [GGUF_Q4_0] = 2, [GGUF_Q4_1] = 3, [GGUF_Q8_0] = 7, [GGUF_Q3_K] = 11, [GGUF_MXFP4] = 38};
    int64_t counts[GGUF_MXFP4 + 1] = {0}, best = 0;
    for (int64_t i = 0; i < n; i++)
        if (items[i].matrix >= 0) counts[items[i].type]++;
    for (int64_t t = GGUF_Q4_0; t <= GGUF_MXFP4; t++)
        if (t != GGUF_BF16 && counts[t] > (best ? counts[best] : 0)) best = t;
    return best ? numbers[best] : 0;
}

// ---- metadata

static void rope_put(const struct transformer_config *c, const char *arch, struct gguf_writer *writer) {
    char key[96];
    const struct rope_config *rope = &c->rope;
#define KEY(text) (snprintf(key, sizeof key, "%s.%s", arch, text), key)
    gguf_put_u32(writer, KEY("rope.dimension_count"), (uint32_t)c->head_dim);
    gguf_put_f32(writer, KEY("rope.freq_base"), (float)rope->theta);
    if (rope->kind == ROPE_LINEAR) {
        gguf_put_string(writer, KEY("rope.scaling.type"), "linear");
        gguf_put_f32(writer, KEY("rope.scaling.factor"), (float)rope->factor);
    }
    if (rope->kind == ROPE_LONGROPE) {
        gguf_put_u32(writer, KEY("rope.scaling.original_context_length"), (uint32_t)rope->original_max_positions);
        gguf_put_f32(writer, KEY("rope.scaling.attn_factor"), (float)rope->attention_factor);
    }
}

static void config_put(const struct transformer_config *c, struct gguf_writer *writer) {
    const char *arch = c->architecture == ARCHITECTURE_PHI3 ? "phi3" : "llama";
    char key[96];
    gguf_put_u32(writer, KEY("vocab_size"), (uint32_t)c->vocab);
    gguf_put_u32(writer, KEY("context_length"), (uint32_t)c->max_positions);
    gguf_put_u32(writer, KEY("embedding_length"), (uint32_t)c->hidden);
    gguf_put_u32(writer, KEY("block_count"), (uint32_t)c->layers);
    gguf_put_u32(writer, KEY("feed_forward_length"), (uint32_t)c->intermediate);
    gguf_put_u32(writer, KEY("attention.head_count"), (uint32_t)c->heads);
    gguf_put_u32(writer, KEY("attention.head_count_kv"), (uint32_t)c->kv_heads);
    gguf_put_u32(writer, KEY("attention.key_length"), (uint32_t)c->head_dim);
    gguf_put_u32(writer, KEY("attention.value_length"), (uint32_t)c->head_dim);
    gguf_put_f32(writer, KEY("attention.layer_norm_rms_epsilon"), (float)c->rms_eps);
    if (c->architecture == ARCHITECTURE_PHI3)
        gguf_put_u32(writer, KEY("attention.sliding_window"), (uint32_t)(c->window ? c->window : c->max_positions));
    rope_put(c, arch, writer);
#undef KEY
}

// Frequencies of positions that llama.cpp reads as tensors: divisors [head_dim / 2] of theta^(-2i / head_dim).
struct factors {
    const char *name;
    float values[ROPE_FACTORS_MAX];
};

static int factors_make(const struct transformer_config *c, struct factors out[2]) {
    const struct rope_config *rope = &c->rope;
    if (rope->kind == ROPE_LONGROPE) {
        out[0].name = "rope_factors_long.weight", out[1].name = "rope_factors_short.weight";
        for (int i = 0; i < rope->n_factors; i++) {
            out[0].values[i] = (float)rope->long_factor[i];
            out[1].values[i] = (float)rope->short_factor[i];
        }
        return 2;
    }
    if (rope->kind != ROPE_LLAMA3) return 0;
    out[0].name = "rope_freqs.weight";
    for (int64_t i = 0; i < c->head_dim / 2; i++) {
        double wavelength = 2 * M_PI * pow(rope->theta, 2 * (double)i / (double)c->head_dim);
        double turns = (double)rope->original_max_positions / wavelength;
        double smooth = (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        out[0].values[i] = (float)(1 / ((1 - smooth) / rope->factor + smooth));
    }
    return 1;
}

static void header_put(const struct export_job *job, const struct transformer_config *c, const struct item *items,
                       int64_t n, struct gguf_writer *writer) {
    const struct codebook *book = codes_book(job->codes);
    char *grid = mem_format("%s, %d bits, group size %lld", book->kind, book->bits, (long long)book->group_size);
    gguf_put_string(writer, "general.architecture", c->architecture == ARCHITECTURE_PHI3 ? "phi3" : "llama");
    gguf_put_string(writer, "general.type", "model");
    gguf_put_string(writer, "general.quantized_by", "discquant");
    gguf_put_string(writer, "general.description", grid);
    gguf_put_u32(writer, "general.file_type", file_type(items, n));
    gguf_put_u32(writer, "general.quantization_version", 2);
    config_put(c, writer);
    free(grid);
}

enum status gguf_write(const struct export_job *job) {
    enum status status = STATUS_OK;
    const struct transformer_config *c = model_folder_config(job->folder);
    struct gguf_writer *writer = gguf_writer_new();
    int64_t room = 0, n = 0;
    for (int64_t f = 0; f < model_folder_n_files(job->folder); f++)
        room += safetensors_n_tensors(model_folder_file(job->folder, f));
    struct item *items = mem_new((size_t)room, sizeof *items);
    struct factors *factors = mem_new(2, sizeof *factors);
    int n_factors = factors_make(c, factors);
    TRY(gguf_fits(codes_book(job->codes), c, model_folder_path(job->folder)));
    TRY(items_make(job, c, items, &n));
    header_put(job, c, items, n, writer);
    TRY(vocab_put(model_folder_path(job->folder), c, writer));
    for (int i = 0; i < n_factors; i++) gguf_put_tensor(writer, factors[i].name, GGUF_F32, 1, c->head_dim / 2);
    for (int64_t i = 0; i < n; i++)
        gguf_put_tensor(writer, items[i].place.name, items[i].type, items[i].rows, items[i].cols);
    TRY(gguf_writer_begin(writer, job->out));
    for (int i = 0; i < n_factors; i++) TRY(gguf_writer_data(writer, factors[i].values, c->head_dim / 2 * 4));
    for (int64_t i = 0; i < n; i++)
        TRY(items[i].matrix >= 0 ? coded_put(job, &items[i], writer) : plain_put(&items[i], writer));
    TRY(gguf_writer_finish(writer));
done:
    gguf_writer_free(writer);
    free(factors);
    free(items);
    return status;
}
