#include "bench/device_speed.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct device_shape shapes[] = {
    {.name = "phi3-mini",
     .config = {.architecture = ARCHITECTURE_PHI3,
                .hidden = 3072,
                .intermediate = 8192,
                .layers = 32,
                .heads = 32,
                .kv_heads = 32,
                .head_dim = 96,
                .vocab = 32064,
                .max_positions = 4096,
                .rms_eps = 1e-5,
                .rope = {.theta = 10000},
                .bos = 1},
     .batch = 8,
     .seq_len = 2048,
     .long_bytes = INT64_C(4) << 30,
     .square = 8192,
     .factor_size = 3072},
    {.name = "tiny",
     .config = {.architecture = ARCHITECTURE_PHI3,
                .hidden = 96,
                .intermediate = 256,
                .layers = 2,
                .heads = 3,
                .kv_heads = 3,
                .head_dim = 32,
                .vocab = 512,
                .max_positions = 256,
                .rms_eps = 1e-5,
                .rope = {.theta = 10000},
                .bos = 1},
     .batch = 2,
     .seq_len = 64,
     .long_bytes = 4 << 20,
     .square = 128,
     .factor_size = 48},
};

const struct device_shape *device_shape_find(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0) return &shapes[i];
    return NULL;
}

enum status device_speed_open(const struct device_speed_options *options, struct device_speed **out) {
    struct device_speed *bench = mem_new(1, sizeof *bench);
    bench->options = *options;
    enum status status = backend_open(options->device, &bench->backend);
    if (status != STATUS_OK) {
        free(bench);
        return status;
    }
    bench->dtype = bench->backend->fns->bf16 ? DTYPE_BF16 : DTYPE_F32;
    *out = bench;
    return STATUS_OK;
}

void device_speed_close(struct device_speed *bench) {
    if (!bench) return;
    device_matrices_free(bench);
    backend_close(bench->backend);
    free(bench);
}

// ---- matrices ----

enum { BLOCK = 1 << 18 }; // numbers that are repeated

static enum status matrix_new(struct device_speed *bench, enum dtype dtype, int64_t rows, int64_t cols,
                              struct view *out) {
    REQUIRE(bench->n_held < DEVICE_VIEWS_MAX, "too many matrices in one measurement");
    struct view *v = &bench->held[bench->n_held];
    enum status status = backend_matrix_new(bench->backend, dtype, rows, cols, "operand", v);
    if (status != STATUS_OK) return status;
    bench->n_held++;
    bench->made++;
    *out = *v;
    return STATUS_OK;
}

enum status device_matrix(struct device_speed *bench, enum dtype dtype, int64_t rows, int64_t cols, double mean,
                          double deviation, struct view *out) {
    enum status status = STATUS_OK;
    struct view v;
    void *floats = NULL, *host = NULL;
    TRY(matrix_new(bench, dtype, rows, cols, &v));
    // A number of rows whose size has no simple ratio to the block; the first numbers differ from matrix to matrix.
    int64_t at_once = BLOCK / cols > 1 ? BLOCK / cols : 1, n = (at_once < rows ? at_once : rows) * cols;
    struct rng rng = {.seed = bench->made, .stream = RNG_TEST};
    TRY(mem_buffer_new(n * 4, "numbers", &floats));
    TRY(mem_buffer_new(n * dtype_bytes(dtype), "numbers", &host));
    for (int64_t i = 0; i < n; i++) ((float *)floats)[i] = (float)(mean + deviation * rng_normal(rng, (uint64_t)i));
    dtype_from_float(dtype, floats, host, n);
    for (int64_t row = 0; row < rows; row += at_once) {
        int64_t n_rows = rows - row < at_once ? rows - row : at_once;
        TRY(backend_write(bench->backend, view_rows(v, row, n_rows), host));
    }
    TRY(backend_sync(bench->backend));
    *out = v;
done:
    mem_buffer_free(floats);
    mem_buffer_free(host);
    return status;
}

enum status device_integers(struct device_speed *bench, int64_t rows, int64_t below, struct view *out) {
    enum status status = STATUS_OK;
    struct view v;
    int32_t *host = mem_new((size_t)rows, sizeof *host);
    TRY(matrix_new(bench, DTYPE_I32, rows, 1, &v));
    struct rng rng = {.seed = bench->made, .stream = RNG_TEST};
    for (int64_t i = 0; i < rows; i++) host[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % (uint32_t)below);
    TRY(backend_write(bench->backend, v, host));
    TRY(backend_sync(bench->backend));
    *out = v;
done:
    free(host);
    return status;
}

void device_matrices_free(struct device_speed *bench) {
    for (int i = 0; i < bench->n_held; i++) backend_matrix_free(bench->backend, &bench->held[i]);
    bench->n_held = 0;
}

// ---- time ----

enum { BATCHES = 7, CALLS_MOST = 10000 };

