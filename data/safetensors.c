#include "data/safetensors.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const int64_t HEADER_BYTES_MAX = 100000000; // the reference's
enum { NESTING_MAX = 127 };

static const struct {
    const char *name;
    int bits;
} dtypes[SAFETENSORS_DTYPE_COUNT] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype) { return dtypes[dtype].name; }
int safetensors_dtype_bits(enum safetensors_dtype dtype) { return dtypes[dtype].bits; }

static bool dtype_find(const char *name, enum safetensors_dtype *out) {
    for (int i = 0; i < SAFETENSORS_DTYPE_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) != 0) continue;
        *out = (enum safetensors_dtype)i;
        return true;
    }
    return false;
}

enum safetensors_dtype safetensors_dtype_of(enum dtype dtype) {
    enum safetensors_dtype found = SAFETENSORS_F32;
    REQUIRE(dtype_find(dtype_name(dtype), &found), "a dtype of ours that the format does not know");
    return found;
}

bool safetensors_dtype_is_float(enum safetensors_dtype from, enum dtype *dtype) {
    enum dtype found;
    switch (from) {
    case SAFETENSORS_F32: found = DTYPE_F32; break;
    case SAFETENSORS_F16: found = DTYPE_F16; break;
    case SAFETENSORS_BF16: found = DTYPE_BF16; break;
    case SAFETENSORS_F64: found = DTYPE_F64; break;
    default: return false;
    }
    if (dtype) *dtype = found;
    return true;
}

struct safetensors {
    char *where;
    void *map; // NULL when the bytes are the caller's
    size_t map_bytes;
    struct arena *arena; // names, shapes, metadata
    int64_t n_tensors, n_metadata;
    struct safetensors_tensor *tensors;        // [n_tensors] by place in the file
    const struct safetensors_tensor **by_name; // [n_tensors]
    struct safetensors_pair *metadata;         // [n_metadata]
};

// What the JSON reader lets pass and the reference does not: -0 as an integer, and deep nesting. Only text that is
// JSON gets here, so strings end and every backslash has a successor.
static enum status text_check(const char *text, int64_t n, const char *where) {
    int64_t depth = 0;
    bool in_string = false;
    for (int64_t i = 0; i < n; i++) {
        char c = text[i], next = i + 1 < n ? text[i + 1] : 0;
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (in_string)
            continue;
        else if (c == '{' || c == '[')
            depth++;
        else if (c == '}' || c == ']')
            depth--;
        else if (c == '-' && next == '0' && !(i + 2 < n && strchr(".eE", text[i + 2]) && text[i + 2]))
            return status_set(STATUS_FORMAT, "%s: the header holds the number -0", where);
        if (depth > NESTING_MAX)
            return status_set(STATUS_FORMAT, "%s: the header is nested more than %d deep", where, NESTING_MAX);
    }
    return STATUS_OK;
}

// A JSON array of integers that are not negative. `what` is "shape" or "data_offsets".
static enum status naturals_read(struct safetensors *file, const char *name, const char *what, const json_t *list,
                                 int64_t **out, int64_t *n_out) {
    if (!json_is_array(list))
        return status_set(STATUS_FORMAT, "%s: tensor '%s': %s is %s, must be an array", file->where, name, what,
                          json_kind(list));
    size_t n = json_array_size(list);
    int64_t *values = arena_take(file->arena, n, sizeof *values);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return status_set(STATUS_FORMAT, "%s: tensor '%s': %s holds something that is no integer of at least 0",
                              file->where, name, what);
        values[i] = (int64_t)json_integer_value(value);
    }
    *out = values;
    *n_out = (int64_t)n;
    return STATUS_OK;
}

