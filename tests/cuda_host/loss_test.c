// What the op tests leave open of the losses on a device: a KL near zero to the accuracy of its fp64 sums, ties, masked logits.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"

#include "core/base/rng.h"

static struct backend *device(void) {
    static struct backend *backend;
    if (!backend) {
        backend_add(&cuda_host_backend_fns);
        check_ok(backend_open("cuda_host", &backend));
    }
    return backend;
}

static struct view on_device(enum dtype dtype, int64_t rows, int64_t cols, const void *values) {
    struct view v;
    check_ok(backend_matrix_new(device(), dtype, rows, cols, "of a test", &v));
    if (values) check_ok(backend_write(device(), v, values));
    return v;
}

struct kl {
    double value;
    int32_t agree;
};

// teacher, student [n]; student becomes the gradient with weight 1.
static struct kl kl_of(const float *teacher, float *student, int64_t n) {
    struct kl kl;
    struct view t = on_device(DTYPE_F32, 1, n, teacher), s = on_device(DTYPE_F32, 1, n, student);
    struct view value = on_device(DTYPE_F64, 1, 1, NULL), agree = on_device(DTYPE_I32, 1, 1, NULL);
    check_ok(backend_run(device(), &(struct op_call){.op = OP_kl_divergence,
                                                     .in = {t, s},
                                                     .out = {value, agree},
                                                     .params.loss = {.gradient = true, .weight = 1}}));
    check_ok(backend_read(device(), value, &kl.value));
    check_ok(backend_read(device(), agree, &kl.agree));
    check_ok(backend_read(device(), s, student));
    backend_matrix_free(device(), &t), backend_matrix_free(device(), &s);
    backend_matrix_free(device(), &value), backend_matrix_free(device(), &agree);
    return kl;
}

static double lse(const float *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, (double)x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

enum { N = 20000 };

// The CPU's kernel stays below 2e-8 (core/cpu/NOTES.md).
static void a_small_kl_is_right_to_2e_8(void **state) {
    (void)state;
    static float t[N], s[N];
    struct rng rng = {.seed = 5, .stream = RNG_TEST};
    for (double size = 0.1; size > 1e-5; size /= 10) {
        for (int i = 0; i < N; i++) {
            t[i] = (float)(3 * rng_normal(rng, (uint64_t)i) + (i % 7 == 0 ? 6 : 0));
            s[i] = (float)((double)t[i] + size * rng_normal(rng, (uint64_t)(N + i)));
        }
        double want = 0, lse_t = lse(t, N), lse_s = lse(s, N);
        for (int i = 0; i < N; i++)
            want += exp((double)t[i] - lse_t) * (((double)t[i] - (double)s[i]) - (lse_t - lse_s));
        check_near(kl_of(t, s, N).value, want, 1e-7, 2e-8);
        rng.stream++;
    }
}

// The same logits: 0 to the last bit, and no gradient.
static void a_distribution_has_no_divergence_from_itself(void **state) {
    (void)state;
    static float t[N], s[N];
    struct rng rng = {.seed = 6, .stream = RNG_TEST};
    for (int i = 0; i < N; i++) t[i] = s[i] = (float)(5 * rng_normal(rng, (uint64_t)i));
    struct kl kl = kl_of(t, s, N);
    assert_true(kl.value == 0 && kl.agree == 1);
    for (int i = 0; i < N; i++) assert_true(s[i] == 0);
}

// Of several largest logits the first counts, wherever it lies among the threads.
static void the_first_of_equal_maxima_decides_agreement(void **state) {
    (void)state;
    static float t[N], s[N];
    static const int places[] = {0, 3, 4, 2047, 2048, 4100, 9999, N - 1};
    for (int a = 0; a < 8; a++)
        for (int b = 0; b < 8; b++) {
            for (int i = 0; i < N; i++) t[i] = (float)(i % 5), s[i] = (float)(i % 3);
            for (int i = a; i < 8; i++) t[places[i]] = 9;
            for (int i = b; i < 8; i++) s[places[i]] = 8;
            assert_int_equal(kl_of(t, s, N).agree, a == b);
        }
}

static void masked_logits_have_no_part(void **state) {
    (void)state;
    static float t[N], s[N], short_t[N / 2], short_s[N / 2];
    struct rng rng = {.seed = 7, .stream = RNG_TEST};
    for (int i = 0; i < N; i++) {
        t[i] = i % 2 ? (float)(2 * rng_normal(rng, (uint64_t)i)) : -INFINITY;
        s[i] = i % 4 ? (float)(2 * rng_normal(rng, (uint64_t)(N + i))) : -INFINITY;
        if (i % 2) short_t[i / 2] = t[i], short_s[i / 2] = s[i];
    }
    double want = 0, lse_t = lse(t, N), lse_s = lse(s, N);
    for (int i = 0; i < N / 2; i++)
        want += exp((double)short_t[i] - lse_t) * (((double)short_t[i] - lse_t) - ((double)short_s[i] - lse_s));
    check_near(kl_of(t, s, N).value, want, 1e-6, 0);
    for (int i = 0; i < N; i++) assert_true(i % 4 ? isfinite(s[i]) : s[i] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_kl_is_right_to_2e_8),
        cmocka_unit_test(a_distribution_has_no_divergence_from_itself),
        cmocka_unit_test(the_first_of_equal_maxima_decides_agreement),
        cmocka_unit_test(masked_logits_have_no_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
