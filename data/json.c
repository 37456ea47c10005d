#include "data/json.h"

#include "core/base/mem.h"
#include "data/file.h"

static const int64_t FILE_BYTES_MAX = (int64_t)256 << 20;

enum status json_read_buffer(const void *bytes, int64_t n_bytes, const char *where, json_t **out) {
    json_error_t error;
    json_t *root = json_loadb(bytes, (size_t)n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        if (json_error_code(&error) == json_error_out_of_memory)
            return status_set(STATUS_NO_MEMORY, "%s: out of memory for its JSON", where);
        return status_set(STATUS_FORMAT, "%s: not valid JSON: line %d, column %d: %s", where, error.line, error.column,
                          error.text);
    }
    *out = root;
    return STATUS_OK;
}

enum status json_read_file(const char *path, json_t **out) {
    enum status status = STATUS_OK;
    char *bytes = NULL;
    int64_t n_bytes = 0;
    TRY(file_read(path, FILE_BYTES_MAX, &bytes, &n_bytes));
    TRY(json_read_buffer(bytes, n_bytes, path, out));
done:
    mem_buffer_free(bytes);
    return status;
}

const char *json_kind(const json_t *value) {
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: return "null";
    }
    return "something else";
}

// The value under `key`; NULL when it is absent or null and may be.
static enum status value_find(const json_t *object, const char *where, const char *key, bool needed, json_t **out) {
    if (!json_is_object(object))
        return status_set(STATUS_FORMAT, "%s: %s stands where an object with \"%s\" is needed", where,
                          json_kind(object), key);
    json_t *value = json_object_get(object, key);
    if (!value && needed) return status_set(STATUS_FORMAT, "%s: \"%s\" is missing", where, key);
    *out = json_is_null(value) && !needed ? NULL : value;
    return STATUS_OK;
}

static enum status kind_wrong(const char *where, const char *key, const json_t *value, const char *want) {
    return status_set(STATUS_FORMAT, "%s: \"%s\" is %s, must be %s", where, key, json_kind(value), want);
}

// The required getter and the one with a default. `is` and `get` are jansson's test and conversion.
#define GETTERS(name, type, is, get, want)                                                                             \
    enum status name(const json_t *object, const char *where, const char *key, type *out) {                            \
        json_t *value = NULL;                                                                                          \
        enum status status = value_find(object, where, key, true, &value);                                             \
        if (status != STATUS_OK) return status;                                                                        \
        if (!is(value)) return kind_wrong(where, key, value, want);                                                    \
        *out = get(value);                                                                                             \
        return STATUS_OK;                                                                                              \
    }                                                                                                                  \
    enum status name##_or(const json_t *object, const char *where, const char *key, type missing, type *out) {         \
        json_t *value = NULL;                                                                                          \
        enum status status = value_find(object, where, key, false, &value);                                            \
        if (status != STATUS_OK) return status;                                                                        \
        if (value && !is(value)) return kind_wrong(where, key, value, want);                                           \
        *out = value ? get(value) : missing;                                                                           \
        return STATUS_OK;                                                                                              \
    }

GETTERS(json_get_string, const char *, json_is_string, json_string_value, "a string")
GETTERS(json_get_integer, int64_t, json_is_integer, json_integer_value, "an integer")
GETTERS(json_get_number, double, json_is_number, json_number_value, "a number")
GETTERS(json_get_bool, bool, json_is_boolean, json_is_true, "true or false")
GETTERS(json_get_object, json_t *, json_is_object, (json_t *), "an object")
GETTERS(json_get_array, json_t *, json_is_array, (json_t *), "an array")
