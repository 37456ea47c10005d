// How functions of this toolkit fail.
//
// Two kinds of failure, never mixed:
//   1. The world failed (file, format, memory, device, impossible request): the function returns a status other
//      than STATUS_OK and leaves a sentence in a thread-local record. Only main() prints it.
//   2. The caller is wrong (shapes that cannot be, NULL where a value is needed): REQUIRE prints and aborts.
//
// A function that acquires things has one label `done`, where it frees what it still owns:
//
//     enum status status = STATUS_OK;
//     struct file *file = NULL;
//     TRY(file_open(&file, path));
//     TRY(file_read(file, out));
//   done:
//     file_close(file);          // accepts NULL
//     return status;
//
// Output parameters come last and are written only on STATUS_OK.
#ifndef DQ_CORE_BASE_STATUS_H
#define DQ_CORE_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

enum status {
    STATUS_OK = 0,
    STATUS_IO,          // a file could not be read or written
    STATUS_FORMAT,      // a file was read but is not what it should be
    STATUS_NO_MEMORY,   // a large buffer could not be had
    STATUS_UNSUPPORTED, // a sound request that this build or backend cannot serve
    STATUS_INVALID,     // a request that makes no sense for this input
    STATUS_DEVICE,      // the accelerator failed
};

// Records "what, where, what to do" for the calling thread and returns `code`, so that it can be returned directly.
// A message longer than 1 KB is cut; control characters and invalid bytes in it are shown as '?', so that a hostile
// file name or tensor name cannot write to the terminal. `code` must not be STATUS_OK.
enum status status_set(enum status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The sentence of the last failure in this thread, one line without newline; "" if there was none.
const char *status_message(void);

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        status = (call);                                                                                               \
        if (status != STATUS_OK) goto done;                                                                            \
    } while (0)

// Aborts with file, line, condition and text. Always compiled in.
#define REQUIRE(condition, text)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) require_failed(__FILE__, __LINE__, #condition, text);                                        \
    } while (0)

__attribute__((noreturn)) void require_failed(const char *file, int line, const char *condition, const char *text);

#ifdef __cplusplus
}
#endif
#endif
