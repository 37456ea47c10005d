// Host memory.
//
// Small things (structs, names, lists) come from mem_new and friends, which abort when memory is out: nothing is gained
// from unwinding a failed 200-byte allocation. Tensors and other buffers whose size the user's input decides come
// from mem_buffer_new, which returns STATUS_NO_MEMORY. Arenas hold what lives for one step.
#ifndef DQ_CORE_BASE_MEM_H
#define DQ_CORE_BASE_MEM_H

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Zeroed memory for n objects of `size` bytes. Aborts when memory is out or n * size overflows. Free with free().
void *mem_new(size_t n, size_t size) __attribute__((malloc, alloc_size(1, 2)));

// realloc() for n objects that aborts when memory is out; new space is not zeroed.
void *mem_resize(void *p, size_t n, size_t size);

// A copy of a string, or of its first n bytes with a terminating zero.
char *mem_string(const char *s);
char *mem_string_n(const char *s, size_t n);

// printf into a new string.
char *mem_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

// A buffer of `bytes` bytes aligned to 64, not zeroed; 0 bytes give a valid pointer. `what` names it in the message.
// Free with mem_buffer_free (accepts NULL).
enum status mem_buffer_new(int64_t bytes, const char *what, void **out);
void mem_buffer_free(void *p);

// Bytes held in buffers now, and the most since the start of the process.
int64_t mem_buffer_bytes(void);
int64_t mem_buffer_bytes_peak(void);

// Largest resident set of the process so far in bytes (getrusage).
int64_t mem_resident_peak(void);

// Fault injection for tests: the k-th buffer allocation from now on fails (k = 0: the next); -1 turns it off.
void mem_fail_at(int64_t k);

// Memory freed all at once. Objects are zeroed and aligned to 16 bytes.
struct arena;
struct arena *arena_new(void);
void arena_free(struct arena *arena); // accepts NULL
void *arena_take(struct arena *arena, size_t n, size_t size);
void arena_reset(struct arena *arena); // forgets all objects, keeps the memory

#ifdef __cplusplus
}
#endif
#endif
