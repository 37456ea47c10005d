// Reading exported folders back: GPTQ and pack-quantized tensors as floats, and plain model folders. Written from the
// formats' definitions (export_gptq.c, export_packed.c), not from the writers.
#include "core/base/mem.h"
#include "core/tensor/dtype.h"
#include "data/bit_stream.h"
#include "data/export_parts.h"
#include "data/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct folder_reader {
    struct export_reader *reader;
    struct model_folder *folder;
    char *path;
    int bits;
    int64_t group_size;
    bool zeros_minus_one, symmetric;
};

// Tensor NAME.suffix of the matrix NAME.weight; NULL: not there.
static const struct safetensors_tensor *part(const struct folder_reader *r, const char *name, const char *suffix) {
    char *module = mem_string_n(name, strlen(name) - strlen(".weight")), *full = mem_format("%s%s", module, suffix);
    const struct safetensors_tensor *tensor = model_folder_find(r->folder, full, NULL);
    free(module);
    free(full);
    return tensor;
}

static bool is_weight(const char *name) {
    size_t n = strlen(name), m = strlen(".weight");
    return n > m && strcmp(name + n - m, ".weight") == 0;
}

static enum status part_check(const struct folder_reader *r, const char *name, const char *suffix,
                              const struct safetensors_tensor *tensor, enum safetensors_dtype dtype, int64_t rows,
                              int64_t cols) {
    int64_t rank = cols < 0 ? 1 : 2;
    if (tensor && tensor->dtype == dtype && tensor->rank == rank && tensor->shape[0] == rows &&
        (rank == 1 || tensor->shape[1] == cols))
        return STATUS_OK;
    char shape[64];
    if (rank == 1)
        snprintf(shape, sizeof shape, "[%lld]", (long long)rows);
    else
        snprintf(shape, sizeof shape, "[%lld, %lld]", (long long)rows, (long long)cols);
    return status_set(STATUS_FORMAT, "%s: '%s': its %s is missing or not %s %s", r->path, name, suffix,
                      safetensors_dtype_name(dtype), shape);
}

// Data of safetensors may lie anywhere.
static uint32_t word_at(const struct safetensors_tensor *tensor, int64_t i) {
    uint32_t word;
    memcpy(&word, tensor->data + i * 4, sizeof word);
    return word;
}

// n numbers of `bits` bits from every stride-th word of a tensor, from word `first` on. `gaps`: words hold whole numbers.
static void numbers_read(const struct safetensors_tensor *tensor, int64_t first, int64_t stride, int64_t n, int bits,
                         bool gaps, uint8_t *out) {
    uint32_t mask = (1u << bits) - 1;
    int64_t per_word = 32 / bits;
    for (int64_t i = 0; i < n; i++) {
        int64_t bit = i * bits, word = gaps ? i / per_word : bit / 32;
        int shift = (int)(gaps ? i % per_word * bits : bit % 32);
        uint64_t window = word_at(tensor, first + word * stride);
        if (shift + bits > 32) window |= (uint64_t)word_at(tensor, first + (word + 1) * stride) << 32;
        out[i] = (uint8_t)(window >> shift & mask);
    }
}

// ---- GPTQ

struct gptq_matrix {
    const struct safetensors_tensor *qweight, *qzeros, *scales, *g_idx;
    int64_t rows, cols, groups;
};

