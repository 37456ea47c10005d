#include "core/backend/backend.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

extern const struct backend_fns cpu_backend_fns;

#ifdef DQ_CUDA
extern const struct backend_fns cuda_backend_fns;
#endif

// One line per backend; what backend_add brings comes behind them.
enum { BACKENDS_MOST = 8 };
static const struct backend_fns *backends[BACKENDS_MOST] = {
    &cpu_backend_fns,
#ifdef DQ_CUDA
    &cuda_backend_fns,
#endif
};

static const struct backend_fns *find(const char *name) {
    for (size_t i = 0; i < BACKENDS_MOST && backends[i]; i++)
        if (strcmp(backends[i]->name, name) == 0) return backends[i];
    return NULL;
}

void backend_add(const struct backend_fns *fns) {
    REQUIRE(!find(fns->name), "a second backend of one name");
    size_t i = 0;
    while (i < BACKENDS_MOST && backends[i]) i++;
    REQUIRE(i < BACKENDS_MOST, "too many backends");
    backends[i] = fns;
}

enum status backend_check(const char *name) {
    const struct backend_fns *fns = find(name);
    if (fns) return fns->check ? fns->check() : STATUS_OK;
    return status_set(STATUS_UNSUPPORTED, "--device %s: built without %s; use --device cpu", name,
                      strcmp(name, "cuda") == 0 ? "CUDA" : "it");
}

enum status backend_open(const char *name, struct backend **out) {
    enum status status = backend_check(name);
    if (status != STATUS_OK) return status;
    struct backend *backend = mem_new(1, sizeof *backend);
    backend->fns = find(name);
    status = backend->fns->open(backend);
    if (status == STATUS_OK)
        *out = backend;
    else
        free(backend);
    return status;
}

void backend_close(struct backend *backend) {
    if (!backend) return;
    backend->fns->close(backend);
    free(backend);
}

static bool is_product(enum op op) {
    return op == OP_matmul || op == OP_sample_products || op == OP_attention || op == OP_attention_grad ||
           op == OP_attention_tangent || op == OP_attention_cached;
}

static bool has_bf16(const struct op_call *call) {
    for (int i = 0; i < OP_INPUTS; i++)
        if (call->in[i].rows && call->in[i].dtype == DTYPE_BF16) return true;
    for (int i = 0; i < OP_OUTPUTS; i++)
        if (call->out[i].rows && call->out[i].dtype == DTYPE_BF16) return true;
    return false;
}

enum status backend_run(struct backend *backend, const struct op_call *call) {
    const struct op_info *info = &op_infos[call->op];
    const char *wrong = info->check(call);
    REQUIRE(!wrong, wrong);
    if (!backend->fns->bf16 && has_bf16(call))
        return status_set(STATUS_UNSUPPORTED, "device %s computes in fp32 only, not in bf16 (op %s)",
                          backend->fns->name, info->name);
    struct op_cost cost = op_cost(call);
    backend->cost.flops += cost.flops;
    backend->cost.bytes += cost.bytes;
    if (is_product(call->op)) backend->product_flops += cost.flops;
    if (backend->dry) return STATUS_OK;
    op_kernel *kernel = backend->fns->kernels[call->op];
    if (!kernel)
        return status_set(STATUS_UNSUPPORTED, "device %s cannot run the op %s", backend->fns->name, info->name);
    return kernel(backend, call);
}

enum status backend_matrix_new(struct backend *backend, enum dtype dtype, int64_t rows, int64_t cols, const char *what,
                               struct view *out) {
    int64_t count, bytes;
    if (__builtin_mul_overflow(rows, cols, &count) || __builtin_mul_overflow(count, dtype_bytes(dtype), &bytes))
        return status_set(STATUS_NO_MEMORY, "out of memory: %s of %lld x %lld elements", what, (long long)rows,
                          (long long)cols);
    void *data = NULL;
    enum status status = backend->fns->buffer_new(backend, bytes, what, &data);
    if (status == STATUS_OK) *out = view_new(data, dtype, rows, cols);
    return status;
}

void backend_matrix_free(struct backend *backend, struct view *view) {
    if (view->data) backend->fns->buffer_free(backend, view->data);
    *view = (struct view){0};
}

static int64_t view_bytes(struct view v) {
    REQUIRE(view_is_contiguous(v), "only contiguous views are moved between host and device");
    return view_count(v) * dtype_bytes(v.dtype);
}

enum status backend_write(struct backend *backend, struct view to, const void *host) {
    return backend->fns->write(backend, to.data, host, view_bytes(to));
}

enum status backend_read(struct backend *backend, struct view from, void *host) {
    return backend->fns->read(backend, host, from.data, view_bytes(from));
}

enum status backend_sync(struct backend *backend) { return backend->fns->sync(backend); }

// Elements of no more than 4 bytes fit into the array of floats itself: from its start on the way down, at its end on the way up,
// so that an element is read before a float is written over it.
enum status backend_floats_write(struct backend *backend, struct view to, float *host) {
    REQUIRE(dtype_bytes(to.dtype) <= (int64_t)sizeof *host, "a float is not narrower than the element");
    if (to.dtype != DTYPE_F32) dtype_from_float(to.dtype, host, host, view_count(to));
    enum status status = backend_write(backend, to, host);
    return status == STATUS_OK ? backend_sync(backend) : status;
}

enum status backend_floats_read(struct backend *backend, struct view from, float *host) {
    REQUIRE(dtype_bytes(from.dtype) <= (int64_t)sizeof *host, "a float is not narrower than the element");
    int64_t n = view_count(from);
    char *packed = (char *)(host + n) - n * dtype_bytes(from.dtype);
    enum status status = backend_read(backend, from, packed);
    if (status == STATUS_OK) status = backend_sync(backend);
    if (status == STATUS_OK && from.dtype != DTYPE_F32) dtype_to_float(from.dtype, packed, host, n);
    return status;
}

int64_t backend_bytes_peak(const struct backend *backend) {
    return backend->fns->bytes_peak ? backend->fns->bytes_peak(backend) : -1;
}

int64_t backend_bytes_free(const struct backend *backend) {
    return backend->fns->bytes_free ? backend->fns->bytes_free(backend) : -1;
}
