// DiscQuant steps on the bundled model: the GPU follows the CPU. In F32 the two differ by the order of sums; in BF16 weights, activations
// and x are rounded to 8 bits. A JSON line with the figures goes to stdout for each.
//
// Tolerances. An entry of x moves by about the learning rate per step whatever the size of its gradient (AdamW), so the few entries
// whose gradient is near 0 may part company: shares of entries are bounded, not the largest difference. The linear term, of
// the order of 1 in most entries, keeps them few.
#include "tests/check.h"
#include "tests/gpu/device.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "data/model.h"
#include "discquant/optimizer.h"

enum { STEPS = 6, BATCH = 4, SEQ_LEN = 128 };

struct outcome {
    double kl[STEPS];
    float *x; // of all weights on a grid, in the order of the network
    int64_t n;
};

static void tokens_fill(int32_t *tokens, int64_t vocab, uint64_t step) {
    struct rng rng = {.seed = 5, .stream = RNG_TEST + step};
    for (int64_t i = 0; i < BATCH * SEQ_LEN; i++) tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % (uint32_t)vocab);
}

static void x_read(const struct model *model, struct outcome *out) {
    struct transformer *t = model->transformer;
    for (int64_t i = 0; i < t->n_weights; i++)
        if (t->weights[i].grid) out->n += view_count(t->weights[i].x);
    out->x = mem_new((size_t)out->n, sizeof *out->x);
    float *at = out->x;
    for (int64_t i = 0; i < t->n_weights; i++) {
        if (!t->weights[i].grid) continue;
        check_ok(backend_floats_read(model->backend, t->weights[i].x, at));
        at += view_count(t->weights[i].x);
    }
}

static struct outcome steps_run(const char *device, enum dtype dtype, bool recompute) {
    char path[4096];
    struct outcome out = {.n = 0};
    struct model *model = NULL;
    struct rounding *rounding = NULL;
    struct optimizer *optimizer = NULL;
    struct grid grid;
    struct optimizer_options options = {.steps = STEPS,
                                        .finish.from = STEPS - 2,
                                        .finish.strength = 0.2,
                                        .warmup = 2,
                                        .batch = BATCH,
                                        .seq_len = SEQ_LEN,
                                        .lambda = 200,
                                        .clamp = 1,
                                        .rate = 0.1,
                                        .strength = 1,
                                        .recompute = recompute};
    int32_t tokens[BATCH * SEQ_LEN];
    check_ok(model_open(check_source("data/story-model", path, sizeof path), device, dtype, NULL, &model));
    check_ok(grid_block(3, -1, &grid));
    check_ok(rounding_new(model->transformer, &grid, dtype, &rounding));
    check_ok(rounding_random(rounding, 1));
    check_ok(optimizer_new(rounding, model->step, &options, &optimizer));
    for (int step = 0; step < STEPS; step++) {
        tokens_fill(tokens, model->transformer->config.vocab, (uint64_t)step);
        check_ok(optimizer_step(optimizer, tokens, &out.kl[step]));
    }
    x_read(model, &out);
    optimizer_free(optimizer);
    rounding_free(rounding);
    model_free(model);
    return out;
}

struct distance {
    double kl;           // largest relative difference over the steps
    double x;            // root mean square
    double moved, sides; // share of entries that differ by more than 0.01, that are rounded to the other side
};

static struct distance distance_of(const struct outcome *a, const struct outcome *b) {
    struct distance d = {0};
    assert_int_equal(a->n, b->n);
    for (int step = 0; step < STEPS; step++) d.kl = fmax(d.kl, fabs(a->kl[step] / b->kl[step] - 1));
    for (int64_t i = 0; i < a->n; i++) {
        double difference = (double)a->x[i] - (double)b->x[i];
        d.x += difference * difference / (double)a->n;
        d.moved += (fabs(difference) > 0.01) / (double)a->n;
        d.sides += ((a->x[i] > 0.5f) != (b->x[i] > 0.5f)) / (double)a->n;
    }
    d.x = sqrt(d.x);
    return d;
}

static struct distance compare(enum dtype dtype, bool recompute) {
    struct outcome cpu = steps_run("cpu", DTYPE_F32, false), gpu = steps_run(device_name(), dtype, recompute);
    struct distance d = distance_of(&gpu, &cpu);
    printf("{\"case\": \"run\", \"device\": \"%s\", \"dtype\": \"%s\", \"recompute\": %d, \"steps\": %d, "
           "\"kl_cpu\": %.6g, \"kl\": %.6g, \"kl_difference\": %.3g, \"x_difference\": %.3g, \"x_moved\": %.3g, "
           "\"x_other_side\": %.3g}\n",
           device_name(), dtype_name(dtype), recompute, STEPS, cpu.kl[STEPS - 1], gpu.kl[STEPS - 1], d.kl, d.x, d.moved,
           d.sides);
    fflush(stdout);
    free(cpu.x);
    free(gpu.x);
    return d;
}

static void check_close(struct distance d, double kl, double moved, double sides) {
    check_near(d.kl, 0, 0, kl);
    check_near(d.moved, 0, 0, moved);
    check_near(d.sides, 0, 0, sides);
}

static void steps_in_f32_are_those_of_the_cpu(void **state) {
    (void)state;
    check_close(compare(DTYPE_F32, false), 1e-3, 0.01, 0.005);
}

static void steps_with_recomputation_are_those_of_the_cpu(void **state) {
    (void)state;
    check_close(compare(DTYPE_F32, true), 1e-3, 0.01, 0.005);
}

static void steps_in_bf16_follow_the_cpu(void **state) {
    (void)state;
    struct backend *backend = NULL;
    check_ok(backend_open(device_name(), &backend));
    bool bf16 = backend->fns->bf16;
    backend_close(backend);
    if (!bf16) skip();
    check_close(compare(DTYPE_BF16, true), 0.05, 0.5, 0.05);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_in_f32_are_those_of_the_cpu),
        cmocka_unit_test(steps_with_recomputation_are_those_of_the_cpu),
        cmocka_unit_test(steps_in_bf16_follow_the_cpu),
    };
    struct backend *backend = device_open_or_say();
    if (!backend) return SKIPPED;
    backend_close(backend);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
