// Cost of per-sample statistics beside the plain backward pass, in one run.
//
//     sketch_speed [--threads N] [--batch B] [--seq-len T] [--dim K] [--sketches J] [--rounds R] [--weights linear|all] [--dense no]
//
// A random network of the shape of stories260K; windows of T tokens. A round runs forward and backward once for each way of
// treating weight gradients, one after the other: summed over the batch (plain), products per sample and nothing else,
// exact norms, norms and J sketches, the same with the exact sum, one dense sketch each. Printed are medians over the rounds of
// processor and wall time per sample, and of the ratio to the plain pass of the same round. Statistics are checked against
// the plain gradient first.
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/random_source.h"
#include "core/nn/transformer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum way { PLAIN, PRODUCTS, NORMS, SKETCHES, SKETCHES_SUM, GAUSSIAN, RADEMACHER, WAYS };
static const char *const way_names[WAYS] = {
    "plain: summed gradients",   "products per sample, dropped", "exact norms",
    "norms + J sketches",        "norms + J sketches + sum",     "norms + 1 dense Gaussian",
    "norms + 1 dense Rademacher"};

static int64_t batch = 32, seq_len = 128, dim = 2048, n_sketches = 4, rounds = 15;
static bool all_weights, dense = true;

struct network {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    int32_t *tokens, *targets;
    double *loss;
    int64_t group[64];
    struct sketch_sink *sinks[WAYS];
};

static void must(enum status status) {
    if (status == STATUS_OK) return;
    fprintf(stderr, "sketch_speed: error: %s\n", status_message());
    exit(1);
}

static void claim(bool held, const char *what) {
    if (held) return;
    fprintf(stderr, "sketch_speed: error: wrong answer: %s\n", what);
    exit(1);
}

// A sink that makes the products and drops them: what they alone cost.
static enum status drop_product(struct grad_sink *sink, struct step *step, struct weight *w, struct view dy,
                                struct view x, int64_t first) {
    (void)sink, (void)first;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = dy.rows / seq_len, most = (1 << 18) / (w->rows * w->cols);
    struct view room;
    if (most < 1) most = 1;
    TRY(step_take(step, DTYPE_F32, (most < samples ? most : samples) * w->rows, w->cols, &room));
    for (int64_t b = 0; b < samples; b += most) {
        int64_t n = samples - b < most ? samples - b : most;
        TRY(backend_run(step_backend(step), &(struct op_call){.op = OP_sample_products,
                                                              .in = {view_rows(dy, b * seq_len, n * seq_len),
                                                                     view_rows(x, b * seq_len, n * seq_len)},
                                                              .out = {view_rows(room, 0, n * w->rows)}}));
    }
    step_release(step, mark);
done:
    return status;
}
static enum status drop_gain(struct grad_sink *sink, struct step *step, struct weight *w, struct view dy, struct view x,
                             struct view rstd) {
    (void)sink, (void)step, (void)w, (void)dy, (void)x, (void)rstd;
    return STATUS_OK;
}
static enum status drop_table(struct grad_sink *sink, struct step *step, struct weight *w, struct view dy,
                              struct view tokens) {
    (void)sink, (void)step, (void)w, (void)dy, (void)tokens;
    return STATUS_OK;
}
static struct grad_sink drop_sink = {drop_product, drop_gain, drop_table};

