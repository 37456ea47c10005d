#include "spectra/planted.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PLANTED_SCALE RNG_STREAM(96) // s of each sample

enum { BATCH = 64 };

// The sum over samples comes from the rounded rows, as that of a network does.
static void row_put(const double *g, double scale, int64_t n, float *row, double *sum) {
    for (int64_t i = 0; i < n; i++) {
        row[i] = (float)(scale * g[i]);
        sum[i] += (double)row[i];
    }
}

static double scale_of(const struct planted_options *o, int64_t sample) {
    double z = rng_normal((struct rng){o->gradients.seed, PLANTED_SCALE}, (uint64_t)sample);
    return exp(o->spread * z - o->spread * o->spread);
}

struct buffers {
    struct backend *backend;
    struct view rows, norms, sketches; // [BATCH, n], [BATCH, 1], [BATCH, J k]
    double *drawn;                     // [BATCH, n]
    float *rounded;                    // [BATCH, n]
    double *sum;                       // [n]
};

static enum status buffers_new(struct buffers *b, const struct planted_options *o) {
    enum status status = STATUS_OK;
    int64_t n = o->gradients.law.n;
    void *p = NULL;
    TRY(backend_matrix_new(b->backend, DTYPE_F32, BATCH, n, "planted gradients", &b->rows));
    TRY(backend_matrix_new(b->backend, DTYPE_F64, BATCH, 1, "norms", &b->norms));
    TRY(backend_matrix_new(b->backend, DTYPE_F32, BATCH, o->sketches * o->dim, "sketches", &b->sketches));
    TRY(mem_buffer_new(BATCH * n * 8, "planted gradients", &p));
    b->drawn = p;
    TRY(mem_buffer_new(BATCH * n * 4, "planted gradients", &p));
    b->rounded = p;
    TRY(mem_buffer_new(n * 8, "sum of planted gradients", &p));
    b->sum = p;
    memset(b->sum, 0, (size_t)n * sizeof *b->sum);
done:
    return status;
}

static void buffers_free(struct buffers *b) {
    backend_matrix_free(b->backend, &b->rows);
    backend_matrix_free(b->backend, &b->norms);
    backend_matrix_free(b->backend, &b->sketches);
    mem_buffer_free(b->drawn);
    mem_buffer_free(b->rounded);
    mem_buffer_free(b->sum);
}

static enum status fill(struct planted *p, const struct planted_options *o, const struct gradients *g,
                        struct buffers *b) {
    enum status status = STATUS_OK;
    int64_t n = o->gradients.law.n, width = o->sketches * o->dim;
    for (int64_t first = 0; first < o->samples; first += BATCH) {
        int64_t batch = o->samples - first < BATCH ? o->samples - first : BATCH;
        gradients_rows(g, GRADIENTS_SAMPLES, first, batch, b->drawn, n);
        for (int64_t i = 0; i < batch; i++)
            row_put(b->drawn + i * n, scale_of(o, first + i), n, b->rounded + i * n, b->sum);
        struct view rows = view_rows(b->rows, 0, batch), norms = view_rows(b->norms, 0, batch);
        struct view sketches = view_rows(b->sketches, 0, batch);
        TRY(backend_write(b->backend, rows, b->rounded));
        TRY(backend_run(
            b->backend,
            &(struct op_call){.op = OP_sketch,
                              .in = {rows},
                              .out = {norms, sketches},
                              .params.sketch = {.kind = o->kind, .sketches = o->sketches, .seed = o->gradients.seed}}));
        TRY(backend_read(b->backend, norms, p->norms + first));
        TRY(backend_read(b->backend, sketches, p->sketches + first * width));
    }
    for (int64_t i = 0; i < n; i++) p->sum2 += b->sum[i] * b->sum[i];
done:
    return status;
}

enum status planted_new(const struct planted_options *o, struct backend *backend, struct planted **out) {
    enum status status = STATUS_OK;
    struct gradients *gradients = NULL;
    struct planted *p = mem_new(1, sizeof *p);
    void *buffer = NULL;
    struct buffers buffers = {.backend = backend};
    REQUIRE(o->samples >= 1 && o->dim >= 1 && o->sketches >= 1, "samples and sketches");
    TRY(gradients_new(&o->gradients, &gradients));
    TRY(mem_buffer_new(o->samples * o->sketches * o->dim * 4, "sketches", &buffer));
    p->sketches = buffer;
    TRY(mem_buffer_new(o->samples * 8, "norms", &buffer));
    p->norms = buffer;
    p->rows = (struct sketch_rows){p->sketches, o->samples, o->sketches, o->dim, o->sketches * o->dim, o->dim};
    TRY(buffers_new(&buffers, o));
    TRY(fill(p, o, gradients, &buffers));
    *out = p;
    p = NULL;
done:
    gradients_free(gradients);
    buffers_free(&buffers);
    planted_free(p);
    return status;
}

void planted_free(struct planted *p) {
    if (!p) return;
    mem_buffer_free(p->sketches);
    mem_buffer_free(p->norms);
    free(p);
}
