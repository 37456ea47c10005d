// Every op on the GPU against its definition in double: the case table of tests/ops, every choice of operands that may be BF16,
// contiguous and strided, overwriting and accumulating; and the same bits when it runs again.
//
// $DISCQUANT_DEVICE: another device. $DISCQUANT_CASES=small: only cases of at most some million operations, for tools that make the
// GPU slow.
#include "tests/check.h"
#include "tests/gpu/device.h"
#include "tests/ops/ops_trial.h"

static const double small_flops = 3e6;

static struct backend *backend;

static bool is_wanted(const struct op_case *which, enum op op) {
    const char *cases = getenv("DISCQUANT_CASES");
    if (which->op != op) return false;
    if (!cases || strcmp(cases, "small") != 0) return true;
    struct trial t;
    trial_new(&t, which, false, 0, 0);
    double flops = op_cost(&t.call).flops;
    trial_free(&t);
    return flops <= small_flops;
}

static void check_case(const struct op_case *which, bool accumulate, int64_t pad, unsigned bf16) {
    struct trial t;
    trial_new(&t, which, accumulate, pad, bf16);
    check_ok(trial_run(&t, backend));
    trial_check(&t);
    trial_free(&t);
}

static void check_op(enum op op) {
    int cases = 0;
    for (int i = 0; i < op_case_count; i++) {
        if (!is_wanted(&op_cases[i], op)) continue;
        unsigned choices[CHOICES];
        int n = backend->fns->bf16 ? op_case_bf16(&op_cases[i], choices) : 1;
        choices[0] = 0;
        for (int64_t pad = 0; pad <= 3; pad += 3)
            for (int accumulate = 0; accumulate <= op_accumulates(op); accumulate++)
                for (int k = 0; k < n; k++, cases++) check_case(&op_cases[i], accumulate, pad, choices[k]);
    }
    assert_true(cases >= 4);
}

static void check_same(const struct operand *a, const struct operand *b) {
    if (a->bytes) assert_memory_equal(a->block, b->block, a->bytes);
}

static void check_again(enum op op) {
    for (int i = 0; i < op_case_count; i++) {
        if (!is_wanted(&op_cases[i], op)) continue;
        unsigned choices[CHOICES];
        int n = backend->fns->bf16 ? op_case_bf16(&op_cases[i], choices) : 1;
        struct trial trials[2];
        for (int k = 0; k < 2; k++) {
            trial_new(&trials[k], &op_cases[i], op_accumulates(op), 0, n > 1 ? choices[n - 1] : 0);
            check_ok(trial_run(&trials[k], backend));
        }
        for (int j = 0; j < OP_INPUTS; j++) check_same(&trials[0].in[j], &trials[1].in[j]);
        for (int j = 0; j < OP_OUTPUTS; j++) check_same(&trials[0].out[j], &trials[1].out[j]);
        for (int k = 0; k < 2; k++) trial_free(&trials[k]);
    }
}

#define OP(name)                                                                                                       \
    static void name##_on_the_gpu_matches_its_definition(void **state) {                                               \
        (void)state;                                                                                                   \
        check_op(OP_##name);                                                                                           \
    }                                                                                                                  \
    static void name##_on_the_gpu_has_the_same_bits_again(void **state) {                                              \
        (void)state;                                                                                                   \
        check_again(OP_##name);                                                                                        \
    }
#include "core/ops/op_list.h"
#undef OP

int main(void) {
    const struct CMUnitTest tests[] = {
#define OP(name)                                                                                                       \
    cmocka_unit_test(name##_on_the_gpu_matches_its_definition),                                                        \
        cmocka_unit_test(name##_on_the_gpu_has_the_same_bits_again),
#include "core/ops/op_list.h"
#undef OP
    };
    backend = device_open_or_say();
    if (!backend) return SKIPPED;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(backend);
    return failed;
}
