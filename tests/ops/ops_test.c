// Every op of the CPU backend against its definition in double (ops_reference.c), over the case table (ops_cases.c):
// contiguous and strided operands, overwriting and accumulating, with NaN in every output and around every operand.
// Then the same bits for any number of threads.
#include "tests/check.h"
#include "tests/ops/ops_trial.h"

#include <omp.h>

static struct backend *cpu(void) {
    static struct backend *backend;
    if (!backend) check_ok(backend_open("cpu", &backend));
    return backend;
}

static void check_case(const struct op_case *which, bool accumulate, int64_t pad) {
    struct trial t;
    trial_new(&t, which, accumulate, pad, 0);
    check_ok(trial_run(&t, cpu()));
    trial_check(&t);
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
            trial_new(&other, &op_cases[i], op_accumulates(op), 0, 0);
            omp_set_num_threads(threads[k]);
            check_ok(trial_run(&other, cpu()));
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
