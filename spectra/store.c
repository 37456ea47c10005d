#include "spectra/store.h"

#include "core/base/mem.h"
#include "data/file.h"
#include "data/json.h"
#include "data/record.h"
#include "data/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they lie in memory");

static const char magic[8] = "DQSAMPLE";

struct header {
    char magic[8];
    uint32_t text_bytes, record_bytes, crc, zero;
};
_Static_assert(sizeof(struct header) == 24, "as it stands in the file");

enum { TEXT_MAX = 1 << 28, RECORD_MAX = 1 << 30 };

// Bytes of a record; 0 where there would be too many.
static int64_t size_of_record(const struct settings *s) {
    double floats = (double)s->n_groups * (double)s->sketches * (double)s->dim;
    if (floats * 4 + 8 * ((double)s->n_groups + (double)s->n_directions) + 32 > RECORD_MAX) return 0;
    int64_t bytes =
        16 + 8 * (s->n_groups + s->n_directions) + 4 * s->n_groups * s->sketches * s->dim + (int64_t)sizeof(uint32_t);
    return (bytes + 7) / 8 * 8;
}

static enum status too_large(const char *path) {
    return status_set(STATUS_INVALID, "%s: a sample's sketches would take more than %d MB: take fewer or smaller ones",
                      path, RECORD_MAX >> 20);
}

void store_free(struct store *store) {
    if (!store) return;
    if (store->fd >= 0) close(store->fd);
    settings_free(store->settings);
    mem_buffer_free(store->buffer);
    free(store->path);
    free(store);
}

static enum status store_new(const char *path, struct store **out) {
    struct store *store = mem_new(1, sizeof *store);
    store->fd = -1;
    store->path = mem_string(path);
    *out = store;
    return STATUS_OK;
}

static uint32_t crc_of_header(const struct header *header, const char *text) {
    uLong crc = crc32_z(0, (const Bytef *)header, offsetof(struct header, crc));
    return (uint32_t)crc32_z(crc, (const Bytef *)text, header->text_bytes);
}

// ---- writing ----

static enum status write_header(struct store *store) {
    enum status status = STATUS_OK;
    json_t *json = settings_json(store->settings);
    json_object_set_new(json, "first_sample", json_integer(store->first));
    json_object_set_new(json, "samples", json_integer(store->samples));
    char *text = record_json_text(json, 0), *padded = NULL, *bytes = NULL;
    size_t n = strlen(text), room = (n + 7) / 8 * 8;
    struct header header = {.text_bytes = (uint32_t)room, .record_bytes = (uint32_t)store->record_bytes};
    memcpy(header.magic, magic, sizeof magic);
    if (n > TEXT_MAX - 8) TRY(status_set(STATUS_INVALID, "%s: too many weights to name them", store->path));
    bytes = mem_new(1, sizeof header + room);
    padded = bytes + sizeof header;
    memset(padded, ' ', room);
    memcpy(padded, text, n);
    header.crc = store->crc = crc_of_header(&header, padded);
    memcpy(bytes, &header, sizeof header);
    store->header_bytes = (int64_t)(sizeof header + room);
    TRY(whole_file_put(store->path, bytes, sizeof header + room));
done:
    free(bytes);
    free(text);
    json_decref(json);
    return status;
}

static enum status open_to_write(struct store *store) {
    if (store->fd >= 0) close(store->fd);
    store->fd = open(store->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    store->writable = true;
    if (store->fd >= 0) return STATUS_OK;
    return status_set(STATUS_IO, "%s: cannot open to write: %s", store->path, strerror(errno));
}

enum status store_create(const char *path, const struct settings *settings, int64_t first, int64_t samples,
                         struct store **out) {
    REQUIRE(first >= 0 && samples >= 0, "a range of samples");
    enum status status = STATUS_OK;
    struct store *store = NULL;
    TRY(store_new(path, &store));
    store->settings = settings_copy(settings);
    store->first = first;
    store->samples = samples;
    store->record_bytes = size_of_record(settings);
    if (!store->record_bytes) TRY(too_large(path));
    TRY(mem_buffer_new(store->record_bytes, "a sample's record", &store->buffer));
    TRY(write_header(store));
    TRY(open_to_write(store));
    *out = store;
    store = NULL;
done:
    store_free(store);
    return status;
}

static uint32_t crc_of_record(const struct store *store, const void *record) {
    return (uint32_t)crc32_z(store->crc, record, (size_t)store->record_bytes - sizeof(uint32_t));
}

static enum status write_at(const struct store *store, int64_t offset) {
    const char *bytes = store->buffer;
    for (int64_t done = 0; done < store->record_bytes;) {
        ssize_t written = pwrite(store->fd, bytes + done, (size_t)(store->record_bytes - done), offset + done);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            int error = written < 0 ? errno : ENOSPC;
            if (ftruncate(store->fd, offset) != 0) error = errno;
            return status_set(STATUS_IO, "%s: cannot write: %s", store->path, strerror(error));
        }
        done += written;
    }
    return STATUS_OK;
}

