#include "data/npy.h"

#include "data/whole_file.h"

#include <stdio.h>
#include <string.h>

enum status npy_write(const char *path, enum npy_type type, const void *values, int64_t rows, int64_t cols) {
    static const struct {
        const char *descr;
        size_t bytes;
    } types[] = {[NPY_F32] = {"<f4", 4}, [NPY_F64] = {"<f8", 8}, [NPY_I64] = {"<i8", 8}};
    REQUIRE(rows >= 0 && cols >= 0, "sizes are not negative");
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;

    // Magic, version 1.0, u16 length of the dictionary, dictionary; in all a multiple of 64 bytes ending in a newline.
    char header[256], shape[64];
    if (cols > 0)
        snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)rows, (long long)cols);
    else
        snprintf(shape, sizeof shape, "(%lld,)", (long long)rows);
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    int used = snprintf(header + 10, sizeof header - 10, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                        types[type].descr, shape);
    size_t total = (10 + (size_t)used + 1 + 63) / 64 * 64;
    header[10 + used] = ' ';
    header[total - 1] = '\n';
    header[8] = (char)((total - 10) & 0xFF);
    header[9] = (char)((total - 10) >> 8);

    TRY(whole_file_open(path, &file));
    TRY(whole_file_write(file, header, total));
    TRY(whole_file_write(file, values, types[type].bytes * (size_t)rows * (size_t)(cols > 0 ? cols : 1)));
    TRY(whole_file_commit(file));
done:
    whole_file_free(file);
    return status;
}
