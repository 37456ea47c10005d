#include "data/npy.h"

#include "data/whole_file.h"

#include <stdio.h>
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
