// Speed of every op of the CPU backend at two shapes, as a share of what the machine does in the same run.
//
//     ops_speed [--shape stories260K|medium] [--threads N] [--cpu-time yes]
//
// First the yardsticks: cblas_sgemm at 1024^3 on all threads (OpenBLAS's own threads) and the bandwidth of y = a + b over
// 256 MB. Then each op with the calls of one DiscQuant step on the shape: its result is checked, then the least of many
// timings is printed with its rate, and in the last column its share of the step. The last line sums the step up.
// --cpu-time counts processor time, which with one thread is what kernels cost on a machine that others use too.
#include "core/backend/backend.h"
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/quant/grid.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef I // of <complex.h>, which cblas.h includes

struct shape {
    const char *name;
    int64_t tokens, seq, hidden, intermediate, heads, kv_heads, head_dim, vocab, layers;
};

static const struct shape shapes[] = {
    {"stories260K", 2048, 256, 64, 172, 8, 4, 8, 512, 5},
    {"medium", 2048, 256, 512, 1408, 8, 8, 64, 8192, 8},
};

struct peak {
    double gflops, gbytes; // per second
};

struct total {
    double seconds, product_seconds, product_flops;
};

static struct backend *backend;
static struct peak peak;
static bool cpu_time;

static void must(enum status status) {
    if (status == STATUS_OK) return;
    fprintf(stderr, "ops_speed: error: %s\n", status_message());
    exit(1);
}

static struct view matrix(int64_t rows, int64_t cols, double size, double mean) {
    struct view v;
    static uint64_t stream;
    must(backend_matrix_new(backend, DTYPE_F32, rows, cols, "operand", &v));
    struct rng rng = {.seed = 1, .stream = RNG_TEST + stream++};
    for (int64_t i = 0; i < rows * cols; i++) { // sum of uniforms: near enough to normal
        double sum = -2;
        for (uint64_t k = 0; k < 4; k++) sum += (double)rng_uniform(rng, 4 * (uint64_t)i + k);
        view_f32(v, 0)[i] = (float)(mean + 1.7 * size * sum);
    }
    return v;
}

static struct view column(enum dtype dtype, int64_t rows, int32_t below) {
    struct view v;
    must(backend_matrix_new(backend, dtype, rows, 1, "operand", &v));
    struct rng rng = {.seed = 2, .stream = RNG_TEST};
    for (int64_t i = 0; i < rows && dtype == DTYPE_I32; i++)
        *view_i32(v, i) = (int32_t)(rng_bits(rng, (uint64_t)i) % (uint32_t)below);
    return v;
}

static double now(void) { return cpu_time ? (double)clock() / CLOCKS_PER_SEC : clock_seconds(); }

static double best_of(void (*run)(void *), void *argument) {
    double best = INFINITY, start = clock_seconds();
    for (int i = 0; i < 400 && (i < 5 || clock_seconds() - start < 0.25); i++) {
        double begin = now();
        run(argument);
        best = fmin(best, now() - begin);
    }
    return best;
}

static void run_call(void *argument) { must(backend_run(backend, argument)); }

struct sgemm {
    struct view a, b, c;
};

static void run_sgemm(void *argument) {
    struct sgemm *s = argument;
    int n = (int)s->c.rows;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, s->a.data, n, s->b.data, n, 0, s->c.data, n);
}

static void measure_peak(void) {
    enum { SIZE = 1024, LONG = 16 << 20 };
    struct sgemm s = {matrix(SIZE, SIZE, 1, 0), matrix(SIZE, SIZE, 1, 0), matrix(SIZE, SIZE, 1, 0)};
    openblas_set_num_threads(threads_count());
    peak.gflops = 2.0 * SIZE * SIZE * SIZE / best_of(run_sgemm, &s) / 1e9;
    openblas_set_num_threads(1);
    struct op_call product = {.op = OP_matmul, .in = {s.a, s.b}, .out = {s.c}, .params.matmul.transpose_b = true};
    double ours = 2.0 * SIZE * SIZE * SIZE / best_of(run_call, &product) / 1e9;
    struct view a = matrix(16, LONG / 16, 1, 0), y = matrix(16, LONG / 16, 1, 0);
    struct op_call add = {.op = OP_copy, .accumulate = true, .in = {a}, .out = {y}};
    peak.gbytes = 12.0 * LONG / best_of(run_call, &add) / 1e9;
    printf("threads %d  cblas_sgemm 1024^3 %.0f GFLOP/s  matmul 1024^3 %.0f GFLOP/s  y += a of 64 MB each %.1f GB/s\n",
           threads_count(), peak.gflops, ours, peak.gbytes);
    struct view *all[] = {&s.a, &s.b, &s.c, &a, &y};
    for (int i = 0; i < 5; i++) backend_matrix_free(backend, all[i]);
}

