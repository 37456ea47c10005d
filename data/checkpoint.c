#include "data/checkpoint.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/whole_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they lie in memory");

enum kind { KIND_INTEGER, KIND_NUMBER, KIND_FLOATS, KIND_DOUBLES, KIND_BYTES, KIND_COUNT };

static const struct {
    const char *name;
    size_t bytes; // of one element
} kinds[KIND_COUNT] = {{"an integer", 8}, {"a number", 8}, {"floats", 4}, {"doubles", 8}, {"bytes", 1}};

enum { HEADER_BYTES = 32, ENTRY_BYTES = 20, NAME_MAX_BYTES = 255, ENTRIES_MAX = 8192, BLOCK_BYTES = 1 << 20 };

struct entry {
    char *name;
    enum kind kind;
    uint64_t n;       // elements
    uint32_t crc;     // of the data
    const void *data; // to be written; borrowed unless it is `scalar`
    void *copy;       // freed with the checkpoint
    uint64_t scalar;
    uint64_t offset; // in the file that was read
};

struct checkpoint {
    struct entry *entries;
    size_t n_entries;
    int fd;     // of the file that was read; -1 for one that is built
    char *path; // of the file that was read
};

struct checkpoint *checkpoint_new(void) {
    struct checkpoint *checkpoint = mem_new(1, sizeof *checkpoint);
    checkpoint->fd = -1;
    return checkpoint;
}

void checkpoint_free(struct checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        free(checkpoint->entries[i].name);
        mem_buffer_free(checkpoint->entries[i].copy);
    }
    if (checkpoint->fd >= 0) close(checkpoint->fd);
    free(checkpoint->entries);
    free(checkpoint->path);
    free(checkpoint);
}

static struct entry *find(const struct checkpoint *checkpoint, const char *name) {
    for (size_t i = 0; i < checkpoint->n_entries; i++)
        if (strcmp(checkpoint->entries[i].name, name) == 0) return &checkpoint->entries[i];
    return NULL;
}

static struct entry *append(struct checkpoint *checkpoint, char *name, enum kind kind, uint64_t n) {
    checkpoint->entries = mem_resize(checkpoint->entries, checkpoint->n_entries + 1, sizeof *checkpoint->entries);
    struct entry *entry = &checkpoint->entries[checkpoint->n_entries++];
    *entry = (struct entry){.name = name, .kind = kind, .n = n};
    return entry;
}

static struct entry *add(struct checkpoint *checkpoint, const char *name, enum kind kind, int64_t n) {
    REQUIRE(checkpoint->fd < 0, "a checkpoint that was read does not change");
    REQUIRE(*name && strlen(name) <= NAME_MAX_BYTES && !find(checkpoint, name), "a name of 1 to 255 bytes, used once");
    REQUIRE(n >= 0 && checkpoint->n_entries < ENTRIES_MAX, "sizes");
    return append(checkpoint, mem_string(name), kind, (uint64_t)n);
}

void checkpoint_add_integer(struct checkpoint *checkpoint, const char *name, int64_t value) {
    memcpy(&add(checkpoint, name, KIND_INTEGER, 1)->scalar, &value, 8);
}

void checkpoint_add_number(struct checkpoint *checkpoint, const char *name, double value) {
    memcpy(&add(checkpoint, name, KIND_NUMBER, 1)->scalar, &value, 8);
}

void checkpoint_add_floats(struct checkpoint *checkpoint, const char *name, const float *values, int64_t n) {
    add(checkpoint, name, KIND_FLOATS, n)->data = values;
}

void checkpoint_add_doubles(struct checkpoint *checkpoint, const char *name, const double *values, int64_t n) {
    add(checkpoint, name, KIND_DOUBLES, n)->data = values;
}

void checkpoint_add_bytes(struct checkpoint *checkpoint, const char *name, const void *bytes, int64_t n) {
    add(checkpoint, name, KIND_BYTES, n)->data = bytes;
}

