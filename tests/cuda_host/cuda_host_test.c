// The kernels of core/cuda on the emulated device against the definitions of their ops: the case table of tests/ops, every choice
// of operands that may be BF16, under several orders of blocks, warps and lanes, which must not change a bit.
#include "tests/check.h"
#include "tests/cuda_host/cuda_host.h"
#include "tests/ops/ops_trial.h"

enum { SEEDS = 3, PADS = 3 };

// Contiguous; rows that begin anywhere; rows further apart that all begin at a multiple of 16 bytes where their width allows it.
static const int64_t pads[PADS] = {0, 3, 8};

// Cases beyond this many multiplications and additions, or bytes, are left to the GPU; those of factorizations are LAPACK's here.
static const double flops_most = 3e7, bytes_most = 3e6;

static struct backend *device(void) {
    static struct backend *backend;
    if (!backend) {
        backend_add(&cuda_host_backend_fns);
        check_ok(backend_open("cuda_host", &backend));
    }
    return backend;
}

static bool is_small(const struct op_case *which) {
    struct trial t;
    trial_new(&t, which, false, 0, 0);
    struct op_cost cost = op_cost(&t.call);
    trial_free(&t);
    return (cost.flops <= flops_most || op_is_factorization(which->op)) && cost.bytes <= bytes_most;
}

// Every block of the trial's operands, one behind the other.
static unsigned char *bytes_of(const struct trial *t, size_t *bytes) {
    unsigned char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < OP_INPUTS + OP_OUTPUTS; i++) {
        const struct operand *o = i < OP_INPUTS ? &t->in[i] : &t->out[i - OP_INPUTS];
        if (!o->block) continue;
        all = realloc(all, *bytes + o->bytes);
        memcpy(all + *bytes, o->block, o->bytes);
        *bytes += o->bytes;
    }
    return all;
}

// The same bits in every order, and those of the definition.
static void check_case(const struct op_case *which, bool accumulate, int64_t pad, unsigned bf16) {
    struct trial t;
    unsigned char *first = NULL;
    size_t bytes = 0;
    trial_new(&t, which, accumulate, pad, bf16);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        emulation_seed(seed);
        trial_reset(&t);
        check_ok(trial_run(&t, device()));
        unsigned char *now = bytes_of(&t, &bytes);
        if (first && memcmp(first, now, bytes) != 0)
            fail_msg("%s, %lld x %lld, bf16 %x: other bits in another order", op_infos[which->op].name,
                     (long long)which->n, (long long)which->c, bf16);
        free(first);
        first = now;
    }
    trial_check(&t);
    free(first);
    trial_free(&t);
}

static void check_op(enum op op) {
    int cases = 0;
    if (!cuda_host_backend_fns.kernels[op]) skip();
    for (int i = 0; i < op_case_count; i++) {
        if (op_cases[i].op != op || !is_small(&op_cases[i])) continue;
        unsigned choices[CHOICES];
        int n = op_case_bf16(&op_cases[i], choices);
        for (int p = 0; p < PADS; p++)
            for (int accumulate = 0; accumulate <= op_accumulates(op); accumulate++)
                for (int k = 0; k < n; k++, cases++) check_case(&op_cases[i], accumulate, pads[p], choices[k]);
    }
    assert_true(cases >= 4);
}

#define OP(name)                                                                                                       \
    static void name##_on_the_emulated_device_matches_its_definition(void **state) {                                   \
        (void)state;                                                                                                   \
        check_op(OP_##name);                                                                                           \
    }
#include "core/ops/op_list.h"
#undef OP

// cuda_host_test attention* | others: parts that run side by side.
int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "others") == 0)
        cmocka_set_skip_filter("attention*");
    else if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
#define OP(name) cmocka_unit_test(name##_on_the_emulated_device_matches_its_definition),
#include "core/ops/op_list.h"
#undef OP
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
