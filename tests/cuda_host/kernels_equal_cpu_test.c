// Where kernels must give the numbers of the CPU to the bit: random numbers, and what lies on a quantization grid.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/cuda_host/random_numbers.h"
#include "tests/ops/ops_trial.h"

#include "core/quant/hadamard.h"

static struct backend *opened(const char *name) {
    static struct backend *cpu, *device;
    if (!cpu) {
        backend_add(&cuda_host_backend_fns);
        check_ok(backend_open("cpu", &cpu));
        check_ok(backend_open("cuda_host", &device));
    }
    return strcmp(name, "cpu") == 0 ? cpu : device;
}

static void random_numbers_are_those_of_the_host(void **state) {
    (void)state;
    enum { N = 200 };
    static const uint64_t firsts[] = {0, 3, UINT64_C(0xFFFFFFFF) * 4 - 50, UINT64_C(0xFFFFFFFFFFFFFF00) - N};
    struct backend *device = opened("cuda_host");
    struct view bits, uniform;
    check_ok(backend_matrix_new(device, DTYPE_I32, 1, N, "bits", &bits));
    check_ok(backend_matrix_new(device, DTYPE_F32, 1, N, "uniform", &uniform));
    for (int k = 0; k < 4; k++) {
        struct rng rng = {.seed = UINT64_C(0xFEDCBA9876543210) >> k, .stream = RNG_TEST + (uint64_t)k};
        uint32_t host_bits[N];
        float host_uniform[N];
        check_ok(random_numbers(device, rng, firsts[k], bits, uniform));
        check_ok(backend_read(device, bits, host_bits));
        check_ok(backend_read(device, uniform, host_uniform));
        check_ok(backend_sync(device));
        for (uint64_t i = 0; i < N; i++) {
            assert_int_equal(host_bits[i], rng_bits(rng, firsts[k] + i));
            assert_true(host_uniform[i] == rng_uniform(rng, firsts[k] + i));
        }
    }
    backend_matrix_free(device, &bits);
    backend_matrix_free(device, &uniform);
}

static void each_case(enum op op, bool accumulate,
                      void (*compare)(const struct trial *cpu, const struct trial *device)) {
    int cases = 0;
    for (int i = 0; i < op_case_count; i++) {
        if (op_cases[i].op != op) continue;
        for (int64_t pad = 0; pad <= 3; pad += 3, cases++) {
            struct trial cpu, device;
            trial_new(&cpu, &op_cases[i], accumulate, pad, 0);
            trial_new(&device, &op_cases[i], accumulate, pad, 0);
            check_ok(trial_run(&cpu, opened("cpu")));
            check_ok(trial_run(&device, opened("cuda_host")));
            compare(&cpu, &device);
            trial_free(&cpu);
            trial_free(&device);
        }
    }
    assert_true(cases >= 4);
}

static void check_bits(const struct trial *cpu, const struct trial *device) {
    assert_memory_equal(cpu->out[0].block, device->out[0].block, cpu->out[0].bytes);
}

// down (1 - x) + up x and sums into y: compilers fuse one product or the other with the addition.
static void check_ulps(const struct trial *cpu, const struct trial *device) {
    for (int64_t i = 0; i < cpu->out[0].view.rows; i++)
        check_all_near(view_f32(device->out[0].view, i), view_f32(cpu->out[0].view, i), cpu->out[0].view.cols, 2.4e-7,
                       1e-7);
}

static void check_update(const struct trial *cpu, const struct trial *device) {
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < cpu->in[k].view.rows; i++)
            check_all_near(view_f32(device->in[k].view, i), view_f32(cpu->in[k].view, i), cpu->in[k].view.cols, 1e-5,
                           1e-6);
}

// Rows wider than the cases of all backends: whole columns in several rounds, up to the most a block holds.
static void wide_rows_are_rotated_as_on_the_cpu(void **state) {
    (void)state;
    static const int64_t widths[] = {17920, 28672, 40960};
    for (int w = 0; w < 6; w++) {
        int64_t n = widths[w / 2];
        struct hadamard *h = NULL;
        check_ok(hadamard_new(n, false, &h));
        float *host[2] = {malloc((size_t)n * 4), malloc((size_t)n * 4)};
        for (int b = 0; b < 2; b++) {
            struct backend *backend = opened(b ? "cuda_host" : "cpu");
            struct view x, y, tables = {0};
            check_ok(backend_matrix_new(backend, DTYPE_F32, 1, n, "x", &x));
            check_ok(backend_matrix_new(backend, DTYPE_F32, 1, n, "y", &y));
            if (h->n_factors) {
                check_ok(backend_matrix_new(backend, DTYPE_I32, h->table_rows, h->words, "tables", &tables));
                check_ok(backend_write(backend, tables, h->tables));
            }
            rng_uniform_fill((struct rng){.seed = 4, .stream = RNG_TEST}, 0, host[b], n);
            check_ok(backend_write(backend, x, host[b]));
            check_ok(backend_run(backend, &(struct op_call){.op = OP_hadamard,
                                                            .in = {x, {0}, tables},
                                                            .out = {y},
                                                            .params.hadamard = {.matrix = h, .transposed = w % 2}}));
            check_ok(backend_read(backend, y, host[b]));
            check_ok(backend_sync(backend));
            backend_matrix_free(backend, &x);
            backend_matrix_free(backend, &y);
            backend_matrix_free(backend, &tables);
        }
        check_all_near(host[1], host[0], n, 1e-5, 1e-4); // the first entry is sqrt(n) / 2
        free(host[0]), free(host[1]);
        hadamard_free(h);
    }
}

