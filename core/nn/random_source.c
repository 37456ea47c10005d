#include "core/nn/random_source.h"

#include "core/base/rng.h"

#include <math.h>

// FNV-1a, 32 bit.
static uint32_t name_hash(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

static enum status random_read(void *self, const char *name, int64_t rows, int64_t cols, float *out,
                               enum dtype *dtype) {
    const struct random_source *source = self;
    struct rng rng = {.seed = source->seed, .stream = RNG_INIT + name_hash(name)};
    double mean = rows == 1 ? 1 : 0, deviation = rows == 1 ? source->norm_spread : source->gain / sqrt((double)cols);
    for (int64_t i = 0; i < rows * cols; i++) out[i] = (float)(mean + deviation * rng_normal(rng, (uint64_t)i));
    if (dtype) *dtype = DTYPE_F32;
    return STATUS_OK;
}

struct tensor_source random_source(const struct random_source *self) {
    return (struct tensor_source){.self = (void *)(uintptr_t)self, .read = random_read};
}