enum status store_append(struct store *store, const struct store_record *record) {
    REQUIRE(store->writable && store->n < store->samples, "a store that has room");
    REQUIRE(record->sample == store->first + store->n, "samples come one after the other");
    const struct settings *s = store->settings;
    char *to = store->buffer;
    memset(to, 0, (size_t)store->record_bytes);
    memcpy(to, &record->sample, 8);
    memcpy(to + 8, &record->loss, 8);
    memcpy(to + 16, record->norms, (size_t)s->n_groups * 8);
    if (s->n_directions) memcpy(to + 16 + 8 * s->n_groups, record->inner, (size_t)s->n_directions * 8);
    size_t sketch_bytes = (size_t)(s->n_groups * s->sketches * s->dim) * 4;
    if (sketch_bytes) memcpy(to + 16 + 8 * (s->n_groups + s->n_directions), record->sketches, sketch_bytes);
    uint32_t crc = crc_of_record(store, to);
    memcpy(to + store->record_bytes - sizeof crc, &crc, sizeof crc);
    enum status status = write_at(store, store->header_bytes + store->n * store->record_bytes);
    if (status == STATUS_OK) store->n++;
    return status;
}

enum status store_sync(struct store *store) {
    if (fsync(store->fd) == 0 || errno == EINVAL || errno == EROFS) return STATUS_OK;
    return status_set(STATUS_IO, "%s: cannot write: %s", store->path, strerror(errno));
}

// ---- reading ----

static enum status read_range(struct store *store, const json_t *json) {
    enum status status = STATUS_OK;
    TRY(json_get_integer(json, store->path, "first_sample", &store->first));
    TRY(json_get_integer(json, store->path, "samples", &store->samples));
    if (store->first < 0 || store->samples < 0 || store->first > (INT64_C(1) << 40) ||
        store->samples > (INT64_C(1) << 40))
        return status_set(STATUS_FORMAT, "%s: %lld samples from %lld on cannot be", store->path,
                          (long long)store->samples, (long long)store->first);
done:
    return status;
}

// The header and the size of a record; *left: bytes behind the header.
static enum status read_header(const char *path, struct store **out, int64_t *left) {
    enum status status = STATUS_OK;
    struct store *store = NULL;
    struct header header;
    json_t *json = NULL;
    void *text = NULL;
    int64_t bytes = 0;
    TRY(store_new(path, &store));
    TRY(file_open(path, &store->fd, &bytes));
    if (bytes < (int64_t)sizeof header) TRY(status_set(STATUS_FORMAT, "%s: is no store of samples", path));
    TRY(file_read_at(store->fd, path, 0, (char *)&header, sizeof header));
    if (memcmp(header.magic, magic, sizeof magic) != 0)
        TRY(status_set(STATUS_FORMAT, "%s: is no store of samples", path));
    store->header_bytes = (int64_t)sizeof header + header.text_bytes;
    if (header.text_bytes > TEXT_MAX || store->header_bytes > bytes || header.zero)
        TRY(status_set(STATUS_FORMAT, "%s: the header is cut short", path));
    TRY(mem_buffer_new((int64_t)header.text_bytes + 1, "the header", &text));
    TRY(file_read_at(store->fd, path, sizeof header, text, header.text_bytes));
    store->crc = crc_of_header(&header, text);
    if (store->crc != header.crc) TRY(status_set(STATUS_FORMAT, "%s: the header is damaged", path));
    TRY(json_read_buffer(text, header.text_bytes, path, &json));
    TRY(settings_read(json, path, &store->settings));
    TRY(read_range(store, json));
    store->record_bytes = size_of_record(store->settings);
    if (store->record_bytes == 0 || store->record_bytes != (int64_t)header.record_bytes)
        TRY(status_set(STATUS_FORMAT, "%s: records of %lld bytes do not fit the settings", path,
                       (long long)header.record_bytes));
    TRY(mem_buffer_new(store->record_bytes, "a sample's record", &store->buffer));
    *left = bytes - store->header_bytes;
    *out = store;
    store = NULL;
done:
    json_decref(json);
    mem_buffer_free(text);
    store_free(store);
    return status;
}

