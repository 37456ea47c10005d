// The safetensors format: 8 bytes N (little endian) | N bytes of JSON | data. Reading maps the file; nothing is copied
// until a tensor is asked for.
//
//     struct safetensors *file = NULL;
//     TRY(safetensors_open("model.safetensors", &file));
//     const struct safetensors_tensor *tensor = safetensors_find(file, "model.norm.weight");
//     TRY(safetensors_to_float(file, tensor, out));
//   done:
//     safetensors_free(file);
//
// At least as strict as the reference reader (huggingface/safetensors 0.8): N at most 100,000,000 and inside the file,
// strict JSON, nothing nested more than 127 deep, tensors that tile the data without hole, overlap or rest, shape times
// element size equal to the length, no overflow. Beyond it, these are refused: a name used twice, a NUL in a name, a
// dimension of 2^63 or more, a key used twice in __metadata__. Accepted as there: any order of the tensors, unaligned
// data, zero-size tensors, rank 0, unknown fields, white space around the header, tensors written as arrays.
#ifndef DQ_DATA_SAFETENSORS_H
#define DQ_DATA_SAFETENSORS_H

#include "core/base/status.h"
#include "core/tensor/dtype.h"

#include <stdbool.h>
#include <stdint.h>

// In the reference's order, by which a writer sorts (descending).
enum safetensors_dtype {
    SAFETENSORS_BOOL,
    SAFETENSORS_F4,
    SAFETENSORS_F6_E2M3,
    SAFETENSORS_F6_E3M2,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_F8_E8M0,
    SAFETENSORS_F8_E4M3FNUZ,
    SAFETENSORS_F8_E5M2FNUZ,
    SAFETENSORS_I16,
    SAFETENSORS_U16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I32,
    SAFETENSORS_U32,
    SAFETENSORS_F32,
    SAFETENSORS_C64,
    SAFETENSORS_F64,
    SAFETENSORS_I64,
    SAFETENSORS_U64,
    SAFETENSORS_DTYPE_COUNT,
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype);
int safetensors_dtype_bits(enum safetensors_dtype dtype); // of one element; 4 and 6 occur
enum safetensors_dtype safetensors_dtype_of(enum dtype dtype);
// Whether the toolkit computes with it: F32, F16, BF16, F64. `dtype` may be NULL.
bool safetensors_dtype_is_float(enum safetensors_dtype from, enum dtype *dtype);

struct safetensors_tensor {
    const char *name; // UTF-8, may be empty
    enum safetensors_dtype dtype;
    int64_t rank;
    const int64_t *shape; // [rank]
    int64_t n_elements, n_bytes;
    const unsigned char *data; // [n_bytes] in the file, any alignment
};

struct safetensors_pair {
    const char *key, *value;
};

struct safetensors;

// STATUS_IO: cannot be opened or mapped. STATUS_FORMAT: is not safetensors; the message says why.
enum status safetensors_open(const char *path, struct safetensors **out);
// The same from memory that must live as long as the object; `where` names it in messages.
enum status safetensors_from_buffer(const void *bytes, int64_t n_bytes, const char *where, struct safetensors **out);
void safetensors_free(struct safetensors *file); // accepts NULL

const char *safetensors_path(const struct safetensors *file);
int64_t safetensors_n_tensors(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, int64_t i); // in the order of the data
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name); // NULL: not there
int64_t safetensors_n_metadata(const struct safetensors *file);
struct safetensors_pair safetensors_metadata(const struct safetensors *file, int64_t i); // in the file's order

// All elements to `out` [n_elements]. STATUS_UNSUPPORTED for a dtype that is no float of ours; values are not judged.
enum status safetensors_to_float(const struct safetensors *file, const struct safetensors_tensor *tensor, float *out);

// The first of n values that is NaN or infinite; -1 when all are finite.
int64_t safetensors_not_finite(const float *values, int64_t n);

#endif
