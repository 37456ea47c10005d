// device.cuh for the emulated device. Allocations are multiples of 64 bytes; what is left between an allocation's last byte and
// the page's end is poisoned under AddressSanitizer, as is the page before its first byte, and checked for writes without it.
#include "tests/cuda_host/device_memory.h"

#include "core/base/mem.h"
#include "core/cuda/device.cuh"

#include <stdlib.h>
#include <sys/mman.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

enum { PAGE_BYTES = 4096, ALIGNMENT = 64, SLACK_BYTE = 0xA5 };

struct allocation {
    char *map, *first, *end; // data from `first` up to `end`; pages from `map` + PAGE_BYTES on
    int64_t pages_bytes;
    struct allocation *next;
};

struct device {
    char unused;
};

static struct allocation *allocations;
static int opened;
static int64_t bytes_held, bytes_most;

static char *pages_of(const struct allocation *a) { return a->map + PAGE_BYTES; }

static void protect(const struct allocation *a, int access) {
    REQUIRE(mprotect(pages_of(a), (size_t)a->pages_bytes, access) == 0, "device memory cannot be protected");
}

static void protect_all(int access) {
    for (struct allocation *a = allocations; a; a = a->next) protect(a, access);
}

void device_memory_open(void) {
    if (opened++ == 0) protect_all(PROT_READ | PROT_WRITE);
}

void device_memory_close(void) {
    if (--opened == 0) protect_all(PROT_NONE);
}

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The bytes around the data.
static void slack_fill(const struct allocation *a) {
    char *pages = pages_of(a), *pages_end = pages + a->pages_bytes;
    memset(pages, SLACK_BYTE, (size_t)(a->first - pages));
    memset(a->end, SLACK_BYTE, (size_t)(pages_end - a->end));
    ASAN_POISON_MEMORY_REGION(pages, (size_t)(a->first - pages));
    ASAN_POISON_MEMORY_REGION(a->end, (size_t)(pages_end - a->end));
}

static void slack_check(const struct allocation *a) {
    ASAN_UNPOISON_MEMORY_REGION(pages_of(a), (size_t)a->pages_bytes);
    for (const char *at = pages_of(a); at < pages_of(a) + a->pages_bytes; at++) {
        if (at == a->first) at = a->end;
        if (at == pages_of(a) + a->pages_bytes) break;
        REQUIRE((unsigned char)*at == SLACK_BYTE, "a kernel wrote outside an allocation of device memory");
    }
}

static struct allocation **find(const void *at, int64_t bytes) {
    struct allocation **a = &allocations;
    while (*a && !((const char *)at >= (*a)->first && (const char *)at < (*a)->end)) a = &(*a)->next;
    REQUIRE(*a, "no memory of the device");
    REQUIRE((const char *)at + bytes <= (*a)->end, "more than the allocation holds");
    return a;
}

extern "C" enum status device_check(void) { return STATUS_OK; }

extern "C" enum status device_open(struct device **out) {
    *out = (struct device *)mem_new(1, sizeof **out);
    return STATUS_OK;
}

extern "C" void device_close(struct device *device) { free(device); }

extern "C" enum status device_alloc(struct device *device, int64_t bytes, const char *what, void **out) {
    (void)device;
    int64_t size = bytes > 0 ? bytes : 1, span = round_up(size, ALIGNMENT), pages = round_up(span, PAGE_BYTES);
    void *map = mmap(NULL, (size_t)pages + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return status_set(STATUS_NO_MEMORY, "out of memory: %s needs %lld bytes", what, (long long)bytes);
    struct allocation *a = (struct allocation *)mem_new(1, sizeof *a);
    a->map = (char *)map, a->pages_bytes = pages, a->next = allocations;
    a->first = pages_of(a) + pages - span, a->end = a->first + size;
    allocations = a;
    bytes_held += size;
    if (bytes_held > bytes_most) bytes_most = bytes_held;
    protect(a, PROT_READ | PROT_WRITE);
    memset(a->first, 0xFF, (size_t)size);
    slack_fill(a);
    if (!opened) protect(a, PROT_NONE);
    *out = a->first;
    return STATUS_OK;
}

extern "C" void device_free(struct device *device, void *memory) {
    (void)device;
    if (!memory) return;
    struct allocation **at = find(memory, 0), *a = *at;
    REQUIRE(memory == a->first, "not the start of an allocation");
    protect(a, PROT_READ);
    slack_check(a);
    *at = a->next;
    bytes_held -= a->end - a->first;
    REQUIRE(munmap(a->map, (size_t)a->pages_bytes + 2 * PAGE_BYTES) == 0, "device memory cannot be freed");
    free(a);
}

extern "C" enum status device_write(struct device *device, void *to, const void *host, int64_t bytes) {
    (void)device;
    if (!bytes) return STATUS_OK;
    struct allocation *a = *find(to, bytes);
    protect(a, PROT_READ | PROT_WRITE);
    memcpy(to, host, (size_t)bytes);
    protect(a, PROT_NONE);
    return STATUS_OK;
}

extern "C" enum status device_read(struct device *device, void *host, const void *from, int64_t bytes) {
    (void)device;
    if (!bytes) return STATUS_OK;
    struct allocation *a = *find(from, bytes);
    protect(a, PROT_READ);
    memcpy(host, from, (size_t)bytes);
    protect(a, PROT_NONE);
    return STATUS_OK;
}

extern "C" int64_t device_bytes_free(const struct device *device) {
    (void)device;
    return -1;
}

extern "C" int64_t device_bytes_peak(const struct device *device) {
    (void)device;
    return bytes_most;
}

extern "C" enum status device_sync(struct device *device) {
    (void)device;
    return STATUS_OK;
}
