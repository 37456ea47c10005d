// The stochastic rounding of adamw on the emulated device: which random numbers it takes, that it is right on average, and what
// it leaves alone. False alarms are for a seed drawn at random; the seeds here are fixed.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"

#include "core/base/rng.h"
#include "core/tensor/dtype.h"

enum { COUNT_MAX = 1 << 16 };

static struct backend *device(void) {
    static struct backend *backend;
    if (!backend) {
        backend_add(&cuda_host_backend_fns);
        check_ok(backend_open("cuda_host", &backend));
    }
    return backend;
}

static const struct adamw_params plain = {.rate = 0.05,
                                          .beta1 = 0.9,
                                          .beta2 = 0.95,
                                          .eps = 1e-8,
                                          .decay = 0.1,
                                          .step = 3,
                                          .low = -INFINITY,
                                          .high = INFINITY,
                                          .factor = 1,
                                          .rng = {.seed = 0x123456789ABCDEF, .stream = RNG_ROUND + 4}};

struct state {
    int64_t rows, cols;
    float *p, *m, *v, *g; // [rows, cols]
};

static struct state state_new(int64_t rows, int64_t cols) {
    size_t bytes = (size_t)(rows * cols) * sizeof(float);
    return (struct state){rows, cols, calloc(1, bytes), calloc(1, bytes), calloc(1, bytes), calloc(1, bytes)};
}

static void state_free(struct state *s) {
    free(s->p), free(s->m), free(s->v), free(s->g);
    *s = (struct state){0};
}

static struct state state_copy(const struct state *s) {
    struct state to = state_new(s->rows, s->cols);
    size_t bytes = (size_t)(s->rows * s->cols) * sizeof(float);
    memcpy(to.p, s->p, bytes), memcpy(to.m, s->m, bytes), memcpy(to.v, s->v, bytes), memcpy(to.g, s->g, bytes);
    return to;
}

// Numbers that bf16 can hold.
static struct state state_drawn(int64_t rows, int64_t cols) {
    struct state s = state_new(rows, cols);
    struct rng rng = {.seed = 3, .stream = RNG_TEST};
    for (int64_t i = 0; i < rows * cols; i++) {
        uint64_t k = (uint64_t)(4 * i);
        s.p[i] = bf16_to_float(bf16_from_float(rng_uniform(rng, k)));
        s.m[i] = bf16_to_float(bf16_from_float((float)rng_normal(rng, k + 1)));
        s.v[i] = bf16_to_float(bf16_from_float(rng_uniform(rng, k + 2)));
        s.g[i] = (float)rng_normal(rng, k + 3);
    }
    return s;
}

// One update with p, m, v of this dtype; g is F32.
static void update(struct state *s, enum dtype dtype, const struct adamw_params *params) {
    float *host[] = {s->p, s->m, s->v, s->g};
    struct op_call call = {.op = OP_adamw, .params.adamw = *params};
    int64_t count = s->rows * s->cols;
    void *stored = malloc((size_t)count * sizeof(float));
    for (int i = 0; i < 4; i++) {
        enum dtype type = i < 3 ? dtype : DTYPE_F32;
        check_ok(backend_matrix_new(device(), type, s->rows, s->cols, "operand", &call.in[i]));
        dtype_from_float(type, host[i], stored, count);
        check_ok(backend_write(device(), call.in[i], stored));
    }
    call.out[0] = call.in[0];
    check_ok(backend_run(device(), &call));
    for (int i = 0; i < 4; i++) {
        check_ok(backend_read(device(), call.in[i], stored));
        check_ok(backend_sync(device()));
        dtype_to_float(i < 3 ? dtype : DTYPE_F32, stored, host[i], count);
        backend_matrix_free(device(), &call.in[i]);
    }
    free(stored);
}

static float rounded(float value, uint32_t word) {
    return float_from_bits((float_to_bits(value) + (word & 0xFFFF)) & 0xFFFF0000u);
}