// Entries of a product against double sums, of everything else only that it is finite; the op tests do the rest.
static void check(const struct op_call *call) {
    struct view y = call->out[0], a = call->in[0], b = call->in[1];
    for (int64_t k = 0; k < 200; k++) {
        int64_t i = k * 7919 % y.rows, j = k * 104729 % y.cols;
        double got = y.dtype == DTYPE_F64 ? view_f64(y, i)[j] : (double)view_f32(y, i)[j], want = got;
        if (call->op == OP_matmul && !call->accumulate) {
            bool ta = call->params.matmul.transpose_a, tb = call->params.matmul.transpose_b;
            int64_t inner = ta ? a.rows : a.cols;
            want = 0;
            for (int64_t e = 0; e < inner; e++)
                want += (double)(ta ? view_f32(a, e)[i] : view_f32(a, i)[e]) *
                        (double)(tb ? view_f32(b, j)[e] : view_f32(b, e)[j]);
        }
        if (!(fabs(got - want) <= 1e-4 * (1 + fabs(want)))) {
            fprintf(stderr, "ops_speed: error: %s gives %g at [%lld, %lld], want %g\n", op_infos[call->op].name, got,
                    (long long)i, (long long)j, want);
            exit(1);
        }
    }
}

// times: how often the call occurs in one step.
static void row(const char *label, struct op_call call, double times, struct total *total) {
    struct op_cost cost = op_cost(&call);
    run_call(&call);
    check(&call);
    double seconds = best_of(run_call, &call);
    bool product = call.op == OP_matmul || call.op == OP_attention || call.op == OP_attention_grad;
    total->seconds += times * seconds;
    if (product) total->product_seconds += times * seconds, total->product_flops += times * cost.flops;
    printf("  %-26s %9.3f ms  ", label, 1e3 * seconds);
    if (product)
        printf("%7.1f GFLOP/s %4.0f %% of sgemm    ", cost.flops / seconds / 1e9,
               cost.flops / seconds / 1e7 / peak.gflops);
    else
        printf("%7.1f GB/s    %4.0f %% of bandwidth", cost.bytes / seconds / 1e9,
               cost.bytes / seconds / 1e7 / peak.gbytes);
    printf("  x %-4g %8.2f ms\n", times, 1e3 * seconds * times);
}

// y [N, out] = x [N, in] w^T, and its two gradients.
static void linear(const char *name, struct view x, struct view w, struct view y, double forward, double inputs,
                   double weights, struct total *total) {
    char label[64];
    snprintf(label, sizeof label, "matmul %s", name);
    row(label, (struct op_call){.op = OP_matmul, .in = {x, w}, .out = {y}, .params.matmul.transpose_b = true}, forward,
        total);
    snprintf(label, sizeof label, "matmul %s dx", name);
    row(label, (struct op_call){.op = OP_matmul, .in = {y, w}, .out = {x}}, inputs, total);
    if (weights > 0) {
        snprintf(label, sizeof label, "matmul %s dw", name);
        row(label, (struct op_call){.op = OP_matmul, .in = {y, x}, .out = {w}, .params.matmul.transpose_a = true},
            weights, total);
    }
    struct view fresh = matrix(w.rows, w.cols, 1 / sqrt((double)w.cols), 0); // w was overwritten by its gradient
    memcpy(w.data, fresh.data, (size_t)view_count(w) * sizeof(float));
    backend_matrix_free(backend, &fresh);
}

static void products(const struct shape *s, struct total *t) {
    int64_t N = s->tokens, C = s->hidden, I = s->intermediate, qkv = (s->heads + 2 * s->kv_heads) * s->head_dim;
    const struct {
        const char *name;
        int64_t in, out;
        double times;
        bool weights;
    } all[] = {
        {"qkv", C, qkv, (double)s->layers, true},
        {"o", s->heads * s->head_dim, C, (double)s->layers, true},
        {"gate_up", C, 2 * I, (double)s->layers, true},
        {"down", I, C, (double)s->layers, true},
        {"head", C, s->vocab, 1, false},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct view x = matrix(N, all[i].in, 1, 0), y = matrix(N, all[i].out, 1, 0);
        struct view w = matrix(all[i].out, all[i].in, 1 / sqrt((double)all[i].in), 0);
        linear(all[i].name, x, w, y, 2 * all[i].times, all[i].times, all[i].weights ? all[i].times : 0, t);
        backend_matrix_free(backend, &x), backend_matrix_free(backend, &y), backend_matrix_free(backend, &w);
    }
}

