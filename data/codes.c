#include "data/codes.h"

#include "core/base/mem.h"
#include "data/bit_stream.h"
#include "data/json.h"
#include "data/record.h"
#include "data/safetensors.h"
#include "data/safetensors_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char GRID_KEY[] = "discquant.grid";

struct codebook codebook_of(const struct grid *grid) {
    struct codebook book = {
        .bits = grid->bits, .group_size = grid->group_size, .has_offset = grid->has_offset, .n_levels = grid->n_levels};
    snprintf(book.kind, sizeof book.kind, "%s", grid_kind_name(grid->kind));
    memcpy(book.levels, grid->levels, (size_t)grid->n_levels * sizeof *book.levels);
    return book;
}

int64_t codebook_group_cols(const struct codebook *book, int64_t cols) {
    return book->group_size < 0 || book->group_size > cols ? cols : book->group_size;
}

int64_t codebook_groups(const struct codebook *book, int64_t cols) {
    int64_t group = codebook_group_cols(book, cols);
    return group ? (cols + group - 1) / group : 0;
}

bool codebook_is_integer(const struct codebook *book) {
    for (int i = 0; i < book->n_levels; i++)
        if (book->levels[i] != book->levels[0] + (float)i || book->levels[i] != rintf(book->levels[i])) return false;
    return true;
}

static int64_t affine_cols(const struct codebook *book, int64_t cols) {
    return codebook_groups(book, cols) * (book->has_offset ? 2 : 1);
}

void coded_matrix_free(struct coded_matrix *matrix) {
    mem_buffer_free(matrix->scale_memory);
    mem_buffer_free(matrix->codes);
    *matrix = (struct coded_matrix){0};
}

void coded_matrix_values(const struct codebook *book, const struct coded_matrix *m, float *out) {
#pragma omp parallel for
    for (int64_t row = 0; row < m->rows; row++) {
        for (int64_t j = 0; j < m->cols; j++) {
            int64_t at = row * m->groups + j / m->group_cols;
            float value = m->scale[at] * book->levels[m->codes[row * m->cols + j]];
            out[row * m->cols + j] = m->offset ? value + m->offset[at] : value;
        }
    }
}

// ---- writing

static char *book_text(const struct codebook *book) {
    json_t *root = json_object(), *levels = json_array();
    json_object_set_new(root, "kind", json_string(book->kind));
    json_object_set_new(root, "bits", json_integer(book->bits));
    json_object_set_new(root, "group_size", json_integer(book->group_size));
    json_object_set_new(root, "offsets", json_boolean(book->has_offset));
    for (int i = 0; i < book->n_levels; i++) json_array_append_new(levels, json_real((double)book->levels[i]));
    json_object_set_new(root, "levels", levels);
    char *text = record_json_text(root, 0);
    json_decref(root);
    return text;
}

static enum status scales_check(const char *path, const char *name, const float *scales, int64_t n) {
    int64_t bad = safetensors_not_finite(scales, n);
    if (bad < 0) return STATUS_OK;
    return status_set(STATUS_INVALID, "%s: '%s': scale %lld is %g", path, name, (long long)bad, (double)scales[bad]);
}

static enum status codes_check(const char *path, const char *name, const struct codebook *book, const uint8_t *codes,
                               int64_t n) {
    int largest = 0;
#pragma omp parallel for reduction(max : largest)
    for (int64_t i = 0; i < n; i++) largest = codes[i] > largest ? codes[i] : largest;
    if (largest < book->n_levels) return STATUS_OK;
    return status_set(STATUS_INVALID, "%s: '%s' has the code %d, but there are %d levels", path, name, largest,
                      book->n_levels);
}

static enum status scales_put(const char *path, const struct codebook *book, const struct codes_shape *shape, int64_t i,
                              struct codes_source source, struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    int64_t n = shape->rows * affine_cols(book, shape->cols);
    void *scales = NULL;
    TRY(mem_buffer_new(n * (int64_t)sizeof(float), shape->name, &scales));
    TRY(source.scales(source.self, i, scales));
    TRY(scales_check(path, shape->name, scales, n));
    TRY(safetensors_writer_put(writer, scales, n * (int64_t)sizeof(float)));
done:
    mem_buffer_free(scales);
    return status;
}

