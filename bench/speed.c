#include "bench/speed.h"

#include "bench/device_speed.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/random_source.h"
#include "discquant/optimizer.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 8, SEQ_LEN = 256, SGEMM_N = 1024, SAMPLES_MAX = 4096 };

static const struct speed_case {
    const char *name;
    struct transformer_config config;
} cases[] = {
    {"step-stories260K",
     {.architecture = ARCHITECTURE_LLAMA,
      .hidden = 64,
      .intermediate = 172,
      .layers = 5,
      .heads = 8,
      .kv_heads = 4,
      .head_dim = 8,
      .vocab = 512,
      .max_positions = 512,
      .rms_eps = 1e-5,
      .tied = true,
      .rope = {.theta = 10000},
      .bos = 1}},
    {"step-medium",
     {.architecture = ARCHITECTURE_LLAMA,
      .hidden = 512,
      .intermediate = 1408,
      .layers = 8,
      .heads = 8,
      .kv_heads = 8,
      .head_dim = 64,
      .vocab = 8192,
      .max_positions = 512,
      .rms_eps = 1e-5,
      .rope = {.theta = 10000},
      .bos = 1}},
};
enum { CASES = sizeof cases / sizeof *cases };

static bool is_on_any_device(const char *name) {
    return strcmp(name, "products") == 0 || strcmp(name, "ops") == 0 || strcmp(name, "step") == 0;
}

bool speed_has_case(const char *name) {
    for (int i = 0; i < CASES; i++)
        if (strcmp(cases[i].name, name) == 0) return true;
    return is_on_any_device(name);
}

// ---- what the machine can do ----

struct sgemm {
    float *a, *b, *c; // [SGEMM_N, SGEMM_N]
};

static enum status sgemm_open(struct sgemm *s) {
    enum status status = STATUS_OK;
    void *p;
    float **operands[] = {&s->a, &s->b, &s->c};
    for (int i = 0; i < 3; i++) {
        TRY(mem_buffer_new((int64_t)SGEMM_N * SGEMM_N * 4, "operand", &p));
        *operands[i] = p;
        rng_uniform_fill((struct rng){.seed = (uint64_t)i, .stream = RNG_TEST}, 0, p, (int64_t)SGEMM_N * SGEMM_N);
    }
done:
    return status;
}

static void sgemm_close(struct sgemm *s) {
    mem_buffer_free(s->a);
    mem_buffer_free(s->b);
    mem_buffer_free(s->c);
}

// One product with BLAS's own threads.
static double sgemm_seconds(const struct sgemm *s) {
    openblas_set_num_threads(threads_count());
    double start = clock_seconds();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SGEMM_N, SGEMM_N, SGEMM_N, 1, s->a, SGEMM_N, s->b, SGEMM_N,
                0, s->c, SGEMM_N);
    double seconds = clock_seconds() - start;
    openblas_set_num_threads(1);
    return seconds;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

// ---- one case ----

struct bench {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
    struct sgemm sgemm;
    int32_t tokens[BATCH * SEQ_LEN];
};

static enum status bench_open(struct bench *b, const struct transformer_config *config) {
    enum status status = STATUS_OK;
    struct random_source random = {.seed = 1, .gain = 1};
    struct grid grid;
    struct optimizer_options options = {.steps = SAMPLES_MAX,
                                        .finish.from = SAMPLES_MAX,
                                        .warmup = 1,
                                        .batch = BATCH,
                                        .seq_len = SEQ_LEN,
                                        .lambda = 200,
                                        .clamp = 1,
                                        .rate = 0.1,
                                        .strength = 1};
    TRY(backend_open("cpu", &b->backend));
    TRY(step_new(b->backend, &b->step));
    TRY(transformer_new(b->backend, config, DTYPE_F32, random_source(&random), &b->model));
    TRY(grid_block(3, -1, &grid));
    TRY(rounding_new(b->model, &grid, DTYPE_F32, &b->rounding));
    TRY(rounding_random(b->rounding, 1));
    TRY(optimizer_new(b->rounding, b->step, &options, &b->optimizer));
    for (int i = 0; i < BATCH * SEQ_LEN; i++)
        b->tokens[i] =
            (int32_t)(rng_bits((struct rng){.seed = 1, .stream = RNG_TEST}, (uint64_t)i) % (uint32_t)config->vocab);
done:
    return status;
}

static void bench_close(struct bench *b) {
    sgemm_close(&b->sgemm);
    optimizer_free(b->optimizer);
    rounding_free(b->rounding);
    transformer_free(b->model);
    step_free(b->step);
    backend_close(b->backend);
}

