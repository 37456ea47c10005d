// What the CPU kernels rest on numerically: the exponential over its whole range, and a KL divergence that stays honest
// when it is small or when the logits are extreme.
#include "tests/check.h"

#include "core/backend/backend.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/cpu/lanes.h"
#include "core/cpu/vector_math.h"

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void exponential_is_within_two_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x42b18000u; bits += 61) // 0 .. 88.75, both signs
        for (int sign = 0; sign < 2; sign++) {
            float x = from_bits(bits | (uint32_t)sign << 31);
            double want = exp((double)x), got = (double)exp_f32(x);
            if (x < -86.6f || want > 3.4028234e38) continue;
            worst = fmax(worst, fabs(got - want) / ldexp(1, ilogb(want) - 23));
        }
    print_message("largest error of exp_f32: %.2f ulp\n", worst);
    assert_true(worst <= 2);
}

static void power_of_two_is_within_two_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x42fb0000u; bits += 61) // 0 .. 125.5, both signs
        for (int sign = 0; sign < 2; sign++) {
            float x = from_bits(bits | (uint32_t)sign << 31);
            double want = exp2((double)x);
            worst = fmax(worst, fabs((double)exp2_f32(x) - want) / ldexp(1, ilogb(want) - 23));
        }
    print_message("largest error of exp2_f32: %.2f ulp\n", worst);
    assert_true(worst <= 2);
    assert_true(exp2_f32(0) == 1 && exp2_f32(-INFINITY) == 0 && exp2_f32(-127) == 0 && exp2_f32(-1e30f) == 0);
    assert_true(isnan(exp2_f32(NAN)));
}

static void bounded_power_of_two_is_within_two_ulp(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0; bits < 0x42fa0000u; bits += 61) // 0 .. 125, both signs
        for (int sign = 0; sign < 2; sign++) {
            float x = from_bits(bits | (uint32_t)sign << 31);
            double want = exp2((double)x);
            worst = fmax(worst, fabs((double)lanes_exp2_bounded(lanes_of(x))[0] - want) / ldexp(1, ilogb(want) - 23));
        }
    print_message("largest error of lanes_exp2_bounded: %.2f ulp\n", worst);
    assert_true(worst <= 2);
}

static void exponential_has_clean_ends(void **state) {
    (void)state;
    assert_true(exp_f32(0) == 1);
    assert_true(exp_f32(-INFINITY) == 0 && exp_f32(-104.1f) == 0 && exp_f32(-87.01f) == 0 && exp_f32(-3e38f) == 0);
    assert_true(exp_f32(INFINITY) == INFINITY && exp_f32(88.73f) == INFINITY && exp_f32(88.72f) < INFINITY);
    assert_true(isnan(exp_f32(NAN)));
    for (float x = -86.6f; x > -87.5f; x -= 1e-4f)
        assert_true(exp_f32(x) == 0 || fabs(exp_f32(x) / exp((double)x) - 1) < 3e-7);
    assert_true(sigmoid_f32(-200) == 0 && sigmoid_f32(200) == 1 && sigmoid_f32(0) == 0.5f);
}

// KL of one row, and of its double definition.
static double kl_of(const float *teacher, const float *student, int64_t n, double *want) {
    struct backend *backend = NULL;
    struct view t, s, kl;
    check_ok(backend_open("cpu", &backend));
    check_ok(backend_matrix_new(backend, DTYPE_F32, 1, n, "teacher", &t));
    check_ok(backend_matrix_new(backend, DTYPE_F32, 1, n, "student", &s));
    check_ok(backend_matrix_new(backend, DTYPE_F64, 1, 1, "kl", &kl));
    check_ok(backend_write(backend, t, teacher));
    check_ok(backend_write(backend, s, student));
    check_ok(backend_run(backend, &(struct op_call){.op = OP_kl_divergence, .in = {t, s}, .out = {kl}}));
    double got, sum_t = 0, sum_s = 0;
    check_ok(backend_read(backend, kl, &got));
    *want = 0;
    for (int64_t i = 0; i < n; i++) sum_t += exp((double)teacher[i]), sum_s += exp((double)student[i]);
    double shift = log(sum_t) - log(sum_s);
    for (int64_t i = 0; i < n; i++)
        *want += exp((double)teacher[i]) / sum_t * ((double)teacher[i] - (double)student[i] - shift);
    backend_matrix_free(backend, &t);
    backend_matrix_free(backend, &s);
    backend_matrix_free(backend, &kl);
    backend_close(backend);
    return got;
}

static void small_divergences_keep_their_digits(void **state) {
    (void)state;
    static const double noise[] = {1, 0.1, 0.04, 0.01};
    for (int k = 0; k < 4; k++)
        for (int64_t n = 512; n <= 8192; n *= 16)
            for (uint64_t trial = 0; trial < 8; trial++) {
                float *t = mem_new((size_t)n, sizeof *t), *s = mem_new((size_t)n, sizeof *s);
                struct rng rng = {.seed = trial, .stream = RNG_TEST};
                for (int64_t i = 0; i < n; i++) {
                    t[i] = (float)(3 * rng_normal(rng, (uint64_t)i));
                    s[i] = (float)((double)t[i] + noise[k] * rng_normal(rng, (uint64_t)(n + i)));
                }
                double want, got = kl_of(t, s, n, &want);
                check_near(got, want, 2e-6, 2e-8); // float exponentials: 2e-8 whatever the size
                free(t);
                free(s);
            }
}

static void equal_or_extreme_logits_give_no_nan(void **state) {
    (void)state;
    float a[4] = {1, 2, 3, 4}, b[4] = {-1e30f, 0, 1e4f, -1e4f}, c[4] = {-1e4f, 1e4f, -1e4f, -1e4f};
    double want, zero = kl_of(a, a, 4, &want);
    check_near(zero, 0, 0, 1e-15);
    double far = kl_of(c, b, 4, &want);
    check_near(far, 1e4, 1e-6, 0);
    assert_true(isfinite(kl_of(b, c, 4, &want)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_within_two_ulp),          cmocka_unit_test(power_of_two_is_within_two_ulp),
        cmocka_unit_test(bounded_power_of_two_is_within_two_ulp), cmocka_unit_test(exponential_has_clean_ends),
        cmocka_unit_test(small_divergences_keep_their_digits),    cmocka_unit_test(equal_or_extreme_logits_give_no_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
