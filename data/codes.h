// The codes file of a rounded model, RUN/codes.safetensors: for every matrix that lies on a grid which level each weight
// has and the scales, so that formats that store integers are made from it without rounding anything again.
//
//   value [i, j] = scale[i, j / group_cols] * levels[code[i, j]] + offset[i, j / group_cols]     in float
//
//   NAME.codes   U8  [rows, bit_stream_bytes(cols, bits)]  codes, every row a bit stream (data/bit_stream.h)
//   NAME.scales  F32 [rows, groups], or [rows, 2 groups] = scales | offsets
//   NAME.shape   I64 [2]                                   rows, cols
//   __metadata__ "discquant.grid": {"kind", "bits", "group_size", "offsets", "levels"}
//
//     TRY(codes_write("run/codes.safetensors", &book, shapes, n, source));
//     TRY(codes_open("run/codes.safetensors", &codes));
//     TRY(codes_read(codes, 0, true, &matrix));
//     TRY(… matrix.codes …);
//   done:
//     coded_matrix_free(&matrix);
//     codes_free(codes);              // accepts NULL
#ifndef DQ_DATA_CODES_H
#define DQ_DATA_CODES_H

#include "core/base/status.h"
#include "core/quant/grid.h"

#include <stdbool.h>
#include <stdint.h>

enum { CODEBOOK_LEVELS_MAX = 256 };

// What all matrices of a file share.
struct codebook {
    char kind[16];      // name of the grid
    int bits;           // of a code, 1 to 8
    int64_t group_size; // consecutive inputs of one scale; -1 = the whole row
    bool has_offset;
    int n_levels;                      // at most 2^bits
    float levels[CODEBOOK_LEVELS_MAX]; // ascending
};

struct codebook codebook_of(const struct grid *grid);

// Columns of a full group, groups of a row, of a matrix of this width.
int64_t codebook_group_cols(const struct codebook *book, int64_t cols);
int64_t codebook_groups(const struct codebook *book, int64_t cols);
// The levels are consecutive integers.
bool codebook_is_integer(const struct codebook *book);

struct codes_shape {
    const char *name; // of the tensor in the model folder
    int64_t rows, cols;
};

// Where codes_write gets matrix i from.
struct codes_source {
    void *self;
    enum status (*scales)(void *self, int64_t i, float *scales); // [rows, groups or 2 groups]
    enum status (*codes)(void *self, int64_t i, uint8_t *codes); // [rows, cols]
};

// Memory for one matrix at a time. STATUS_INVALID when a code is no level or a scale not finite.
enum status codes_write(const char *path, const struct codebook *book, const struct codes_shape *shapes, int64_t n,
                        struct codes_source source);

struct coded_matrix {
    const char *name; // the file's
    int64_t rows, cols, groups, group_cols;
    float *scale;       // [rows, groups]
    float *offset;      // [rows, groups]; NULL: none
    uint8_t *codes;     // [rows, cols]; NULL where they were not asked for
    void *scale_memory; // of scale and offset
};
void coded_matrix_free(struct coded_matrix *matrix); // what codes_read made; {0} is fine

// The weights, [rows, cols].
void coded_matrix_values(const struct codebook *book, const struct coded_matrix *matrix, float *out);

struct codes;

// STATUS_FORMAT: no codes file, or one that contradicts itself.
enum status codes_open(const char *path, struct codes **out);
void codes_free(struct codes *codes);

const char *codes_path(const struct codes *codes);
const struct codebook *codes_book(const struct codes *codes);
int64_t codes_count(const struct codes *codes);
struct codes_shape codes_shape_at(const struct codes *codes, int64_t i);
int64_t codes_find(const struct codes *codes, const char *name); // -1: not there

// STATUS_FORMAT when a code is no level or a scale not finite.
enum status codes_read(const struct codes *codes, int64_t i, bool with_codes, struct coded_matrix *out);

#endif
