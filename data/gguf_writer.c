#include "data/gguf.h"

#include "core/base/mem.h"
#include "data/whole_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };
enum kind { KIND_U32 = 4, KIND_I32 = 5, KIND_F32 = 6, KIND_BOOL = 7, KIND_STRING = 8, KIND_ARRAY = 9 };

// Header parts grow in memory streams; the tensors' data goes straight to the file.
struct gguf_writer {
    FILE *keys, *tensors;
    char *keys_text, *tensors_text;
    size_t n_keys_text, n_tensors_text;
    int64_t n_keys, n_tensors, data_bytes;
    int64_t *sizes; // [n_tensors]
    struct whole_file *file;
    int64_t at, put; // tensor that is due, and how many of its bytes are written
};

struct gguf_writer *gguf_writer_new(void) {
    struct gguf_writer *writer = mem_new(1, sizeof *writer);
    writer->keys = open_memstream(&writer->keys_text, &writer->n_keys_text);
    writer->tensors = open_memstream(&writer->tensors_text, &writer->n_tensors_text);
    REQUIRE(writer->keys && writer->tensors, "out of memory for a header");
    return writer;
}

void gguf_writer_free(struct gguf_writer *writer) {
    if (!writer) return;
    fclose(writer->keys);
    fclose(writer->tensors);
    free(writer->keys_text);
    free(writer->tensors_text);
    free(writer->sizes);
    whole_file_free(writer->file);
    free(writer);
}

static void put_u32(FILE *out, uint32_t value) { fwrite(&value, sizeof value, 1, out); }
static void put_u64(FILE *out, uint64_t value) { fwrite(&value, sizeof value, 1, out); }

static void put_text(FILE *out, const char *text) {
    put_u64(out, strlen(text));
    fputs(text, out);
}

static FILE *key(struct gguf_writer *writer, const char *name, enum kind kind) {
    put_text(writer->keys, name);
    put_u32(writer->keys, kind);
    writer->n_keys++;
    return writer->keys;
}

static FILE *array(struct gguf_writer *writer, const char *name, enum kind kind, int64_t n) {
    FILE *out = key(writer, name, KIND_ARRAY);
    put_u32(out, kind);
    put_u64(out, (uint64_t)n);
    return out;
}

void gguf_put_u32(struct gguf_writer *writer, const char *name, uint32_t value) {
    put_u32(key(writer, name, KIND_U32), value);
}

void gguf_put_f32(struct gguf_writer *writer, const char *name, float value) {
    fwrite(&value, sizeof value, 1, key(writer, name, KIND_F32));
}

void gguf_put_bool(struct gguf_writer *writer, const char *name, bool value) {
    fputc(value, key(writer, name, KIND_BOOL));
}

void gguf_put_string(struct gguf_writer *writer, const char *name, const char *value) {
    put_text(key(writer, name, KIND_STRING), value);
}

void gguf_put_strings(struct gguf_writer *writer, const char *name, const char *const *values, int64_t n) {
    FILE *out = array(writer, name, KIND_STRING, n);
    for (int64_t i = 0; i < n; i++) put_text(out, values[i]);
}

void gguf_put_i32s(struct gguf_writer *writer, const char *name, const int32_t *values, int64_t n) {
    fwrite(values, sizeof *values, (size_t)n, array(writer, name, KIND_I32, n));
}

void gguf_put_f32s(struct gguf_writer *writer, const char *name, const float *values, int64_t n) {
    fwrite(values, sizeof *values, (size_t)n, array(writer, name, KIND_F32, n));
}

static int64_t padded(int64_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

void gguf_put_tensor(struct gguf_writer *writer, const char *name, enum gguf_type type, int64_t rows, int64_t cols) {
    struct gguf_type_facts facts = gguf_type_facts_of(type);
    REQUIRE(facts.name && cols % facts.weights == 0, "a tensor of whole blocks");
    put_text(writer->tensors, name);
    put_u32(writer->tensors, rows == 1 ? 1 : 2);
    put_u64(writer->tensors, (uint64_t)cols);
    if (rows != 1) put_u64(writer->tensors, (uint64_t)rows);
    put_u32(writer->tensors, (uint32_t)type);
    put_u64(writer->tensors, (uint64_t)writer->data_bytes);
    writer->sizes = mem_resize(writer->sizes, (size_t)writer->n_tensors + 1, sizeof *writer->sizes);
    writer->sizes[writer->n_tensors] = rows * (cols / facts.weights) * facts.bytes;
    writer->data_bytes += padded(writer->sizes[writer->n_tensors++]);
}

static enum status padding_put(struct gguf_writer *writer, int64_t written) {
    static const char zeros[ALIGNMENT];
    return whole_file_write(writer->file, zeros, (size_t)(padded(written) - written));
}

enum status gguf_writer_begin(struct gguf_writer *writer, const char *path) {
    enum status status = STATUS_OK;
    const uint32_t version = 3;
    const uint64_t counts[2] = {(uint64_t)writer->n_tensors, (uint64_t)writer->n_keys};
    REQUIRE(fflush(writer->keys) == 0 && fflush(writer->tensors) == 0 && !ferror(writer->keys) &&
                !ferror(writer->tensors),
            "out of memory for a header");
    TRY(whole_file_open(path, &writer->file));
    TRY(whole_file_write(writer->file, "GGUF", 4));
    TRY(whole_file_write(writer->file, &version, sizeof version));
    TRY(whole_file_write(writer->file, counts, sizeof counts));
    TRY(whole_file_write(writer->file, writer->keys_text, writer->n_keys_text));
    TRY(whole_file_write(writer->file, writer->tensors_text, writer->n_tensors_text));
    TRY(padding_put(writer, (int64_t)(24 + writer->n_keys_text + writer->n_tensors_text)));
done:
    return status;
}

enum status gguf_writer_data(struct gguf_writer *writer, const void *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    REQUIRE(writer->at < writer->n_tensors && n_bytes <= writer->sizes[writer->at] - writer->put,
            "more bytes than the tensor has");
    TRY(whole_file_write(writer->file, bytes, (size_t)n_bytes));
    writer->put += n_bytes;
    if (writer->put == writer->sizes[writer->at]) {
        TRY(padding_put(writer, writer->put));
        writer->at++;
        writer->put = 0;
    }
done:
    return status;
}

enum status gguf_writer_finish(struct gguf_writer *writer) {
    REQUIRE(writer->at == writer->n_tensors, "a tensor lacks bytes");
    return whole_file_commit(writer->file);
}