enum status checkpoint_add_view(struct checkpoint *checkpoint, const char *name, struct backend *backend,
                                struct view view) {
    enum status status = STATUS_OK;
    bool is_float = view.dtype == DTYPE_F32;
    int64_t n = view_count(view), bytes = n * dtype_bytes(view.dtype);
    void *copy = NULL;
    if (!backend->fns->host_memory) {
        TRY(mem_buffer_new(bytes, name, &copy));
        TRY(backend_read(backend, view, copy));
        TRY(backend_sync(backend));
    }
    struct entry *entry = add(checkpoint, name, is_float ? KIND_FLOATS : KIND_BYTES, is_float ? n : bytes);
    entry->data = copy ? copy : view.data;
    entry->copy = copy;
    copy = NULL;
done:
    mem_buffer_free(copy);
    return status;
}

static const void *entry_data(const struct entry *entry) {
    return entry->kind == KIND_INTEGER || entry->kind == KIND_NUMBER ? &entry->scalar : entry->data;
}

static uint32_t crc_of(const void *bytes, size_t n) { return n ? (uint32_t)crc32_z(0, bytes, n) : 0; }

static unsigned char *put(unsigned char *at, const void *bytes, size_t n) {
    memcpy(at, bytes, n);
    return at + n;
}

enum status checkpoint_write(const struct checkpoint *checkpoint, const char *path) {
    REQUIRE(checkpoint->fd < 0, "a checkpoint that was read is not written again");
    enum status status = STATUS_OK;
    struct whole_file *file = NULL;
    uint32_t n_entries = (uint32_t)checkpoint->n_entries, table_bytes = 0;
    uint64_t file_bytes = HEADER_BYTES;
    for (size_t i = 0; i < n_entries; i++) {
        const struct entry *entry = &checkpoint->entries[i];
        table_bytes += (uint32_t)(ENTRY_BYTES + strlen(entry->name));
        file_bytes += entry->n * kinds[entry->kind].bytes;
    }
    file_bytes += table_bytes;
    unsigned char *table = mem_new(table_bytes + 1u, 1), *at = table;
    for (size_t i = 0; i < n_entries; i++) {
        const struct entry *entry = &checkpoint->entries[i];
        uint32_t name_bytes = (uint32_t)strlen(entry->name), kind = (uint32_t)entry->kind;
        uint32_t crc = crc_of(entry_data(entry), (size_t)entry->n * kinds[kind].bytes);
        at = put(put(put(put(at, &name_bytes, 4), &kind, 4), &entry->n, 8), &crc, 4);
        at = put(at, entry->name, name_bytes);
    }
    unsigned char header[HEADER_BYTES];
    uint32_t table_crc = crc_of(table, table_bytes);
    at = put(put(put(header, "DQCHKPT1", 8), &n_entries, 4), &table_bytes, 4);
    at = put(put(at, &file_bytes, 8), &table_crc, 4);
    uint32_t header_crc = crc_of(header, HEADER_BYTES - 4);
    put(at, &header_crc, 4);

    TRY(whole_file_open(path, &file));
    TRY(whole_file_write(file, header, HEADER_BYTES));
    TRY(whole_file_write(file, table, table_bytes));
    for (size_t i = 0; i < n_entries; i++) {
        const struct entry *entry = &checkpoint->entries[i];
        TRY(whole_file_write(file, entry_data(entry), (size_t)entry->n * kinds[entry->kind].bytes));
    }
    TRY(whole_file_commit(file));
done:
    whole_file_free(file);
    free(table);
    return status;
}

static enum status damaged(const char *path, const char *why) {
    return status_set(STATUS_FORMAT, "%s: is no sound checkpoint: %s; start anew with --force", path, why);
}

