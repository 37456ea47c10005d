// What the tests of broken input share: files written from a header's text, and the judgement of a message.
#ifndef DQ_TESTS_FAULTS_HOSTILE_H
#define DQ_TESTS_FAULTS_HOSTILE_H

#include "tests/files.h"

struct file_case {
    const char *name;
    const char *header;   // the JSON
    int64_t n_data;       // bytes behind it, all zero
    const char *says;     // part of the message
    uint64_t claims;      // header length the file gives; 0 = the true one
    int64_t header_bytes; // 0 = strlen(header)
};

// The value of a tensor of four floats.
#define T4(offsets) "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":" offsets "}"

static inline void case_write(const char *path, const struct file_case *c) {
    uint64_t n = (uint64_t)(c->header_bytes ? (size_t)c->header_bytes : strlen(c->header)),
             claims = c->claims ? c->claims : n;
    unsigned char *bytes = mem_new(8 + n + (size_t)c->n_data, 1);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(claims >> (8 * i));
    memcpy(bytes + 8, c->header, n);
    files_put(path, bytes, 8 + n + (size_t)c->n_data);
    free(bytes);
}

// The message is there, in one line, names the file and holds `says`.
static inline void message_check(const char *name, enum status got, enum status want, const char *file,
                                 const char *says) {
    const char *message = status_message();
    if (got == want && message[0] && !strchr(message, '\n') && strstr(message, file) &&
        (!says || strstr(message, says)))
        return;
    print_error("%s: status %d, want %d with '%s' and '%s'; message: %s\n", name, (int)got, (int)want, file,
                says ? says : "", message);
    fail();
}

#endif
