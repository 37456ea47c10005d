#include "spectra/planted.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PLANTED_SCALE RNG_STREAM(96) // s of each sample

enum { BATCH = 32 };

// Norms and the sum over samples come from the rounded rows, as those of a network do.
static double row_put(const double *g, double scale, int64_t n, float *row, double *sum) {
    double norm = 0;
    for (int64_t i = 0; i < n; i++) {
        row[i] = (float)(scale * g[i]);
        norm += (double)row[i] * (double)row[i];
        sum[i] += (double)row[i];
    }
    return norm;
}

static double scale_of(const struct planted_options *o, int64_t sample) {
    double z = rng_normal((struct rng){o->gradients.seed, PLANTED_SCALE}, (uint64_t)sample);
    return exp(o->spread * z - o->spread * o->spread);
}

// Rotation.
static void sketch_row_to(const struct planted_options *o, const float *row, float *to) {
    int64_t n = o->gradients.law.n, k = o->dim;
    memset(to, 0, (size_t)(o->sketches * k) * sizeof *to);
    for (int64_t j = 0; j < o->sketches; j++) {
        struct rng rotation = {o->gradients.seed, RNG_SKETCH_ROTATION + (uint64_t)j};
        struct rng entry = {o->gradients.seed, RNG_SKETCH_ENTRY + (uint64_t)j};
        float *y = to + j * k;
        for (int64_t segment = 0; segment * k < n; segment++) {
            int64_t r = (int64_t)((uint64_t)k * rng_bits(rotation, (uint64_t)segment) >> 32), from = segment * k;
            uint32_t word = 0;
            for (int64_t c = from; c < n && c < from + k; c++) {
                if (c == from || c % 32 == 0) word = rng_bits(entry, (uint64_t)(c / 32));
                int64_t bucket = (c + r) % k;
                y[bucket] += word >> (c % 32) & 1 ? -row[c] : row[c];
            }
        }
    }
}

static enum status fill(struct planted *p, const struct planted_options *o, const struct gradients *g) {
    enum status status = STATUS_OK;
    int64_t n = o->gradients.law.n;
    void *drawn = NULL, *rounded = NULL, *sums = NULL;
    TRY(mem_buffer_new(BATCH * n * 8, "planted gradients", &drawn));
    TRY(mem_buffer_new(BATCH * n * 4, "planted gradients", &rounded));
    TRY(mem_buffer_new(n * 8, "sum of planted gradients", &sums));
    double *rows = drawn, *sum = sums;
    float *row = rounded;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t first = 0; first < o->samples; first += BATCH) {
        int64_t batch = o->samples - first < BATCH ? o->samples - first : BATCH;
        gradients_rows(g, GRADIENTS_SAMPLES, first, batch, rows, n);
        for (int64_t i = 0; i < batch; i++)
            p->norms[first + i] = row_put(rows + i * n, scale_of(o, first + i), n, row + i * n, sum);
#pragma omp parallel for schedule(dynamic)
        for (int64_t i = 0; i < batch; i++)
            sketch_row_to(o, row + i * n, p->sketches + (first + i) * o->sketches * o->dim);
    }
    for (int64_t i = 0; i < n; i++) p->sum2 += sum[i] * sum[i];
done:
    mem_buffer_free(drawn);
    mem_buffer_free(rounded);
    mem_buffer_free(sums);
    return status;
}

enum status planted_new(const struct planted_options *o, struct backend *backend, struct planted **out) {
    enum status status = STATUS_OK;
    struct gradients *gradients = NULL;
    struct planted *p = mem_new(1, sizeof *p);
    void *buffer = NULL;
    (void)backend;
    REQUIRE(o->samples >= 1 && o->dim >= 1 && o->sketches >= 1, "samples and sketches");
    TRY(gradients_new(&o->gradients, &gradients));
    TRY(mem_buffer_new(o->samples * o->sketches * o->dim * 4, "sketches", &buffer));
    p->sketches = buffer;
    TRY(mem_buffer_new(o->samples * 8, "norms", &buffer));
    p->norms = buffer;
    p->rows = (struct sketch_rows){p->sketches, o->samples, o->sketches, o->dim, o->sketches * o->dim, o->dim};
    TRY(fill(p, o, gradients));
    *out = p;
    p = NULL;
done:
    gradients_free(gradients);
    planted_free(p);
    return status;
}

void planted_free(struct planted *p) {
    if (!p) return;
    mem_buffer_free(p->sketches);
    mem_buffer_free(p->norms);
    free(p);
}
