// walk/frame.h against plain sums.
#include "core/base/threads.h"
#include "tests/walk_cases.h"

static double *copy_of(const double *a, int64_t n) {
    double *b = walk_case_numbers(n);
    memcpy(b, a, (size_t)n * 8);
    return b;
}

// max |Q Q^T - I|
static double orthonormality(const struct frame *f) {
    double most = 0;
    for (int64_t j = 0; j < f->rank; j++)
        for (int64_t k = 0; k <= j; k++) {
            double sum = 0;
            for (int64_t i = 0; i < f->n; i++) sum += f->q[i * f->stride + j] * f->q[i * f->stride + k];
            most = fmax(most, fabs(sum - (j == k)));
        }
    return most;
}

// The largest part of a row of M outside the span of Q, in units of the largest singular value.
static double left_out(const struct frame *f, const double *a) {
    double most = 0, *row = walk_case_numbers(f->n);
    for (int64_t j = 0; j < f->m; j++) {
        double sum = 0;
        for (int64_t i = 0; i < f->n; i++) row[i] = a[i * f->stride + j];
        frame_project(f, row);
        for (int64_t i = 0; i < f->n; i++) sum += row[i] * row[i];
        most = fmax(most, sqrt(sum));
    }
    free(row);
    return most / f->singular[0];
}

static void frame_is_orthonormal_and_spans_the_rows(void **state) {
    (void)state;
    const int64_t shapes[][2] = {{300, 12}, {700, 33}, {64, 64}, {40, 60}, {900, 300}, {5, 1}};
    for (int s = 0; s < 6; s++)
        for (enum walk_case kind = 0; kind < N_CASES; kind++) {
            int64_t n = shapes[s][0], m = shapes[s][1];
            if (kind == CASE_KAPPA && (m > n || m == 1)) continue;
            double *a = walk_case_matrix(kind, n, m, 7), *before = copy_of(a, n * frame_stride(m));
            struct frame *f;
            check_ok(frame_new(a, n, m, NULL, &f));
            double rounding = f->passes == 1 ? 1e-10 : 1e-13 * sqrt((double)m);
            double least = f->singular[m - 1] / f->singular[0];
            if (f->rank > 0) assert_int_equal(f->passes, f->rank < m || least < 3e-6 ? 3 : least < 1e-3 ? 2 : 1);
            check_near(orthonormality(f), 0, 0, rounding);
            if (f->rank) check_near(left_out(f, before), 0, 0, 1e-13 * (double)m);
            int64_t distinct = kind == CASE_COPIES ? m / 2 : m;
            assert_int_equal(f->rank, distinct < n ? distinct : n);
            double sum = 0;
            for (int64_t i = 0; i < n; i++) sum += f->norm2[i];
            check_near(sum, (double)f->rank, rounding, 1e-300);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = f->rank; j < f->stride; j++) assert_true(f->q[i * f->stride + j] == 0);
            frame_free(f);
            mem_buffer_free(a);
            free(before);
        }
}

// Known singular values over ten decades: what pass one does not see, pass two does. Rounding errors of 1e-16 |M| are 1e-6 of
// the weakest.
static void singular_values_are_right_down_to_1e10(void **state) {
    (void)state;
    int64_t n = 400, m = 21;
    double *a = walk_case_matrix(CASE_KAPPA, n, m, 3);
    struct frame *f;
    check_ok(frame_new(a, n, m, NULL, &f));
    assert_int_equal(f->rank, m);
    assert_int_equal(f->passes, 3);
    assert_true(f->dropped_energy == 0);
    for (int64_t k = 0; k < m; k++) {
        double want = pow(10, -10.0 * (double)k / (double)(m - 1));
        check_near(f->singular[k], want, 1e-3, 0);
        if (want > 1e-4) check_near(f->singular[k], want, 1e-6, 0);
    }
    frame_free(f);
    mem_buffer_free(a);
}

// The first k columns span the k strongest directions: dropping more of them leaves out that much of M.
static void columns_stand_in_the_order_of_the_singular_values(void **state) {
    (void)state;
    int64_t n = 300, m = 11;
    for (int64_t k = 1; k < m; k += 3) {
        double *a = walk_case_matrix(CASE_KAPPA, n, m, 5), *before = copy_of(a, n * frame_stride(m));
        struct frame *f;
        struct frame_options options = {.rank_tolerance = pow(10, -((double)k - 0.5))};
        check_ok(frame_new(a, n, m, &options, &f));
        assert_int_equal(f->rank, k);
        double next = pow(10, -(double)k), all = 0, dropped = 0;
        assert_true(left_out(f, before) <= next * 1.001);
        for (int64_t j = m; j-- > 0;) {
            all += pow(10, -2.0 * (double)j);
            if (j >= k) dropped += pow(10, -2.0 * (double)j);
        }
        check_near(f->dropped_energy, dropped / all, 1e-3, 0);
        frame_free(f);
        mem_buffer_free(a);
        free(before);
    }
}