// One entry of the table at *at; data are to begin at *offset, which moves behind them.
static enum status parse_entry(struct checkpoint *checkpoint, const unsigned char **at, const unsigned char *end,
                               uint64_t *offset, uint64_t file_bytes) {
    const char *path = checkpoint->path;
    uint32_t name_bytes, kind, crc;
    uint64_t n;
    if (end - *at < ENTRY_BYTES) return damaged(path, "its table is cut short");
    memcpy(&name_bytes, *at, 4);
    memcpy(&kind, *at + 4, 4);
    memcpy(&n, *at + 8, 8);
    memcpy(&crc, *at + 16, 4);
    *at += ENTRY_BYTES;
    if (name_bytes == 0 || name_bytes > NAME_MAX_BYTES || (size_t)(end - *at) < name_bytes ||
        memchr(*at, 0, name_bytes))
        return damaged(path, "a name in its table is wrong");
    if (kind >= KIND_COUNT || ((kind == KIND_INTEGER || kind == KIND_NUMBER) && n != 1))
        return damaged(path, "an entry is of an unknown kind");
    if (n > (file_bytes - *offset) / kinds[kind].bytes) return damaged(path, "an entry is larger than the file");
    char *name = mem_string_n((const char *)*at, name_bytes);
    bool twice = find(checkpoint, name) != NULL;
    struct entry *entry = append(checkpoint, name, (enum kind)kind, n);
    *at += name_bytes;
    entry->crc = crc;
    entry->offset = *offset;
    *offset += n * kinds[kind].bytes;
    return twice ? damaged(path, "a name stands twice in its table") : STATUS_OK;
}

static enum status verify_data(const struct checkpoint *checkpoint) {
    enum status status = STATUS_OK;
    unsigned char *block = mem_new(BLOCK_BYTES, 1);
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        const struct entry *entry = &checkpoint->entries[i];
        uint64_t left = entry->n * kinds[entry->kind].bytes, offset = entry->offset;
        uLong crc = 0;
        while (left > 0) {
            size_t n = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
            TRY(file_read_at(checkpoint->fd, checkpoint->path, (int64_t)offset, (char *)block, (int64_t)n));
            crc = crc32_z(crc, block, n);
            left -= n;
            offset += n;
        }
        if (crc != entry->crc) {
            status = damaged(checkpoint->path, "its data do not have the checksum that was written");
            goto done;
        }
    }
done:
    free(block);
    return status;
}

static enum status parse(struct checkpoint *checkpoint, uint64_t actual_bytes) {
    enum status status = STATUS_OK;
    unsigned char header[HEADER_BYTES], *table = NULL;
    uint32_t n_entries, table_bytes, table_crc, header_crc;
    uint64_t file_bytes;
    const char *path = checkpoint->path;
    if (actual_bytes < HEADER_BYTES) return damaged(path, "it is cut short");
    TRY(file_read_at(checkpoint->fd, path, 0, (char *)header, HEADER_BYTES));
    memcpy(&n_entries, header + 8, 4);
    memcpy(&table_bytes, header + 12, 4);
    memcpy(&file_bytes, header + 16, 8);
    memcpy(&table_crc, header + 24, 4);
    memcpy(&header_crc, header + 28, 4);
    if (memcmp(header, "DQCHKPT1", 8) != 0) return damaged(path, "it does not begin like one");
    if (header_crc != crc_of(header, HEADER_BYTES - 4)) return damaged(path, "its header does not have its checksum");
    if (file_bytes != actual_bytes) return damaged(path, "it does not have the size that was written");
    if (n_entries > ENTRIES_MAX || table_bytes > ENTRIES_MAX * (ENTRY_BYTES + NAME_MAX_BYTES))
        return damaged(path, "absurd sizes");

    table = mem_new(table_bytes + 1u, 1);
    TRY(file_read_at(checkpoint->fd, path, HEADER_BYTES, (char *)table, table_bytes));
    if (table_crc != crc_of(table, table_bytes)) {
        status = damaged(path, "its table does not have its checksum");
        goto done;
    }
    const unsigned char *at = table, *end = table + table_bytes;
    uint64_t offset = HEADER_BYTES + (uint64_t)table_bytes;
    for (uint32_t i = 0; i < n_entries; i++) TRY(parse_entry(checkpoint, &at, end, &offset, file_bytes));
    if (at != end || offset != file_bytes) {
        status = damaged(path, "its table does not cover the file");
        goto done;
    }
    TRY(verify_data(checkpoint));
done:
    free(table);
    return status;
}