static void what_lies_on_a_grid_has_the_bits_of_the_cpu(void **state) {
    (void)state;
    each_case(OP_grid_offset, false, check_bits);
    each_case(OP_grid_round, false, check_bits);
    each_case(OP_grid_nearest, false, check_bits);
    each_case(OP_grid_interpolate_grad, false, check_bits);
}

static void sums_on_a_grid_are_within_an_ulp_of_the_cpu(void **state) {
    (void)state;
    each_case(OP_grid_interpolate, false, check_ulps);
    each_case(OP_grid_interpolate_grad, true, check_ulps);
}

static void an_fp32_update_is_that_of_the_cpu(void **state) {
    (void)state;
    each_case(OP_adamw, false, check_update);
}

// Sums of integers are exact, so that only other shifts or signs could tell the two apart; sums of rounded numbers are exact too.
static void rotations_and_exact_sums_have_the_bits_of_the_cpu(void **state) {
    (void)state;
    enum { SAMPLES = 3, N = 9001, SKETCHES = 6, K = 300, DIRECTIONS = 5 };
    static float a[SAMPLES * N], parts[SAMPLES * N], directions[DIRECTIONS * N], sketches[2][SAMPLES * SKETCHES * K];
    static double norms[2][SAMPLES], inner[2][SAMPLES * DIRECTIONS], sums[2][N];
    struct rng rng = {.seed = 6, .stream = RNG_TEST};
    for (uint64_t i = 0; i < SAMPLES * N; i++) a[i] = (float)(rng_bits(rng, i) % 1000) - 500, parts[i] = 0.001f * a[i];
    for (uint64_t i = 0; i < DIRECTIONS * N; i++) directions[i] = (float)(rng_bits(rng, i + 99999) % 64) - 32;
    for (int k = 0; k < 2; k++) {
        struct backend *backend = opened(k ? "cuda_host" : "cpu");
        struct view v[6];
        const struct {
            enum dtype dtype;
            int64_t rows, cols;
        } of[6] = {{DTYPE_F32, SAMPLES, N},          {DTYPE_F32, DIRECTIONS, N},
                   {DTYPE_F64, SAMPLES, 1},          {DTYPE_F32, SAMPLES, SKETCHES * K},
                   {DTYPE_F64, SAMPLES, DIRECTIONS}, {DTYPE_F64, 1, N}};
        for (int i = 0; i < 6; i++)
            check_ok(backend_matrix_new(backend, of[i].dtype, of[i].rows, of[i].cols, "operand", &v[i]));
        check_ok(backend_write(backend, v[0], a));
        check_ok(backend_write(backend, v[1], directions));
        check_ok(backend_run(
            backend, &(struct op_call){
                         .op = OP_sketch,
                         .in = {v[0], v[1]},
                         .out = {v[2], v[3], v[4]},
                         .params.sketch = {
                             .kind = SKETCH_ROTATION, .sketches = SKETCHES, .first = 1234, .stream = 9, .seed = 8}}));
        check_ok(backend_write(backend, v[0], parts));
        check_ok(backend_run(backend, &(struct op_call){.op = OP_exact_sum, .in = {v[0]}, .out = {v[5]}}));
        void *host[] = {norms[k], sketches[k], inner[k], sums[k]};
        for (int i = 0; i < 4; i++) check_ok(backend_read(backend, v[2 + i], host[i]));
        check_ok(backend_sync(backend));
        for (int i = 0; i < 6; i++) backend_matrix_free(backend, &v[i]);
    }
    assert_memory_equal(norms[0], norms[1], sizeof norms[0]);
    assert_memory_equal(sketches[0], sketches[1], sizeof sketches[0]);
    assert_memory_equal(inner[0], inner[1], sizeof inner[0]);
    assert_memory_equal(sums[0], sums[1], sizeof sums[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_numbers_are_those_of_the_host),
        cmocka_unit_test(wide_rows_are_rotated_as_on_the_cpu),
        cmocka_unit_test(what_lies_on_a_grid_has_the_bits_of_the_cpu),
        cmocka_unit_test(sums_on_a_grid_are_within_an_ulp_of_the_cpu),
        cmocka_unit_test(an_fp32_update_is_that_of_the_cpu),
        cmocka_unit_test(rotations_and_exact_sums_have_the_bits_of_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
