#include "data/gguf.h"

#include "core/base/mem.h"
#include "data/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { KIND_U32 = 4, KIND_STRING = 8, KIND_ARRAY = 9, KINDS = 13, COUNT_MAX = 1 << 24, NAME_MAX_BYTES = 1 << 16 };

// Bytes of a value; 0: string or array.
static const int kind_bytes[KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct gguf {
    char *path;
    const uint8_t *bytes;
    int64_t n_bytes, at; // at: how far the header is read
    int64_t alignment;
    int64_t n_keys, n_tensors;
    struct key {
        char *name;
        uint32_t kind;
        int64_t at; // of the value
    } * keys;
    struct gguf_tensor *tensors;
};

static enum status wrong(const struct gguf *gguf, const char *what) {
    return status_set(STATUS_FORMAT, "%s: not a sound GGUF file: %s (at byte %lld)", gguf->path, what,
                      (long long)gguf->at);
}

static enum status bytes_take(struct gguf *gguf, void *out, int64_t n) {
    if (n > gguf->n_bytes - gguf->at) return wrong(gguf, "it ends too early");
    memcpy(out, gguf->bytes + gguf->at, (size_t)n);
    gguf->at += n;
    return STATUS_OK;
}

// A length or number of things, bounded by what is left of the file.
static enum status count_take(struct gguf *gguf, int64_t *out) {
    enum status status = STATUS_OK;
    uint64_t n = 0;
    TRY(bytes_take(gguf, &n, 8));
    if (n > (uint64_t)(gguf->n_bytes - gguf->at)) TRY(wrong(gguf, "a length is larger than the file"));
    *out = (int64_t)n;
done:
    return status;
}

static enum status name_take(struct gguf *gguf, char **out) {
    enum status status = STATUS_OK;
    int64_t n = 0;
    TRY(count_take(gguf, &n));
    if (n >= NAME_MAX_BYTES) TRY(wrong(gguf, "a name is too long"));
    if (memchr(gguf->bytes + gguf->at, 0, (size_t)n)) TRY(wrong(gguf, "a name holds a zero byte"));
    *out = mem_string_n((const char *)gguf->bytes + gguf->at, (size_t)n);
    gguf->at += n;
done:
    return status;
}

static enum status value_skip(struct gguf *gguf, uint32_t kind, int depth) {
    enum status status = STATUS_OK;
    uint32_t inner = 0;
    int64_t n = 0;
    if (kind >= KINDS) return wrong(gguf, "a value has an unknown type");
    if (kind_bytes[kind]) {
        if (kind_bytes[kind] > gguf->n_bytes - gguf->at) TRY(wrong(gguf, "it ends too early"));
        gguf->at += kind_bytes[kind];
    } else if (kind == KIND_STRING) {
        TRY(count_take(gguf, &n));
        gguf->at += n;
    } else {
        if (depth > 0) TRY(wrong(gguf, "an array holds arrays"));
        TRY(bytes_take(gguf, &inner, 4));
        TRY(count_take(gguf, &n));
        for (int64_t i = 0; i < n; i++) TRY(value_skip(gguf, inner, depth + 1));
    }
done:
    return status;
}

static enum status keys_read(struct gguf *gguf, uint64_t n) {
    enum status status = STATUS_OK;
    if (n > COUNT_MAX || (int64_t)n > gguf->n_bytes / 12) TRY(wrong(gguf, "too many keys"));
    gguf->keys = mem_new((size_t)n, sizeof *gguf->keys);
    gguf->alignment = 32;
    for (uint64_t i = 0; i < n; i++) {
        struct key *key = &gguf->keys[gguf->n_keys];
        TRY(name_take(gguf, &key->name));
        gguf->n_keys++;
        TRY(bytes_take(gguf, &key->kind, 4));
        key->at = gguf->at;
        TRY(value_skip(gguf, key->kind, 0));
        if (strcmp(key->name, "general.alignment") == 0 && key->kind == KIND_U32) {
            uint32_t alignment;
            memcpy(&alignment, gguf->bytes + key->at, sizeof alignment);
            gguf->alignment = alignment;
        }
    }
    if (gguf->alignment < 8 || gguf->alignment > 1 << 20 || gguf->alignment % 8) TRY(wrong(gguf, "bad alignment"));
done:
    return status;
}

// Reads one tensor's description; `data` receives its offset for now.
static enum status tensor_read(struct gguf *gguf, struct gguf_tensor *tensor, uint64_t *offset) {
    enum status status = STATUS_OK;
    uint32_t rank = 0, type = 0;
    TRY(name_take(gguf, &tensor->name));
    gguf->n_tensors++;
    TRY(bytes_take(gguf, &rank, 4));
    if (rank < 1 || rank > 2)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: tensor '%s' has %u dimensions, must have 1 or 2", gguf->path,
                       tensor->name, (unsigned)rank));
    uint64_t dims[2] = {0, 1};
    for (uint32_t d = 0; d < rank; d++) {
        TRY(bytes_take(gguf, &dims[d], 8));
        if (dims[d] < 1 || dims[d] > (uint64_t)1 << 40) TRY(wrong(gguf, "a dimension is impossible"));
    }
    TRY(bytes_take(gguf, &type, 4));
    TRY(bytes_take(gguf, offset, 8));
    tensor->cols = (int64_t)dims[0], tensor->rows = (int64_t)dims[1], tensor->type = type;
    struct gguf_type_facts facts = gguf_type_facts_of(type);
    if (!facts.name) goto done;
    if (tensor->cols % facts.weights) TRY(wrong(gguf, "a row has no whole number of blocks"));
    if (__builtin_mul_overflow(tensor->cols / facts.weights * facts.bytes, tensor->rows, &tensor->n_bytes))
        TRY(wrong(gguf, "a tensor is too large"));
