#include "data/npy.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/whole_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <stdbool.h>
#include <string.h>

static const struct {
    const char *descr;
    size_t bytes;
} types[] = {[NPY_F32] = {"<f4", 4}, [NPY_F64] = {"<f8", 8}, [NPY_I64] = {"<i8", 8}};

// Magic, version 1.0, u16 length of the dictionary, dictionary; in all a multiple of 64 bytes ending in a newline.
int64_t npy_header(enum npy_type type, int64_t rows, int64_t cols, char header[NPY_HEADER_BYTES]) {
    REQUIRE(rows >= 0 && cols >= 0, "sizes are not negative");
    char shape[64];
    if (cols > 0)
        snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)rows, (long long)cols);
    else
        snprintf(shape, sizeof shape, "(%lld,)", (long long)rows);
    memset(header, ' ', NPY_HEADER_BYTES);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    int used = snprintf(header + 10, NPY_HEADER_BYTES - 10, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                        types[type].descr, shape);
    int64_t total = (10 + (int64_t)used + 1 + 63) / 64 * 64;
    header[10 + used] = ' ';
    header[total - 1] = '\n';
    header[8] = (char)((total - 10) & 0xFF);
    header[9] = (char)((total - 10) >> 8);
    return total;
}

enum status npy_write(const char *path, enum npy_type type, const void *values, int64_t rows, int64_t cols) {
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    char header[NPY_HEADER_BYTES];
    int64_t total = npy_header(type, rows, cols, header);
    TRY(whole_file_open(path, &file));
    TRY(whole_file_write(file, header, (size_t)total));
    TRY(whole_file_write(file, values, types[type].bytes * (size_t)rows * (size_t)(cols > 0 ? cols : 1)));
    TRY(whole_file_commit(file));
done:
    whole_file_free(file);
    return status;
}

// ---- reading ----

enum { NPY_FILE_MAX_BYTES = 1 << 30 };

struct layout {
    enum npy_type type;
    int64_t rows, cols, first_byte;
};

// A length and what stands behind it; false unless it is a number of at most 15 digits.
static bool take_length(const char **at, int64_t *out) {
    const char *digits = *at;
    int64_t value = 0;
    while (**at >= '0' && **at <= '9' && *at - digits < 16) value = 10 * value + *(*at)++ - '0';
    *out = value;
    return *at > digits && *at - digits < 16;
}

static bool take_shape(const char *text, struct layout *layout) {
    const char *at = strstr(text, "'shape': (");
    if (!at) return false;
    at += strlen("'shape': (");
    layout->cols = 1;
    if (!take_length(&at, &layout->rows) || *at++ != ',') return false;
    if (*at == ' ') at++;
    return *at == ')' || (take_length(&at, &layout->cols) && *at == ')');
}

// `bytes` end with a zero behind n_bytes.
static bool take_header(const char *bytes, int64_t n_bytes, struct layout *layout) {
    if (n_bytes < 10 || memcmp(bytes, "\x93NUMPY\x01\x00", 8) != 0) return false;
    int64_t length = (unsigned char)bytes[8] + 256 * (unsigned char)bytes[9];
    if (10 + length > n_bytes || memchr(bytes + 10, 0, (size_t)length)) return false;
    layout->first_byte = 10 + length;
    char *text = mem_string_n(bytes + 10, (size_t)length);
    bool known = false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char *descr = mem_format("'descr': '%s'", types[i].descr);
        if (strstr(text, descr)) known = true, layout->type = (enum npy_type)i;
        free(descr);
    }
    known = known && strstr(text, "'fortran_order': False") && take_shape(text, layout);
    free(text);
    return known;
}

enum status npy_read(const char *path, double **values, int64_t *rows, int64_t *cols) {
    enum status status = STATUS_OK;
    char *bytes = NULL;
    void *out = NULL;
    int64_t n_bytes = 0, n = 0;
    struct layout layout = {0};
    TRY(file_read(path, NPY_FILE_MAX_BYTES, &bytes, &n_bytes));
    if (!take_header(bytes, n_bytes, &layout))
        TRY(status_set(STATUS_FORMAT, "%s: is no .npy file of f4, f8 or i8 in C order with one or two dimensions",
                       path));
    int64_t size = (int64_t)types[layout.type].bytes, present = (n_bytes - layout.first_byte) / size;
    if (__builtin_mul_overflow(layout.rows, layout.cols, &n) || n != present ||
        (n_bytes - layout.first_byte) % size != 0)
        TRY(status_set(STATUS_FORMAT, "%s: holds %lld values, its shape says %lld x %lld", path, (long long)present,
                       (long long)layout.rows, (long long)layout.cols));
    TRY(mem_buffer_new(n * 8, path, &out));
    for (int64_t i = 0; i < n; i++) {
        const char *at = bytes + layout.first_byte + i * size;
        float single;
        double number;
        int64_t integer;
        switch (layout.type) {
        case NPY_F32: memcpy(&single, at, 4), number = (double)single; break;
        case NPY_F64: memcpy(&number, at, 8); break;
        default: memcpy(&integer, at, 8), number = (double)integer; break;
        }
        ((double *)out)[i] = number;
    }
    *values = out;
    *rows = layout.rows;
    *cols = layout.cols;
done:
    mem_buffer_free(bytes);
    return status;
}
