// Which operands of an op may be BF16: the shape rules accept exactly these, and a backend without bf16 says so.
#include "tests/check.h"
#include "tests/ops/ops.h"

#include "core/backend/backend.h"

// One letter per operand: T all of one dtype, A any dtype, Y as T or F32, F F32 only, - neither F32 nor BF16.
static const struct {
    const char *op, *in, *out;
} rules[] = {
    {"fill", "", "T"},
    {"copy", "A", "A"},
    {"matmul", "TT", "Y"},
    {"embedding", "A-", "A"},
    {"embedding_grad", "A-", "A"},
    {"rmsnorm", "TF", "TF"},
    {"rmsnorm_grad", "TFFT", "T"},
    {"rmsnorm_gain_grad", "TFT", "F"},
    {"rmsnorm_tangent", "TFFTF", "T"},
    {"rope", "TFF", "T"},
    {"attention", "T", "TF"},
    {"attention_grad", "TTFT", "T"},
    {"attention_tangent", "TTFT", "T"},
    {"attention_cached", "TTT", "T"},
    {"swiglu", "T", "T"},
    {"swiglu_grad", "TT", "T"},
    {"swiglu_tangent", "TT", "T"},
    {"cross_entropy", "T-", "-"},
    {"kl_divergence", "TT", "--"},
    {"row_dot", "TT", "-"},
    {"sum_squares", "T", "-"},
    {"output_error", "TT-", "T-"},
    {"sample_products", "TT", "F"},
    {"sketch", "FF", "-F-"},
    {"exact_sum", "F", "-"},
    {"grid_offset", "AF", "A"},
    {"grid_interpolate", "AFA", "A"},
    {"grid_interpolate_grad", "AFA", "A"},
    {"grid_round", "AFA", "A"},
    {"grid_nearest", "AF", "A"},
    {"hadamard", "TF-", "T"},
    {"adamw", "TTTAAF", "T"},
    {"eigh", "-", "-"},
    {"cholesky", "-", "-"},
    {"svd", "-", "---"},
    {"rows_gather", "--", "-"},
    {"row_squares", "-", "-"},
    {"gram", "-", "-"},
    {"product", "--", "-"},
    {"rows_pass", "-----", "---"},
    {"box_step", "----", "--"},
    {"triangle_inverse", "-", "-"},
};

enum { OPERANDS = OP_INPUTS + OP_OUTPUTS };

struct sample {
    struct op_call call;
    struct grid grid;
    struct view *views[OPERANDS]; // those that are there
    char rules[OPERANDS];
    int n;
};

// A call of the op whose views have shapes and memory that nobody may touch.
static void sample_new(struct sample *s, enum op op) {
    static char memory[OPERANDS];
    struct operands operands;
    const struct op_case *which = op_cases;
    while (which->op != op) which++;
    *s = (struct sample){0};
    op_case_build(which, false, 7, &s->call, &operands, &s->grid);
    size_t rule = 0;
    while (strcmp(rules[rule].op, op_infos[op].name) != 0) assert_true(++rule < sizeof rules / sizeof *rules);
    for (int i = 0; i < OPERANDS; i++) {
        bool input = i < OP_INPUTS;
        struct matrix m = input ? operands.in[i] : operands.out[i - OP_INPUTS];
        struct view *view = input ? &s->call.in[i] : &s->call.out[i - OP_INPUTS];
        if (!input && i == OP_INPUTS && op_output_is_input(op)) m = operands.in[0];
        if (!m.rows) continue;
        *view = view_new(&memory[i], input ? op_in_dtype(op, i) : op_out_dtype(op, i - OP_INPUTS), m.rows, m.cols);
        s->rules[s->n] = input ? rules[rule].in[i] : rules[rule].out[i - OP_INPUTS];
        s->views[s->n++] = view;
    }
    if (op_output_is_input(op)) s->call.out[0].data = s->call.in[0].data;
    operands_free(&operands);
}

// Whether the rules allow the dtypes that the views have now.
static bool is_allowed(const struct sample *s) {
    int together = -1; // dtype of the T
    for (int i = 0; i < s->n; i++) {
        if (s->rules[i] != 'T') continue;
        if (together >= 0 && (int)s->views[i]->dtype != together) return false;
        together = (int)s->views[i]->dtype;
    }
    for (int i = 0; i < s->n; i++) {
        bool is_bf16 = s->views[i]->dtype == DTYPE_BF16;
        if (is_bf16 && (s->rules[i] == 'F' || s->rules[i] == '-')) return false;
        if (is_bf16 && s->rules[i] == 'Y' && together != DTYPE_BF16) return false;
    }
    return true;
}

// Every choice of operands that are BF16.
static void shape_rules_take_bf16_where_they_should(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        struct sample plain;
        sample_new(&plain, (enum op)op);
        for (unsigned choice = 0; choice < 1u << plain.n; choice++) {
            struct sample s;
            sample_new(&s, (enum op)op);
            for (int i = 0; i < s.n; i++)
                if (choice >> i & 1) s.views[i]->dtype = DTYPE_BF16;
            const char *wrong = op_infos[op].check(&s.call);
            if (!wrong != is_allowed(&s))
                fail_msg("%s: choice %x is %s", op_infos[op].name, choice, wrong ? wrong : "taken");
        }
    }
}

static void bytes_are_counted_by_dtype(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        struct sample s;
        sample_new(&s, (enum op)op);
        double bytes = 0;
        for (int i = 0; i < s.n; i++) {
            if (s.rules[i] != 'F' && s.rules[i] != '-') s.views[i]->dtype = DTYPE_BF16;
            bytes += (double)(view_count(*s.views[i]) * dtype_bytes(s.views[i]->dtype));
        }
        assert_true(op_cost(&s.call).bytes == bytes);
    }
}

static void the_cpu_refuses_bf16(void **state) {
    (void)state;
    struct backend *cpu = NULL;
    check_ok(backend_open("cpu", &cpu));
    for (int op = 0; op < OP_COUNT; op++) {
        struct sample s;
        bool any = false;
        sample_new(&s, (enum op)op);
        for (int i = 0; i < s.n; i++)
            if (s.rules[i] != 'F' && s.rules[i] != '-') s.views[i]->dtype = DTYPE_BF16, any = true;
        if (any) check_fails(backend_run(cpu, &s.call), STATUS_UNSUPPORTED);
    }
    backend_close(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shape_rules_take_bf16_where_they_should),
        cmocka_unit_test(bytes_are_counted_by_dtype),
        cmocka_unit_test(the_cpu_refuses_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
