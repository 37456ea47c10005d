// NumPy's .npy files, format 1.0: numpy.load reads them, so do Julia, R and C++ libraries.
#ifndef DQ_DATA_NPY_H
#define DQ_DATA_NPY_H

#include "core/base/status.h"

#include <stdint.h>

enum npy_type { NPY_F32, NPY_F64, NPY_I64 };

// Fills `header` and returns how many of its bytes, a multiple of 64, stand before the values of an array [rows, cols]; cols
// = 0 says [rows].
enum { NPY_HEADER_BYTES = 256 };
int64_t npy_header(enum npy_type type, int64_t rows, int64_t cols, char header[NPY_HEADER_BYTES]);

// values [rows, cols], row-major; cols = 0 writes the one-dimensional array [rows]. The file appears complete or not at all.
enum status npy_write(const char *path, enum npy_type type, const void *values, int64_t rows, int64_t cols);

// Values [*rows, *cols] of a file of one or two dimensions as doubles (cols = 1 for one), in C order, little endian f4, f8 or i8; free
// with mem_buffer_free. STATUS_FORMAT for anything else.
enum status npy_read(const char *path, double **values, int64_t *rows, int64_t *cols);

#endif