enum status checkpoint_read(const char *path, struct checkpoint **out) {
    enum status status = STATUS_OK;
    struct checkpoint *checkpoint = checkpoint_new();
    int64_t n_bytes = 0;
    checkpoint->path = mem_string(path);
    TRY(file_open(path, &checkpoint->fd, &n_bytes));
    TRY(parse(checkpoint, (uint64_t)n_bytes));
    *out = checkpoint;
    checkpoint = NULL;
done:
    checkpoint_free(checkpoint);
    return status;
}

bool checkpoint_has(const struct checkpoint *checkpoint, const char *name) { return find(checkpoint, name) != NULL; }

static enum status fetch(const struct checkpoint *checkpoint, const char *name, enum kind kind, int64_t n, void *out) {
    REQUIRE(checkpoint->fd >= 0 && n >= 0, "a checkpoint that was read");
    const struct entry *entry = find(checkpoint, name);
    if (!entry) return status_set(STATUS_FORMAT, "%s: holds no '%s'; start anew with --force", checkpoint->path, name);
    if (entry->kind != kind || entry->n != (uint64_t)n)
        return status_set(STATUS_FORMAT, "%s: '%s' is %s[%llu], not %s[%lld]; start anew with --force",
                          checkpoint->path, name, kinds[entry->kind].name, (unsigned long long)entry->n,
                          kinds[kind].name, (long long)n);
    return file_read_at(checkpoint->fd, checkpoint->path, (int64_t)entry->offset, out, n * (int64_t)kinds[kind].bytes);
}

enum status checkpoint_integer(const struct checkpoint *checkpoint, const char *name, int64_t min, int64_t max,
                               int64_t *out) {
    int64_t value;
    enum status status = fetch(checkpoint, name, KIND_INTEGER, 1, &value);
    if (status != STATUS_OK) return status;
    if (value < min || value > max)
        return status_set(STATUS_FORMAT, "%s: '%s' is %lld, outside %lld to %lld; start anew with --force",
                          checkpoint->path, name, (long long)value, (long long)min, (long long)max);
    *out = value;
    return STATUS_OK;
}

enum status checkpoint_number(const struct checkpoint *checkpoint, const char *name, double *out) {
    return fetch(checkpoint, name, KIND_NUMBER, 1, out);
}

enum status checkpoint_floats(const struct checkpoint *checkpoint, const char *name, float *out, int64_t n) {
    return fetch(checkpoint, name, KIND_FLOATS, n, out);
}

enum status checkpoint_doubles(const struct checkpoint *checkpoint, const char *name, double *out, int64_t n) {
    return fetch(checkpoint, name, KIND_DOUBLES, n, out);
}

enum status checkpoint_bytes(const struct checkpoint *checkpoint, const char *name, void *out, int64_t n) {
    return fetch(checkpoint, name, KIND_BYTES, n, out);
}

enum status checkpoint_view(const struct checkpoint *checkpoint, const char *name, struct backend *backend,
                            struct view out) {
    enum status status = STATUS_OK;
    int64_t n = view_count(out), bytes = n * dtype_bytes(out.dtype);
    void *host = out.data, *copy = NULL;
    if (!backend->fns->host_memory) {
        TRY(mem_buffer_new(bytes, name, &copy));
        host = copy;
    }
    TRY(out.dtype == DTYPE_F32 ? checkpoint_floats(checkpoint, name, host, n)
                               : checkpoint_bytes(checkpoint, name, host, bytes));
    if (copy) {
        TRY(backend_write(backend, out, copy));
        TRY(backend_sync(backend));
    }
done:
    mem_buffer_free(copy);
    return status;
}