static enum status gptq_find(const struct folder_reader *r, const char *name, int64_t rows, int64_t cols,
                             struct gptq_matrix *out) {
    enum status status = STATUS_OK;
    struct gptq_matrix m = {part(r, name, ".qweight"),
                            part(r, name, ".qzeros"),
                            part(r, name, ".scales"),
                            part(r, name, ".g_idx"),
                            rows,
                            cols,
                            1};
    int64_t b = r->bits;
    if (r->group_size > 0) m.groups = (cols + r->group_size - 1) / r->group_size;
    if (rows % 32 || cols % 32)
        TRY(status_set(STATUS_FORMAT, "%s: '%s': %lld x %lld is not packed by 32", r->path, name, (long long)rows,
                       (long long)cols));
    TRY(part_check(r, name, "qweight", m.qweight, SAFETENSORS_I32, cols / 32 * b, rows));
    TRY(part_check(r, name, "qzeros", m.qzeros, SAFETENSORS_I32, m.groups, rows / 32 * b));
    TRY(part_check(r, name, "scales", m.scales, SAFETENSORS_F16, m.groups, rows));
    TRY(part_check(r, name, "g_idx", m.g_idx, SAFETENSORS_I32, cols, -1));
    for (int64_t i = 0; i < cols; i++)
        if (word_at(m.g_idx, i) >= (uint64_t)m.groups)
            TRY(status_set(STATUS_FORMAT, "%s: '%s': g_idx %lld names group %lld of %lld", r->path, name, (long long)i,
                           (long long)(int32_t)word_at(m.g_idx, i), (long long)m.groups));
    *out = m;
done:
    return status;
}

static enum status gptq_read(const struct folder_reader *r, const char *name, int64_t rows, int64_t cols, float *out) {
    enum status status = STATUS_OK;
    struct gptq_matrix m;
    void *zeros = NULL, *scales = NULL;
    int64_t b = r->bits;
    TRY(gptq_find(r, name, rows, cols, &m));
    TRY(mem_buffer_new(m.groups * rows, name, &zeros));
    TRY(mem_buffer_new(m.groups * rows * 4, name, &scales));
    for (int64_t g = 0; g < m.groups; g++)
        numbers_read(m.qzeros, g * (rows / 32 * b), 1, rows, r->bits, false, (uint8_t *)zeros + g * rows);
    dtype_to_float(DTYPE_F16, m.scales->data, scales, m.groups * rows);
#pragma omp parallel
    {
        uint8_t *codes = mem_new((size_t)cols, 1);
#pragma omp for
        for (int64_t row = 0; row < rows; row++) {
            numbers_read(m.qweight, row, rows, cols, r->bits, false, codes);
            for (int64_t i = 0; i < cols; i++) {
                int64_t at = (int64_t)word_at(m.g_idx, i) * rows + row;
                int zero = ((uint8_t *)zeros)[at] + (r->zeros_minus_one ? 1 : 0);
                out[row * cols + i] = ((float *)scales)[at] * (float)(codes[i] - zero);
            }
        }
        free(codes);
    }
done:
    mem_buffer_free(zeros);
    mem_buffer_free(scales);
    return status;
}

// ---- pack-quantized

static int64_t dense_words(int64_t n, int bits) { return (n * bits + 31) / 32; }
static int64_t gapped_words(int64_t n, int bits) { return (n + 32 / bits - 1) / (32 / bits); }

static enum status scales_find(const struct folder_reader *r, const char *name, int64_t rows, int64_t groups,
                               void **out) {
    enum status status = STATUS_OK;
    const struct safetensors_tensor *scale = part(r, name, ".weight_scale");
    enum dtype dtype = DTYPE_F32;
    void *scales = NULL;
    if (!scale || !safetensors_dtype_is_float(scale->dtype, &dtype) || dtype == DTYPE_F64)
        TRY(status_set(STATUS_FORMAT, "%s: '%s': its weight_scale is missing or no float", r->path, name));
    TRY(part_check(r, name, "weight_scale", scale, scale->dtype, rows, groups));
    TRY(mem_buffer_new(rows * groups * 4, name, &scales));
    dtype_to_float(dtype, scale->data, scales, rows * groups);
    *out = scales;
done:
    return status;
}

