// Every op of the CPU backend against its definition in double (ops_reference.c), over the case table (ops_cases.c):
// contiguous and strided operands, overwriting and accumulating, with NaN in every output and around every operand.
// Then the same bits for any number of threads.
#include "tests/check.h"
#include "tests/ops/ops.h"

#include "core/backend/backend.h"

#include <omp.h>

// An operand between guard zones: every byte that is not an element is 0xFF, so that a read outside gives NaN and a
// write outside is seen.
enum { GUARD = 256 };

struct operand {
    unsigned char *block, *before; // before: copy taken when the inputs were ready
    size_t bytes;
    struct view view;
};

static struct operand operand_new(struct matrix m, enum dtype dtype, int64_t pad, bool filled) {
    struct operand o = {0};
    if (!m.rows) return o;
    int64_t size = dtype_bytes(dtype), stride = m.cols + pad;
    o.bytes = (size_t)(2 * GUARD + (m.rows * stride + pad) * size);
    o.bytes = (o.bytes + GUARD - 1) / GUARD * GUARD;
    o.block = aligned_alloc(GUARD, o.bytes), o.before = malloc(o.bytes);
    memset(o.block, 0xFF, o.bytes);
    // A strided operand starts one element off the alignment.
    o.view = (struct view){o.block + GUARD + (pad ? size : 0), m.rows, m.cols, stride, dtype};
    for (int64_t i = 0; i < m.rows && filled; i++)
        for (int64_t j = 0; j < m.cols; j++) {
            double value = matrix_row(m, i)[j];
            if (dtype == DTYPE_F32) view_f32(o.view, i)[j] = (float)value;
            if (dtype == DTYPE_F64) view_f64(o.view, i)[j] = value;
            if (dtype == DTYPE_I32) view_i32(o.view, i)[j] = (int32_t)value;
        }
    memcpy(o.before, o.block, o.bytes);
    return o;
}

static void operand_free(struct operand *o) {
    free(o->block);
    free(o->before);
    *o = (struct operand){0};
}

static double operand_at(const struct operand *o, int64_t i, int64_t j) {
    if (o->view.dtype == DTYPE_I32) return view_i32(o->view, i)[j];
    if (o->view.dtype == DTYPE_F64) return view_f64(o->view, i)[j];
    return (double)view_f32(o->view, i)[j];
}

// No byte outside the elements has changed.
static bool guards_hold(const struct operand *o) {
    int64_t size = dtype_bytes(o->view.dtype);
    unsigned char *at = o->block;
    for (int64_t i = 0; i < o->view.rows; i++) {
        unsigned char *row = (unsigned char *)o->view.data + i * o->view.stride * size;
        for (; at < row; at++)
            if (*at != 0xFF) return false;
        at = row + o->view.cols * size;
    }
    for (; at < o->block + o->bytes; at++)
        if (*at != 0xFF) return false;
    return true;
}

// A built case with its buffers; `exact` holds the operands in double, rounded to what the buffers hold.
struct trial {
    struct op_call call;
    struct operands exact;
    struct operand in[OP_INPUTS], out[OP_OUTPUTS];
    struct grid grid;
};

static void trial_new(struct trial *t, const struct op_case *which, bool accumulate, int64_t pad) {
    *t = (struct trial){0};
    op_case_build(which, accumulate, 7, &t->call, &t->exact, &t->grid);
    bool reads_output = accumulate || which->op == OP_embedding_grad;
    for (int i = 0; i < OP_INPUTS; i++) {
        t->in[i] = operand_new(t->exact.in[i], op_in_dtype(which->op, i), pad, true);
        t->call.in[i] = t->in[i].view;
    }
    for (int i = 0; i < OP_OUTPUTS; i++) {
        struct matrix m = t->exact.out[i];
        t->out[i] = operand_new(m, op_out_dtype(which->op, i), pad, reads_output);
        t->call.out[i] = t->out[i].view;
        for (int64_t k = 0; reads_output && k < m.rows * m.cols; k++)
            m.x[k] = operand_at(&t->out[i], k / m.cols, k % m.cols);
    }
    if (op_output_is_input(which->op)) t->call.out[0] = t->call.in[0];
}

static void trial_free(struct trial *t) {
    operands_free(&t->exact);
    for (int i = 0; i < OP_INPUTS; i++) operand_free(&t->in[i]);
    for (int i = 0; i < OP_OUTPUTS; i++) operand_free(&t->out[i]);
}

// Allowed difference as a share of the largest wanted number of the operand; 1 ulp of float is 1.2e-7.
static double tolerance(const struct op_call *call) {
    switch (call->op) {
    case OP_fill:
    case OP_embedding:
    case OP_grid_round:
    case OP_grid_nearest: return 0; // a choice, no arithmetic
    case OP_copy: return call->accumulate ? 1.2e-7 : 0;
    case OP_row_dot:
    case OP_sum_squares: return 1e-13; // products of floats are exact in double
    case OP_grid_scale: return 4.9e-4; // half an ulp of fp16
    case OP_attention: return 4e-6;    // scores near 20 carry an error of 20 ulp into the exponent
    case OP_attention_cached: return 2e-6;
    case OP_attention_grad:
    case OP_attention_tangent: return 1e-5; // twice that, and dp - delta cancels
    default: return 2e-6;                   // some roundings, or a float sum of at most some hundred terms
    }
}

