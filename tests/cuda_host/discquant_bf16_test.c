// DiscQuant with everything in BF16 (weights, x, moments) on the emulated device: what the roundings of many steps add up to,
// beside a run of the CPU in fp32 from the same start on the same tokens. Low-rank adapters, F32 in a network in BF16, likewise.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"

#include "core/base/rng.h"
#include "core/nn/random_source.h"
#include "discquant/adapter_trainer.h"
#include "discquant/optimizer.h"

enum { SEQ_LEN = 8, BATCH = 2, VOCAB = 24, STEPS = 20 };

static const struct transformer_config config = {.architecture = ARCHITECTURE_LLAMA,
                                                 .hidden = 16,
                                                 .intermediate = 24,
                                                 .layers = 1,
                                                 .heads = 2,
                                                 .kv_heads = 1,
                                                 .head_dim = 8,
                                                 .vocab = VOCAB,
                                                 .max_positions = 64,
                                                 .rms_eps = 1e-5,
                                                 .rope = {.theta = 100},
                                                 .bos = -1};

// Weights that BF16 can hold, so that both runs have the same teacher and the same grids.
static enum status rounded_read(void *self, const char *name, int64_t rows, int64_t cols, float *out,
                                enum dtype *dtype) {
    struct tensor_source random = random_source(self);
    enum status status = random.read(random.self, name, rows, cols, out, dtype);
    for (int64_t i = 0; i < rows * cols; i++) out[i] = bf16_to_float(bf16_from_float(out[i]));
    return status;
}

// KL of the interpolated network before each of the steps, always on the same tokens, without the linear term.
static void run(const char *device, enum dtype dtype, double *kl, double *integral) {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct optimizer *optimizer;
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct optimizer_options options = {.steps = STEPS,
                                        .warmup = 2,
                                        .finish.from = STEPS,
                                        .batch = BATCH,
                                        .seq_len = SEQ_LEN,
                                        .lambda = 200,
                                        .rate = 0.1,
                                        .seed = 4};
    struct grid grid;
    int32_t tokens[BATCH * SEQ_LEN];
    for (int i = 0; i < BATCH * SEQ_LEN; i++)
        tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 3, .stream = RNG_TEST}, (uint64_t)i) % VOCAB);
    check_ok(grid_block(3, 8, &grid));
    check_ok(backend_open(device, &backend));
    check_ok(step_new(backend, &step));
    check_ok(transformer_new(backend, &config, dtype, (struct tensor_source){.self = &random, .read = rounded_read},
                             &model));
    check_ok(rounding_new(model, &grid, dtype, &rounding));
    check_ok(rounding_random(rounding, 11));
    check_ok(optimizer_new(rounding, step, &options, &optimizer));
    for (int i = 0; i < STEPS; i++) check_ok(optimizer_step(optimizer, tokens, &kl[i]));
    check_ok(rounding_fraction_integral(rounding, integral));
    optimizer_free(optimizer);
    rounding_free(rounding);
    transformer_free(model);
    step_free(step);
    backend_close(backend);
}

static void a_run_in_bf16_lowers_the_kl_as_one_in_fp32_does(void **state) {
    (void)state;
    double kl[2][STEPS], integral[2];
    if (!cuda_host_backend_fns.kernels[OP_attention] || !cuda_host_backend_fns.kernels[OP_attention_grad]) skip();
    run("cpu", DTYPE_F32, kl[0], &integral[0]);
    run("cuda_host", DTYPE_BF16, kl[1], &integral[1]);
    for (int k = 0; k < 2; k++) assert_true(kl[k][STEPS - 1] < 0.1 * kl[k][0]);
    for (int i = 0; i < STEPS; i++) check_near(kl[1][i], kl[0][i], 0.06, 0); // 3.3 % at most were seen
    check_near(integral[1], integral[0], 0, 0.02);                           // share of x at 0 or 1
}

// KL of the network rounded to nearest and its adapters before each of the steps, always on the same tokens.
static void run_adapters(const char *device, enum dtype dtype, double *kl) {
    struct backend *backend;
    struct step *step;
    struct transformer *model;
    struct rounding *rounding;
    struct lora *lora;
    struct adapter_trainer *trainer;
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    struct adapter_trainer_options options = {
        .steps = STEPS, .warmup = 2, .batch = BATCH, .seq_len = SEQ_LEN, .rate = 0.02, .form = WEIGHT_ROUNDED};
    struct grid grid;
    int32_t tokens[BATCH * SEQ_LEN];
    for (int i = 0; i < BATCH * SEQ_LEN; i++)
        tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 3, .stream = RNG_TEST}, (uint64_t)i) % VOCAB);
    check_ok(grid_block(2, 8, &grid));
    check_ok(backend_open(device, &backend));
    check_ok(step_new(backend, &step));
    check_ok(transformer_new(backend, &config, dtype, (struct tensor_source){.self = &random, .read = rounded_read},
                             &model));
    check_ok(rounding_new(model, &grid, DTYPE_F32, &rounding));
    check_ok(rounding_to_nearest(rounding));
    check_ok(lora_new(model, 3, 6, &lora));
    check_ok(lora_add_named(lora, NULL));
    check_ok(lora_start(lora, 2));
    check_ok(adapter_trainer_new(lora, step, &options, &trainer));
    for (int i = 0; i < STEPS; i++) check_ok(adapter_trainer_step(trainer, tokens, &kl[i]));
    adapter_trainer_free(trainer);
    lora_free(lora);
    rounding_free(rounding);
    transformer_free(model);
    step_free(step);
    backend_close(backend);
}

static void adapters_in_a_network_in_bf16_learn_as_in_one_in_fp32(void **state) {
    (void)state;
    double kl[2][STEPS];
    if (!cuda_host_backend_fns.kernels[OP_attention] || !cuda_host_backend_fns.kernels[OP_attention_grad]) skip();
    run_adapters("cpu", DTYPE_F32, kl[0]);
    run_adapters("cuda_host", DTYPE_BF16, kl[1]);
    for (int k = 0; k < 2; k++) assert_true(kl[k][STEPS - 1] < 0.5 * kl[k][0]);
    for (int i = 0; i < STEPS; i++) check_near(kl[1][i], kl[0][i], 0.06, 0); // 2.1 % at most were seen
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_in_bf16_lowers_the_kl_as_one_in_fp32_does),
        cmocka_unit_test(adapters_in_a_network_in_bf16_learn_as_in_one_in_fp32),
    };
    backend_add(&cuda_host_backend_fns);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
