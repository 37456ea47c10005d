// Rounding with error feedback against elimination step by step in double, on random matrices.
#include "tests/check.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/quant/grid_fit.h"
#include "discquant/feedback.h"

struct problem {
    int64_t rows, n, tokens;
    float *w, *scale, *q, *x; // [rows, n], [rows, groups], [rows, n], [tokens, n]
    struct grid grid;
    struct backend *backend;
    struct step *step;
    struct hessian *hessian;
};

static float normal(uint64_t stream, int64_t i) {
    return (float)rng_normal((struct rng){.seed = 17, .stream = RNG_TEST + stream}, (uint64_t)i);
}

static void show(struct problem *p, const float *x, int64_t tokens) {
    struct weight weight = {.name = (char *)"test.weight", .rows = p->rows, .cols = p->n};
    step_begin(p->step, (struct step_options){.seq_len = 1});
    struct view view = view_new((void *)x, DTYPE_F32, tokens, p->n);
    check_ok(p->hessian->tap.take(&p->hessian->tap, p->step, &weight, view));
}

// Inputs that depend on each other and differ in size; those with index `dead` modulo 5 are 0 (-1: none).
static void problem_on(struct problem *p, int64_t rows, int64_t n, const struct grid_options *grid, int dead) {
    *p = (struct problem){.rows = rows, .n = n, .tokens = 2 * n + 3};
    check_ok(backend_open("cpu", &p->backend));
    check_ok(step_new(p->backend, &p->step));
    check_ok(hessian_new(n, "test", &p->hessian));
    check_ok(grid_new(grid, &p->grid));
    p->w = mem_new((size_t)(rows * n), sizeof *p->w);
    p->q = mem_new((size_t)(rows * n), sizeof *p->q);
    p->scale = mem_new((size_t)(rows * n), sizeof *p->scale);
    p->x = mem_new((size_t)(p->tokens * n), sizeof *p->x);
    for (int64_t i = 0; i < rows * n; i++) p->w[i] = normal(1, i);
    for (int64_t t = 0; t < p->tokens; t++)
        for (int64_t j = 0; j < n; j++) {
            float before = j ? p->x[t * n + j - 1] : 0, size = 0.5f + (float)(j % 7);
            p->x[t * n + j] = dead >= 0 && j % 5 == dead ? 0 : 0.6f * before + size * normal(2, t * n + j);
        }
    check_ok(grid_fit(&p->grid, "test", p->w, rows, n, p->scale));
    show(p, p->x, p->tokens);
}

static void problem_open(struct problem *p, int64_t rows, int64_t n, int bits, int64_t group_size, int dead) {
    problem_on(p, rows, n, &(struct grid_options){.bits = bits, .group_size = group_size}, dead);
}

static void problem_close(struct problem *p) {
    hessian_free(p->hessian);
    step_free(p->step);
    backend_close(p->backend);
    free(p->w);
    free(p->q);
    free(p->scale);
    free(p->x);
}

// The lower point in a tie, as everywhere.
static double nearest(const struct problem *p, int64_t row, int64_t input, double v) {
    int64_t groups = grid_groups(&p->grid, p->n), group = input / grid_group_cols(&p->grid, p->n);
    const float *scale = p->scale + row * grid_scale_cols(&p->grid, p->n) + group;
    double best = INFINITY, point = 0;
    for (int l = 0; l < p->grid.n_levels; l++) {
        double value = (double)*scale * p->grid.levels[l] + (p->grid.has_offset ? (double)scale[groups] : 0);
        double gap = fabs(v - value) - best;
        if (gap < 0 || (gap == 0 && value < point)) best = fabs(v - value), point = value;
    }
    return point;
}

// X^T X in double.
static void gram(const struct problem *p, double *h) {
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t j = 0; j < p->n; j++) {
            h[i * p->n + j] = 0;
            for (int64_t t = 0; t < p->tokens; t++) h[i * p->n + j] += (double)p->x[t * p->n + i] * p->x[t * p->n + j];
        }
}

// Gauss-Jordan on a positive definite matrix.
static void invert(double *a, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        double pivot = a[k * n + k];
        a[k * n + k] = 1;
        for (int64_t j = 0; j < n; j++) a[k * n + j] /= pivot;
        for (int64_t i = 0; i < n; i++) {
            if (i == k) continue;
            double f = a[i * n + k];
            a[i * n + k] = 0;
            for (int64_t j = 0; j < n; j++) a[i * n + j] -= f * a[k * n + j];
        }
    }
}