// zeros [rows, groups]
static enum status zeros_find(const struct folder_reader *r, const char *name, int64_t rows, int64_t groups,
                              uint8_t *zeros) {
    enum status status = STATUS_OK;
    uint8_t *column = mem_new((size_t)rows, 1);
    memset(zeros, 1 << (r->bits - 1), (size_t)(rows * groups));
    if (r->symmetric) goto done;
    const struct safetensors_tensor *tensor = part(r, name, ".weight_zero_point");
    bool gaps = tensor && tensor->rank == 2 && tensor->shape[0] != dense_words(rows, r->bits);
    int64_t words = gaps ? gapped_words(rows, r->bits) : dense_words(rows, r->bits);
    TRY(part_check(r, name, "weight_zero_point", tensor, SAFETENSORS_I32, words, groups));
    for (int64_t g = 0; g < groups; g++) {
        numbers_read(tensor, g, groups, rows, r->bits, gaps, column);
        for (int64_t row = 0; row < rows; row++) zeros[row * groups + g] = column[row];
    }
done:
    free(column);
    return status;
}

static enum status packed_read(const struct folder_reader *r, const char *name, int64_t rows, int64_t cols,
                               float *out) {
    enum status status = STATUS_OK;
    const struct safetensors_tensor *packed = part(r, name, ".weight_packed"), *shape = part(r, name, ".weight_shape");
    bool gaps = packed && packed->rank == 2 && packed->shape[1] != dense_words(cols, r->bits);
    int64_t words = gaps ? gapped_words(cols, r->bits) : dense_words(cols, r->bits), size[2] = {rows, cols};
    int64_t group = r->group_size > 0 ? r->group_size : cols, groups = (cols + group - 1) / group;
    void *scales = NULL, *zeros = NULL;
    TRY(part_check(r, name, "weight_packed", packed, SAFETENSORS_I32, rows, words));
    TRY(part_check(r, name, "weight_shape", shape, SAFETENSORS_I64, 2, -1));
    if (memcmp(shape->data, size, sizeof size) != 0)
        TRY(status_set(STATUS_FORMAT, "%s: '%s': its weight_shape is not [%lld, %lld]", r->path, name, (long long)rows,
                       (long long)cols));
    TRY(scales_find(r, name, rows, groups, &scales));
    TRY(mem_buffer_new(rows * groups, name, &zeros));
    TRY(zeros_find(r, name, rows, groups, zeros));
#pragma omp parallel
    {
        uint8_t *codes = mem_new((size_t)cols, 1);
#pragma omp for
        for (int64_t row = 0; row < rows; row++) {
            numbers_read(packed, row * words, 1, cols, r->bits, gaps, codes);
            for (int64_t i = 0; i < cols; i++) {
                int64_t at = row * groups + i / group;
                out[row * cols + i] = ((float *)scales)[at] * (float)(codes[i] - ((uint8_t *)zeros)[at]);
            }
        }
        free(codes);
    }
done:
    mem_buffer_free(scales);
    mem_buffer_free(zeros);
    return status;
}

// ---- the folder

static enum status reader_read(void *self, const char *name, int64_t rows, int64_t cols, float *out,
                               enum dtype *dtype) {
    enum status status = STATUS_OK;
    struct folder_reader *r = self;
    bool weight = is_weight(name), gptq = weight && part(r, name, ".qweight");
    bool packed = weight && !gptq && part(r, name, ".weight_packed");
    if (!r->bits || (!gptq && !packed)) {
        struct tensor_source plain = model_folder_source(r->folder);
        return plain.read(plain.self, name, rows, cols, out, dtype);
    }
    TRY(gptq ? gptq_read(r, name, rows, cols, out) : packed_read(r, name, rows, cols, out));
    int64_t bad = safetensors_not_finite(out, rows * cols);
    if (bad >= 0)
        TRY(status_set(STATUS_FORMAT, "%s: '%s' holds %g at element %lld; weights must be finite", r->path, name,
                       (double)out[bad], (long long)bad));
    if (dtype) *dtype = DTYPE_F32;
    r->reader->coded++;
done:
    return status;
}

