#include "core/base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static void *must(void *p) {
    REQUIRE(p, "out of memory for a small allocation");
    return p;
}

void *mem_new(size_t n, size_t size) { return must(calloc(n ? n : 1, size ? size : 1)); }

void *mem_resize(void *p, size_t n, size_t size) {
    REQUIRE(size == 0 || n <= SIZE_MAX / size, "size overflows");
    size_t bytes = n * size;
    return must(realloc(p, bytes ? bytes : 1));
}

char *mem_string(const char *s) { return must(strdup(s)); }

char *mem_string_n(const char *s, size_t n) {
    char *copy = mem_new(n + 1, 1);
    memcpy(copy, s, n);
    return copy;
}

char *mem_format(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int n = vasprintf(&text, format, args);
    va_end(args);
    REQUIRE(n >= 0, "out of memory for a formatted string");
    return text;
}

// A buffer is preceded by one aligned block that holds its size.
enum { BUFFER_ALIGN = 64 };
static _Atomic int64_t buffer_bytes, buffer_bytes_peak;
static _Atomic int64_t fail_at = -1;

// Asks for huge pages within a large block: a step walks through tens of megabytes, more than the processor's table of
// small pages covers. Best effort.
static void ask_for_huge_pages(char *block, size_t bytes) {
    enum { SMALL_PAGE = 4096, LARGE = 4 << 20 };
    if (bytes < LARGE) return;
    char *first = block + (SMALL_PAGE - (uintptr_t)block % SMALL_PAGE) % SMALL_PAGE;
    (void)madvise(first, (size_t)(block + bytes - first) / SMALL_PAGE * SMALL_PAGE, MADV_HUGEPAGE);
}

enum status mem_buffer_new(int64_t bytes, const char *what, void **out) {
    REQUIRE(bytes >= 0, "negative size");
    int64_t countdown = atomic_load(&fail_at);
    if (countdown >= 0) atomic_store(&fail_at, countdown == 0 ? -1 : countdown - 1);
    char *block = NULL;
    if (countdown != 0 && bytes <= INT64_MAX - 2 * BUFFER_ALIGN) {
        size_t padded = ((size_t)bytes + 2 * BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
        block = aligned_alloc(BUFFER_ALIGN, padded);
    }
    if (!block) return status_set(STATUS_NO_MEMORY, "out of memory: %s needs %.1f MB", what, (double)bytes / 1e6);
    ask_for_huge_pages(block, (size_t)bytes);
    *(int64_t *)(void *)block = bytes;
    int64_t now = atomic_fetch_add(&buffer_bytes, bytes) + bytes;
    int64_t peak = atomic_load(&buffer_bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&buffer_bytes_peak, &peak, now)) {}
    *out = block + BUFFER_ALIGN;
    return STATUS_OK;
}

void mem_buffer_free(void *p) {
    if (!p) return;
    char *block = (char *)p - BUFFER_ALIGN;
    atomic_fetch_sub(&buffer_bytes, *(int64_t *)(void *)block);
    free(block);
}

int64_t mem_buffer_bytes(void) { return atomic_load(&buffer_bytes); }
int64_t mem_buffer_bytes_peak(void) { return atomic_load(&buffer_bytes_peak); }

int64_t mem_resident_peak(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (int64_t)usage.ru_maxrss * 1024;
}

void mem_fail_at(int64_t k) { atomic_store(&fail_at, k); }

// Chunks are linked from the newest; a reset keeps the largest one.
struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

struct arena {
    struct chunk *chunks;
};

struct arena *arena_new(void) {
    return mem_new(1, sizeof(struct arena));
}

void arena_free(struct arena *arena) {
    if (!arena) return;
    for (struct chunk *c = arena->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(arena);
}

void *arena_take(struct arena *arena, size_t n, size_t size) {
    REQUIRE(size == 0 || n <= (SIZE_MAX - 64) / size, "size overflows");
    size_t bytes = (n * size + 15) / 16 * 16;
    struct chunk *c = arena->chunks;
    if (!c || c->size - c->used < bytes) {
        size_t want = c ? 2 * c->size : 4096;
        if (want < bytes) want = bytes;
        struct chunk *fresh = must(malloc(sizeof(struct chunk) + want));
        *fresh = (struct chunk){.next = c, .size = want};
        arena->chunks = c = fresh;
    }
    void *p = c->bytes + c->used;
    c->used += bytes;
    return memset(p, 0, bytes);
}

void arena_reset(struct arena *arena) {
    struct chunk *keep = arena->chunks;
    if (!keep) return;
    for (struct chunk *c = keep->next, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    keep->next = NULL;
    keep->used = 0;
}