// Elements and bytes of a shape. The product is taken from the left in 64 bits without sign, as the reference does.
static enum status size_check(const struct safetensors *file, struct safetensors_tensor *tensor) {
    uint64_t n = 1, bits = 0;
    bool fits = true;
    for (int64_t i = 0; i < tensor->rank; i++)
        fits = fits && !__builtin_mul_overflow(n, (uint64_t)tensor->shape[i], &n);
    fits = fits && !__builtin_mul_overflow(n, (uint64_t)dtypes[tensor->dtype].bits, &bits);
    if (!fits) return status_set(STATUS_FORMAT, "%s: tensor '%s': its size overflows", file->where, tensor->name);
    if (bits % 8)
        return status_set(STATUS_FORMAT, "%s: tensor '%s': %s elements do not fill whole bytes", file->where,
                          tensor->name, dtypes[tensor->dtype].name);
    if (bits / 8 != (uint64_t)tensor->n_bytes)
        return status_set(STATUS_FORMAT, "%s: tensor '%s': its shape needs %llu bytes, its data_offsets give %lld",
                          file->where, tensor->name, (unsigned long long)(bits / 8), (long long)tensor->n_bytes);
    tensor->n_elements = (int64_t)n;
    return STATUS_OK;
}

// One entry of the header. `data` is where the data begin and has n_data bytes.
static enum status tensor_read(struct safetensors *file, const char *name, const json_t *entry,
                               const unsigned char *data, int64_t n_data, struct safetensors_tensor *tensor) {
    enum status status = STATUS_OK;
    const json_t *dtype = NULL, *shape = NULL, *offsets = NULL;
    if (json_is_object(entry)) {
        dtype = json_object_get(entry, "dtype");
        shape = json_object_get(entry, "shape");
        offsets = json_object_get(entry, "data_offsets");
    } else if (json_is_array(entry) && json_array_size(entry) == 3) {
        dtype = json_array_get(entry, 0);
        shape = json_array_get(entry, 1);
        offsets = json_array_get(entry, 2);
    } else {
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' is %s, must be an object", file->where, name, json_kind(entry)));
    }
    if (!dtype || !shape || !offsets)
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s' has no %s", file->where, name,
                       !dtype   ? "dtype"
                       : !shape ? "shape"
                                : "data_offsets"));
    if (!json_is_string(dtype) || !dtype_find(json_string_value(dtype), &tensor->dtype))
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s': unknown dtype %s", file->where, name,
                       json_is_string(dtype) ? json_string_value(dtype) : json_kind(dtype)));

    int64_t *dims = NULL, *range = NULL, n_range = 0, n_name = (int64_t)strlen(name);
    char *copy = arena_take(file->arena, (size_t)n_name + 1, 1);
    memcpy(copy, name, (size_t)n_name);
    tensor->name = copy;
    TRY(naturals_read(file, name, "shape", shape, &dims, &tensor->rank));
    tensor->shape = dims;
    TRY(naturals_read(file, name, "data_offsets", offsets, &range, &n_range));
    if (n_range != 2)
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s': data_offsets has %lld entries, must have 2", file->where, name,
                       (long long)n_range));
    if (range[1] < range[0] || range[1] > n_data)
        TRY(status_set(STATUS_FORMAT, "%s: tensor '%s': data_offsets [%lld, %lld] %s", file->where, name,
                       (long long)range[0], (long long)range[1],
                       range[1] < range[0] ? "run backwards" : "lie beyond the end of the file (is it cut off?)"));
    tensor->data = data + range[0];
    tensor->n_bytes = range[1] - range[0];
    TRY(size_check(file, tensor));
done:
    return status;
}