// The definition in op.h, with the numbers of core/base/rng.h. 31 columns go one by one, 64 in packs.
static void bf16_is_fp32_rounded_with_the_words_of_its_element(void **state) {
    (void)state;
    for (int64_t cols = 31; cols <= 64; cols += 33)
        for (int64_t step = 1; step <= 1000001; step += 500000) {
            struct adamw_params params = plain;
            struct state half = state_drawn(33, cols), full = state_copy(&half);
            params.step = step;
            update(&half, DTYPE_BF16, &params);
            update(&full, DTYPE_F32, &params);
            for (int64_t i = 0; i < 33 * cols; i++) {
                uint64_t word = 4 * ((uint64_t)step * (uint64_t)(33 * cols) + (uint64_t)i);
                assert_true(half.p[i] == rounded(full.p[i], rng_bits(params.rng, word)));
                assert_true(half.m[i] == rounded(full.m[i], rng_bits(params.rng, word + 1)));
                assert_true(half.v[i] == rounded(full.v[i], rng_bits(params.rng, word + 2)));
            }
            state_free(&half);
            state_free(&full);
        }
}

// Fails for one seed in 10^6 (each of 36 counts is within 5.6 standard deviations of the binomial law).
static void check_share(int64_t ups, int64_t n, double share) {
    double deviation = sqrt((double)n * share * (1 - share));
    if (fabs((double)ups - (double)n * share) > 5.6 * deviation + 1e-9)
        fail_msg("%lld of %lld rounded up, want a share of %.6f", (long long)ups, (long long)n, share);
}

// From m = v = 0 every element of a run has the same m and v; p is as it was. How many were rounded up is the fraction that
// was cut, and m and v are so independently.
static void rounding_is_right_on_average(void **state) {
    (void)state;
    static const float gradients[] = {1,      -1,    0.3f,         -0.77f,        1e-3f,  -12345.678f,
                                      1e-20f, 1e17f, 0x1.0101p-3f, 0x1.FEFEFEp5f, 3e-38f, 7};
    for (size_t k = 0; k < sizeof gradients / sizeof *gradients; k++) {
        struct adamw_params params = plain;
        struct state s = state_new(64, 1024), full = state_new(1, 1);
        int64_t n = s.rows * s.cols, ups_m = 0, ups_v = 0, both = 0;
        params.rate = 0, params.rng.stream += k;
        for (int64_t i = 0; i < n; i++) s.p[i] = 0.625f, s.g[i] = gradients[k];
        full.p[0] = 0.625f, full.g[0] = gradients[k];
        update(&s, DTYPE_BF16, &params);
        update(&full, DTYPE_F32, &params);
        uint32_t m = float_to_bits(full.m[0]), v = float_to_bits(full.v[0]);
        for (int64_t i = 0; i < n; i++) {
            bool up_m = s.m[i] != float_from_bits(m & 0xFFFF0000u), up_v = s.v[i] != float_from_bits(v & 0xFFFF0000u);
            ups_m += up_m, ups_v += up_v, both += up_m && up_v;
            assert_true(!up_m || s.m[i] == float_from_bits((m & 0xFFFF0000u) + 0x10000u));
            assert_true(!up_v || s.v[i] == float_from_bits((v & 0xFFFF0000u) + 0x10000u));
            assert_true(s.p[i] == 0.625f);
        }
        double share_m = (m & 0xFFFF) / 65536.0, share_v = (v & 0xFFFF) / 65536.0;
        check_share(ups_m, n, share_m);
        check_share(ups_v, n, share_v);
        check_share(both, n, share_m * share_v);
        state_free(&s);
        state_free(&full);
    }
}

// Share of equal m between two updates whose m lies half of the way between two bf16 numbers.
static double share_equal(const struct adamw_params *a, const struct adamw_params *b) {
    struct state first = state_new(32, 64), other = state_new(32, 64);
    int64_t n = 32 * 64, equal = 0;
    for (int64_t i = 0; i < n; i++) first.g[i] = other.g[i] = 0x1.01p0f;
    update(&first, DTYPE_BF16, a);
    update(&other, DTYPE_BF16, b);
    for (int64_t i = 0; i < n; i++) equal += first.m[i] == other.m[i];
    state_free(&first);
    state_free(&other);
    return (double)equal / (double)n;
}

