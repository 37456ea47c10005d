#include "data/safetensors_writer.h"

#include "core/base/mem.h"
#include "data/whole_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct piece {
    int64_t index; // into the caller's entries
    int64_t n_bytes;
    const struct safetensors_entry *entry; // valid while the header is made
};

struct safetensors_writer {
    struct whole_file *file;
    char *path;
    int64_t n_pieces, at; // pieces[at] is due
    int64_t n_put;        // of its bytes
    struct piece *pieces; // [n_pieces] in the order of the file
};

static int piece_compare(const void *a, const void *b) {
    const struct safetensors_entry *s = ((const struct piece *)a)->entry, *t = ((const struct piece *)b)->entry;
    if (s->dtype != t->dtype) return s->dtype > t->dtype ? -1 : 1;
    return strcmp(s->name, t->name);
}

static int name_compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum status names_check(const char *path, const struct safetensors_entry *entries, int64_t n) {
    const char **names = mem_new((size_t)n, sizeof *names);
    for (int64_t i = 0; i < n; i++) names[i] = entries[i].name;
    if (n) qsort(names, (size_t)n, sizeof *names, name_compare);
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
        if (strcmp(names[i], "__metadata__") == 0 || (i > 0 && strcmp(names[i], names[i - 1]) == 0))
            status = status_set(STATUS_INVALID, "%s: cannot hold two tensors named '%s'", path, names[i]);
    }
    free(names);
    return status;
}

static enum status bytes_count(const char *path, const struct safetensors_entry *entry, int64_t *out) {
    int64_t n = safetensors_dtype_bits(entry->dtype);
    bool fits = true;
    for (int64_t i = 0; i < entry->rank; i++)
        fits = fits && entry->shape[i] >= 0 && !__builtin_mul_overflow(n, entry->shape[i], &n);
    if (!fits || n % 8) return status_set(STATUS_INVALID, "%s: tensor '%s' has an impossible shape", path, entry->name);
    *out = n / 8;
    return STATUS_OK;
}

// A JSON string as the reference's library writes it: only what must be escaped is.
static void string_print(FILE *out, const char *text) {
    static const char *const shorts[0x20] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n", ['\f'] = "\\f", ['\r'] = "\\r"};
    fputc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s < 0x20 && shorts[*s])
            fputs(shorts[*s], out);
        else if (*s < 0x20)
            fprintf(out, "\\u%04x", *s);
        else
            fputc(*s, out);
    }
    fputc('"', out);
}

static void pair_print(FILE *out, struct safetensors_pair pair) {
    string_print(out, pair.key);
    fputc(':', out);
    string_print(out, pair.value);
}

static void metadata_print(FILE *out, const struct safetensors_pair *metadata, int64_t n) {
    bool has_format = false;
    for (int64_t i = 0; i < n; i++) has_format = has_format || strcmp(metadata[i].key, "format") == 0;
    fputs("{\"__metadata__\":{", out);
    if (!has_format) fputs("\"format\":\"pt\"", out);
    for (int64_t i = 0; i < n; i++) {
        if (i > 0 || !has_format) fputc(',', out);
        pair_print(out, metadata[i]);
    }
    fputc('}', out);
}

static enum status header_write(struct safetensors_writer *writer, const struct safetensors_pair *metadata,
                                int64_t n_metadata) {
    enum status status = STATUS_OK;
    char *text = NULL;
    size_t n_text = 0;
    FILE *out = open_memstream(&text, &n_text);
    REQUIRE(out, "out of memory for a header");
    metadata_print(out, metadata, n_metadata);
    int64_t begin = 0;
    for (int64_t i = 0; i < writer->n_pieces; i++) {
        const struct piece *piece = &writer->pieces[i];
        int64_t end = 0;
        if (__builtin_add_overflow(begin, piece->n_bytes, &end))
            TRY(status_set(STATUS_INVALID, "%s: its tensors are too large together", writer->path));
        fputc(',', out);
        string_print(out, piece->entry->name);
        fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", safetensors_dtype_name(piece->entry->dtype));
        for (int64_t d = 0; d < piece->entry->rank; d++)
            fprintf(out, d ? ",%lld" : "%lld", (long long)piece->entry->shape[d]);
        fprintf(out, "],\"data_offsets\":[%lld,%lld]}", (long long)begin, (long long)end);
        begin = end;
    }
    fputc('}', out);
    while (ftell(out) % 8) fputc(' ', out);
    REQUIRE(fflush(out) == 0 && !ferror(out), "out of memory for a header");
    if (n_text > 100000000) TRY(status_set(STATUS_INVALID, "%s: too many tensors for one file", writer->path));
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)n_text >> (8 * i));
    TRY(whole_file_write(writer->file, length, sizeof length));
    TRY(whole_file_write(writer->file, text, n_text));
done:
    fclose(out);
    free(text);
    return status;
}

// Tensors of no bytes are never due.
static void empties_skip(struct safetensors_writer *writer) {
    while (writer->at < writer->n_pieces && writer->n_put == writer->pieces[writer->at].n_bytes) {
        writer->at++;
        writer->n_put = 0;
    }
}

enum status safetensors_writer_new(const char *path, const struct safetensors_entry *entries, int64_t n_entries,
                                   const struct safetensors_pair *metadata, int64_t n_metadata,
                                   struct safetensors_writer **out) {
    enum status status = STATUS_OK;
    struct safetensors_writer *writer = mem_new(1, sizeof *writer);
    writer->path = mem_string(path);
    writer->pieces = mem_new((size_t)n_entries, sizeof *writer->pieces);
    writer->n_pieces = n_entries;
    TRY(names_check(path, entries, n_entries));
    for (int64_t i = 0; i < n_entries; i++) {
        writer->pieces[i] = (struct piece){.index = i, .entry = &entries[i]};
        TRY(bytes_count(path, &entries[i], &writer->pieces[i].n_bytes));
    }
    if (n_entries) qsort(writer->pieces, (size_t)n_entries, sizeof *writer->pieces, piece_compare);
    TRY(whole_file_open(path, &writer->file));
    TRY(header_write(writer, metadata, n_metadata));
    empties_skip(writer);
    *out = writer;
    writer = NULL;
done:
    safetensors_writer_free(writer);
    return status;
}

int64_t safetensors_writer_next(const struct safetensors_writer *writer) {
    return writer->at < writer->n_pieces ? writer->pieces[writer->at].index : -1;
}

enum status safetensors_writer_put(struct safetensors_writer *writer, const void *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    REQUIRE(n_bytes >= 0 && (n_bytes == 0 || writer->at < writer->n_pieces), "bytes after the last tensor");
    if (n_bytes == 0) return STATUS_OK;
    REQUIRE(n_bytes <= writer->pieces[writer->at].n_bytes - writer->n_put, "more bytes than the tensor has");
    TRY(whole_file_write(writer->file, bytes, (size_t)n_bytes));
    writer->n_put += n_bytes;
    empties_skip(writer);
done:
    return status;
}

enum status safetensors_writer_finish(struct safetensors_writer *writer) {
    REQUIRE(writer->at == writer->n_pieces, "a tensor lacks bytes");
    return whole_file_commit(writer->file);
}

void safetensors_writer_free(struct safetensors_writer *writer) {
    if (!writer) return;
    whole_file_free(writer->file);
    free(writer->pieces);
    free(writer->path);
    free(writer);
}