static enum status metadata_read(struct safetensors *file, json_t *metadata) {
    if (json_is_null(metadata)) return STATUS_OK;
    if (!json_is_object(metadata))
        return status_set(STATUS_FORMAT, "%s: __metadata__ is %s, must be an object", file->where, json_kind(metadata));
    file->metadata = arena_take(file->arena, json_object_size(metadata), sizeof *file->metadata);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return status_set(STATUS_FORMAT, "%s: __metadata__ \"%s\" is %s, must be a string", file->where, key,
                              json_kind(value));
        const char *both[2] = {key, json_string_value(value)};
        char *copies[2];
        for (int i = 0; i < 2; i++) {
            size_t n = strlen(both[i]);
            copies[i] = arena_take(file->arena, n + 1, 1);
            memcpy(copies[i], both[i], n);
        }
        file->metadata[file->n_metadata++] = (struct safetensors_pair){copies[0], copies[1]};
    }
    return STATUS_OK;
}

static int place_compare(const void *a, const void *b) {
    const struct safetensors_tensor *s = a, *t = b;
    if (s->data != t->data) return s->data < t->data ? -1 : 1;
    if (s->n_bytes != t->n_bytes) return s->n_bytes < t->n_bytes ? -1 : 1;
    return strcmp(s->name, t->name); // several tensors of no bytes at one place
}

static int name_compare(const void *a, const void *b) {
    return strcmp((*(const struct safetensors_tensor *const *)a)->name,
                  (*(const struct safetensors_tensor *const *)b)->name);
}

// The tensors tile the data: each begins where the one before ends, from the first byte to the last.
static enum status tiling_check(struct safetensors *file, const unsigned char *data, int64_t n_data) {
    const unsigned char *at = data;
    for (int64_t i = 0; i < file->n_tensors; i++) {
        const struct safetensors_tensor *tensor = &file->tensors[i];
        if (tensor->data != at)
            return status_set(STATUS_FORMAT, "%s: tensor '%s' begins at byte %lld of the data, %s", file->where,
                              tensor->name, (long long)(tensor->data - data),
                              tensor->data < at ? "inside another tensor" : "leaving a hole before it");
        at += tensor->n_bytes;
    }
    if (at != data + n_data)
        return status_set(STATUS_FORMAT, "%s: %lld bytes follow the last tensor", file->where,
                          (long long)(data + n_data - at));
    return STATUS_OK;
}

static enum status header_read(struct safetensors *file, json_t *root, const unsigned char *data, int64_t n_data) {
    enum status status = STATUS_OK;
    if (!json_is_object(root))
        TRY(status_set(STATUS_FORMAT, "%s: the header is %s, must be an object", file->where, json_kind(root)));
    file->tensors = arena_take(file->arena, json_object_size(root), sizeof *file->tensors);
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            TRY(metadata_read(file, value));
        else
            TRY(tensor_read(file, key, value, data, n_data, &file->tensors[file->n_tensors++]));
    }
    if (file->n_tensors) qsort(file->tensors, (size_t)file->n_tensors, sizeof *file->tensors, place_compare);
    TRY(tiling_check(file, data, n_data));
    file->by_name = arena_take(file->arena, (size_t)file->n_tensors, sizeof *file->by_name);
    for (int64_t i = 0; i < file->n_tensors; i++) file->by_name[i] = &file->tensors[i];
    if (file->n_tensors) qsort(file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, name_compare);
done:
    return status;
}

static enum status file_parse(struct safetensors *file, const unsigned char *bytes, int64_t n_bytes) {
    enum status status = STATUS_OK;
    json_t *root = NULL;
    char *about = NULL;
    if (n_bytes < 8)
        TRY(status_set(STATUS_FORMAT, "%s: has %lld bytes, too few for safetensors", file->where, (long long)n_bytes));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | bytes[i];
    if (n > (uint64_t)HEADER_BYTES_MAX)
        TRY(status_set(STATUS_FORMAT,
                       "%s: claims a header of %llu bytes, more than the format's %lld (not safetensors?)", file->where,
                       (unsigned long long)n, (long long)HEADER_BYTES_MAX));
    if ((int64_t)n > n_bytes - 8)
        TRY(status_set(STATUS_FORMAT, "%s: its header needs %llu bytes, only %lld follow (is it cut off?)", file->where,
                       (unsigned long long)n, (long long)(n_bytes - 8)));
    about = mem_format("%s: header", file->where);
    TRY(json_read_buffer(bytes + 8, (int64_t)n, about, &root));
    TRY(text_check((const char *)bytes + 8, (int64_t)n, file->where));
    TRY(header_read(file, root, bytes + 8 + n, n_bytes - 8 - (int64_t)n));
done:
    json_decref(root);
    free(about);
    return status;
}