enum status store_open(const char *path, struct store **out) {
    enum status status = STATUS_OK;
    struct store *store = NULL;
    int64_t left = 0;
    TRY(read_header(path, &store, &left));
    store->n = left / store->record_bytes;
    if (store->n < store->samples)
        TRY(status_set(STATUS_INVALID, "%s: holds %lld of %lld samples: finish that run with --resume", path,
                       (long long)store->n, (long long)store->samples));
    if (left != store->samples * store->record_bytes)
        TRY(status_set(STATUS_FORMAT, "%s: is longer than its %lld samples", path, (long long)store->samples));
    *out = store;
    store = NULL;
done:
    store_free(store);
    return status;
}

enum status store_read(struct store *store, int64_t i, struct store_record *record) {
    REQUIRE(i >= 0 && i < store->n, "a record of the store");
    const struct settings *s = store->settings;
    char *bytes = store->buffer;
    enum status status =
        file_read_at(store->fd, store->path, store->header_bytes + i * store->record_bytes, bytes, store->record_bytes);
    if (status != STATUS_OK) return status;
    uint32_t crc = 0;
    int64_t sample = 0;
    memcpy(&crc, bytes + store->record_bytes - sizeof crc, sizeof crc);
    memcpy(&sample, bytes, 8);
    if (crc != crc_of_record(store, bytes))
        return status_set(STATUS_FORMAT, "%s: record %lld is damaged", store->path, (long long)i);
    if (sample != store->first + i)
        return status_set(STATUS_FORMAT, "%s: record %lld is of sample %lld instead of %lld", store->path, (long long)i,
                          (long long)sample, (long long)(store->first + i));
    record->sample = sample;
    memcpy(&record->loss, bytes + 8, 8);
    record->norms = (const double *)(const void *)(bytes + 16);
    record->inner = record->norms + s->n_groups;
    record->sketches = (const float *)(const void *)(record->inner + s->n_directions);
    return STATUS_OK;
}

// ---- going on ----

enum status store_resume(const char *path, const struct settings *settings, int64_t first, int64_t samples,
                         int64_t keep, struct store **out) {
    enum status status = STATUS_OK;
    struct store *store = NULL;
    struct store_record record;
    int64_t left = 0;
    TRY(read_header(path, &store, &left));
    TRY(settings_same(store->settings, path, settings, "this run"));
    if (store->first != first || store->samples != samples)
        TRY(status_set(STATUS_INVALID, "%s: is for %lld samples from %lld on, this run for %lld from %lld on", path,
                       (long long)store->samples, (long long)store->first, (long long)samples, (long long)first));
    if (keep > samples || left / store->record_bytes < keep)
        TRY(status_set(STATUS_FORMAT, "%s: holds %lld samples, %lld had been written: start anew with --force", path,
                       (long long)(left / store->record_bytes), (long long)keep));
    store->n = keep;
    for (int64_t i = 0; i < keep; i++) TRY(store_read(store, i, &record));
    TRY(open_to_write(store));
    if (ftruncate(store->fd, store->header_bytes + keep * store->record_bytes) != 0)
        TRY(status_set(STATUS_IO, "%s: cannot cut: %s", path, strerror(errno)));
    *out = store;
    store = NULL;
done:
    store_free(store);
    return status;
}