// Optimal brain quantization in a given order (Frantar and Alistarh, 2022): round one weight, move all that are left to the optimum
// given it, take the row and column out of the inverse.
static void eliminate(const struct problem *p, double damping, const int64_t *order, float *q) {
    int64_t n = p->n;
    double *h = mem_new((size_t)(n * n), sizeof *h), *work = mem_new((size_t)(n * n), sizeof *work);
    double *v = mem_new((size_t)n, sizeof *v), mean = 0;
    gram(p, h);
    for (int64_t i = 0; i < n; i++) mean += h[i * n + i] / (double)n;
    for (int64_t i = 0; i < n; i++) h[i * n + i] += damping * mean;
    invert(h, n);
    for (int64_t r = 0; r < p->rows; r++) {
        memcpy(work, h, (size_t)(n * n) * sizeof *h);
        for (int64_t i = 0; i < n; i++) v[i] = p->w[r * n + i];
        for (int64_t k = 0; k < n; k++) {
            int64_t a = order[k];
            double point = nearest(p, r, a, v[a]), error = (v[a] - point) / work[a * n + a];
            q[r * n + a] = (float)point;
            for (int64_t i = 0; i < n; i++) v[i] -= error * work[a * n + i];
            double *row = mem_new((size_t)n, sizeof *row), pivot = work[a * n + a];
            memcpy(row, work + a * n, (size_t)n * sizeof *row);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++) work[i * n + j] -= row[i] * row[j] / pivot;
            free(row);
        }
    }
    free(h);
    free(work);
    free(v);
}

static int64_t differences(const float *a, const float *b, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += fabsf(a[i] - b[i]) > 1e-5f;
    return count;
}

static void feedback_is_elimination_one_weight_at_a_time(void **state) {
    (void)state;
    const struct {
        int64_t rows, n;
        struct grid_options grid;
        bool ordered;
    } cases[] = {
        {5, 12, {.bits = 3, .group_size = -1}, false},
        {5, 12, {.bits = 2, .group_size = 4}, true},
        {3, 47, {.bits = 4, .group_size = 8}, false},
        {11, 150, {.bits = 3, .group_size = 32}, true},
        {9, 130, {.kind = GRID_ASYMMETRIC, .bits = 3, .group_size = 16}, true},
        {9, 140, {.kind = GRID_NF4, .group_size = 20}, true},
        {9, 160, {.kind = GRID_Q4_0}, true},
        {9, 64, {.kind = GRID_Q4_1}, false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct problem p;
        struct feedback *feedback = NULL;
        double error;
        problem_on(&p, cases[c].rows, cases[c].n, &cases[c].grid, -1);
        float *want = mem_new((size_t)(p.rows * p.n), sizeof *want);
        struct feedback_options options = {.damping = 0.01, .ordered = cases[c].ordered};
        check_ok(feedback_new(p.backend, p.hessian, "test", &options, &feedback));
        check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
        eliminate(&p, 0.01, feedback->order, want);
        assert_int_equal(differences(p.q, want, p.rows * p.n), 0);
        if (cases[c].ordered)
            for (int64_t k = 1; k < p.n; k++) {
                int64_t a = feedback->order[k - 1], b = feedback->order[k];
                assert_true(p.hessian->sum[a * (p.n + 1)] >= p.hessian->sum[b * (p.n + 1)]);
            }
        free(want);
        feedback_free(feedback);
        problem_close(&p);
    }
}

static void the_gram_matrix_is_x_transposed_x(void **state) {
    (void)state;
    struct problem p;
    problem_open(&p, 1, 2 * HESSIAN_BLOCK + 41, 3, -1, -1);
    double *h = mem_new((size_t)(p.n * p.n), sizeof *h);
    gram(&p, h);
    assert_int_equal(p.hessian->rows, p.tokens);
    for (int64_t i = 0; i < p.n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double bound = sqrt(h[i * (p.n + 1)] * h[j * (p.n + 1)]);
            check_near(p.hessian->sum[i * p.n + j], h[i * p.n + j], 0, 2e-6 * bound);
        }
    show(&p, p.x, p.tokens); // a second pass adds
    check_near(p.hessian->sum[p.n * p.n - 1], 2 * h[p.n * p.n - 1], 1e-5, 0);
    free(h);
    problem_close(&p);
}

static void with_unit_gram_matrix_feedback_is_round_to_nearest(void **state) {
    (void)state;
    struct problem p;
    struct feedback *feedback = NULL;
    double error, want = 0;
    problem_open(&p, 9, 200, 3, 16, -1);
    memset(p.hessian->sum, 0, (size_t)(p.n * p.n) * sizeof *p.hessian->sum);
    for (int64_t i = 0; i < p.n; i++) p.hessian->sum[i * (p.n + 1)] = 1;
    check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
    check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
    for (int64_t i = 0; i < p.rows * p.n; i++) {
        double point = nearest(&p, i / p.n, i % p.n, p.w[i]);
        assert_true(p.q[i] == (float)point);
        want += (p.w[i] - point) * (p.w[i] - point);
    }
    check_near(error, want, 1e-9, 0);
    feedback_free(feedback);
    problem_close(&p);
}

// Sum of squares of the outputs' errors over the first tokens.
static double error_of(const struct problem *p, const float *q, int64_t tokens) {
    double sum = 0;
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t t = 0; t < tokens; t++) {
            double y = 0;
            for (int64_t j = 0; j < p->n; j++)
                y += ((double)p->w[r * p->n + j] - (double)q[r * p->n + j]) * p->x[t * p->n + j];
            sum += y * y;
        }
    return sum;
}

