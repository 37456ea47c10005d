// Planted decays at full size: n 65536, 2048 samples, four sketches of 512 numbers, 20 seeds each. bench/planted_spectra prints
// the figures of such runs.
#include "tests/check.h"

#include "spectra/planted.h"
#include "spectra/spectrum_fit.h"

enum { SEEDS = 20, LEAST = 17 };

// With honest errors 95 % lie within two of them: fewer than 17 of 20 come by chance in 1.6 % of all choices of seeds, which
// are fixed here.
static void check_alpha(double alpha) {
    struct backend *backend = NULL;
    int within = 0, below = 0;
    check_ok(backend_open("cpu", &backend));
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct planted *planted = NULL;
        struct spectrum_fit *fit = NULL;
        struct planted_options options = {
            .gradients = {.law = {65536, alpha, 1}, .basis = BASIS_HADAMARD, .seed = seed},
            .kind = SKETCH_ROTATION,
            .samples = 2048,
            .dim = 512,
            .sketches = 4};
        check_ok(planted_new(&options, backend, &planted));
        struct spectrum_input in = {
            .rows = planted->rows, .norms = planted->norms, .norms_stride = 1, .weights = 65536};
        check_ok(spectrum_fit_new(&in, NULL, backend, &fit));
        within += fabs(fit->alpha.value - alpha) <= 2 * fit->alpha.error;
        below += fit->naive_slope.value < 1;
        assert_true(fit->alpha.error < 0.02);
        spectrum_fit_free(fit);
        planted_free(planted);
    }
    print_message("alpha %.1f: %d of %d within two stated errors, naive slope below 1 in %d\n", alpha, within, SEEDS,
                  below);
    assert_true(within >= LEAST);
    if (alpha == 1.1) assert_int_equal(below, SEEDS);
    backend_close(backend);
}

static void alpha_1_1_comes_back_where_the_naive_slope_is_below_1(void **state) {
    (void)state;
    check_alpha(1.1);
}
static void alpha_1_2_comes_back(void **state) {
    (void)state;
    check_alpha(1.2);
}
static void alpha_1_5_comes_back(void **state) {
    (void)state;
    check_alpha(1.5);
}
static void alpha_2_comes_back(void **state) {
    (void)state;
    check_alpha(2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alpha_1_1_comes_back_where_the_naive_slope_is_below_1),
        cmocka_unit_test(alpha_1_2_comes_back),
        cmocka_unit_test(alpha_1_5_comes_back),
        cmocka_unit_test(alpha_2_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
