// Writing safetensors as the reference does, byte for byte: compact JSON, __metadata__ first, tensors by dtype
// (descending) and name (ascending), header padded with spaces to a multiple of 8, data without gaps. The list is given
// first, then the data of each tensor in the order the writer asks for:
//
//     TRY(safetensors_writer_new(path, entries, n, NULL, 0, &writer));
//     for (int64_t i; (i = safetensors_writer_next(writer)) >= 0;)
//         TRY(safetensors_writer_put(writer, bytes_of[i], n_bytes_of[i]));      // or in several pieces
//     TRY(safetensors_writer_finish(writer));                                   // now the file is at `path`
//   done:
//     safetensors_writer_free(writer);                                          // accepts NULL; removes a partial file
#ifndef DQ_DATA_SAFETENSORS_WRITER_H
#define DQ_DATA_SAFETENSORS_WRITER_H

#include "data/safetensors.h"

struct safetensors_entry {
    const char *name; // UTF-8; borrowed for the call
    enum safetensors_dtype dtype;
    int64_t rank;
    const int64_t *shape; // [rank]
};

struct safetensors_writer;

// `metadata` is written in the order given; where it has no "format", "format": "pt" is put first, because
// Transformers refuses files without. STATUS_INVALID: a name twice, a size that overflows or fills no whole bytes.
enum status safetensors_writer_new(const char *path, const struct safetensors_entry *entries, int64_t n_entries,
                                   const struct safetensors_pair *metadata, int64_t n_metadata,
                                   struct safetensors_writer **out);

// Index into `entries` of the tensor whose bytes are due; -1 when all are written.
int64_t safetensors_writer_next(const struct safetensors_writer *writer);

// The next bytes of that tensor; never more than it still lacks.
enum status safetensors_writer_put(struct safetensors_writer *writer, const void *bytes, int64_t n_bytes);

enum status safetensors_writer_finish(struct safetensors_writer *writer);
void safetensors_writer_free(struct safetensors_writer *writer);

#endif