static enum status gptq_config(struct folder_reader *r, const json_t *config, const char *where) {
    enum status status = STATUS_OK;
    const char *format = NULL;
    int64_t bits = 0;
    TRY(json_get_integer(config, where, "bits", &bits));
    TRY(json_get_integer(config, where, "group_size", &r->group_size));
    TRY(json_get_string_or(config, where, "checkpoint_format", "gptq", &format));
    if (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: checkpoint_format '%s' is not read (gptq, gptq_v2)", where, format));
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        TRY(status_set(STATUS_FORMAT, "%s: \"bits\" is %lld, must be 2, 3, 4 or 8", where, (long long)bits));
    r->bits = (int)bits;
    r->zeros_minus_one = strcmp(format, "gptq") == 0;
    r->reader->format = r->zeros_minus_one ? "gptq" : "gptq_v2";
done:
    return status;
}

static enum status packed_config(struct folder_reader *r, const json_t *config, const char *where) {
    enum status status = STATUS_OK;
    const char *format = NULL, *strategy = NULL;
    json_t *groups = NULL, *weights = NULL;
    int64_t bits = 0;
    TRY(json_get_string(config, where, "format", &format));
    if (strcmp(format, "pack-quantized") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: format '%s' is not read (pack-quantized)", where, format));
    TRY(json_get_object(config, where, "config_groups", &groups));
    if (json_object_size(groups) != 1)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: only one of config_groups is read", where));
    TRY(json_get_object(json_object_iter_value(json_object_iter(groups)), where, "weights", &weights));
    TRY(json_get_integer(weights, where, "num_bits", &bits));
    TRY(json_get_bool(weights, where, "symmetric", &r->symmetric));
    TRY(json_get_string(weights, where, "strategy", &strategy));
    TRY(json_get_integer_or(weights, where, "group_size", -1, &r->group_size));
    if (bits < 1 || bits > 8) TRY(status_set(STATUS_FORMAT, "%s: \"num_bits\" must be 1 to 8", where));
    if (strcmp(strategy, "channel") != 0 && strcmp(strategy, "group") != 0)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: strategy '%s' is not read (channel, group)", where, strategy));
    if (strcmp(strategy, "channel") == 0) r->group_size = -1;
    r->bits = (int)bits;
    r->reader->format = "compressed-tensors";
done:
    return status;
}

enum status folder_reader_open(struct export_reader *reader, const char *path) {
    enum status status = STATUS_OK;
    struct folder_reader *r = mem_new(1, sizeof *r);
    char *where = mem_format("%s/config.json", path);
    json_t *root = NULL, *config = NULL;
    const char *method = NULL;
    reader->folder = r;
    reader->format = "hf";
    r->reader = reader;
    r->path = mem_string(path);
    reader->source = (struct tensor_source){.self = r, .read = reader_read};
    TRY(json_read_file(where, &root));
    TRY(json_get_object_or(root, where, "quantization_config", NULL, &config));
    if (config) {
        TRY(json_get_string(config, where, "quant_method", &method));
        if (strcmp(method, "gptq") == 0)
            TRY(gptq_config(r, config, where));
        else if (strcmp(method, "compressed-tensors") == 0)
            TRY(packed_config(r, config, where));
        else
            TRY(status_set(STATUS_UNSUPPORTED, "%s: quant_method '%s' is not read (gptq, compressed-tensors)", where,
                           method));
        if (r->group_size < 1 && r->group_size != -1)
            TRY(status_set(STATUS_FORMAT, "%s: \"group_size\" must be positive or -1", where));
    }
    TRY(model_folder_open_tensors(path, &r->folder));
done:
    json_decref(root);
    free(where);
    return status;
}

void folder_reader_free(struct folder_reader *r) {
    if (!r) return;
    model_folder_free(r->folder);
    free(r->path);
    free(r);
}