static void attention(const struct shape *s, struct total *t) {
    int64_t N = s->tokens, rotated = s->heads + s->kv_heads, all = (s->heads + 2 * s->kv_heads) * s->head_dim;
    double layers = (double)s->layers;
    struct view qkv = matrix(N, all, 1, 0), dqkv = matrix(N, all, 1, 0), cosine = matrix(s->seq, s->head_dim / 2, 1, 0);
    struct view o = matrix(N, s->heads * s->head_dim, 1, 0), dout = matrix(N, o.cols, 1, 0),
                lse = matrix(N, s->heads, 1, 0);
    struct view x = view_cols(dqkv, 0, rotated * s->head_dim);
    for (int64_t i = 0; i < view_count(cosine); i++) view_f32(cosine, 0)[i] = 0.70710677f;
    struct attention_params p = {s->seq, 0, 0, s->heads, s->kv_heads, s->head_dim, 1 / sqrt((double)s->head_dim)};
    row("attention", (struct op_call){.op = OP_attention, .in = {qkv}, .out = {o, lse}, .params.attention = p},
        2 * layers, t);
    row("attention_grad",
        (struct op_call){.op = OP_attention_grad, .in = {qkv, o, lse, dout}, .out = {dqkv}, .params.attention = p},
        layers, t);
    row("attention_tangent",
        (struct op_call){.op = OP_attention_tangent, .in = {qkv, o, lse, dqkv}, .out = {dout}, .params.attention = p},
        0, t);
    row("rope",
        (struct op_call){.op = OP_rope,
                         .in = {x, cosine, cosine},
                         .out = {x},
                         .params.rope = {s->seq, 0, rotated, s->head_dim, false}},
        3 * layers, t);
    p.past = 4096;
    struct view cache = matrix(4100, s->kv_heads * s->head_dim, 1, 0), one = view_rows(o, 0, 1),
                y = view_rows(dout, 0, 1);
    row("attention_cached 1 x 4096",
        (struct op_call){.op = OP_attention_cached, .in = {one, cache, cache}, .out = {y}, .params.attention = p}, 0,
        t);
    struct view *used[] = {&qkv, &dqkv, &cosine, &o, &dout, &lse, &cache};
    for (int i = 0; i < 7; i++) backend_matrix_free(backend, used[i]);
}

static void layers(const struct shape *s, struct total *t) {
    int64_t N = s->tokens, C = s->hidden, I = s->intermediate;
    double L = (double)s->layers;
    struct view x = matrix(N, C, 1, 0), y = matrix(N, C, 1, 0), dy = matrix(N, C, 1, 0), gain = matrix(1, C, 1, 0),
                rstd = matrix(N, 1, 1, 0);
    struct view gu = matrix(N, 2 * I, 1, 0), dgu = matrix(N, 2 * I, 1, 0), h = matrix(N, I, 1, 0),
                dot = column(DTYPE_F64, N, 0);
    struct view table = matrix(s->vocab, C, 1, 0), tokens = column(DTYPE_I32, N, (int32_t)s->vocab);
    row("embedding", (struct op_call){.op = OP_embedding, .in = {table, tokens}, .out = {y}}, 2, t);
    row("embedding_grad", (struct op_call){.op = OP_embedding_grad, .in = {dy, tokens}, .out = {table}}, 0, t);
    row("rmsnorm", (struct op_call){.op = OP_rmsnorm, .in = {x, gain}, .out = {y, rstd}, .params.eps = 1e-5}, 4 * L + 2,
        t);
    row("rmsnorm_grad +=",
        (struct op_call){.op = OP_rmsnorm_grad, .in = {x, gain, rstd, dy}, .out = {y}, .accumulate = true}, 2 * L + 1,
        t);
    row("rmsnorm_gain_grad", (struct op_call){.op = OP_rmsnorm_gain_grad, .in = {x, rstd, dy}, .out = {gain}}, 0, t);
    row("rmsnorm_tangent", (struct op_call){.op = OP_rmsnorm_tangent, .in = {x, gain, rstd, dy}, .out = {y}}, 0, t);
    row("copy", (struct op_call){.op = OP_copy, .in = {x}, .out = {y}}, 0, t);
    row("fill", (struct op_call){.op = OP_fill, .out = {y}}, 0, t);
    row("row_dot", (struct op_call){.op = OP_row_dot, .in = {x, dy}, .out = {dot}, .params.factor = 1}, 0, t);
    row("sum_squares", (struct op_call){.op = OP_sum_squares, .in = {x}, .out = {dot}}, 0, t);
    row("swiglu", (struct op_call){.op = OP_swiglu, .in = {gu}, .out = {h}}, 2 * L, t);
    row("swiglu_grad", (struct op_call){.op = OP_swiglu_grad, .in = {gu, h}, .out = {dgu}}, L, t);
    row("swiglu_tangent", (struct op_call){.op = OP_swiglu_tangent, .in = {gu, dgu}, .out = {h}}, 0, t);
    struct view *used[] = {&x, &y, &dy, &gain, &rstd, &gu, &dgu, &h, &dot, &table, &tokens};
    for (int i = 0; i < 11; i++) backend_matrix_free(backend, used[i]);
}

