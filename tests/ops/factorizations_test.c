// What factorizations refuse, on the CPU or on $DISCQUANT_DEVICE: matrices that are not positive definite, numbers that are not finite. That
// their answers are right is shown by ops_test.
#include "tests/check.h"

#include "core/backend/backend.h"

#include <math.h>

enum { N = 5 };

static struct backend *backend;

static void matrix_make(struct view *v, int64_t rows, int64_t cols) {
    check_ok(backend_matrix_new(backend, DTYPE_F64, rows, cols, "matrix", v));
}

// The unit matrix with one entry (and its mirror image) changed.
static void unit_except(struct view a, int64_t i, int64_t j, double value) {
    double x[N * N] = {0};
    for (int k = 0; k < N; k++) x[k * N + k] = 1;
    x[i * N + j] = x[j * N + i] = value;
    check_ok(backend_write(backend, a, x));
}

static void cholesky_names_the_minor_that_is_not_positive(void **state) {
    (void)state;
    struct view a;
    matrix_make(&a, N, N);
    for (int k = 0; k < N; k++) {
        char want[64];
        unit_except(a, k, k, k % 2 ? 0 : -1);
        check_fails(backend_run(backend, &(struct op_call){.op = OP_cholesky, .in = {a}, .out = {a}}), STATUS_INVALID);
        snprintf(want, sizeof want, "leading minor of size %d is not", k + 1);
        assert_non_null(strstr(status_message(), want));
    }
    unit_except(a, 3, 1, 2); // positive diagonal, negative minor
    check_fails(backend_run(backend, &(struct op_call){.op = OP_cholesky, .in = {a}, .out = {a}}), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "leading minor of size 4 is not"));
    backend_matrix_free(backend, &a);
}

static void numbers_that_are_not_finite_are_refused(void **state) {
    (void)state;
    struct view a, values, u, vt;
    matrix_make(&a, N, N);
    matrix_make(&values, N, 1);
    matrix_make(&u, N, N);
    matrix_make(&vt, N, N);
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        struct op_call calls[] = {{.op = OP_eigh, .in = {a}, .out = {values}},
                                  {.op = OP_cholesky, .in = {a}, .out = {a}},
                                  {.op = OP_svd, .in = {a}, .out = {values, u, vt}}};
        for (int i = 0; i < 3; i++) {
            unit_except(a, 4, 2, bad[k]);
            check_fails(backend_run(backend, &calls[i]), STATUS_INVALID);
            assert_non_null(strstr(status_message(), "not finite"));
        }
    }
    struct view *all[] = {&a, &values, &u, &vt};
    for (int i = 0; i < 4; i++) backend_matrix_free(backend, all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cholesky_names_the_minor_that_is_not_positive),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
    };
    const char *device = getenv("DISCQUANT_DEVICE");
    check_ok(backend_open(device ? device : "cpu", &backend));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(backend);
    return failed;
}
