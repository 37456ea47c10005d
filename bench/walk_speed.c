// Cost of whitening and walking, as a share of what the machine does in the same run.
//
//     walk_speed [--threads N] [--size n,m]... [--repeat K] [--cpu-time yes]
//
// First the yardsticks: reading 512 MB in the order of memory (all threads), and cblas_dgemm of [n, m]^T [n, m] in parts. Then per size:
// seconds of the frame with its share of the product's rate, the fused pass over all rows as a share of the bandwidth, and for
// zone and leap seconds, reads of the matrix, residual and peak memory. Answers are checked before anything is printed.
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "walk/state.h"

#include <cblas.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef I // of <complex.h>

static double bandwidth, product_rate; // bytes, flops per second
static int repeat = 1;
static bool cpu_time; // with one thread: the cost on a machine that others use too

static double now(void) { return cpu_time ? (double)clock() / CLOCKS_PER_SEC : clock_seconds(); }

static void must(enum status status) {
    if (status == STATUS_OK) return;
    fprintf(stderr, "walk_speed: error: %s\n", status_message());
    exit(1);
}

static void claim(bool held, const char *what) {
    if (held) return;
    fprintf(stderr, "walk_speed: error: wrong answer: %s\n", what);
    exit(1);
}

static double sum_of(const double *a, int64_t n) {
    typedef double lanes __attribute__((vector_size(64)));
    lanes s[4] = {0};
    for (int64_t i = 0; i + 32 <= n; i += 32)
        for (int64_t k = 0; k < 4; k++) s[k] += *(const lanes *)(a + i + 8 * k);
    lanes all = s[0] + s[1] + s[2] + s[3];
    return all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
}

static void measure_machine(void) {
    enum { COUNT = 64 << 20, PARTS = 64, ROWS = 4096, COLS = 256 };
    double *a, best = INFINITY, sum = 0;
    must(frame_matrix_new(COUNT / 8, 8, &a));
    for (int r = 0; r < 10; r++) {
        double begin = now();
#pragma omp parallel for reduction(+ : sum)
        for (int64_t p = 0; p < PARTS; p++) sum += sum_of(a + p * (COUNT / PARTS), COUNT / PARTS);
        best = fmin(best, now() - begin);
    }
    claim(sum == 0, "a sum of zeros");
    bandwidth = 8.0 * COUNT / best;
    best = INFINITY;
    int threads = threads_count();
    double *c = mem_new((size_t)(threads * COLS * COLS), 8);
    for (int r = 0; r < 10; r++) {
        double begin = now();
#pragma omp parallel for schedule(static, 1)
        for (int t = 0; t < threads; t++)
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, COLS, COLS, ROWS, 1, a + (int64_t)t * ROWS * COLS,
                        COLS, a + (int64_t)t * ROWS * COLS, COLS, 0, c + t * COLS * COLS, COLS);
        best = fmin(best, now() - begin);
    }
    product_rate = 2.0 * COLS * COLS * ROWS * threads / best;
    free(c);
    mem_buffer_free(a);
    printf("threads %d  reading %.1f GB/s  dgemm %.1f GFLOP/s\n", threads, bandwidth / 1e9, product_rate / 1e9);
}

// One pass over all rows, with noise: the body of a step of zone.
static void measure_pass(const struct frame *f, const double *y) {
    struct walk_options o = {.step_size = 0.1, .block = 0.5, .slack = 0.4};
    struct walk_state *s;
    double best = INFINITY, bytes = 8.0 * (double)f->n * (double)f->width;
    must(walk_state_new(f, y, &o, true, false, &s));
    walk_pass(s, true, 0);
    for (int r = 0; r < 5 * repeat; r++) {
        must(walk_prepare(s));
        double begin = now();
        walk_pass(s, true, 1e-3);
        best = fmin(best, now() - begin);
    }
    printf("  pass     %.4f s  %.1f GB/s = %.0f %% of reading\n", best, bytes / best / 1e9,
           100 * bytes / best / bandwidth);
    walk_state_free(s);
}

static void measure_size(int64_t n, int64_t m) {
    double *a, *y = mem_new((size_t)n, 8), *x = mem_new((size_t)n, 8),
               matrix = 8.0 * (double)n * (double)frame_stride(m);
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    struct frame *f;
    must(frame_matrix_new(n, m, &a));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) { // sum of uniforms: near enough to normal, rows falling as 1 / j
            uint32_t word = rng_bits(rng, (uint64_t)(i * m + j));
            double sum = (double)(word & 0xffff) + (double)(word >> 16) - 65535;
            a[i * frame_stride(m) + j] = sum / 65536 / (double)(j + 1);
        }
    for (int64_t i = 0; i < n; i++) y[i] = (double)rng_uniform(rng, (uint64_t)i);
    double begin = now();
    must(frame_new(a, n, m, NULL, &f));
    double frame_seconds = now() - begin;
    claim(f->rank == m, "rank");
    double flops = 5.0 * (double)n * (double)m * (double)m; // two Gram matrices, one full and one triangular product
    printf("n %lld m %lld (%.2f GB)\n  frame    %.3f s  %.1f GFLOP/s = %.0f %% of dgemm, %d passes\n", (long long)n,
           (long long)m, matrix / 1e9, frame_seconds, flops / frame_seconds / 1e9,
           100 * flops / frame_seconds / product_rate, f->passes);
    measure_pass(f, y);
    const char *engines[] = {"zone", "leap"};
    for (int e = 0; e < 2; e++) {
        struct walk_result r, best = {.seconds_walk = INFINITY};
        for (int k = 0; k < repeat; k++) {
            begin = now();
            must(walk_round(f, y, &(struct walk_options){.engine = engines[e], .seed = 3}, x, NULL, &r));
            r.seconds_walk = now() - begin;
            claim(r.residual <= 1e-12 * sqrt((double)n) && r.fractional <= 16 * m,
                  "residual or fractional coordinates");
            if (r.seconds_walk < best.seconds_walk) best = r;
        }
        printf("  %-8s %.3f s  steps %lld  reads %.1f  residual %.1e  with the frame %.3f s\n", engines[e],
               best.seconds_walk, (long long)best.steps, best.reads, best.residual, best.seconds_walk + frame_seconds);
    }
    printf("  memory   %.2f x the matrix at most (whole process, all sizes so far)\n",
           (double)mem_resident_peak() / matrix);
    frame_free(f);
    mem_buffer_free(a);
    free(y);
    free(x);
}

int main(int argc, char **argv) {
    threads_wait_briefly(argv);
    threads_set(0);
    bool sized = false;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0) threads_set(atoi(argv[i + 1]));
        if (strcmp(argv[i], "--cpu-time") == 0) cpu_time = true;
        if (strcmp(argv[i], "--repeat") == 0) repeat = atoi(argv[i + 1]);
    }
    measure_machine();
    for (int i = 1; i + 1 < argc; i += 2) {
        long long n, m;
        if (strcmp(argv[i], "--size") != 0 || sscanf(argv[i + 1], "%lld,%lld", &n, &m) != 2) continue;
        measure_size(n, m);
        sized = true;
    }
    if (!sized) {
        measure_size(65536, 128);
        measure_size(262144, 64);
    }
    return 0;
}