// Flops of the products and of attention in one step, and its answer: the KL must be that of a finite network.
static enum status bench_check(struct bench *b, double *flops) {
    double kl, before = b->backend->product_flops;
    enum status status = optimizer_step(b->optimizer, b->tokens, &kl);
    *flops = b->backend->product_flops - before;
    if (status == STATUS_OK && !(kl > 0 && isfinite(kl)))
        status = status_set(STATUS_INVALID, "the step gives a KL of %g on random weights", kl);
    return status;
}

static enum status speed_case_run(const struct speed_case *about, double seconds) {
    enum status status = STATUS_OK;
    struct bench *b = mem_new(1, sizeof *b);
    double *steps = mem_new(SAMPLES_MAX, sizeof *steps), *products = mem_new(SAMPLES_MAX, sizeof *products), flops, kl;
    TRY(bench_open(b, &about->config));
    TRY(bench_check(b, &flops));
    int64_t buffers = mem_buffer_bytes_peak(), resident = mem_resident_peak(); // before the operands of sgemm
    TRY(sgemm_open(&b->sgemm));
    // Rounds of products and of steps. BLAS's own threads spin for a while after a product, hence the pause.
    int n = 0, n_products = 0;
    for (double end = clock_seconds() + seconds; n < 5 || (clock_seconds() < end && n < SAMPLES_MAX);) {
        for (int i = 0; i < 3 && n_products < SAMPLES_MAX; i++) products[n_products++] = sgemm_seconds(&b->sgemm);
        usleep(200000);
        for (double round = clock_seconds() + 1; n < SAMPLES_MAX && (n == 0 || clock_seconds() < round); n++) {
            double start = clock_seconds();
            TRY(optimizer_step(b->optimizer, b->tokens, &kl));
            steps[n] = clock_seconds() - start;
        }
    }
    double step = median(steps, n), gflops = 1e-9 * flops / step;
    double peak = 2e-9 * SGEMM_N * SGEMM_N * SGEMM_N / median(products, n_products);
    printf("{\"case\": \"%s\", \"threads\": %d, \"steps\": %d, \"seconds\": %.6f, \"seconds_best\": %.6f, "
           "\"tokens_per_second\": %.1f, \"gflops\": %.2f, \"sgemm_gflops\": %.2f, \"share\": %.3f, \"planned_bytes\": "
           "%lld, "
           "\"buffer_bytes_peak\": %lld, \"peak_memory_bytes\": %lld}\n",
           about->name, threads_count(), n, step, steps[0], BATCH * SEQ_LEN / step, gflops, peak, gflops / peak,
           (long long)optimizer_planned_bytes(b->optimizer), (long long)buffers, (long long)resident);
    fflush(stdout);
done:
    bench_close(b);
    free(b);
    free(steps);
    free(products);
    return status;
}

static bool is_wanted(const struct speed_settings *settings, const char *name) {
    for (int i = 0; i < settings->n_cases; i++)
        if (strcmp(settings->cases[i], name) == 0) return true;
    return false;
}

static enum status any_device_run(const struct program_common *common, const struct speed_settings *settings) {
    enum status status = STATUS_OK;
    struct device_speed *bench = NULL;
    bool all = settings->n_cases == 0;
    struct device_speed_options options = {.device = common->device,
                                           .shape = settings->shape ? settings->shape : device_shape_find("phi3-mini"),
                                           .seconds = settings->seconds >= 0 ? (double)settings->seconds : 0.2,
                                           .step_seconds = settings->seconds >= 0 ? (double)settings->seconds : 10};
    TRY(device_speed_open(&options, &bench));
    TRY(device_speed_products(bench));
    if (all || is_wanted(settings, "ops")) TRY(device_speed_ops(bench));
    if (all || is_wanted(settings, "step")) TRY(device_speed_step(bench));
done:
    device_speed_close(bench);
    return status;
}

enum status speed_run(const struct program_common *common, const struct speed_settings *settings) {
    enum status status = STATUS_OK;
    bool on_cpu = strcmp(common->device, "cpu") == 0, on_any = settings->n_cases == 0 && !on_cpu;
    for (int i = 0; i < settings->n_cases; i++) on_any |= is_on_any_device(settings->cases[i]);
    for (int i = 0; i < CASES; i++) {
        if (!is_wanted(settings, cases[i].name) && (settings->n_cases || !on_cpu)) continue;
        if (!on_cpu) {
            status = status_set(STATUS_UNSUPPORTED, "%s is for --device cpu; other devices have products, ops and step",
                                cases[i].name);
            goto done;
        }
        TRY(speed_case_run(&cases[i], settings->seconds >= 0 ? (double)settings->seconds : 10));
    }
    if (on_any) TRY(any_device_run(common, settings));
done:
    return status;
}
