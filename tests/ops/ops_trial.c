// Allowed differences. A result in F32 or F64: a share of its largest number, that of the formula in fp32 (`tolerance`), the same
// when operands are BF16, since the definition gets them rounded too. A result in BF16: 2^-8 of its norm, and number by
// number the rounding to bf16 (2^-8 of the number) besides; twice that where adamw rounds to either neighbour.
#include "tests/ops/ops_trial.h"

#include "tests/check.h"

enum { GUARD = 256 };

static struct operand operand_new(struct matrix m, enum dtype dtype, int64_t pad, bool filled) {
    struct operand o = {0};
    if (!m.rows) return o;
    int64_t size = dtype_bytes(dtype), stride = m.cols + pad;
    o.pad = pad;
    o.bytes = (size_t)(2 * GUARD + (m.rows * stride + pad) * size);
    o.bytes = (o.bytes + GUARD - 1) / GUARD * GUARD;
    o.block = aligned_alloc(GUARD, o.bytes), o.before = malloc(o.bytes);
    memset(o.block, 0xFF, o.bytes);
    // A strided operand starts one element off the alignment, unless its rows keep it.
    o.view = (struct view){o.block + GUARD + (pad % 8 ? size : 0), m.rows, m.cols, stride, dtype};
    for (int64_t i = 0; i < m.rows && filled; i++)
        for (int64_t j = 0; j < m.cols; j++) {
            double value = matrix_row(m, i)[j];
            if (dtype == DTYPE_F32) view_f32(o.view, i)[j] = (float)value;
            if (dtype == DTYPE_BF16) ((uint16_t *)o.view.data)[i * stride + j] = bf16_from_float((float)value);
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
    if (o->view.dtype == DTYPE_BF16)
        return (double)bf16_to_float(((const uint16_t *)o->view.data)[i * o->view.stride + j]);
    return (double)view_f32(o->view, i)[j];
}

// What the operand holds, in double.
static void operand_read(const struct operand *o, struct matrix to) {
    for (int64_t k = 0; k < to.rows * to.cols; k++) to.x[k] = operand_at(o, k / to.cols, k % to.cols);
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

static enum dtype dtype_of(enum dtype plain, unsigned bf16, int i) {
    return plain == DTYPE_F32 && bf16 >> i & 1 ? DTYPE_BF16 : plain;
}

void trial_new(struct trial *t, const struct op_case *which, bool accumulate, int64_t pad, unsigned bf16) {
    *t = (struct trial){.bf16 = bf16};
    op_case_build(which, accumulate, 7, &t->call, &t->exact, &t->grid);
    bool reads_output = accumulate || which->op == OP_embedding_grad;
    for (int i = 0; i < OP_INPUTS; i++) {
        t->in[i] = operand_new(t->exact.in[i], dtype_of(op_in_dtype(which->op, i), bf16, i), pad, true);
        t->call.in[i] = t->in[i].view;
        if (t->in[i].view.dtype == DTYPE_BF16) operand_read(&t->in[i], t->exact.in[i]);
    }
    for (int i = 0; i < OP_OUTPUTS; i++) {
        enum dtype dtype = dtype_of(op_out_dtype(which->op, i), bf16, OP_INPUTS + i);
        t->out[i] = operand_new(t->exact.out[i], dtype, pad, reads_output);
        t->call.out[i] = t->out[i].view;
        if (reads_output) operand_read(&t->out[i], t->exact.out[i]);
    }
    if (op_output_is_input(which->op)) t->call.out[0] = t->call.in[0];
}

void trial_reset(struct trial *t) {
    for (int i = 0; i < OP_INPUTS; i++)
        if (t->in[i].block) memcpy(t->in[i].block, t->in[i].before, t->in[i].bytes);
    for (int i = 0; i < OP_OUTPUTS; i++)
        if (t->out[i].block) memcpy(t->out[i].block, t->out[i].before, t->out[i].bytes);
}

void trial_free(struct trial *t) {
    operands_free(&t->exact);
    for (int i = 0; i < OP_INPUTS; i++) operand_free(&t->in[i]);
    for (int i = 0; i < OP_OUTPUTS; i++) operand_free(&t->out[i]);
}

int op_case_bf16(const struct op_case *which, unsigned choices[CHOICES]) {
    struct trial t;
    struct view *views[OP_INPUTS + OP_OUTPUTS];
    unsigned can = 0; // operands that are floats
    int n = 0;
    trial_new(&t, which, false, 0, 0);
    for (int i = 0; i < OP_INPUTS + OP_OUTPUTS; i++) {
        const struct operand *operand = i < OP_INPUTS ? &t.in[i] : &t.out[i - OP_INPUTS];
        views[i] = i < OP_INPUTS ? &t.call.in[i] : &t.call.out[i - OP_INPUTS];
        if (operand->block && operand->view.dtype == DTYPE_F32) can |= 1u << i;
    }
    for (unsigned choice = 0; choice < 1u << (OP_INPUTS + OP_OUTPUTS); choice++) {
        if (choice & ~can) continue;
        for (int i = 0; i < OP_INPUTS + OP_OUTPUTS; i++)
            if (can >> i & 1) views[i]->dtype = choice >> i & 1 ? DTYPE_BF16 : DTYPE_F32;
        if (op_output_is_input(which->op)) t.call.out[0] = t.call.in[0];
        if (op_infos[which->op].check(&t.call)) continue;
        REQUIRE(n < CHOICES, "more choices than foreseen");
        choices[n++] = choice;
    }
    trial_free(&t);
    return n;
}

// ---- running

// An operand's bytes as the backend has them: the whole block, or what lies between the guard zones.
static size_t moved_first(const struct operand *o) { return o->pad ? 0 : GUARD; }
static size_t moved_bytes(const struct operand *o) {
    return o->pad ? o->bytes : (size_t)(view_count(o->view) * dtype_bytes(o->view.dtype));
}

static enum status operand_write(struct backend *backend, const struct operand *o, void **buffer, struct view *view) {
    if (!o->block) return STATUS_OK;
    enum status status = backend->fns->buffer_new(backend, (int64_t)moved_bytes(o), "an operand", buffer);
    if (status != STATUS_OK) return status;
    view->data = (char *)*buffer + ((unsigned char *)o->view.data - o->block) - moved_first(o);
    return backend->fns->write(backend, *buffer, o->block + moved_first(o), (int64_t)moved_bytes(o));
}

static enum status operand_fetch(struct backend *backend, struct operand *o, const void *buffer) {
    if (!o->block) return STATUS_OK;
    return backend->fns->read(backend, o->block + moved_first(o), buffer, (int64_t)moved_bytes(o));
}

enum status trial_run(struct trial *t, struct backend *backend) {
    enum status status = STATUS_OK;
    void *in[OP_INPUTS] = {0}, *out[OP_OUTPUTS] = {0};
    struct op_call call = t->call;
    t->device = !backend->fns->host_memory;
    for (int i = 0; i < OP_INPUTS; i++) TRY(operand_write(backend, &t->in[i], &in[i], &call.in[i]));
    for (int i = 0; i < OP_OUTPUTS; i++) TRY(operand_write(backend, &t->out[i], &out[i], &call.out[i]));
    if (op_output_is_input(call.op)) call.out[0] = call.in[0];
    TRY(backend_run(backend, &call));
    for (int i = 0; i < OP_INPUTS; i++) TRY(operand_fetch(backend, &t->in[i], in[i]));
    for (int i = 0; i < OP_OUTPUTS; i++) TRY(operand_fetch(backend, &t->out[i], out[i]));
done:
    for (int i = 0; i < OP_INPUTS; i++)
        if (in[i]) backend->fns->buffer_free(backend, in[i]);
    for (int i = 0; i < OP_OUTPUTS; i++)
        if (out[i]) backend->fns->buffer_free(backend, out[i]);
    return status;
}

// ---- judgement

// Allowed difference as a share of the largest wanted number of the operand; 1 ulp of float is 1.2e-7.
static double tolerance(const struct trial *t, enum dtype dtype) {
    double formula;
    if (op_is_double(t->call.op)) return 1e-13; // all in double; sums of at most some thousand terms
    if (t->call.op == OP_sketch && dtype == DTYPE_F64) return 1e-13; // as row_dot
    switch (t->call.op) {
    case OP_fill:
    case OP_embedding:
    case OP_exact_sum:
    case OP_grid_round:
    case OP_grid_nearest: return 0; // a choice, no arithmetic
    case OP_copy: return t->call.accumulate ? 1.2e-7 : 0;
    case OP_row_dot:
    case OP_sum_squares: return 1e-13;        // products of floats are exact in double
    case OP_attention: formula = 4e-6; break; // scores near 20 carry an error of 20 ulp into the exponent
    case OP_attention_grad:
    case OP_attention_tangent: formula = 1e-5; break; // twice that, and dp - delta cancels
    default: formula = 2e-6;                          // some roundings, or a float sum of at most some hundred terms
    }
    return t->device ? fmax(formula, 1e-5) : formula;
}

// Share of the largest number that counts in the rounding of each: attention rounds probabilities and their derivatives to
// bf16 for the tensor cores.
static double op_rounds_inside(enum op op) {
    switch (op) {
    case OP_attention:
    case OP_attention_grad:
    case OP_attention_tangent:
    case OP_attention_cached: return 1;
    default: return 0;
    }
}

static void compare(const struct trial *t, const struct operand *got, struct matrix want, const char *which) {
    const struct op_call *call = &t->call;
    bool is_bf16 = got->view.dtype == DTYPE_BF16;
    int bits = call->op == OP_adamw ? 7 : 8;
    double largest = 0.01, worst = 0; // at least 0.01: rmsnorm of one column has derivative 0
    double norm2 = 0, difference2 = 0;
    int64_t at = -1, count = want.rows * want.cols;
    for (int64_t k = 0; k < count; k++) largest = fmax(largest, fabs(want.x[k]));
    for (int64_t k = 0; k < count; k++) {
        bool rounded = is_bf16 && tolerance(t, got->view.dtype) == 0;
        double wanted = rounded ? (double)bf16_to_float(bf16_from_float((float)want.x[k])) : want.x[k];
        double difference = fabs(operand_at(got, k / want.cols, k % want.cols) - wanted);
        double allowed = tolerance(t, got->view.dtype) * largest;
        if (is_bf16 && !rounded) allowed += ldexp(fmax(fabs(wanted), op_rounds_inside(call->op) * largest), -bits);
        norm2 += wanted * wanted, difference2 += difference * difference;
        bool both_nan = isnan(wanted) && isnan(operand_at(got, k / want.cols, k % want.cols));
        if (difference <= allowed || worst > difference || both_nan) continue;
        worst = isnan(difference) ? INFINITY : difference, at = k;
    }
    if (at >= 0)
        fail_msg("%s of %s, %lld x %lld, stride %lld, accumulate %d, bf16 %x: [%lld, %lld] is %.9g, want %.9g", which,
                 op_infos[call->op].name, (long long)want.rows, (long long)want.cols, (long long)got->view.stride,
                 call->accumulate, t->bf16, (long long)(at / want.cols), (long long)(at % want.cols),
                 operand_at(got, at / want.cols, at % want.cols), want.x[at]);
    if (is_bf16 && !(sqrt(difference2) <= ldexp(sqrt(norm2), -bits)))
        fail_msg("%s of %s, %lld x %lld, stride %lld, accumulate %d, bf16 %x: off by %.3g of its norm", which,
                 op_infos[call->op].name, (long long)want.rows, (long long)want.cols, (long long)got->view.stride,
                 call->accumulate, t->bf16, sqrt(difference2 / norm2));
    if (!guards_hold(got)) fail_msg("%s of %s: bytes outside the view were written", which, op_infos[call->op].name);
}

static void judge_factorization(const struct trial *t) {
    struct operands after = {0};
    for (int i = 0; i < OP_INPUTS + OP_OUTPUTS; i++) {
        const struct operand *o = i < OP_INPUTS ? &t->in[i] : &t->out[i - OP_INPUTS];
        struct matrix *m = i < OP_INPUTS ? &after.in[i] : &after.out[i - OP_INPUTS];
        *m = matrix_new(o->view.rows, o->view.cols);
        operand_read(o, *m);
        if (o->block && !guards_hold(o)) fail_msg("operand %d: bytes outside the view were written", i);
    }
    const char *wrong = factorization_wrong(t->call.op, &t->exact, &after);
    if (wrong) {
        struct view a = t->call.in[0];
        fail_msg("%s of %lld x %lld, stride %lld: %s", op_infos[t->call.op].name, (long long)a.rows, (long long)a.cols,
                 (long long)a.stride, wrong);
    }
    operands_free(&after);
}

void trial_check(struct trial *t) {
    if (op_is_factorization(t->call.op)) {
        judge_factorization(t);
        return;
    }
    op_reference(&t->call, &t->exact);
    for (int i = 0; i < OP_OUTPUTS; i++)
        if (t->out[i].block) compare(t, &t->out[i], t->exact.out[i], "output");
    for (int i = 0; i < OP_INPUTS; i++) {
        if (!t->in[i].block) continue;
        if (op_changes_input(&t->call, i))
            compare(t, &t->in[i], t->exact.in[i], "changed input");
        else
            assert_memory_equal(t->in[i].block, t->in[i].before, t->in[i].bytes);
    }
}
