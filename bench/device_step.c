// One DiscQuant step of a network with random weights: teacher, student, way back with recomputation, update.
#include "bench/device_speed.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "discquant/optimizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// Random weights, quickly: a block of normal numbers over and over, beginning at a place that the name decides.
enum { NUMBERS = 1 << 20 };

struct block_source {
    float *numbers; // [NUMBERS]
};

static enum status block_read(void *self, const char *name, int64_t rows, int64_t cols, float *out, enum dtype *dtype) {
    const struct block_source *source = self;
    uint32_t at = 0;
    for (; *name; name++) at = at * 31 + (unsigned char)*name;
    float deviation = rows == 1 ? 0 : (float)(1 / sqrt((double)cols)), mean = rows == 1 ? 1 : 0;
    for (int64_t i = 0; i < rows * cols; i++) out[i] = mean + deviation * source->numbers[(at + i) % NUMBERS];
    if (dtype) *dtype = DTYPE_BF16;
    return STATUS_OK;
}

struct stepper {
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
    struct block_source source;
    int32_t *tokens; // [batch, seq_len]
};

static enum status stepper_open(struct device_speed *bench, struct stepper *s) {
    enum status status = STATUS_OK;
    const struct device_shape *shape = bench->options.shape;
    int64_t n = shape->batch * shape->seq_len;
    struct grid grid;
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    struct optimizer_options options = {.steps = 1024,
                                        .finish.from = 1024,
                                        .warmup = 1,
                                        .batch = shape->batch,
                                        .seq_len = shape->seq_len,
                                        .lambda = 200,
                                        .clamp = 1,
                                        .rate = 0.1,
                                        .strength = 1,
                                        .recompute = true};
    s->source.numbers = mem_new(NUMBERS, sizeof *s->source.numbers);
    for (int i = 0; i < NUMBERS; i++) s->source.numbers[i] = (float)rng_normal(rng, (uint64_t)i);
    s->tokens = mem_new((size_t)n, sizeof *s->tokens);
    for (int64_t i = 0; i < n; i++)
        s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % (uint32_t)shape->config.vocab);
    TRY(step_new(bench->backend, &s->step));
    TRY(transformer_new(bench->backend, &shape->config, bench->dtype,
                        (struct tensor_source){.self = &s->source, .read = block_read}, &s->model));
    TRY(grid_block(3, -1, &grid));
    TRY(rounding_new(s->model, &grid, bench->dtype, &s->rounding));
    TRY(rounding_random(s->rounding, 1));
    TRY(optimizer_new(s->rounding, s->step, &options, &s->optimizer));
done:
    return status;
}

static void stepper_close(struct stepper *s) {
    optimizer_free(s->optimizer);
    rounding_free(s->rounding);
    transformer_free(s->model);
    step_free(s->step);
    free(s->source.numbers);
    free(s->tokens);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { STEPS_LEAST = 3, STEPS_MOST = 50 };

// flops_10 counts 10 per weight and token: two passes forward, one again in the recomputation, two products on the way back.
enum status device_speed_step(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct stepper s = {0};
    const struct device_shape *shape = bench->options.shape;
    double times[STEPS_MOST], kl = 0, first_kl, start = clock_seconds();
    int n = 0;
    TRY(stepper_open(bench, &s));
    double opened = clock_seconds() - start, before = bench->backend->product_flops;
    TRY(optimizer_step(s.optimizer, s.tokens, &first_kl));
    double counted = bench->backend->product_flops - before;
    double end = clock_seconds() + bench->options.step_seconds;
    while (n < STEPS_LEAST || (n < STEPS_MOST && clock_seconds() < end)) {
        start = clock_seconds();
        TRY(optimizer_step(s.optimizer, s.tokens, &kl));
        times[n++] = clock_seconds() - start;
    }
    if (!(first_kl > 0 && isfinite(kl))) {
        status = status_set(STATUS_INVALID, "the steps give KL of %g and %g on random weights", first_kl, kl);
        goto done;
    }
    qsort(times, (size_t)n, sizeof *times, compare);
    double seconds = times[n / 2], tokens = (double)(shape->batch * shape->seq_len);
    double flops = 10 * (double)s.rounding->weights * tokens;
    double best = bench->dtype == DTYPE_BF16 ? bench->peak.bf16_flops : bench->peak.f32_flops;
    printf("{\"case\": \"step\", \"device\": \"%s\", \"shape\": \"%s\", \"dtype\": \"%s\", \"batch\": %lld, "
           "\"seq_len\": %lld, \"weights\": %lld, \"steps\": %d, \"seconds\": %.6f, \"seconds_best\": %.6f, "
           "\"tokens_per_second\": %.1f, \"flops_10\": %.6g, \"tflops_10\": %.4f, \"share_10\": %.4f, "
           "\"tflops_by_shape\": %.4f, \"planned_bytes\": %lld, \"peak_bytes\": %lld, \"seconds_to_open\": %.1f, "
           "\"kl_first\": %.6g, \"kl_last\": %.6g}\n",
           bench->options.device, shape->name, dtype_name(bench->dtype), (long long)shape->batch,
           (long long)shape->seq_len, (long long)s.rounding->weights, n, seconds, times[0], tokens / seconds, flops,
           1e-12 * flops / seconds, flops / seconds / best, 1e-12 * counted / seconds,
           (long long)optimizer_planned_bytes(s.optimizer), (long long)backend_bytes_peak(bench->backend), opened,
           first_kl, kl);
    fflush(stdout);
done:
    stepper_close(&s);
    return status;
}
