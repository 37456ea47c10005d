#include "core/cpu/cpu.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <string.h>
#include <unistd.h>

extern const struct backend_fns cpu_backend_fns;

static op_kernel *const kernels[OP_COUNT] = {
#define OP(name) cpu_##name,
#include "core/ops/op_list.h"
#undef OP
};

// Products are cut into tiles by our own loops; BLAS threads inside them would only compete.
static enum status cpu_open(struct backend *backend) {
    (void)backend;
    openblas_set_num_threads(1);
    return STATUS_OK;
}

static void cpu_close(struct backend *backend) { (void)backend; }

static enum status cpu_buffer_new(struct backend *backend, int64_t bytes, const char *what, void **out) {
    (void)backend;
    return mem_buffer_new(bytes, what, out);
}

static void cpu_buffer_free(struct backend *backend, void *buffer) {
    (void)backend;
    mem_buffer_free(buffer);
}

static enum status cpu_move(struct backend *backend, void *to, const void *from, int64_t bytes) {
    (void)backend;
    if (bytes) memcpy(to, from, (size_t)bytes);
    return STATUS_OK;
}

static enum status cpu_sync(struct backend *backend) {
    (void)backend;
    return STATUS_OK;
}

static int64_t cpu_bytes_peak(const struct backend *backend) {
    (void)backend;
    return mem_buffer_bytes_peak();
}

static int64_t cpu_bytes_free(const struct backend *backend) {
    (void)backend;
    int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? pages * page : -1;
}

const struct backend_fns cpu_backend_fns = {
    .name = "cpu",
    .host_memory = true,
    .open = cpu_open,
    .close = cpu_close,
    .buffer_new = cpu_buffer_new,
    .buffer_free = cpu_buffer_free,
    .write = cpu_move,
    .read = cpu_move,
    .sync = cpu_sync,
    .bytes_peak = cpu_bytes_peak,
    .bytes_free = cpu_bytes_free,
    .kernels = kernels,
};
