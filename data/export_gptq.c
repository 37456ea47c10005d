// GPTQ's tensors (AutoGPTQ, GPTQModel, vLLM) of a matrix [out, in] of b-bit codes, groups of g inputs:
//
//   qweight I32 [in b / 32, out]        column j is the bit stream of row j's codes
//   qzeros  I32 [groups, out b / 32]    row k is the bit stream of group k's zero points over the outputs
//   scales  F16 [groups, out]
//   g_idx   I32 [in]                    i / g
//
//   value [j, i] = scales[g_idx[i], j] (code - zero)
//
// The first version ("gptq") stores zero - 1 and its readers add 1; the second ("gptq_v2") stores zero. The first is
// written unless some zero is 0, which it cannot hold.
#include "core/base/mem.h"
#include "data/bit_stream.h"
#include "data/export_parts.h"
#include "data/version.h"

#include <stdlib.h>
#include <string.h>

enum { QWEIGHT, QZEROS, SCALES, GROUPS, PARTS };

static int gptq_parts(const struct codebook *book, int64_t rows, int64_t cols, struct packed_part *parts) {
    int64_t b = book->bits, groups = codebook_groups(book, cols);
    parts[QWEIGHT] = (struct packed_part){".qweight", SAFETENSORS_I32, 2, {cols / 32 * b, rows}, true};
    parts[QZEROS] = (struct packed_part){".qzeros", SAFETENSORS_I32, 2, {groups, rows / 32 * b}, false};
    parts[SCALES] = (struct packed_part){".scales", SAFETENSORS_F16, 2, {groups, rows}, false};
    parts[GROUPS] = (struct packed_part){".g_idx", SAFETENSORS_I32, 1, {cols, 0}, false};
    return PARTS;
}

static void qweight_fill(const struct codebook *book, const struct coded_matrix *m, uint32_t *words) {
    int64_t n_words = m->cols / 32 * book->bits;
    int shift = book->has_offset ? 0 : code_shift(book);
#pragma omp parallel
    {
        uint8_t *codes = mem_new((size_t)m->cols, 1);
        uint32_t *row_words = mem_new((size_t)n_words, sizeof *row_words);
#pragma omp for
        for (int64_t row = 0; row < m->rows; row++) {
            for (int64_t i = 0; i < m->cols; i++) codes[i] = (uint8_t)(m->codes[row * m->cols + i] + shift);
            bit_stream_pack(codes, m->cols, book->bits, (uint8_t *)row_words);
            for (int64_t w = 0; w < n_words; w++) words[w * m->rows + row] = row_words[w];
        }
        free(row_words);
        free(codes);
    }
}

// [rows, groups]
static enum status zeros_make(const struct codebook *book, const struct coded_matrix *m, uint8_t *zeros) {
    if (book->has_offset) return zero_points(book, m, zeros);
    memset(zeros, 1 << (book->bits - 1), (size_t)(m->rows * m->groups));
    return STATUS_OK;
}

static enum status qzeros_fill(const struct codebook *book, const struct coded_matrix *m, bool minus_one,
                               uint8_t *bytes) {
    enum status status = STATUS_OK;
    uint8_t *zeros = mem_new((size_t)(m->rows * m->groups), 1), *over_rows = mem_new((size_t)m->rows, 1);
    TRY(zeros_make(book, m, zeros));
    for (int64_t g = 0; g < m->groups; g++) {
        for (int64_t row = 0; row < m->rows; row++)
            over_rows[row] = (uint8_t)(zeros[row * m->groups + g] - (minus_one ? 1 : 0));
        bit_stream_pack(over_rows, m->rows, book->bits, bytes + g * bit_stream_bytes(m->rows, book->bits));
    }
done:
    free(over_rows);
    free(zeros);
    return status;
}

static enum status gptq_fill(const struct packed_format *format, const struct codebook *book,
                             const struct coded_matrix *m, int part, void *bytes) {
    int32_t *groups = bytes;
    switch (part) {
    case QWEIGHT: qweight_fill(book, m, bytes); return STATUS_OK;
    case QZEROS: return qzeros_fill(book, m, format->zeros_minus_one, bytes);
    case SCALES: return scales_to_fp16(m, true, bytes);
    default:
        for (int64_t i = 0; i < m->cols; i++) groups[i] = (int32_t)(i / m->group_cols);
        return STATUS_OK;
    }
}

// Whether some zero point of the model is 0.
static enum status zero_occurs(const struct codes *codes, bool *out) {
    enum status status = STATUS_OK;
    struct coded_matrix m = {0};
    uint8_t *zeros = NULL;
    *out = false;
    if (!codes_book(codes)->has_offset) return STATUS_OK;
    for (int64_t i = 0; i < codes_count(codes) && !*out; i++) {
        TRY(codes_read(codes, i, false, &m));
        zeros = mem_new((size_t)(m.rows * m.groups), 1);
        TRY(zero_points(codes_book(codes), &m, zeros));
        *out = memchr(zeros, 0, (size_t)(m.rows * m.groups)) != NULL;
        free(zeros);
        zeros = NULL;
        coded_matrix_free(&m);
    }
done:
    free(zeros);
    coded_matrix_free(&m);
    return status;
}

static json_t *quantization_make(const struct codebook *book, bool minus_one) {
    const char *format = minus_one ? "gptq" : "gptq_v2";
    char *quantizer = mem_format("discquant:%s", version_text());
    json_t *root = json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:s, s:{s:[s]}}", "quant_method", "gptq", "bits",
                             book->bits, "group_size", (json_int_t)book->group_size, "desc_act", 0, "sym",
                             !book->has_offset, "lm_head", 0, "checkpoint_format", format, "format", format,
                             "pack_dtype", "int32", "meta", "quantizer", quantizer);
    REQUIRE(root, "a configuration of constants");
    free(quantizer);
    return root;
}

enum status gptq_write(const struct export_job *job) {
    enum status status = STATUS_OK;
    bool has_zero = false;
    struct packed_format format = {
        .parts = gptq_parts, .fill = gptq_fill, .config_name = "quantize_config.json", .torch_dtype = "float16"};
    for (int64_t i = 0; i < codes_count(job->codes); i++) {
        struct codes_shape s = codes_shape_at(job->codes, i);
        TRY(gptq_fits(codes_book(job->codes), s.name, s.rows, s.cols));
    }
    TRY(zero_occurs(job->codes, &has_zero));
    format.zeros_minus_one = !has_zero;
    format.quantization = quantization_make(codes_book(job->codes), format.zeros_minus_one);
    TRY(packed_folder_write(job, &format));
done:
    json_decref(format.quantization);
    return status;
}