static void losses(const struct shape *s, struct total *t) {
    int64_t N = s->tokens, V = s->vocab;
    struct view teacher = matrix(N, V, 2, 0), student = matrix(N, V, 2, 0), kl = column(DTYPE_F64, N, 0),
                agree = column(DTYPE_I32, N, 2);
    struct view targets = column(DTYPE_I32, N, (int32_t)V);
    struct loss_params p = {true, 1};
    // Repeated calls find a gradient where the logits were: small numbers, the same work.
    row("kl_divergence + gradient",
        (struct op_call){.op = OP_kl_divergence, .in = {teacher, student}, .out = {kl, agree}, .params.loss = p}, 1, t);
    row("cross_entropy + gradient",
        (struct op_call){.op = OP_cross_entropy, .in = {student, targets}, .out = {kl}, .params.loss = p}, 0, t);
    struct view *used[] = {&teacher, &student, &kl, &agree, &targets};
    for (int i = 0; i < 5; i++) backend_matrix_free(backend, used[i]);
}

// All weights of a layer in one matrix of rows of the hidden size, groups of 32 and 3 bits.
static void weights(const struct shape *s, struct total *t) {
    int64_t C = s->hidden,
            O = (s->heads + 2 * s->kv_heads) * s->head_dim + s->heads * s->head_dim + 3 * s->intermediate;
    double L = (double)s->layers;
    struct grid grid;
    must(grid_block(3, 32, &grid));
    struct view w = matrix(O, C, 0.1, 0), scale = matrix(O, grid_groups(&grid, C), 0.001, 0.06),
                x = matrix(O, C, 0.2, 0.5), y = matrix(O, C, 1, 0);
    struct view m = matrix(O, C, 0.01, 0), v = matrix(O, C, 0.01, 1), g = matrix(O, C, 1, 0);
    row("grid_offset", (struct op_call){.op = OP_grid_offset, .in = {w, scale}, .out = {y}, .params.grid = &grid}, 0,
        t);
    row("grid_interpolate",
        (struct op_call){.op = OP_grid_interpolate, .in = {w, scale, x}, .out = {y}, .params.grid = &grid}, L, t);
    row("grid_interpolate_grad",
        (struct op_call){.op = OP_grid_interpolate_grad, .in = {w, scale, g}, .out = {y}, .params.grid = &grid}, L, t);
    row("grid_round", (struct op_call){.op = OP_grid_round, .in = {w, scale, x}, .out = {y}, .params.grid = &grid}, 0,
        t);
    row("grid_nearest", (struct op_call){.op = OP_grid_nearest, .in = {w, scale}, .out = {y}, .params.grid = &grid}, 0,
        t);
    struct adamw_params adamw = {1e-3, 0.9, 0.999, 1e-8, 0.01, 10, 0, 1, 1, 0.5, 0.1, &grid};
    row("adamw", (struct op_call){.op = OP_adamw, .in = {x, m, v, g, w, scale}, .out = {x}, .params.adamw = adamw}, L,
        t);
    struct view *used[] = {&w, &scale, &x, &y, &m, &v, &g};
    for (int i = 0; i < 7; i++) backend_matrix_free(backend, used[i]);
}

int main(int argc, char **argv) {
    const char *only = NULL;
    int threads = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--shape") == 0) only = argv[i + 1];
        if (strcmp(argv[i], "--threads") == 0) threads = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--cpu-time") == 0) cpu_time = strcmp(argv[i + 1], "yes") == 0;
    }
    threads_set(threads);
    must(backend_open("cpu", &backend));
    measure_peak();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];
        if (only && strcmp(only, s->name) != 0) continue;
        struct total t = {0};
        printf("%s: N %lld, hidden %lld, intermediate %lld, heads %lld / %lld of %lld, vocabulary %lld, T %lld, %lld "
               "layers\n",
               s->name, (long long)s->tokens, (long long)s->hidden, (long long)s->intermediate, (long long)s->heads,
               (long long)s->kv_heads, (long long)s->head_dim, (long long)s->vocab, (long long)s->seq,
               (long long)s->layers);
        products(s, &t);
        attention(s, &t);
        layers(s, &t);
        losses(s, &t);
        weights(s, &t);
        printf("  step %.1f ms (products and attention %.1f ms), %.1f GFLOP/s of products and attention = %.0f %% of "
               "sgemm\n",
               1e3 * t.seconds, 1e3 * t.product_seconds, t.product_flops / t.seconds / 1e9,
               t.product_flops / t.seconds / 1e7 / peak.gflops);
    }
    backend_close(backend);
    return 0;
}