static enum status calls_seconds(struct backend *backend, const struct op_call *call, int calls, double *seconds) {
    enum status status = STATUS_OK;
    double start = clock_seconds();
    for (int i = 0; i < calls; i++) TRY(backend_run(backend, call));
    TRY(backend_sync(backend));
    *seconds = (clock_seconds() - start) / calls;
done:
    return status;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The first two calls load code and choose algorithms; the third says how many make a batch.
enum status device_seconds(struct device_speed *bench, const struct op_call *call, double *seconds) {
    enum status status = STATUS_OK;
    double times[BATCHES], one;
    TRY(calls_seconds(bench->backend, call, 2, &one));
    TRY(calls_seconds(bench->backend, call, 1, &one));
    double wanted = bench->options.seconds / BATCHES / fmax(one, 1e-7);
    int calls = (int)fmin(fmax(wanted, 1), CALLS_MOST), batches = one > bench->options.seconds ? 3 : BATCHES;
    for (int i = 0; i < batches; i++) TRY(calls_seconds(bench->backend, call, calls, &times[i]));
    qsort(times, (size_t)batches, sizeof *times, compare);
    *seconds = times[batches / 2];
done:
    return status;
}

// ---- what the device can do ----

struct product {
    const char *name;
    int64_t rows, out, in; // y [rows, out] = x [rows, in] w [out, in]^T
};

static enum status product_time(struct device_speed *bench, const struct product *p, const char *form,
                                struct op_call call, double *best) {
    double seconds;
    enum status status = device_seconds(bench, &call, &seconds);
    if (status != STATUS_OK) return status;
    double flops = op_cost(&call).flops / seconds;
    printf("{\"case\": \"product\", \"device\": \"%s\", \"shape\": \"%s\", \"product\": \"%s\", \"form\": \"%s\", "
           "\"dtype\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"seconds\": %.9f, \"tflops\": %.4f}\n",
           bench->options.device, bench->options.shape->name, p->name, form, dtype_name(call.in[0].dtype),
           (long long)p->rows, (long long)p->out, (long long)p->in, seconds, 1e-12 * flops);
    *best = fmax(*best, flops);
    return STATUS_OK;
}

// The three products of a linear layer: forward, gradient of its input, gradient of its weight (fp32).
static enum status product_run(struct device_speed *bench, const struct product *p, enum dtype dtype, double *best) {
    enum status status = STATUS_OK;
    struct view x, w, y, w_grad;
    TRY(device_matrix(bench, dtype, p->rows, p->in, 0, 1, &x));
    TRY(device_matrix(bench, dtype, p->out, p->in, 0, 1 / sqrt((double)p->in), &w));
    TRY(device_matrix(bench, dtype, p->rows, p->out, 0, 1, &y));
    TRY(device_matrix(bench, DTYPE_F32, p->out, p->in, 0, 1, &w_grad));
    struct op_call forward = {.op = OP_matmul, .in = {x, w}, .out = {y}, .params.matmul.transpose_b = true};
    struct op_call weight = {.op = OP_matmul, .in = {y, x}, .out = {w_grad}, .params.matmul.transpose_a = true};
    TRY(product_time(bench, p, "weight gradient", weight, best));
    TRY(product_time(bench, p, "input gradient", (struct op_call){.op = OP_matmul, .in = {y, w}, .out = {x}}, best));
    TRY(product_time(bench, p, "forward", forward, best));
done:
    device_matrices_free(bench);
    return status;
}

static enum status copy_run(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct view a, y;
    int64_t cols = 4096, rows = bench->options.shape->long_bytes / 4 / cols;
    double seconds;
    TRY(device_matrix(bench, DTYPE_F32, rows, cols, 0, 1, &a));
    TRY(device_matrix(bench, DTYPE_F32, rows, cols, 0, 1, &y));
    TRY(device_seconds(bench, &(struct op_call){.op = OP_copy, .in = {a}, .out = {y}}, &seconds));
    bench->peak.bytes = 8.0 * (double)(rows * cols) / seconds;
done:
    device_matrices_free(bench);
    return status;
}

enum status device_speed_products(struct device_speed *bench) {
    enum status status = STATUS_OK;
    const struct device_shape *s = bench->options.shape;
    const struct transformer_config *c = &s->config;
    int64_t tokens = s->batch * s->seq_len;
    const struct product products[] = {
        {"qkv", tokens, (c->heads + 2 * c->kv_heads) * c->head_dim, c->hidden},
        {"o", tokens, c->hidden, c->heads * c->head_dim},
        {"gate | up", tokens, 2 * c->intermediate, c->hidden},
        {"down", tokens, c->hidden, c->intermediate},
        {"square", s->square, s->square, s->square},
    };
    TRY(copy_run(bench));
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        TRY(product_run(bench, &products[i], DTYPE_F32, &bench->peak.f32_flops));
        if (bench->dtype == DTYPE_BF16) TRY(product_run(bench, &products[i], DTYPE_BF16, &bench->peak.bf16_flops));
    }
    printf("{\"case\": \"peak\", \"device\": \"%s\", \"shape\": \"%s\", \"bf16_tflops\": %.4f, \"f32_tflops\": %.4f, "
           "\"copy_gbytes_per_second\": %.3f}\n",
           bench->options.device, s->name, 1e-12 * bench->peak.bf16_flops, 1e-12 * bench->peak.f32_flops,
           1e-9 * bench->peak.bytes);
    fflush(stdout);
done:
    return status;
}