static void size_of_the_numbers_does_not_matter(void **state) {
    (void)state;
    int64_t n = 200, m = 9, stride = frame_stride(m);
    const double scales[] = {1e-290, 1e-120, 1e120, 1e290};
    double *first = walk_case_matrix(CASE_DECAYING, n, m, 2);
    struct frame *want, *f;
    check_ok(frame_new(first, n, m, NULL, &want));
    for (int s = 0; s < 4; s++) {
        double *a = walk_case_matrix(CASE_DECAYING, n, m, 2);
        for (int64_t i = 0; i < n * stride; i++) a[i] *= scales[s];
        check_ok(frame_new(a, n, m, NULL, &f));
        assert_int_equal(f->rank, m);
        check_near(f->singular[0], want->singular[0] * scales[s], 1e-12, 0);
        for (int64_t i = 0; i < n * stride; i++) check_near(fabs(a[i]), fabs(first[i]), 0, 1e-13);
        frame_free(f);
        mem_buffer_free(a);
    }
    frame_free(want);
    mem_buffer_free(first);
}

static void no_constraints_give_rank_zero(void **state) {
    (void)state;
    double *a;
    struct frame *f;
    check_ok(frame_matrix_new(50, 7, &a));
    check_ok(frame_new(a, 50, 7, NULL, &f));
    assert_int_equal(f->rank, 0);
    assert_int_equal(f->width, 0);
    assert_true(f->dropped_energy == 0);
    frame_free(f);
    mem_buffer_free(a);
}

static void numbers_that_are_not_finite_are_refused_by_place(void **state) {
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        double *a = walk_case_matrix(CASE_DECAYING, 60, 5, 1);
        struct frame *f;
        a[33 * frame_stride(5) + 4] = bad[k];
        a[41 * frame_stride(5) + 1] = NAN;
        check_fails(frame_new(a, 60, 5, NULL, &f), STATUS_INVALID);
        assert_non_null(strstr(status_message(), "row 4 at coordinate 33"));
        mem_buffer_free(a);
    }
    double none[8] __attribute__((aligned(64))) = {0};
    struct frame *f;
    check_fails(frame_new(none, 1, 0, NULL, &f), STATUS_INVALID);
    check_fails(frame_matrix_new(INT64_MAX / 4, 64, (double **)&f), STATUS_NO_MEMORY);
}

static void threads_do_not_change_the_frame(void **state) {
    (void)state;
    int64_t n = 30000, m = 24, bytes = n * frame_stride(m) * 8;
    double *kept = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        threads_set(threads);
        double *a = walk_case_matrix(CASE_DECAYING, n, m, 4);
        struct frame *f;
        check_ok(frame_new(a, n, m, NULL, &f));
        if (!kept) kept = copy_of(a, bytes / 8);
        assert_memory_equal(a, kept, (size_t)bytes);
        frame_free(f);
        mem_buffer_free(a);
    }
    free(kept);
    threads_set(0);
}

static void memory_that_is_not_there_is_an_error(void **state) {
    (void)state;
    double *a = walk_case_matrix(CASE_DECAYING, 100, 6, 4);
    int64_t failures = 0;
    for (int64_t k = 0; k < 50; k++) {
        struct frame *f = NULL;
        mem_fail_at(k);
        enum status status = frame_new(a, 100, 6, NULL, &f);
        mem_fail_at(-1);
        if (status == STATUS_OK) {
            frame_free(f);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        failures++;
    }
    assert_true(failures >= 5);
    mem_buffer_free(a);
}

int main(void) {
    threads_set(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_is_orthonormal_and_spans_the_rows),
        cmocka_unit_test(singular_values_are_right_down_to_1e10),
        cmocka_unit_test(columns_stand_in_the_order_of_the_singular_values),
        cmocka_unit_test(size_of_the_numbers_does_not_matter),
        cmocka_unit_test(no_constraints_give_rank_zero),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused_by_place),
        cmocka_unit_test(threads_do_not_change_the_frame),
        cmocka_unit_test(memory_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