static void round_to_nearest(const struct problem *p, float *q) {
    for (int64_t i = 0; i < p->rows * p->n; i++) q[i] = (float)nearest(p, i / p->n, i % p->n, p->w[i]);
}

// The error that comes with the rounding is that of the outputs, of dead inputs none, and far below round-to-nearest's.
static void the_error_is_that_of_the_outputs_and_lower_than_nearest(void **state) {
    (void)state;
    for (int dead = -1; dead < 2; dead++) {
        struct problem p;
        struct feedback *feedback = NULL;
        double error;
        problem_open(&p, 24, 160, 3, 32, dead);
        float *rtn = mem_new((size_t)(p.rows * p.n), sizeof *rtn);
        float *e = mem_new((size_t)(p.rows * p.n), sizeof *e);
        round_to_nearest(&p, rtn);
        check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
        check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
        assert_int_equal(feedback->dead, dead < 0 ? 0 : p.n / 5);
        for (int64_t i = 0; i < p.rows * p.n; i++) e[i] = p.w[i] - p.q[i];
        check_near(error, error_of(&p, p.q, p.tokens), 1e-4, 0);
        check_near(hessian_error(p.hessian, e, p.rows), error_of(&p, p.q, p.tokens), 1e-5, 0);
        assert_true(error < 0.8 * error_of(&p, rtn, p.tokens));
        for (int64_t i = 0; i < p.rows * p.n; i++)
            if (dead >= 0 && i % p.n % 5 == dead) assert_true(p.q[i] == rtn[i]);
        free(rtn);
        free(e);
        feedback_free(feedback);
        problem_close(&p);
    }
}

// Taking them out leaves the others' roundings: their rows of the Gram matrix are 0 and the mean is over the living.
static void dead_inputs_change_no_other(void **state) {
    (void)state;
    struct problem p, living;
    struct feedback *feedback = NULL;
    double error;
    problem_open(&p, 6, 60, 3, 5, 2);
    problem_open(&living, 6, 48, 3, 4, -1);
    for (int64_t t = 0; t < p.tokens; t++)
        for (int64_t j = 0, to = 0; j < p.n; j++)
            if (j % 5 != 2 && t < p.tokens) p.x[t * living.n + to++] = p.x[t * p.n + j]; // in place, to the left
    for (int64_t r = 0; r < p.rows; r++) {
        for (int64_t j = 0, to = 0; j < p.n; j++)
            if (j % 5 != 2) living.w[r * living.n + to++] = p.w[r * p.n + j];
        memcpy(living.scale + r * 12, p.scale + r * 12, 12 * sizeof *p.scale);
    }
    hessian_free(living.hessian);
    check_ok(hessian_new(living.n, "test", &living.hessian));
    show(&living, p.x, p.tokens);
    struct problem *both[] = {&p, &living};
    for (int i = 0; i < 2; i++) {
        check_ok(feedback_new(p.backend, both[i]->hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
        check_ok(feedback_round(feedback, &both[i]->grid, both[i]->w, both[i]->scale, p.rows, both[i]->q, &error));
        feedback_free(feedback);
    }
    for (int64_t r = 0; r < p.rows; r++)
        for (int64_t j = 0, to = 0; j < p.n; j++)
            if (j % 5 != 2) check_near(living.q[r * living.n + to++], p.q[r * p.n + j], 1e-6, 0);
    problem_close(&p);
    problem_close(&living);
}

static void damping_grows_until_a_singular_matrix_is_factorized(void **state) {
    (void)state;
    struct problem p;
    struct feedback *feedback = NULL;
    double error;
    problem_open(&p, 4, 40, 3, -1, -1);
    memset(p.hessian->sum, 0, (size_t)(p.n * p.n) * sizeof *p.hessian->sum);
    show(&p, p.x, 1); // rank one
    check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
    assert_true(feedback->damping == 0.01 && feedback->raised == 0);
    feedback_free(feedback);
    check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0, true}, &feedback));
    assert_true(feedback->raised > 0);
    check_near(feedback->damping, 1e-6 * pow(10, (double)feedback->raised - 1), 1e-12, 0);
    check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
    float *rtn = mem_new((size_t)(p.rows * p.n), sizeof *rtn);
    round_to_nearest(&p, rtn);
    assert_true(error_of(&p, p.q, 1) < 0.1 * error_of(&p, rtn, 1));
    free(rtn);
    for (int64_t i = 0; i < p.rows * p.n; i++) assert_true(p.q[i] == (float)nearest(&p, i / p.n, i % p.n, p.q[i]));
    feedback_free(feedback);
    problem_close(&p);
}