static enum status codes_put(const char *path, const struct codebook *book, const struct codes_shape *shape, int64_t i,
                             struct codes_source source, struct safetensors_writer *writer) {
    enum status status = STATUS_OK;
    int64_t n = shape->rows * shape->cols, row_bytes = bit_stream_bytes(shape->cols, book->bits);
    void *codes = NULL, *packed = NULL;
    TRY(mem_buffer_new(n, shape->name, &codes));
    TRY(mem_buffer_new(shape->rows * row_bytes, shape->name, &packed));
    TRY(source.codes(source.self, i, codes));
    TRY(codes_check(path, shape->name, book, codes, n));
#pragma omp parallel for
    for (int64_t row = 0; row < shape->rows; row++)
        bit_stream_pack((const uint8_t *)codes + row * shape->cols, shape->cols, book->bits,
                        (uint8_t *)packed + row * row_bytes);
    TRY(safetensors_writer_put(writer, packed, shape->rows * row_bytes));
done:
    mem_buffer_free(codes);
    mem_buffer_free(packed);
    return status;
}

// Three tensors of each matrix, in the order of `part`.
enum part { PART_SHAPE, PART_SCALES, PART_CODES, PARTS };
static const char *const part_suffixes[PARTS] = {".shape", ".scales", ".codes"};

enum status codes_write(const char *path, const struct codebook *book, const struct codes_shape *shapes, int64_t n,
                        struct codes_source source) {
    enum status status = STATUS_OK;
    struct safetensors_writer *writer = NULL;
    struct safetensors_entry *entries = mem_new((size_t)n * PARTS, sizeof *entries);
    int64_t(*sizes)[PARTS][2] = mem_new((size_t)n, sizeof *sizes);
    char *grid = book_text(book);
    struct safetensors_pair metadata[] = {{GRID_KEY, grid}};
    static const enum safetensors_dtype dtypes[PARTS] = {SAFETENSORS_I64, SAFETENSORS_F32, SAFETENSORS_U8};
    for (int64_t i = 0; i < n; i++) {
        const int64_t want[PARTS][2] = {{2, 0},
                                        {shapes[i].rows, affine_cols(book, shapes[i].cols)},
                                        {shapes[i].rows, bit_stream_bytes(shapes[i].cols, book->bits)}};
        memcpy(sizes[i], want, sizeof want);
        for (int p = 0; p < PARTS; p++)
            entries[i * PARTS + p] = (struct safetensors_entry){mem_format("%s%s", shapes[i].name, part_suffixes[p]),
                                                                dtypes[p], p == PART_SHAPE ? 1 : 2, sizes[i][p]};
    }
    TRY(safetensors_writer_new(path, entries, n * PARTS, metadata, 1, &writer));
    for (int64_t at; (at = safetensors_writer_next(writer)) >= 0;) {
        int64_t i = at / PARTS, shape[2] = {shapes[i].rows, shapes[i].cols};
        switch ((enum part)(at % PARTS)) {
        case PART_SHAPE: TRY(safetensors_writer_put(writer, shape, sizeof shape)); break;
        case PART_SCALES: TRY(scales_put(path, book, &shapes[i], i, source, writer)); break;
        default: TRY(codes_put(path, book, &shapes[i], i, source, writer));
        }
    }
    TRY(safetensors_writer_finish(writer));
done:
    safetensors_writer_free(writer);
    for (int64_t i = 0; i < n * PARTS; i++) free((char *)entries[i].name);
    free(entries);
    free(sizes);
    free(grid);
    return status;
}

// ---- reading

struct codes {
    struct safetensors *file;
    struct codebook book;
    int64_t n;
    struct entry {
        char *name;
        int64_t rows, cols;
        const struct safetensors_tensor *scales, *codes;
    } * entries; // [n]
};

static enum status book_wrong(const char *path, const char *what) {
    return status_set(STATUS_FORMAT, "%s: \"%s\" in __metadata__: %s", path, GRID_KEY, what);
}

