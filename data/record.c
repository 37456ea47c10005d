#include "data/record.h"

#include "core/base/mem.h"
#include "core/quant/grid.h"
#include "data/file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

struct record {
    json_t *object;
};

struct record *record_new(void) {
    struct record *record = mem_new(1, sizeof *record);
    record->object = json_object();
    REQUIRE(record->object, "memory is out");
    return record;
}

void record_free(struct record *record) {
    if (!record) return;
    json_decref(record->object);
    free(record);
}

void record_clear(struct record *record) { json_object_clear(record->object); }

const json_t *record_json(const struct record *record) { return record->object; }

static void record_set(struct record *record, const char *key, json_t *value) {
    REQUIRE(value && json_object_set_new(record->object, key, value) == 0, "a key is UTF-8 and memory is there");
}

void record_number(struct record *record, const char *key, double value) {
    record_set(record, key, isfinite(value) ? json_real(value) : json_null());
}

void record_integer(struct record *record, const char *key, int64_t value) {
    record_set(record, key, json_integer(value));
}

void record_update(struct record *record, json_t *object) {
    REQUIRE(json_object_update(record->object, object) == 0, "an object, and memory is there");
}

void record_bool(struct record *record, const char *key, bool value) { record_set(record, key, json_boolean(value)); }

void record_string(struct record *record, const char *key, const char *value) {
    record_set(record, key, value ? record_json_string(value) : json_null());
}

void record_grid(struct record *record, const struct grid_options *options) {
    record_integer(record, "bits", options->bits);
    record_integer(record, "group_size", options->group_size);
    record_string(record, "grid", grid_kind_name(options->kind));
    record_string(record, "scale_search", scale_search_name(options->search));
}

json_t *record_json_string(const char *value) {
    json_t *string = json_string(value);
    if (string) return string;
    char *copy = mem_string(value);
    for (size_t i = 0, left = strlen(copy), n; left > 0; i += n, left -= n) {
        unsigned char lead = (unsigned char)copy[i];
        n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        json_t *good = n <= left ? json_stringn(copy + i, n) : NULL; // checks the sequence
        if (!good) copy[i] = '?', n = 1;
        json_decref(good);
    }
    string = json_string(copy);
    free(copy);
    return string;
}

// Text that grows.
struct text {
    char *bytes;
    size_t n, room;
};

static void text_add(struct text *text, const char *bytes, size_t n) {
    if (text->n + n + 1 > text->room) {
        text->room = 2 * (text->n + n + 1);
        text->bytes = mem_resize(text->bytes, text->room, 1);
    }
    memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
    text->bytes[text->n] = 0;
}

static void add_string(struct text *text, const char *s) { text_add(text, s, strlen(s)); }

static void add_break(struct text *text, int indent, int depth) {
    if (indent == 0) return;
    add_string(text, "\n");
    for (int i = 0; i < indent * depth; i++) add_string(text, " ");
}

// The shortest of %.15g, %.16g, %.17g that reads back as the same double, with a point or exponent so that readers
// that tell integers from reals see a real.
static void add_real(struct text *text, double value) {
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    add_string(text, digits);
    if (!strpbrk(digits, ".e")) add_string(text, ".0");
}

static void add_value(struct text *text, const json_t *value, int indent, int depth);

static void add_object(struct text *text, const json_t *object, int indent, int depth) {
    const char *key, *separator = "";
    json_t *value;
    add_string(text, "{");
    json_object_foreach((json_t *)object, key, value) {
        add_string(text, separator);
        add_break(text, indent, depth + 1);
        json_t *name = json_string(key);
        add_value(text, name, 0, 0);
        json_decref(name);
        add_string(text, ": ");
        add_value(text, value, indent, depth + 1);
        separator = indent ? "," : ", ";
    }
    if (json_object_size(object) > 0) add_break(text, indent, depth);
    add_string(text, "}");
}

static void add_value(struct text *text, const json_t *value, int indent, int depth) {
    if (json_is_object(value)) {
        add_object(text, value, indent, depth);
    } else if (json_is_array(value)) {
        add_string(text, "[");
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i > 0) add_string(text, ", ");
            add_value(text, json_array_get(value, i), 0, 0);
        }
        add_string(text, "]");
    } else if (json_is_real(value)) {
        add_real(text, json_real_value(value));
    } else {
        char *dumped = json_dumps(value, JSON_ENCODE_ANY);
        REQUIRE(dumped, "a scalar can be written");
        add_string(text, dumped);
        free(dumped);
    }
}

char *record_json_text(const json_t *value, int indent) {
    struct text text = {0};
    add_value(&text, value, indent, 0);
    if (indent > 0) add_string(&text, "\n");
    return text.bytes;
}

char *record_text(const struct record *record, int indent) { return record_json_text(record->object, indent); }

static enum status digest_file(const char *path, uLong *crc, int64_t *n_bytes) {
    enum { BLOCK = 1 << 20 };
    enum status status = STATUS_OK;
    int fd = -1;
    int64_t size = 0;
    unsigned char *block = mem_new(BLOCK, 1);
    TRY(file_open(path, &fd, &size));
    ssize_t n;
    while ((n = read(fd, block, BLOCK)) > 0) {
        *crc = crc32_z(*crc, block, (size_t)n);
        *n_bytes += n;
    }
    if (n < 0) status = status_set(STATUS_IO, "%s: cannot read: %s", path, strerror(errno));
done:
    if (fd >= 0) close(fd);
    free(block);
    return status;
}

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

static int model_file(const struct dirent *entry) {
    const char *name = entry->d_name;
    return name[0] != '.' && (ends_with(name, ".json") || ends_with(name, ".safetensors") || ends_with(name, ".model"));
}

static enum status digest_folder(const char *path, uLong *crc, int64_t *n_bytes) {
    enum status status = STATUS_OK;
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, model_file, alphasort);
    if (n < 0) return status_set(STATUS_IO, "%s: cannot read the folder: %s", path, strerror(errno));
    for (int i = 0; i < n && status == STATUS_OK; i++) {
        const char *name = entries[i]->d_name;
        char *file = mem_format("%s/%s", path, name);
        *crc = crc32_z(*crc, (const unsigned char *)name, strlen(name) + 1);
        status = digest_file(file, crc, n_bytes);
        free(file);
    }
    for (int i = 0; i < n; i++) free(entries[i]);
    free(entries);
    return status;
}

enum status record_digest(struct record *record, const char *key, const char *path) {
    uLong crc = crc32_z(0, NULL, 0);
    int64_t n_bytes = 0;
    enum status status = folder_exists(path) ? digest_folder(path, &crc, &n_bytes) : digest_file(path, &crc, &n_bytes);
    if (status != STATUS_OK) return status;
    char *digest = mem_format("crc32:%08lx bytes:%lld", (unsigned long)crc, (long long)n_bytes);
    record_string(record, key, digest);
    free(digest);
    return STATUS_OK;
}

enum status record_digests(struct record *record, const char *key, const char *const *paths, int n) {
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK && i < n; i++) {
        char *numbered = mem_format("%s_%d", key, i);
        status = record_digest(record, numbered, paths[i]);
        free(numbered);
    }
    return status;
}
