// compressed-tensors' "pack-quantized" of a matrix [out, in] of b-bit codes, groups of g inputs:
//
//   weight_packed     I32 [out, ceil(in b / 32)]       row j is the bit stream of row j's codes, level + 2^(b - 1)
//   weight_scale      F32 [out, groups]
//   weight_zero_point I32 [ceil(out b / 32), groups]   column k is the bit stream of group k's zero points; with offsets only
//   weight_shape      I64 [2]                          out, in
//
//   value [j, i] = weight_scale[j, i / g] (code - zero), zero = 2^(b - 1) without zero points
//
// Three bits are packed without gaps, as compressed-tensors does from 2026 on; versions before wasted 2 bits of each word
// (10 codes a word). Scales are fp16 numbers stored as F32: the package multiplies in their dtype, and only F32 keeps
// every bit of the product.
#include "core/base/mem.h"
#include "data/bit_stream.h"
#include "data/export_parts.h"

#include <stdlib.h>
#include <string.h>

enum { PACKED, SCALE, SHAPE, ZEROS };

static int64_t words(int64_t n, int bits) { return (bit_stream_bytes(n, bits) + 3) / 4; }

static int packed_parts(const struct codebook *book, int64_t rows, int64_t cols, struct packed_part *parts) {
    int64_t groups = codebook_groups(book, cols);
    parts[PACKED] = (struct packed_part){".weight_packed", SAFETENSORS_I32, 2, {rows, words(cols, book->bits)}, true};
    parts[SCALE] = (struct packed_part){".weight_scale", SAFETENSORS_F32, 2, {rows, groups}, false};
    parts[SHAPE] = (struct packed_part){".weight_shape", SAFETENSORS_I64, 1, {2, 0}, false};
    parts[ZEROS] =
        (struct packed_part){".weight_zero_point", SAFETENSORS_I32, 2, {words(rows, book->bits), groups}, false};
    return book->has_offset ? 4 : 3;
}

static void codes_fill(const struct codebook *book, const struct coded_matrix *m, uint32_t *out) {
    int64_t n_words = words(m->cols, book->bits);
    int shift = book->has_offset ? 0 : code_shift(book);
    memset(out, 0, (size_t)(m->rows * n_words) * 4);
#pragma omp parallel
    {
        uint8_t *codes = mem_new((size_t)m->cols, 1);
#pragma omp for
        for (int64_t row = 0; row < m->rows; row++) {
            for (int64_t i = 0; i < m->cols; i++) codes[i] = (uint8_t)(m->codes[row * m->cols + i] + shift);
            bit_stream_pack(codes, m->cols, book->bits, (uint8_t *)(out + row * n_words));
        }
        free(codes);
    }
}

static enum status zeros_fill(const struct codebook *book, const struct coded_matrix *m, uint32_t *out) {
    enum status status = STATUS_OK;
    int64_t n_words = words(m->rows, book->bits);
    uint8_t *zeros = mem_new((size_t)(m->rows * m->groups), 1), *column = mem_new((size_t)m->rows, 1);
    uint32_t *stream = mem_new((size_t)n_words, sizeof *stream);
    TRY(zero_points(book, m, zeros));
    for (int64_t g = 0; g < m->groups; g++) {
        for (int64_t row = 0; row < m->rows; row++) column[row] = zeros[row * m->groups + g];
        bit_stream_pack(column, m->rows, book->bits, (uint8_t *)stream);
        for (int64_t w = 0; w < n_words; w++) out[w * m->groups + g] = stream[w];
    }
done:
    free(stream);
    free(column);
    free(zeros);
    return status;
}

static enum status packed_fill(const struct packed_format *format, const struct codebook *book,
                               const struct coded_matrix *m, int part, void *bytes) {
    (void)format;
    int64_t shape[2] = {m->rows, m->cols};
    switch (part) {
    case PACKED: codes_fill(book, m, bytes); return STATUS_OK;
    case SCALE: memcpy(bytes, m->scale, (size_t)(m->rows * m->groups) * sizeof(float)); return STATUS_OK;
    case SHAPE: memcpy(bytes, shape, sizeof shape); return STATUS_OK;
    default: return zeros_fill(book, m, bytes);
    }
}

static json_t *quantization_make(const struct codebook *book) {
    bool whole = book->group_size < 0;
    json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:o, s:b, s:n}", "num_bits", book->bits, "type", "int",
                                "symmetric", !book->has_offset, "strategy", whole ? "channel" : "group", "group_size",
                                whole ? json_null() : json_integer(book->group_size), "dynamic", 0, "actorder");
    json_t *root = json_pack("{s:s, s:s, s:s, s:[s], s:n, s:{s:{s:[s], s:o, s:n, s:n}}}", "quant_method",
                             "compressed-tensors", "format", "pack-quantized", "quantization_status", "compressed",
                             "ignore", "lm_head", "kv_cache_scheme", "config_groups", "group_0", "targets", "Linear",
                             "weights", weights, "input_activations", "output_activations");
    REQUIRE(root, "a configuration of constants");
    return root;
}

enum status packed_write(const struct export_job *job) {
    enum status status = STATUS_OK;
    struct packed_format format = {.parts = packed_parts, .fill = packed_fill, .torch_dtype = "float16"};
    for (int64_t i = 0; i < codes_count(job->codes); i++) {
        struct codes_shape s = codes_shape_at(job->codes, i);
        TRY(packed_fits(codes_book(job->codes), s.name, s.rows, s.cols));
    }
    format.quantization = quantization_make(codes_book(job->codes));
    TRY(packed_folder_write(job, &format));
done:
    json_decref(format.quantization);
    return status;
}