static enum status levels_read(const char *path, const json_t *levels, struct codebook *book) {
    if (json_array_size(levels) < 2 || json_array_size(levels) > (size_t)1 << book->bits)
        return book_wrong(path, "\"levels\" must hold 2 to 2^bits numbers");
    book->n_levels = (int)json_array_size(levels);
    for (int i = 0; i < book->n_levels; i++) {
        const json_t *level = json_array_get(levels, (size_t)i);
        book->levels[i] = (float)json_number_value(level);
        if (!json_is_number(level) || !isfinite(book->levels[i]) || (i > 0 && book->levels[i] <= book->levels[i - 1]))
            return book_wrong(path, "\"levels\" must be ascending numbers");
    }
    return STATUS_OK;
}

static enum status book_read(const struct safetensors *file, struct codebook *book) {
    enum status status = STATUS_OK;
    const char *path = safetensors_path(file), *text = NULL, *kind = NULL;
    json_t *root = NULL, *levels = NULL;
    int64_t bits = 0;
    for (int64_t i = 0; i < safetensors_n_metadata(file); i++)
        if (strcmp(safetensors_metadata(file, i).key, GRID_KEY) == 0) text = safetensors_metadata(file, i).value;
    if (!text) TRY(status_set(STATUS_FORMAT, "%s: is no codes file: its __metadata__ has no \"%s\"", path, GRID_KEY));
    TRY(json_read_buffer(text, (int64_t)strlen(text), path, &root));
    TRY(json_get_string(root, path, "kind", &kind));
    TRY(json_get_integer(root, path, "bits", &bits));
    TRY(json_get_integer(root, path, "group_size", &book->group_size));
    TRY(json_get_bool(root, path, "offsets", &book->has_offset));
    TRY(json_get_array(root, path, "levels", &levels));
    if (bits < 1 || bits > 8) TRY(book_wrong(path, "\"bits\" must be 1 to 8"));
    if (book->group_size < 1 && book->group_size != -1) TRY(book_wrong(path, "\"group_size\" must be positive or -1"));
    if (strlen(kind) >= sizeof book->kind) TRY(book_wrong(path, "\"kind\" is too long"));
    strcpy(book->kind, kind);
    book->bits = (int)bits;
    TRY(levels_read(path, levels, book));
done:
    json_decref(root);
    return status;
}

static const struct safetensors_tensor *part_find(const struct codes *codes, const char *name, enum part part) {
    char *full = mem_format("%s%s", name, part_suffixes[part]);
    const struct safetensors_tensor *tensor = safetensors_find(codes->file, full);
    free(full);
    return tensor;
}

static bool tensor_is(const struct safetensors_tensor *tensor, enum safetensors_dtype dtype, int64_t rank, int64_t rows,
                      int64_t cols) {
    return tensor && tensor->dtype == dtype && tensor->rank == rank && tensor->shape[0] == rows &&
           (rank < 2 || tensor->shape[1] == cols);
}

static enum status entry_read(struct codes *codes, struct entry *entry) {
    const struct codebook *book = &codes->book;
    const struct safetensors_tensor *shape = part_find(codes, entry->name, PART_SHAPE);
    entry->scales = part_find(codes, entry->name, PART_SCALES);
    int64_t size[2] = {-1, -1};
    if (tensor_is(shape, SAFETENSORS_I64, 1, 2, 0)) memcpy(size, shape->data, sizeof size);
    entry->rows = size[0], entry->cols = size[1];
    if (entry->rows > 0 && entry->cols > 0 && entry->cols < INT64_MAX / 16 &&
        tensor_is(entry->codes, SAFETENSORS_U8, 2, entry->rows, bit_stream_bytes(entry->cols, book->bits)) &&
        tensor_is(entry->scales, SAFETENSORS_F32, 2, entry->rows, affine_cols(book, entry->cols)))
        return STATUS_OK;
    return status_set(STATUS_FORMAT, "%s: '%s': its shape, scales and codes do not fit together", codes_path(codes),
                      entry->name);
}