static void network_open(struct network *s) {
    static const struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                                     .hidden = 64,
                                                     .intermediate = 172,
                                                     .layers = 5,
                                                     .heads = 8,
                                                     .kv_heads = 4,
                                                     .head_dim = 8,
                                                     .vocab = 512,
                                                     .max_positions = 512,
                                                     .rms_eps = 1e-5,
                                                     .rope = {.theta = 10000},
                                                     .bos = -1,
                                                     .tied = true};
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.1};
    int64_t n = batch * seq_len;
    must(backend_open("cpu", &s->backend));
    must(step_new(s->backend, &s->step));
    must(transformer_new(s->backend, &config, DTYPE_F32, random_source(&random), &s->model));
    s->tokens = malloc((size_t)n * 4), s->targets = malloc((size_t)n * 4), s->loss = malloc((size_t)n * 8);
    for (int64_t i = 0; i < n; i++)
        s->tokens[i] = (int32_t)(rng_bits((struct rng){1, RNG_TEST}, (uint64_t)i) % (uint32_t)config.vocab);
    for (int64_t i = 0; i < n; i++) s->targets[i] = (i + 1) % seq_len ? s->tokens[i + 1] : -1;
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        struct weight *w = &s->model->weights[k];
        s->group[k] = all_weights || w->is_linear ? 0 : -1;
        must(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
    }
    for (int way = NORMS; way < WAYS; way++) {
        static const enum sketch_kind kinds[WAYS] = {
            0, 0, SKETCH_NONE, SKETCH_ROTATION, SKETCH_ROTATION, SKETCH_GAUSSIAN, SKETCH_RADEMACHER};
        struct sketch_options options = {.kind = kinds[way],
                                         .dim = dim,
                                         .sketches = way < GAUSSIAN ? n_sketches : 1,
                                         .seed = 7,
                                         .n_groups = 1,
                                         .group = s->group,
                                         .shared = s->model->embedding,
                                         .sum = way == SKETCHES_SUM};
        must(sketch_sink_new(s->backend, s->model->weights, s->model->n_weights, &options, batch, &s->sinks[way]));
    }
}

static void pass(struct network *s, enum way way) {
    struct value *hidden = NULL;
    struct view tokens = view_new(s->tokens, DTYPE_I32, batch * seq_len, 1);
    if (s->sinks[way]) sketch_sink_attach(s->sinks[way]);
    for (int64_t k = 0; k < s->model->n_weights && !s->sinks[way]; k++)
        s->model->weights[k].sink = s->group[k] < 0 ? NULL : way == PLAIN ? &accumulate_sink : &drop_sink;
    for (int64_t k = 0; k < s->model->n_weights && way == PLAIN; k++)
        must(backend_run(s->backend, &(struct op_call){.op = OP_fill, .out = {s->model->weights[k].grad}}));
    step_begin(s->step, (struct step_options){.gradient = true, .seq_len = seq_len});
    if (s->sinks[way]) must(sketch_sink_begin(s->sinks[way], tokens));
    must(transformer_forward(s->model, s->step, tokens, &hidden));
    struct transformer_loss loss = {.targets = view_new(s->targets, DTYPE_I32, batch * seq_len, 1),
                                    .cross_entropy = view_new(s->loss, DTYPE_F64, batch * seq_len, 1),
                                    .gradient_weight = 1.0 / (double)(seq_len - 1)};
    must(transformer_loss(s->model, s->step, hidden, &loss));
    must(step_backward(s->step));
    if (s->sinks[way]) must(sketch_sink_end(s->sinks[way], batch));
}

// The sum of the samples' gradients is the plain gradient; squared lengths of sketches are norms, within 6 sqrt(2 / k).
static void check(struct network *s) {
    pass(s, PLAIN);
    for (int way = NORMS; way < (dense ? WAYS : GAUSSIAN); way++) pass(s, (enum way)way);
    for (int64_t k = 0; k < s->model->n_weights; k++) {
        const struct weight *w = &s->model->weights[k];
        if (s->group[k] < 0) continue;
        int64_t n = w->rows * w->cols;
        double *sum = malloc((size_t)n * sizeof *sum), largest = 0, error = 0;
        must(sketch_sink_sum(s->sinks[SKETCHES_SUM], w, sum));
        for (int64_t i = 0; i < n; i++) {
            largest = fmax(largest, fabs(sum[i]));
            error = fmax(error, fabs(sum[i] - (double)view_f32(w->grad, 0)[i]));
        }
        claim(error <= 1e-4 * largest, "the sum over samples");
        free(sum);
    }
    for (int way = SKETCHES; way < (dense ? WAYS : GAUSSIAN); way++)
        for (int64_t b = 0; b < batch; b++) {
            double norm = s->sinks[way]->norms[b], square = 0;
            int64_t width = dim * (way < GAUSSIAN ? n_sketches : 1);
            for (int64_t i = 0; i < dim; i++) square += pow((double)s->sinks[way]->sketches[b * width + i], 2);
            claim(fabs(square / norm - 1) <= 6 * sqrt(2 / (double)dim), "the length of a sketch");
            claim(fabs(norm / s->sinks[NORMS]->norms[b] - 1) <= 1e-12, "a norm");
        }
}