static void compare(const struct op_call *call, const struct operand *got, struct matrix want, const char *which) {
    double largest = 0.01, worst = 0; // at least 0.01: rmsnorm of one column has derivative 0
    int64_t at = -1;
    for (int64_t k = 0; k < want.rows * want.cols; k++) largest = fmax(largest, fabs(want.x[k]));
    double allowed = tolerance(call) * largest;
    for (int64_t k = 0; k < want.rows * want.cols; k++) {
        double difference = fabs(operand_at(got, k / want.cols, k % want.cols) - want.x[k]);
        if (call->op == OP_grid_scale) allowed = tolerance(call) * want.x[k] + 3e-8;
        if (difference <= allowed || worst > difference) continue;
        worst = isnan(difference) ? INFINITY : difference, at = k;
    }
    if (at >= 0)
        fail_msg("%s of %s, %lld x %lld, stride %lld, accumulate %d: [%lld, %lld] is %.9g, want %.9g (allowed %.3g)",
                 which, op_infos[call->op].name, (long long)want.rows, (long long)want.cols,
                 (long long)got->view.stride, call->accumulate, (long long)(at / want.cols),
                 (long long)(at % want.cols), operand_at(got, at / want.cols, at % want.cols), want.x[at], allowed);
    if (!guards_hold(got)) fail_msg("%s of %s: bytes outside the view were written", which, op_infos[call->op].name);
}

static struct backend *cpu(void) {
    static struct backend *backend;
    if (!backend) check_ok(backend_open("cpu", &backend));
    return backend;
}

static struct matrix operand_values(const struct operand *o) {
    struct matrix m = matrix_new(o->view.rows, o->view.cols);
    for (int64_t k = 0; k < m.rows * m.cols; k++) m.x[k] = operand_at(o, k / m.cols, k % m.cols);
    return m;
}

static void judge(const struct trial *t) {
    struct operands after = {0};
    for (int i = 0; i < OP_INPUTS; i++) {
        after.in[i] = operand_values(&t->in[i]);
        if (t->in[i].block && !guards_hold(&t->in[i])) fail_msg("input %d: bytes outside the view were written", i);
    }
    for (int i = 0; i < OP_OUTPUTS; i++) {
        after.out[i] = operand_values(&t->out[i]);
        if (t->out[i].block && !guards_hold(&t->out[i])) fail_msg("output %d: bytes outside the view were written", i);
    }
    const char *wrong = factorization_wrong(t->call.op, &t->exact, &after);
    if (wrong) {
        struct view a = t->call.in[0];
        fail_msg("%s of %lld x %lld, stride %lld: %s", op_infos[t->call.op].name, (long long)a.rows, (long long)a.cols,
                 (long long)a.stride, wrong);
    }
    operands_free(&after);
}

static void check_case(const struct op_case *which, bool accumulate, int64_t pad) {
    struct trial t;
    trial_new(&t, which, accumulate, pad);
    check_ok(backend_run(cpu(), &t.call));
    if (op_is_factorization(which->op)) {
        judge(&t);
        trial_free(&t);
        return;
    }
    op_reference(&t.call, &t.exact);
    for (int i = 0; i < OP_OUTPUTS; i++)
        if (t.out[i].block) compare(&t.call, &t.out[i], t.exact.out[i], "output");
    for (int i = 0; i < OP_INPUTS; i++) {
        if (!t.in[i].block) continue;
        if (op_changes_input(&t.call, i))
            compare(&t.call, &t.in[i], t.exact.in[i], "changed input");
        else
            assert_memory_equal(t.in[i].block, t.in[i].before, t.in[i].bytes);
    }
    trial_free(&t);
}

static void check_op(enum op op) {
    int cases = 0;
    for (int i = 0; i < op_case_count; i++) {
        if (op_cases[i].op != op) continue;
        for (int64_t pad = 0; pad <= 3; pad += 3)
            for (int accumulate = 0; accumulate <= op_accumulates(op); accumulate++, cases++)
                check_case(&op_cases[i], accumulate, pad);
    }
    assert_true(cases >= 4); // no op without cases
}

static void check_threads(enum op op) {
    static const int threads[] = {1, 2, 3, 7};
    for (int i = 0; i < op_case_count; i++) {
        if (op_cases[i].op != op) continue;
        struct trial first, other;
        for (int k = 0; k < 4; k++) {
            trial_new(&other, &op_cases[i], op_accumulates(op), 0);
            omp_set_num_threads(threads[k]);
            check_ok(backend_run(cpu(), &other.call));
            if (k == 0) {
                first = other;
                continue;
            }
            for (int j = 0; j < OP_INPUTS; j++)
                if (first.in[j].bytes) assert_memory_equal(first.in[j].block, other.in[j].block, first.in[j].bytes);
            for (int j = 0; j < OP_OUTPUTS; j++)
                if (first.out[j].bytes) assert_memory_equal(first.out[j].block, other.out[j].block, first.out[j].bytes);
            trial_free(&other);
        }
        trial_free(&first);
    }
    omp_set_num_threads(omp_get_num_procs());
}

#define OP(name)                                                                                                       \
    static void name##_matches_its_definition(void **state) {                                                          \
        (void)state;                                                                                                   \
        check_op(OP_##name);                                                                                           \
    }                                                                                                                  \
    static void name##_has_the_same_bits_for_any_number_of_threads(void **state) {                                     \
        (void)state;                                                                                                   \
        check_threads(OP_##name);                                                                                      \
    }
#include "core/ops/op_list.h"
#undef OP

int main(void) {
    const struct CMUnitTest tests[] = {
#define OP(name)                                                                                                       \
    cmocka_unit_test(name##_matches_its_definition),                                                                   \
        cmocka_unit_test(name##_has_the_same_bits_for_any_number_of_threads),
#include "core/ops/op_list.h"
#undef OP
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
