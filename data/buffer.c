#include "data/buffer.h"

#include "core/base/mem.h"

#include <string.h>

enum status buffer_reserve(struct buffer *buffer, int64_t more, const char *what) {
    REQUIRE(more >= 0, "negative size");
    if (more <= buffer->capacity - buffer->n_bytes) return STATUS_OK;
    if (more > INT64_MAX / 4 - buffer->n_bytes) return status_set(STATUS_NO_MEMORY, "%s is too large", what);
    int64_t capacity = buffer->capacity * 2 > buffer->n_bytes + more ? buffer->capacity * 2 : buffer->n_bytes + more;
    if (capacity < 256) capacity = 256;
    void *bytes = NULL;
    enum status status = mem_buffer_new(capacity, what, &bytes);
    if (status != STATUS_OK) return status;
    if (buffer->n_bytes) memcpy(bytes, buffer->bytes, (size_t)buffer->n_bytes);
    mem_buffer_free(buffer->bytes);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return STATUS_OK;
}

enum status buffer_append(struct buffer *buffer, const void *bytes, int64_t n_bytes, const char *what) {
    enum status status = buffer_reserve(buffer, n_bytes, what);
    if (status != STATUS_OK) return status;
    if (n_bytes) memcpy(buffer->bytes + buffer->n_bytes, bytes, (size_t)n_bytes);
    buffer->n_bytes += n_bytes;
    return STATUS_OK;
}

void buffer_free(struct buffer *buffer) {
    mem_buffer_free(buffer->bytes);
    *buffer = (struct buffer){0};
}
