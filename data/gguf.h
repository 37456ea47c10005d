// The file format GGUF, version 3, little endian: "GGUF" | version | numbers of tensors and keys | keys with values |
// tensors' names, shapes, types, offsets | padding | data, every tensor at a multiple of 32 bytes.
//
//     struct gguf_writer *writer = gguf_writer_new();
//     gguf_put_string(writer, "general.architecture", "llama");
//     gguf_put_tensor(writer, "output_norm.weight", GGUF_F32, 1, n);            // rows = 1: a vector
//     TRY(gguf_writer_begin(writer, path));
//     TRY(gguf_writer_data(writer, bytes, n_bytes));                            // all tensors in their order
//     TRY(gguf_writer_finish(writer));                                          // now the file is at `path`
//   done:
//     gguf_writer_free(writer);                                                 // accepts NULL; removes a partial file
#ifndef DQ_DATA_GGUF_H
#define DQ_DATA_GGUF_H

#include "core/base/status.h"
#include "data/gguf_blocks.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf_writer;

struct gguf_writer *gguf_writer_new(void);
void gguf_writer_free(struct gguf_writer *writer);

// Keys are not checked for repetition. Strings are UTF-8.
void gguf_put_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_put_bool(struct gguf_writer *writer, const char *key, bool value);
void gguf_put_string(struct gguf_writer *writer, const char *key, const char *value);
void gguf_put_strings(struct gguf_writer *writer, const char *key, const char *const *values, int64_t n);
void gguf_put_i32s(struct gguf_writer *writer, const char *key, const int32_t *values, int64_t n);
void gguf_put_f32s(struct gguf_writer *writer, const char *key, const float *values, int64_t n);
// [rows, cols] of whole blocks; a vector has rows = 1.
void gguf_put_tensor(struct gguf_writer *writer, const char *name, enum gguf_type type, int64_t rows, int64_t cols);

enum status gguf_writer_begin(struct gguf_writer *writer, const char *path);
// The next bytes of the tensor that is due; padding between tensors comes by itself.
enum status gguf_writer_data(struct gguf_writer *writer, const void *bytes, int64_t n_bytes);
enum status gguf_writer_finish(struct gguf_writer *writer);

struct gguf_tensor {
    char *name;
    int64_t rows, cols; // of two dimensions; one: rows = 1
    int64_t type;       // enum gguf_type, or one that is not read here
    const uint8_t *data;
    int64_t n_bytes;
};

struct gguf;

// Maps the file and checks that all of it lies inside: STATUS_FORMAT says what does not. Tensors of unknown types are listed
// without bytes. Versions 2 and 3.
enum status gguf_open(const char *path, struct gguf **out);
void gguf_free(struct gguf *gguf); // accepts NULL

const char *gguf_path(const struct gguf *gguf);
int64_t gguf_n_tensors(const struct gguf *gguf);
const struct gguf_tensor *gguf_at(const struct gguf *gguf, int64_t i);
const struct gguf_tensor *gguf_find(const struct gguf *gguf, const char *name); // NULL: not there
// STATUS_FORMAT: no such key, or of another type.
enum status gguf_u32(const struct gguf *gguf, const char *key, uint32_t *out);
enum status gguf_string(const struct gguf *gguf, const char *key, char **out); // free with free()

#endif
