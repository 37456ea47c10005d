// Per-sample norms, sketches, sums and inner products of networks on the emulated device, against the CPU: in F32 the same numbers,
// in BF16 near ones (device_network_test.c says why 5 %).
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/small_networks.h"

#include "core/base/rng.h"
#include "core/graph/sketch_sink.h"
#include "core/nn/random_source.h"
#include "core/nn/transformer.h"

enum { SEQ_LEN = 8, BATCH = 3, ROWS = BATCH * SEQ_LEN, WEIGHTS = 40, DIM = 40, SKETCHES = 2, DIRECTIONS = 1 };
enum { NUMBERS = BATCH * (1 + SKETCHES * DIM + DIRECTIONS) };

// Norms, sketches, inner products of one pass, and the sum of the embedding's gradients, or of the first matrix's.
struct results {
    double numbers[NUMBERS], *sum;
    int64_t n;
};

static void fill(struct backend *backend, struct view v) {
    float *host = malloc((size_t)view_count(v) * sizeof *host);
    for (int64_t i = 0; i < view_count(v); i++)
        host[i] = (float)rng_normal((struct rng){.seed = 4, .stream = RNG_TEST}, (uint64_t)(v.rows + i));
    check_ok(backend_write(backend, v, host));
    check_ok(backend_sync(backend));
    free(host);
}

static struct results results_of(const char *device, const struct transformer_config *config, enum dtype dtype,
                                 enum sketch_kind kind) {
    struct backend *backend = NULL;
    struct step *step = NULL;
    struct transformer *model = NULL;
    struct sketch_sink *sink = NULL;
    struct value *hidden = NULL;
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    int32_t tokens[ROWS], targets[ROWS];
    int64_t group[WEIGHTS] = {0};
    struct view directions[WEIGHTS] = {{0}}, tokens_view, targets_view, loss_view;
    for (int i = 0; i < ROWS; i++)
        tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 3, .stream = RNG_TEST}, (uint64_t)i) % VOCAB);
    for (int i = 0; i < ROWS; i++) targets[i] = (i + 1) % SEQ_LEN ? tokens[i + 1] : -1;
    check_ok(backend_open(device, &backend));
    check_ok(step_new(backend, &step));
    check_ok(transformer_new(backend, config, dtype, random_source(&random), &model));
    check_ok(backend_matrix_new(backend, DTYPE_I32, ROWS, 1, "tokens", &tokens_view));
    check_ok(backend_matrix_new(backend, DTYPE_I32, ROWS, 1, "targets", &targets_view));
    check_ok(backend_matrix_new(backend, DTYPE_F64, ROWS, 1, "losses", &loss_view));
    check_ok(backend_write(backend, tokens_view, tokens));
    check_ok(backend_write(backend, targets_view, targets));
    for (int64_t k = 0; k < model->n_weights; k++) {
        const struct weight *w = &model->weights[k];
        check_ok(backend_matrix_new(backend, DTYPE_F32, DIRECTIONS, w->rows * w->cols, "direction", &directions[k]));
        fill(backend, directions[k]);
    }
    struct sketch_options options = {.kind = kind,
                                     .dim = DIM,
                                     .sketches = SKETCHES,
                                     .seed = 31,
                                     .n_groups = 1,
                                     .group = group,
                                     .shared = config->tied ? model->embedding : NULL,
                                     .sum = true,
                                     .n_directions = DIRECTIONS,
                                     .directions = directions};
    check_ok(sketch_sink_new(backend, model->weights, model->n_weights, &options, BATCH, &sink));
    sketch_sink_attach(sink);
    step_begin(step, (struct step_options){.gradient = true, .seq_len = SEQ_LEN, .dtype = dtype});
    check_ok(sketch_sink_begin(sink, tokens_view));
    check_ok(transformer_forward(model, step, tokens_view, &hidden));
    struct transformer_loss loss = {
        .targets = targets_view, .cross_entropy = loss_view, .gradient_weight = 1.0 / (SEQ_LEN - 1)};
    check_ok(transformer_loss(model, step, hidden, &loss));
    check_ok(step_backward(step));
    check_ok(sketch_sink_end(sink, BATCH));
    const struct weight *first = &model->weights[config->tied ? 0 : 2];
    struct results r = {.sum = malloc((size_t)(first->rows * first->cols) * sizeof(double)),
                        .n = first->rows * first->cols};
    check_ok(sketch_sink_sum(sink, first, r.sum));
    for (int i = 0; i < BATCH; i++) r.numbers[i] = sqrt(sink->norms[i]);
    for (int i = 0; i < BATCH * SKETCHES * DIM; i++) r.numbers[BATCH + i] = (double)sink->sketches[i];
    for (int i = 0; i < BATCH * DIRECTIONS; i++) r.numbers[NUMBERS - BATCH * DIRECTIONS + i] = sink->inner[i];
    sketch_sink_free(sink);
    for (int64_t k = 0; k < model->n_weights; k++) backend_matrix_free(backend, &directions[k]);
    backend_matrix_free(backend, &tokens_view);
    backend_matrix_free(backend, &targets_view);
    backend_matrix_free(backend, &loss_view);
    transformer_free(model);
    step_free(step);
    backend_close(backend);
    return r;
}

// Distance of two arrays as a share of the length of the second.
static double distance(const double *a, const double *b, int64_t n) {
    double square = 0, size = 0;
    for (int64_t i = 0; i < n; i++) square += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    return sqrt(square / size);
}

static void check_device(enum dtype dtype, enum sketch_kind kind, double share) {
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct results want = results_of("cpu", configs[c], DTYPE_F32, kind);
        struct results got = results_of("cuda_host", configs[c], dtype, kind);
        double off = distance(got.numbers, want.numbers, NUMBERS), sum = distance(got.sum, want.sum, want.n);
        for (int i = 0; i < BATCH; i++) check_near(got.numbers[i], want.numbers[i], share, 0);
        if (!(off <= share) || !(sum <= share)) fail_msg("off by %g, sums by %g", off, sum);
        free(want.sum);
        free(got.sum);
    }
}

static void the_device_gives_what_the_cpu_gives(void **state) {
    (void)state;
    for (int kind = SKETCH_ROTATION; kind <= SKETCH_RADEMACHER; kind++)
        check_device(DTYPE_F32, (enum sketch_kind)kind, 1e-5);
}

static void bf16_gives_nearly_that(void **state) {
    (void)state;
    check_device(DTYPE_BF16, SKETCH_ROTATION, 0.05);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_device_gives_what_the_cpu_gives),
        cmocka_unit_test(bf16_gives_nearly_that),
    };
    backend_add(&cuda_host_backend_fns);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