static int by_value(const void *a, const void *b) {
    double u = *(const double *)a, v = *(const double *)b;
    return (u > v) - (u < v);
}

static double median(const double *x) {
    double sorted[1000];
    memcpy(sorted, x, (size_t)rounds * sizeof *x);
    qsort(sorted, (size_t)rounds, sizeof *sorted, by_value);
    return (sorted[(rounds - 1) / 2] + sorted[rounds / 2]) / 2;
}

static void measure(struct network *s) {
    static double cpu[WAYS][1000], wall[WAYS][1000], cpu_ratio[WAYS][1000], wall_ratio[WAYS][1000];
    int ways = dense ? WAYS : GAUSSIAN;
    for (int64_t r = 0; r < rounds; r++)
        for (int way = 0; way < ways; way++) {
            double wall_start = clock_seconds(), cpu_start = (double)clock() / CLOCKS_PER_SEC;
            pass(s, (enum way)way);
            cpu[way][r] = (double)clock() / CLOCKS_PER_SEC - cpu_start, wall[way][r] = clock_seconds() - wall_start;
            cpu_ratio[way][r] = cpu[way][r] / cpu[PLAIN][r], wall_ratio[way][r] = wall[way][r] / wall[PLAIN][r];
        }
    printf("threads %d  batch %lld windows of %lld tokens  k = %lld  J = %lld  %s  %lld rounds\n", threads_count(),
           (long long)batch, (long long)seq_len, (long long)dim, (long long)n_sketches,
           all_weights ? "all weights" : "linear weights", (long long)rounds);
    printf("%-30s %14s %14s %16s %16s\n", "forward + backward", "cpu ms/sample", "wall ms/sample", "cpu / plain",
           "wall / plain");
    for (int way = 0; way < ways; way++)
        printf("%-30s %14.3f %14.3f %16.3f %16.3f\n", way_names[way], 1e3 * median(cpu[way]) / (double)batch,
               1e3 * median(wall[way]) / (double)batch, median(cpu_ratio[way]), median(wall_ratio[way]));
}

int main(int argc, char **argv) {
    struct {
        const char *name;
        int64_t *value;
    } numbers[] = {{"--batch", &batch},
                   {"--seq-len", &seq_len},
                   {"--dim", &dim},
                   {"--sketches", &n_sketches},
                   {"--rounds", &rounds}};
    threads_wait_briefly(argv);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0) threads_set(atoi(argv[i + 1]));
        if (strcmp(argv[i], "--weights") == 0) all_weights = strcmp(argv[i + 1], "all") == 0;
        if (strcmp(argv[i], "--dense") == 0) dense = strcmp(argv[i + 1], "yes") == 0;
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++)
            if (strcmp(argv[i], numbers[k].name) == 0) *numbers[k].value = atoll(argv[i + 1]);
    }
    claim(rounds >= 1 && rounds <= 1000 && batch >= 1 && seq_len >= 2 && dim >= 1, "numbers in range");
    struct network s = {0};
    network_open(&s);
    check(&s);
    measure(&s);
    for (int way = 0; way < WAYS; way++) sketch_sink_free(s.sinks[way]);
    transformer_free(s.model);
    step_free(s.step);
    backend_close(s.backend);
    free(s.tokens), free(s.targets), free(s.loss);
    return 0;
}
