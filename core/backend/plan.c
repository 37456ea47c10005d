#include "core/backend/backend.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

// Addresses that nobody may touch: each buffer starts where the last one ended.
struct block {
    char *at;
    int64_t bytes;
};

struct plan {
    struct block *blocks;
    int64_t n_blocks, now, peak;
    uintptr_t next;
};

static enum status plan_open(struct backend *backend) {
    struct plan *plan = mem_new(1, sizeof *plan);
    plan->next = (uintptr_t)1 << 40;
    backend->state = plan;
    return STATUS_OK;
}

static void plan_close(struct backend *backend) {
    struct plan *plan = backend->state;
    free(plan->blocks);
    free(plan);
}

static enum status plan_buffer_new(struct backend *backend, int64_t bytes, const char *what, void **out) {
    struct plan *plan = backend->state;
    if (bytes > INT64_MAX / 4 - plan->now)
        return status_set(STATUS_NO_MEMORY, "out of memory: %s needs %.1f GB", what, (double)bytes / 1e9);
    plan->blocks = mem_resize(plan->blocks, (size_t)plan->n_blocks + 1, sizeof *plan->blocks);
    plan->blocks[plan->n_blocks++] = (struct block){(char *)plan->next, bytes};
    *out = (char *)plan->next;
    plan->next += ((uintptr_t)bytes + 127) / 64 * 64;
    plan->now += bytes;
    if (plan->now > plan->peak) plan->peak = plan->now;
    return STATUS_OK;
}

static void plan_buffer_free(struct backend *backend, void *buffer) {
    struct plan *plan = backend->state;
    for (int64_t i = plan->n_blocks - 1; buffer && i >= 0; i--) {
        if (plan->blocks[i].at != buffer) continue;
        plan->now -= plan->blocks[i].bytes;
        plan->blocks[i] = plan->blocks[--plan->n_blocks];
        return;
    }
    REQUIRE(!buffer, "no such buffer");
}

static enum status plan_write(struct backend *backend, void *to, const void *host, int64_t bytes) {
    (void)backend, (void)to, (void)host, (void)bytes;
    return STATUS_OK;
}

static enum status plan_read(struct backend *backend, void *host, const void *from, int64_t bytes) {
    (void)backend, (void)from;
    if (bytes) memset(host, 0, (size_t)bytes);
    return STATUS_OK;
}

static enum status plan_sync(struct backend *backend) {
    (void)backend;
    return STATUS_OK;
}

static int64_t plan_bytes_peak(const struct backend *backend) {
    const struct plan *plan = backend->state;
    return plan->peak;
}

static enum status nothing(struct backend *backend, const struct op_call *call) {
    (void)backend, (void)call;
    return STATUS_OK;
}

static op_kernel *const kernels[OP_COUNT] = {
#define OP(name) nothing,
#include "core/ops/op_list.h"
#undef OP
};

#define PLAN_OF(device, ...)                                                                                           \
    {                                                                                                                  \
        .name = device, .plans_only = true, .open = plan_open, .close = plan_close, .buffer_new = plan_buffer_new,     \
        .buffer_free = plan_buffer_free, .write = plan_write, .read = plan_read, .sync = plan_sync,                    \
        .bytes_peak = plan_bytes_peak, .kernels = kernels, __VA_ARGS__                                                 \
    }

static const struct backend_fns plans[] = {PLAN_OF("cpu", .host_memory = true), PLAN_OF("cuda", .bf16 = true)};

enum status backend_plan(const char *device, struct backend **out) {
    // A device of tests is planned like the one it stands for.
    const struct backend_fns *fns = &plans[strncmp(device, "cuda", 4) == 0];
    struct backend *backend = mem_new(1, sizeof *backend);
    backend->fns = fns;
    enum status status = fns->open(backend);
    if (status == STATUS_OK)
        *out = backend;
    else
        free(backend);
    return status;
}
