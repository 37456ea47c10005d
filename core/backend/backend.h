// Where ops run: one table of functions per device.
//
//     struct backend *backend = NULL;
//     TRY(backend_open("cpu", &backend));
//     TRY(backend_run(backend, &(struct op_call){.op = OP_copy, .in = {a}, .out = {y}}));
//
// backend_run is the only caller of kernels: it checks the call (a wrong one aborts, it is the caller's mistake), counts
// its cost, and runs it. Work is queued in order on one stream; backend_read and backend_sync wait for it.
//
// A new backend is one folder with one `const struct backend_fns`, one line in backend.c. An op it lacks has a NULL
// kernel and running it returns STATUS_UNSUPPORTED with the op's name.
#ifndef DQ_CORE_BACKEND_BACKEND_H
#define DQ_CORE_BACKEND_BACKEND_H

#include "core/ops/op.h"

#ifdef __cplusplus
extern "C" {
#endif

struct backend;

typedef enum status op_kernel(struct backend *backend, const struct op_call *call);

struct backend_fns {
    const char *name;
    bool host_memory; // buffers can be read and written by host code between ops
    bool bf16;        // kernels take BF16 where core/ops/op.h allows it
    bool plans_only;  // backend_plan: there are no numbers, neither in buffers nor to be had from a tensor source
    enum status (*check)(void); // STATUS_DEVICE when the device is not there; NULL for one that always is
    enum status (*open)(struct backend *backend);
    void (*close)(struct backend *backend);
    enum status (*buffer_new)(struct backend *backend, int64_t bytes, const char *what, void **out);
    void (*buffer_free)(struct backend *backend, void *buffer);
    enum status (*write)(struct backend *backend, void *to, const void *host, int64_t bytes);
    enum status (*read)(struct backend *backend, void *host, const void *from, int64_t bytes);
    enum status (*sync)(struct backend *backend);
    int64_t (*bytes_peak)(const struct backend *backend);
    int64_t (*bytes_free)(const struct backend *backend);
    op_kernel *const *kernels; // [OP_COUNT]
};

struct backend {
    const struct backend_fns *fns;
    void *state;          // the backend's own
    bool dry;             // plan only: ops are checked and counted, nothing is computed
    struct op_cost cost;  // sum over all calls
    double product_flops; // the part of cost.flops in products and attention
};

// Makes a backend known that no line of backend.c names, such as the emulated device of tests. Before threads start.
void backend_add(const struct backend_fns *fns);

// STATUS_UNSUPPORTED for a device this build does not have, STATUS_DEVICE for one that is not there.
enum status backend_check(const char *name);
enum status backend_open(const char *name, struct backend **out);
void backend_close(struct backend *backend); // accepts NULL

// A backend like `device`, which need not be there, without memory or numbers: buffers are counted, ops are checked and
// counted, host memory gets zeros. What runs on it needs as much memory as it would on the device (backend_bytes_peak).
enum status backend_plan(const char *device, struct backend **out);

enum status backend_run(struct backend *backend, const struct op_call *call);

// A new contiguous buffer of the backend, 64-byte aligned, not zeroed. `what` names it in messages.
enum status backend_matrix_new(struct backend *backend, enum dtype dtype, int64_t rows, int64_t cols, const char *what,
                               struct view *out);
void backend_matrix_free(struct backend *backend, struct view *view); // clears the view; accepts an empty one

// Contiguous views only; host arrays have the dtype of the view.
enum status backend_write(struct backend *backend, struct view to, const void *host);
enum status backend_read(struct backend *backend, struct view from, void *host);
enum status backend_sync(struct backend *backend);

// The same for host floats, whatever float dtype the view has; waits. `host` [elements] is where backend_floats_write converts:
// its numbers are lost.
enum status backend_floats_write(struct backend *backend, struct view to, float *host);
enum status backend_floats_read(struct backend *backend, struct view from, float *host);

// The most bytes that buffers of the device have held at once; -1 where the backend does not know.
int64_t backend_bytes_peak(const struct backend *backend);
// What buffers could still take; on the CPU the machine's memory, whoever uses it. -1 where the backend does not know.
int64_t backend_bytes_free(const struct backend *backend);

#ifdef __cplusplus
}
#endif
#endif