static void no_input_at_all_is_round_to_nearest(void **state) {
    (void)state;
    struct problem p;
    struct feedback *feedback = NULL;
    double error;
    problem_open(&p, 4, 40, 3, -1, -1);
    memset(p.hessian->sum, 0, (size_t)(p.n * p.n) * sizeof *p.hessian->sum);
    check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0, true}, &feedback));
    check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
    assert_int_equal(feedback->dead, p.n);
    assert_true(error == 0);
    for (int64_t i = 0; i < p.rows * p.n; i++) assert_true(p.q[i] == (float)nearest(&p, i / p.n, i % p.n, p.w[i]));
    feedback_free(feedback);
    problem_close(&p);
}

static void a_gram_matrix_with_nan_is_refused_by_name(void **state) {
    (void)state;
    struct problem p;
    struct feedback *feedback = NULL;
    problem_open(&p, 4, 40, 3, -1, -1);
    p.x[7] = NAN;
    show(&p, p.x, 1);
    check_fails(feedback_new(p.backend, p.hessian, "layers.3.o", &(struct feedback_options){0.01, true}, &feedback),
                STATUS_INVALID);
    assert_non_null(strstr(status_message(), "layers.3.o"));
    assert_null(feedback);
    problem_close(&p);
}

static void any_number_of_threads_gives_the_same_bits(void **state) {
    (void)state;
    const int threads[] = {1, 2, 5};
    float *first = NULL;
    double first_error = 0;
    for (int i = 0; i < 3; i++) {
        struct problem p;
        struct feedback *feedback = NULL;
        double error;
        threads_set(threads[i]);
        problem_open(&p, 70, 300, 3, 32, -1);
        check_ok(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
        check_ok(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
        if (!first)
            first = p.q, first_error = error, p.q = NULL;
        else {
            assert_memory_equal(p.q, first, (size_t)(p.rows * p.n) * sizeof *first);
            assert_true(error == first_error);
        }
        feedback_free(feedback);
        problem_close(&p);
    }
    threads_set(0);
    free(first);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    int64_t k = 0, before = mem_buffer_bytes();
    for (bool failed = true; failed; k++) {
        enum status status = STATUS_OK;
        struct problem p;
        struct feedback *feedback = NULL;
        struct hessian *hessian = NULL;
        double error;
        problem_open(&p, 9, 30, 3, -1, -1);
        mem_fail_at(k);
        TRY(hessian_new(p.n, "test", &hessian));
        TRY(feedback_new(p.backend, p.hessian, "test", &(struct feedback_options){0.01, true}, &feedback));
        TRY(feedback_round(feedback, &p.grid, p.w, p.scale, p.rows, p.q, &error));
    done:
        mem_fail_at(-1);
        failed = status != STATUS_OK;
        if (failed) assert_int_equal(status, STATUS_NO_MEMORY);
        feedback_free(feedback);
        hessian_free(hessian);
        problem_close(&p);
        assert_int_equal(mem_buffer_bytes(), before);
    }
    assert_true(k > 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feedback_is_elimination_one_weight_at_a_time),
        cmocka_unit_test(the_gram_matrix_is_x_transposed_x),
        cmocka_unit_test(with_unit_gram_matrix_feedback_is_round_to_nearest),
        cmocka_unit_test(the_error_is_that_of_the_outputs_and_lower_than_nearest),
        cmocka_unit_test(dead_inputs_change_no_other),
        cmocka_unit_test(damping_grows_until_a_singular_matrix_is_factorized),
        cmocka_unit_test(no_input_at_all_is_round_to_nearest),
        cmocka_unit_test(a_gram_matrix_with_nan_is_refused_by_name),
        cmocka_unit_test(any_number_of_threads_gives_the_same_bits),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