done:
    return status;
}

static enum status tensors_read(struct gguf *gguf, uint64_t n) {
    enum status status = STATUS_OK;
    uint64_t *offsets = NULL;
    if (n > COUNT_MAX || (int64_t)n > gguf->n_bytes / 24) TRY(wrong(gguf, "too many tensors"));
    gguf->tensors = mem_new((size_t)n, sizeof *gguf->tensors);
    offsets = mem_new((size_t)n, sizeof *offsets);
    for (uint64_t i = 0; i < n; i++) TRY(tensor_read(gguf, &gguf->tensors[i], &offsets[i]));
    int64_t data = (gguf->at + gguf->alignment - 1) / gguf->alignment * gguf->alignment;
    for (uint64_t i = 0; i < n; i++) {
        struct gguf_tensor *tensor = &gguf->tensors[i];
        if (data > gguf->n_bytes || offsets[i] % (uint64_t)gguf->alignment ||
            offsets[i] > (uint64_t)(gguf->n_bytes - data) ||
            tensor->n_bytes > gguf->n_bytes - data - (int64_t)offsets[i])
            TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' lies outside of the file, or is not aligned", gguf->path,
                           tensor->name));
        tensor->data = gguf->bytes + data + offsets[i];
    }
done:
    free(offsets);
    return status;
}

enum status gguf_open(const char *path, struct gguf **out) {
    enum status status = STATUS_OK;
    struct gguf *gguf = mem_new(1, sizeof *gguf);
    int fd = -1;
    uint64_t counts[2];
    uint32_t version = 0;
    gguf->path = mem_string(path);
    TRY(file_open(path, &fd, &gguf->n_bytes));
    if (gguf->n_bytes < 24) TRY(wrong(gguf, "it ends too early"));
    void *map = mmap(NULL, (size_t)gguf->n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) TRY(status_set(STATUS_IO, "%s: cannot map: %s", path, strerror(errno)));
    gguf->bytes = map;
    if (memcmp(map, "GGUF", 4) != 0) TRY(status_set(STATUS_FORMAT, "%s: no GGUF file", path));
    gguf->at = 4;
    TRY(bytes_take(gguf, &version, 4));
    if (version != 2 && version != 3)
        TRY(status_set(STATUS_UNSUPPORTED, "%s: GGUF version %u is not read (2, 3)", path, (unsigned)version));
    TRY(bytes_take(gguf, counts, sizeof counts));
    TRY(keys_read(gguf, counts[1]));
    TRY(tensors_read(gguf, counts[0]));
    *out = gguf;
    gguf = NULL;
done:
    if (fd >= 0) close(fd);
    gguf_free(gguf);
    return status;
}

void gguf_free(struct gguf *gguf) {
    if (!gguf) return;
    for (int64_t i = 0; i < gguf->n_keys; i++) free(gguf->keys[i].name);
    for (int64_t i = 0; i < gguf->n_tensors; i++) free(gguf->tensors[i].name);
    if (gguf->bytes) munmap((void *)(uintptr_t)gguf->bytes, (size_t)gguf->n_bytes);
    free(gguf->keys);
    free(gguf->tensors);
    free(gguf->path);
    free(gguf);
}

const char *gguf_path(const struct gguf *gguf) { return gguf->path; }
int64_t gguf_n_tensors(const struct gguf *gguf) { return gguf->n_tensors; }

const struct gguf_tensor *gguf_at(const struct gguf *gguf, int64_t i) {
    REQUIRE(i >= 0 && i < gguf->n_tensors, "no such tensor");
    return &gguf->tensors[i];
}

const struct gguf_tensor *gguf_find(const struct gguf *gguf, const char *name) {
    for (int64_t i = 0; i < gguf->n_tensors; i++)
        if (strcmp(gguf->tensors[i].name, name) == 0) return &gguf->tensors[i];
    return NULL;
}

static enum status key_find(const struct gguf *gguf, const char *name, uint32_t kind, int64_t *at) {
    for (int64_t i = 0; i < gguf->n_keys; i++) {
        if (strcmp(gguf->keys[i].name, name) != 0) continue;
        if (gguf->keys[i].kind != kind)
            return status_set(STATUS_FORMAT, "%s: the key '%s' has another type", gguf->path, name);
        *at = gguf->keys[i].at;
        return STATUS_OK;
    }
    return status_set(STATUS_FORMAT, "%s: the key '%s' is missing", gguf->path, name);
}

enum status gguf_u32(const struct gguf *gguf, const char *name, uint32_t *out) {
    int64_t at = 0;
    enum status status = key_find(gguf, name, KIND_U32, &at);
    if (status == STATUS_OK) memcpy(out, gguf->bytes + at, sizeof *out);
    return status;
}

enum status gguf_string(const struct gguf *gguf, const char *name, char **out) {
    int64_t at = 0, n = 0;
    enum status status = key_find(gguf, name, KIND_STRING, &at);
    if (status != STATUS_OK) return status;
    memcpy(&n, gguf->bytes + at, sizeof n); // checked when the file was opened
    *out = mem_string_n((const char *)gguf->bytes + at + 8, (size_t)n);
    return STATUS_OK;
}
