// Bytes that grow. {0} is an empty one; what holds int32_t or larger is aligned, since the memory comes from
// mem_buffer_new.
//
//     struct buffer text = {0};
//     TRY(buffer_append(&text, "abc", 3, "the decoded text"));
//   done:
//     buffer_free(&text);
#ifndef DQ_DATA_BUFFER_H
#define DQ_DATA_BUFFER_H

#include "core/base/status.h"

#include <stdint.h>

struct buffer {
    char *bytes; // may be NULL while empty
    int64_t n_bytes, capacity;
};

// Room for `more` bytes behind what is there. `what` names the buffer in the message of STATUS_NO_MEMORY.
enum status buffer_reserve(struct buffer *buffer, int64_t more, const char *what);
enum status buffer_append(struct buffer *buffer, const void *bytes, int64_t n_bytes, const char *what);
void buffer_free(struct buffer *buffer);

#endif
