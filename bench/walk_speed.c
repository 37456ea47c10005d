// Cost of whitening and walking, as a share of what the machine does in the same run.
//
//     walk_speed [--threads N] [--size n,m]... [--engine NAME[/FINAL]]... [--repeat K] [--cpu-time yes] [--csv yes] [--folder DIR]
//
// First the yardsticks: reading 512 MB in the order of memory (all threads), and cblas_dgemm of [n, m]^T [n, m] in parts. Then per size:
// seconds of the frame with its share of the product's rate, the fused pass over all rows as a share of the bandwidth, and per engine
// (zone and leap; /vertex or /landing: with that final phase) seconds, reads of the matrix, residual and peak memory. Answers are
// checked before anything is printed.
//
// --csv yes: neither yardsticks nor pass, one line per engine: n, m, engine, seconds of frame and walk, reads, steps, fractional
// coordinates, residual before the final phase, peak memory of the process / matrix. --folder DIR: matrix.npy [n, m], y.npy and
// x-ENGINE.npy for other software that is to do the same (m a multiple of 8).
#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "data/npy.h"
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
static bool csv;
static const char *folder;                         // or NULL
static const char *engines[16] = {"zone", "leap"}; // NAME[/FINAL]
static int n_engines;                              // given

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
    must(walk_state_new(f, y, &o, true, false, false, &s));
    must(walk_pass(s, true, 0));
    for (int r = 0; r < 5 * repeat; r++) {
        must(walk_prepare(s));
        double begin = now();
        must(walk_pass(s, true, 1e-3));
        best = fmin(best, now() - begin);
    }
    printf("  pass     %.4f s  %.1f GB/s = %.0f %% of reading\n", best, bytes / best / 1e9,
           100 * bytes / best / bandwidth);
    walk_state_free(s);
}

// Rows of sums of uniforms, near enough to normal, falling as 1 / j.
static void fill(double *a, int64_t n, int64_t m) {
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    memset(a, 0, (size_t)(n * frame_stride(m)) * sizeof *a);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            uint32_t word = rng_bits(rng, (uint64_t)(i * m + j));
            double sum = (double)(word & 0xffff) + (double)(word >> 16) - 65535;
            a[i * frame_stride(m) + j] = sum / 65536 / (double)(j + 1);
        }
}

static void keep(const char *name, const double *values, int64_t rows, int64_t cols) {
    if (!folder) return;
    char *path = mem_format("%s/%s.npy", folder, name);
    for (char *c = path + strlen(folder) + 1; *c; c++)
        if (*c == '/') *c = '-';
    must(npy_write(path, NPY_F64, values, rows, cols));
    free(path);
}

static struct walk_options options_of(const char *engine, char name[32]) {
    struct walk_options o = {.seed = 3};
    const char *slash = strchr(engine, '/'), *final = slash ? slash + 1 : "";
    snprintf(name, 32, "%.*s", slash ? (int)(slash - engine) : 31, engine);
    o.engine = name;
    o.finish = strcmp(final, "vertex") == 0 ? WALK_VERTEX : strcmp(final, "landing") == 0 ? WALK_LANDING : WALK_STOP;
    if (slash && o.finish == WALK_STOP)
        must(status_set(STATUS_INVALID, "%s: final phases are vertex and landing", engine));
    return o;
}

static void measure_engine(const struct frame *f, const double *y, const char *engine, double frame_seconds) {
    char name[32];
    struct walk_options options = options_of(engine, name);
    struct walk_result r, best = {.seconds_walk = INFINITY};
    double *x = mem_new((size_t)f->n, 8), memory;
    for (int k = 0; k < repeat; k++) {
        double begin = now();
        must(walk_round(f, y, &options, x, NULL, &r));
        r.seconds_walk = now() - begin;
        claim(r.residual_walk <= 1e-12 * sqrt((double)f->n) && r.fractional_walk <= 16 * f->rank,
              "residual or fractional coordinates");
        if (r.seconds_walk < best.seconds_walk) best = r;
    }
    char *file = mem_format("x-%s", engine);
    keep(file, x, f->n, 0);
    free(file);
    memory = (double)mem_resident_peak() / (8.0 * (double)f->n * (double)f->stride);
    if (csv)
        printf("%lld,%lld,%s,%.4g,%.4g,%.1f,%lld,%lld,%.1e,%.2f\n", (long long)f->n, (long long)f->m, engine,
               frame_seconds, best.seconds_walk, best.reads, (long long)best.steps, (long long)best.fractional,
               best.residual_walk, memory);
    else
        printf("  %-8s %.3f s  steps %lld  reads %.1f  residual %.1e  with the frame %.3f s\n", engine,
               best.seconds_walk, (long long)best.steps, best.reads, best.residual_walk,
               best.seconds_walk + frame_seconds);
    free(x);
}

static void measure_size(int64_t n, int64_t m) {
    double *a, *y = mem_new((size_t)n, 8), matrix = 8.0 * (double)n * (double)frame_stride(m), seconds = INFINITY;
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    struct frame *f = NULL;
    must(frame_matrix_new(n, m, &a));
    for (int64_t i = 0; i < n; i++) y[i] = (double)rng_uniform(rng, (uint64_t)i);
    for (int k = 0; k < repeat; k++) {
        frame_free(f);
        fill(a, n, m);
        if (k == 0 && folder) {
            claim(frame_stride(m) == m, "--folder takes an m that is a multiple of 8");
            keep("matrix", a, n, m);
            keep("y", y, n, 0);
        }
        double begin = now();
        must(frame_new(a, n, m, NULL, &f));
        seconds = fmin(seconds, now() - begin);
        claim(f->rank == m, "rank");
    }
    double flops = 5.0 * (double)n * (double)m * (double)m; // two Gram matrices, one full and one triangular product
    if (!csv) {
        printf("n %lld m %lld (%.2f GB)\n  frame    %.3f s  %.1f GFLOP/s = %.0f %% of dgemm, %d passes\n", (long long)n,
               (long long)m, matrix / 1e9, seconds, flops / seconds / 1e9, 100 * flops / seconds / product_rate,
               f->passes);
        measure_pass(f, y);
    }
    for (int e = 0; e < (n_engines ? n_engines : 2); e++) measure_engine(f, y, engines[e], seconds);
    if (!csv)
        printf("  memory   %.2f x the matrix at most (whole process, all sizes so far)\n",
               (double)mem_resident_peak() / matrix);
    frame_free(f);
    mem_buffer_free(a);
    free(y);
}

int main(int argc, char **argv) {
    threads_wait_briefly(argv);
    threads_set(0);
    bool sized = false;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0) threads_set(atoi(argv[i + 1]));
        if (strcmp(argv[i], "--cpu-time") == 0) cpu_time = true;
        if (strcmp(argv[i], "--csv") == 0) csv = true;
        if (strcmp(argv[i], "--folder") == 0) folder = argv[i + 1];
        if (strcmp(argv[i], "--engine") == 0 && n_engines < 16) engines[n_engines++] = argv[i + 1];
        if (strcmp(argv[i], "--repeat") == 0) repeat = atoi(argv[i + 1]);
    }
    if (!csv) measure_machine();
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