static void another_seed_stream_or_step_draws_anew(void **state) {
    (void)state;
    struct adamw_params a = plain, b = plain;
    a.beta1 = b.beta1 = 0;
    assert_true(share_equal(&a, &b) == 1);
    b.rng.seed++;
    check_near(share_equal(&a, &b), 0.5, 0, 0.07); // 6 standard deviations of 2048 tosses
    b = a, b.rng.stream++;
    check_near(share_equal(&a, &b), 0.5, 0, 0.07);
    b = a, b.step++;
    check_near(share_equal(&a, &b), 0.5, 0, 0.07);
    b = a, b.rng.seed ^= UINT64_C(1) << 63;
    check_near(share_equal(&a, &b), 0.5, 0, 0.07);
}

static void infinities_and_nan_stay(void **state) {
    (void)state;
    for (int64_t cols = 31; cols <= 64; cols += 33) {
        struct state s = state_drawn(8, cols);
        static const float odd[] = {INFINITY, -INFINITY, NAN};
        for (int64_t i = 0; i < 8 * cols; i++) s.g[i] = odd[i % 3];
        update(&s, DTYPE_BF16, &plain);
        for (int64_t i = 0; i < 8 * cols; i++) {
            assert_true(isnan(s.p[i])); // infinity / infinity
            assert_true(i % 3 == 2 ? isnan(s.m[i]) : s.m[i] == odd[i % 3]);
            assert_true(i % 3 == 2 ? isnan(s.v[i]) : s.v[i] == INFINITY);
        }
        state_free(&s);
    }
}

// What finishes rely on: at a bound and with an infinite second moment an element stays, whatever its gradient and moment.
static void an_infinite_second_moment_freezes(void **state) {
    (void)state;
    for (int half = 0; half < 2; half++)
        for (int64_t cols = 31; cols <= 64; cols += 33) {
            struct adamw_params params = plain;
            struct state s = state_drawn(8, cols), before;
            int64_t moved = 0;
            params.decay = 0, params.low = 0, params.high = 1, params.concave = 4;
            for (int64_t i = 0; i < 8 * cols; i += 2) s.p[i] = (float)(i / 2 % 2), s.v[i] = INFINITY;
            before = state_copy(&s);
            for (params.step = 1; params.step <= 5; params.step++) update(&s, half ? DTYPE_BF16 : DTYPE_F32, &params);
            for (int64_t i = 0; i < 8 * cols; i += 2) {
                assert_true(s.p[i] == before.p[i] && s.v[i] == INFINITY && isfinite(s.m[i]));
                moved += i + 1 < 8 * cols && s.p[i + 1] != before.p[i + 1];
            }
            assert_true(moved > 3 * cols);
            state_free(&s);
            state_free(&before);
        }
}

// The bounds of the box are bf16 numbers, and no rounding leaves it.
static void rounding_stays_in_the_box(void **state) {
    (void)state;
    struct adamw_params params = plain;
    struct state s = state_drawn(32, 64);
    int64_t on_bounds = 0;
    params.low = 0, params.high = 1;
    for (params.step = 1; params.step <= 20; params.step++) update(&s, DTYPE_BF16, &params);
    for (int64_t i = 0; i < 32 * 64; i++) {
        assert_true(s.p[i] >= 0 && s.p[i] <= 1);
        on_bounds += s.p[i] == 0 || s.p[i] == 1;
    }
    assert_true(on_bounds > 100);
    state_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_is_fp32_rounded_with_the_words_of_its_element),
        cmocka_unit_test(rounding_is_right_on_average),
        cmocka_unit_test(another_seed_stream_or_step_draws_anew),
        cmocka_unit_test(infinities_and_nan_stay),
        cmocka_unit_test(an_infinite_second_moment_freezes),
        cmocka_unit_test(rounding_stays_in_the_box),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