enum status safetensors_from_buffer(const void *bytes, int64_t n_bytes, const char *where, struct safetensors **out) {
    struct safetensors *file = mem_new(1, sizeof *file);
    file->where = mem_string(where);
    file->arena = arena_new();
    enum status status = file_parse(file, bytes, n_bytes);
    if (status == STATUS_OK)
        *out = file;
    else
        safetensors_free(file);
    return status;
}

enum status safetensors_open(const char *path, struct safetensors **out) {
    enum status status = STATUS_OK;
    int64_t n_bytes = 0;
    int fd = -1;
    void *map = NULL;
    TRY(file_open(path, &fd, &n_bytes));
    if (n_bytes > 0) {
        map = mmap(NULL, (size_t)n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            map = NULL;
            TRY(status_set(STATUS_IO, "%s: cannot map: %s", path, strerror(errno)));
        }
    }
    struct safetensors *file = NULL;
    TRY(safetensors_from_buffer(map ? map : "", n_bytes, path, &file));
    file->map = map;
    file->map_bytes = (size_t)n_bytes;
    map = NULL;
    *out = file;
done:
    if (map) munmap(map, (size_t)n_bytes);
    if (fd >= 0) close(fd);
    return status;
}

void safetensors_free(struct safetensors *file) {
    if (!file) return;
    if (file->map) munmap(file->map, file->map_bytes);
    arena_free(file->arena);
    free(file->where);
    free(file);
}

const char *safetensors_path(const struct safetensors *file) { return file->where; }
int64_t safetensors_n_tensors(const struct safetensors *file) { return file->n_tensors; }
int64_t safetensors_n_metadata(const struct safetensors *file) { return file->n_metadata; }

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, int64_t i) {
    REQUIRE(i >= 0 && i < file->n_tensors, "no such tensor");
    return &file->tensors[i];
}

struct safetensors_pair safetensors_metadata(const struct safetensors *file, int64_t i) {
    REQUIRE(i >= 0 && i < file->n_metadata, "no such metadata");
    return file->metadata[i];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name) {
    const struct safetensors_tensor key = {.name = name}, *wanted = &key;
    const struct safetensors_tensor **found =
        bsearch(&wanted, file->by_name, (size_t)file->n_tensors, sizeof *file->by_name, name_compare);
    return found ? *found : NULL;
}

enum status safetensors_to_float(const struct safetensors *file, const struct safetensors_tensor *tensor, float *out) {
    enum dtype dtype;
    if (!safetensors_dtype_is_float(tensor->dtype, &dtype))
        return status_set(STATUS_UNSUPPORTED, "%s: tensor '%s' has the dtype %s; F32, F16, BF16 and F64 can be read",
                          file->where, tensor->name, dtypes[tensor->dtype].name);
    dtype_to_float(dtype, tensor->data, out, tensor->n_elements);
    return STATUS_OK;
}

// Exponents of all ones are counted per block without a branch, so that the loop becomes vector code.
int64_t safetensors_not_finite(const float *values, int64_t n) {
    enum { BLOCK = 1024 };
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        int64_t end = begin + BLOCK < n ? begin + BLOCK : n;
        int found = 0;
        for (int64_t i = begin; i < end; i++) found |= (float_to_bits(values[i]) & 0x7F800000u) == 0x7F800000u;
        if (!found) continue;
        for (int64_t i = begin; i < end; i++)
            if ((float_to_bits(values[i]) & 0x7F800000u) == 0x7F800000u) return i;
    }
    return -1;
}