enum status codes_open(const char *path, struct codes **out) {
    enum status status = STATUS_OK;
    struct codes *codes = mem_new(1, sizeof *codes);
    TRY(safetensors_open(path, &codes->file));
    TRY(book_read(codes->file, &codes->book));
    codes->entries = mem_new((size_t)safetensors_n_tensors(codes->file), sizeof *codes->entries);
    for (int64_t i = 0; i < safetensors_n_tensors(codes->file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(codes->file, i);
        size_t n = strlen(tensor->name), suffix = strlen(part_suffixes[PART_CODES]);
        if (n < suffix || strcmp(tensor->name + n - suffix, part_suffixes[PART_CODES]) != 0) continue;
        struct entry *entry = &codes->entries[codes->n++];
        *entry = (struct entry){.name = mem_string_n(tensor->name, n - suffix), .codes = tensor};
        TRY(entry_read(codes, entry));
    }
    *out = codes;
    codes = NULL;
done:
    codes_free(codes);
    return status;
}

void codes_free(struct codes *codes) {
    if (!codes) return;
    for (int64_t i = 0; i < codes->n; i++) free(codes->entries[i].name);
    free(codes->entries);
    safetensors_free(codes->file);
    free(codes);
}

const char *codes_path(const struct codes *codes) { return safetensors_path(codes->file); }
const struct codebook *codes_book(const struct codes *codes) { return &codes->book; }
int64_t codes_count(const struct codes *codes) { return codes->n; }

struct codes_shape codes_shape_at(const struct codes *codes, int64_t i) {
    REQUIRE(i >= 0 && i < codes->n, "no such matrix");
    return (struct codes_shape){codes->entries[i].name, codes->entries[i].rows, codes->entries[i].cols};
}

int64_t codes_find(const struct codes *codes, const char *name) {
    for (int64_t i = 0; i < codes->n; i++)
        if (strcmp(codes->entries[i].name, name) == 0) return i;
    return -1;
}

enum status codes_read(const struct codes *codes, int64_t i, bool with_codes, struct coded_matrix *out) {
    enum status status = STATUS_OK;
    REQUIRE(i >= 0 && i < codes->n, "no such matrix");
    const struct entry *entry = &codes->entries[i];
    const struct codebook *book = &codes->book;
    int64_t groups = codebook_groups(book, entry->cols), n = entry->rows * groups,
            wide = affine_cols(book, entry->cols);
    struct coded_matrix m = {.name = entry->name,
                             .rows = entry->rows,
                             .cols = entry->cols,
                             .groups = groups,
                             .group_cols = codebook_group_cols(book, entry->cols)};
    void *bytes = NULL;
    TRY(mem_buffer_new(entry->rows * wide * (int64_t)sizeof(float), entry->name, &m.scale_memory));
    m.scale = m.scale_memory;
    if (book->has_offset) m.offset = m.scale + n;
    for (int64_t row = 0; row < entry->rows; row++) {
        const unsigned char *from = entry->scales->data + row * wide * (int64_t)sizeof(float);
        memcpy(m.scale + row * groups, from, (size_t)groups * sizeof(float));
        if (m.offset)
            memcpy(m.offset + row * groups, from + groups * (int64_t)sizeof(float), (size_t)groups * sizeof(float));
    }
    TRY(scales_check(codes_path(codes), entry->name, m.scale_memory, entry->rows * wide));
    if (with_codes) {
        int64_t row_bytes = bit_stream_bytes(entry->cols, book->bits);
        TRY(mem_buffer_new(entry->rows * entry->cols, entry->name, &bytes));
        m.codes = bytes;
#pragma omp parallel for
        for (int64_t row = 0; row < entry->rows; row++)
            bit_stream_unpack(entry->codes->data + row * row_bytes, entry->cols, book->bits,
                              m.codes + row * entry->cols);
        TRY(codes_check(codes_path(codes), entry->name, book, m.codes, entry->rows * entry->cols));
    }
    *out = m;
    m = (struct coded_matrix){0};
done:
    coded_matrix_free(&m);
    return status;
}
