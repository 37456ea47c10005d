// The case table and what its numbers mean:
//
//   n, c      rows and columns of the main operand (matmul: of y; grid ops: of w; losses: c = vocabulary)
//   k         matmul, product: inner dimension; embedding: vocabulary; rmsnorm_gain_grad, sum_squares: rows S of the output; output_error: S;
//             rows_gather, rows_pass, box_step: listed rows, 0 for no list
//   seq ...   rope, attention: T, heads, key/value heads, head width, window, past (rope: offset)
//   option    rmsnorm_tangent: gaind given; hadamard: without signs; kl_divergence: agree asked for; grid ops: a codebook that is not uniform;
//             eigh: equal eigenvalues; svd: rank 2; attention: scores too large to be powers without a maximum;
//             rows_pass: without noise; box_step: without h
//   past      rows_pass: t + 1; gradient: normal noise; inverse: box_step without limit
//   samples   heads: S; sample_products: n x c products of seq rows; sketch, exact_sum: c coordinates; sketch: 3 or kv sketches of k
//             numbers of kind `bits`, first = past, d directions; exact_sum: sums beyond the range with option
//   bits      adamw: given where the gradient is pulled; without limit for 8 bits
//   gradient  adamw: pulled at random; option of output_error: squares with a zero
//
// Sizes 1, 31, 33 straddle vector widths, groups of 9 and 20 vectors inside of a row; 257, 600 straddle tiles. Every case runs with contiguous operands and with
// operands that are column ranges of wider buffers, and in its += form where it has one.
#include "tests/ops/ops.h"

#include "core/base/rng.h"
#include "core/quant/grid_fit.h"
#include "core/quant/hadamard.h"

#include <math.h>
#include <stdlib.h>

static int64_t min_cols(int64_t a, int64_t b) { return a < b ? a : b; }

#define ATTENTION(op, B, T, H, K, D, W)                                                                                \
    { op, .n = (B) * (T), .seq = T, .heads = H, .kv = K, .d = D, .window = W }
#define ATTENTION_CASES(op)                                                                                            \
    ATTENTION(op, 1, 1, 1, 1, 2, 0), ATTENTION(op, 2, 1, 4, 2, 8, 0), ATTENTION(op, 2, 33, 8, 4, 8, 0),                \
        ATTENTION(op, 1, 31, 2, 1, 10, 7), ATTENTION(op, 2, 257, 2, 1, 8, 0), ATTENTION(op, 1, 200, 6, 2, 24, 33),     \
        ATTENTION(op, 1, 150, 2, 2, 64, 0), ATTENTION(op, 1, 77, 2, 1, 128, 0), ATTENTION(op, 1, 130, 1, 1, 40, 1),    \
        ATTENTION(op, 1, 600, 1, 1, 16, 300), ATTENTION(op, 3, 64, 8, 1, 4, 64), ATTENTION(op, 1, 385, 3, 3, 6, 0),    \
        ATTENTION(op, 1, 129, 2, 1, 96, 0), ATTENTION(op, 1, 161, 2, 1, 64, 0), ATTENTION(op, 1, 193, 1, 1, 128, 70),  \
        ATTENTION(op, 2, 70, 3, 1, 112, 0), ATTENTION(op, 1, 260, 2, 1, 32, 100), ATTENTION(op, 2, 33, 2, 2, 48, 5),   \
        ATTENTION(op, 1, 31, 4, 1, 80, 0), ATTENTION(op, 1, 35, 1, 1, 256, 0), ATTENTION(op, 1, 300, 1, 1, 96, 129),   \
        {op, .n = 66, .seq = 33, .heads = 8, .kv = 4, .d = 8, .option = true}, {                                       \
        op, .n = 600, .seq = 600, .heads = 2, .kv = 1, .d = 16, .option = true                                         \
    }
#define NORM_CASES(op)                                                                                                 \
    {op, .n = 1, .c = 1}, {op, .n = 31, .c = 33}, {op, .n = 200, .c = 64}, {op, .n = 5, .c = 1000}, {                  \
        op, .n = 2, .c = 8240                                                                                          \
    }
#define WIDTH_CASES(op)                                                                                                \
    {op, .n = 1, .c = 1}, {op, .n = 33, .c = 31}, {op, .n = 100, .c = 172}, { op, .n = 3, .c = 5000 }
#define GRID_CASES(op)                                                                                                 \
    {op, .n = 1, .c = 1, .bits = 3, .group = -1}, {op, .n = 33, .c = 172, .bits = 4, .group = -1},                     \
        {op, .n = 31, .c = 100, .bits = 2, .group = 32}, {op, .n = 70, .c = 64, .bits = 8, .group = 16},               \
        {op, .n = 5, .c = 33, .bits = 3, .group = 64}, {op, .n = 6, .c = 96, .bits = 3, .group = 20},                  \
        {op, .n = 6, .c = 72, .bits = 4, .group = 9}, {                                                                \
        op, .n = 17, .c = 65, .bits = 4, .group = 32, .option = true                                                   \
    }
#define CODEBOOK_CASES(op)                                                                                             \
    {op, .n = 17, .c = 70, .kind = GRID_ASYMMETRIC, .bits = 3, .group = 20},                                           \
        {op, .n = 20, .c = 172, .kind = GRID_ASYMMETRIC, .bits = 8, .group = -1},                                      \
        {op, .n = 17, .c = 150, .kind = GRID_NF4, .bits = 4, .group = 64},                                             \
        {op, .n = 18, .c = 64, .kind = GRID_MXFP4, .bits = 4, .group = 32},                                            \
        {op, .n = 18, .c = 80, .kind = GRID_NVFP4, .bits = 4, .group = 16},                                            \
        {op, .n = 20, .c = 96, .kind = GRID_Q4_0, .bits = 4, .group = 32},                                             \
        {op, .n = 20, .c = 96, .kind = GRID_Q4_1, .bits = 4, .group = 32},                                             \
        {op, .n = 20, .c = 64, .kind = GRID_Q8_0, .bits = 8, .group = 32}, {                                           \
        op, .n = 20, .c = 512, .kind = GRID_Q3_K, .bits = 3, .group = 16                                               \
    }
#define LOSS_CASES(op, gradient_)                                                                                      \
    {op, .n = 1, .c = 1, .gradient = gradient_}, {op, .n = 33, .c = 31, .gradient = gradient_},                        \
        {op, .n = 40, .c = 512, .gradient = gradient_, .option = true},                                                \
        {op, .n = 2, .c = 9000, .gradient = gradient_}, {                                                              \
        op, .n = 3, .c = 8193, .gradient = gradient_                                                                   \
    }
#define SKETCH_CASES(kind)                                                                                             \
    {OP_sketch, .heads = 1, .c = 1, .k = 1, .bits = kind}, {OP_sketch, .heads = 3, .c = 33, .k = 7, .bits = kind},     \
        {OP_sketch, .heads = 9, .c = 700, .k = 31, .bits = kind, .past = 1000, .d = 1},                                \
        {OP_sketch, .heads = 2, .c = 513, .k = 128, .bits = kind, .past = 77, .d = 3}, {                               \
        OP_sketch, .heads = 17, .c = 200, .k = 300, .bits = kind, .past = 290                                          \
    }
#define MATMUL(N, C, K)                                                                                                \
    {OP_matmul, .n = N, .c = C, .k = K}, {OP_matmul, .n = N, .c = C, .k = K, .tb = true}, {                            \
        OP_matmul, .n = N, .c = C, .k = K, .ta = true                                                                  \
    }

const struct op_case op_cases[] = {
    WIDTH_CASES(OP_fill),
    WIDTH_CASES(OP_copy),
    WIDTH_CASES(OP_row_dot),
    {OP_sum_squares, .n = 1, .c = 1, .k = 1},
    {OP_sum_squares, .n = 66, .c = 33, .k = 33},
    {OP_sum_squares, .n = 93, .c = 100, .k = 3},
    {OP_sum_squares, .n = 2, .c = 40000, .k = 1},
    {OP_sum_squares, .n = 12, .c = 5000, .k = 3},
    {OP_output_error, .n = 1, .c = 1, .k = 1},
    {OP_output_error, .n = 66, .c = 33, .k = 33},
    {OP_output_error, .n = 93, .c = 100, .k = 3, .option = true},
    {OP_output_error, .n = 2, .c = 5000, .k = 1},
    MATMUL(1, 1, 1),
    MATMUL(1, 33, 31),
    MATMUL(33, 1, 64),
    MATMUL(31, 33, 1),
    MATMUL(13, 47, 100),
    MATMUL(257, 31, 64),
    MATMUL(300, 172, 65),
    MATMUL(64, 344, 600),
    MATMUL(530, 260, 300),
    MATMUL(100, 1030, 520),
    {OP_sample_products, .heads = 1, .seq = 1, .n = 1, .c = 1},
    {OP_sample_products, .heads = 3, .seq = 5, .n = 33, .c = 31},
    {OP_sample_products, .heads = 2, .seq = 130, .n = 100, .c = 172},
    {OP_sample_products, .heads = 5, .seq = 128, .n = 64, .c = 64},
    {OP_sample_products, .heads = 2, .seq = 70, .n = 300, .c = 270},
    {OP_sample_products, .heads = 2, .seq = 600, .n = 9, .c = 20},
    SKETCH_CASES(SKETCH_ROTATION),
    SKETCH_CASES(SKETCH_GAUSSIAN),
    SKETCH_CASES(SKETCH_RADEMACHER),
    {OP_sketch, .heads = 3, .c = 1000, .bits = SKETCH_NONE, .d = 2},
    {OP_sketch, .heads = 33, .c = 65, .bits = SKETCH_NONE},
    {OP_sketch, .heads = 2, .c = 9000, .k = 2048, .bits = SKETCH_ROTATION, .past = 11008},
    {OP_sketch, .heads = 2, .c = 700, .k = 9, .kv = 9, .d = 6, .bits = SKETCH_ROTATION},
    {OP_sketch, .heads = 1, .c = 6000, .k = 2100, .kv = 1, .bits = SKETCH_ROTATION, .past = 5},
    {OP_sketch, .heads = 1, .c = 300, .k = 17000, .kv = 1, .bits = SKETCH_ROTATION, .past = 16900},
    {OP_exact_sum, .heads = 1, .c = 1},
    {OP_exact_sum, .heads = 33, .c = 31},
    {OP_exact_sum, .heads = 5, .c = 6000},
    {OP_exact_sum, .heads = 20, .c = 1000, .option = true},
    {OP_embedding, .n = 1, .c = 1, .k = 1},
    {OP_embedding, .n = 33, .c = 31, .k = 7},
    {OP_embedding, .n = 300, .c = 64, .k = 512},
    {OP_embedding_grad, .n = 1, .c = 1, .k = 1},
    {OP_embedding_grad, .n = 33, .c = 31, .k = 7},
    {OP_embedding_grad, .n = 300, .c = 64, .k = 40},
    {OP_embedding_grad, .n = 530, .c = 3, .k = 200},
    {OP_embedding_grad, .n = 9, .c = 2000, .k = 3},
    NORM_CASES(OP_rmsnorm),
    NORM_CASES(OP_rmsnorm_grad),
    NORM_CASES(OP_rmsnorm_tangent),
    {OP_rmsnorm_tangent, .n = 31, .c = 33, .option = true},
    {OP_rmsnorm_tangent, .n = 100, .c = 64, .option = true},
    {OP_rmsnorm_gain_grad, .n = 1, .c = 1, .k = 1},
    {OP_rmsnorm_gain_grad, .n = 62, .c = 33, .k = 2},
    {OP_rmsnorm_gain_grad, .n = 600, .c = 130, .k = 1},
    {OP_rmsnorm_gain_grad, .n = 33, .c = 64, .k = 33},
    {OP_rmsnorm_gain_grad, .n = 300, .c = 72, .k = 2},
    {OP_hadamard, .n = 1, .c = 1},
    {OP_hadamard, .n = 3, .c = 2, .inverse = true},
    {OP_hadamard, .n = 33, .c = 64},
    {OP_hadamard, .n = 70, .c = 172, .option = true},
    {OP_hadamard, .n = 70, .c = 172, .inverse = true},
    {OP_hadamard, .n = 5, .c = 12, .inverse = true, .option = true},
    {OP_hadamard, .n = 9, .c = 35, .inverse = true},
    {OP_hadamard, .n = 4, .c = 144, .option = true},
    {OP_hadamard, .n = 3, .c = 336, .inverse = true},
    {OP_hadamard, .n = 5, .c = 1376},
    {OP_hadamard, .n = 2, .c = 1712, .inverse = true},
    {OP_hadamard, .n = 2, .c = 5120},
    {OP_rope, .n = 1, .seq = 1, .heads = 1, .d = 2},
    {OP_rope, .n = 66, .seq = 33, .heads = 12, .d = 8, .past = 5},
    {OP_rope, .n = 66, .seq = 33, .heads = 12, .d = 8, .inverse = true},
    {OP_rope, .n = 31, .seq = 31, .heads = 3, .d = 64},
    {OP_rope, .n = 20, .seq = 5, .heads = 2, .d = 128, .inverse = true},
    {OP_rope, .n = 9, .seq = 3, .heads = 2, .d = 10},
    ATTENTION_CASES(OP_attention),
    ATTENTION_CASES(OP_attention_grad),
    ATTENTION_CASES(OP_attention_tangent),
    {OP_attention_cached, .n = 1, .heads = 1, .kv = 1, .d = 2},
    {OP_attention_cached, .n = 1, .heads = 8, .kv = 4, .d = 8, .past = 100},
    {OP_attention_cached, .n = 5, .heads = 8, .kv = 2, .d = 64, .past = 300},
    {OP_attention_cached, .n = 1, .heads = 2, .kv = 1, .d = 96, .past = 1500},
    {OP_attention_cached, .n = 2, .heads = 2, .kv = 2, .d = 256, .past = 70, .window = 60},
    {OP_attention_cached, .n = 33, .heads = 2, .kv = 1, .d = 10, .past = 3, .window = 6},
    {OP_attention_cached, .n = 40, .heads = 8, .kv = 2, .d = 64, .past = 700, .window = 90},
    {OP_attention_cached, .n = 300, .heads = 4, .kv = 2, .d = 8, .past = 500},
    WIDTH_CASES(OP_swiglu),
    WIDTH_CASES(OP_swiglu_grad),
    WIDTH_CASES(OP_swiglu_tangent),
    LOSS_CASES(OP_cross_entropy, false),
    LOSS_CASES(OP_cross_entropy, true),
    LOSS_CASES(OP_kl_divergence, false),
    LOSS_CASES(OP_kl_divergence, true),
    GRID_CASES(OP_grid_offset),
    CODEBOOK_CASES(OP_grid_offset),
    GRID_CASES(OP_grid_interpolate),
    CODEBOOK_CASES(OP_grid_interpolate),
    GRID_CASES(OP_grid_interpolate_grad),
    CODEBOOK_CASES(OP_grid_interpolate_grad),
    GRID_CASES(OP_grid_round),
    CODEBOOK_CASES(OP_grid_round),
    GRID_CASES(OP_grid_nearest),
    CODEBOOK_CASES(OP_grid_nearest),
    GRID_CASES(OP_adamw),
    CODEBOOK_CASES(OP_adamw),
    {OP_adamw, .n = 3, .c = 5000, .bits = 3, .group = 4100},
    WIDTH_CASES(OP_adamw),
    {OP_adamw, .n = 40, .c = 300, .option = true},
    {OP_adamw, .n = 33, .c = 31, .gradient = true},
    {OP_adamw, .n = 20, .c = 1000, .gradient = true, .option = true},
    {OP_eigh, .n = 1},
    {OP_eigh, .n = 31},
    {OP_eigh, .n = 33, .option = true},
    {OP_eigh, .n = 200},
    {OP_eigh, .n = 200, .option = true},
    {OP_cholesky, .n = 1},
    {OP_cholesky, .n = 31},
    {OP_cholesky, .n = 33},
    {OP_cholesky, .n = 200},
    {OP_svd, .n = 1, .c = 1},
    {OP_svd, .n = 31, .c = 33},
    {OP_svd, .n = 33, .c = 31},
    {OP_svd, .n = 200, .c = 40},
    {OP_svd, .n = 33, .c = 200, .option = true},
    {OP_svd, .n = 200, .c = 200},
    {OP_rows_gather, .n = 1, .c = 1},
    {OP_rows_gather, .n = 33, .c = 31, .k = 9},
    {OP_rows_gather, .n = 300, .c = 72, .k = 300},
    {OP_rows_gather, .n = 31, .c = 600},
    WIDTH_CASES(OP_row_squares),
    {OP_gram, .n = 1, .c = 1},
    {OP_gram, .n = 33, .c = 31},
    {OP_gram, .n = 600, .c = 33},
    {OP_gram, .n = 70, .c = 300},
    {OP_product, .n = 1, .c = 1, .k = 1},
    {OP_product, .n = 33, .c = 31, .k = 9},
    {OP_product, .n = 33, .c = 1, .k = 300, .ta = true},
    {OP_product, .n = 1, .c = 257, .k = 31, .tb = true},
    {OP_product, .n = 300, .c = 270, .k = 40},
    {OP_triangle_inverse, .n = 1},
    {OP_triangle_inverse, .n = 31},
    {OP_triangle_inverse, .n = 64},
    {OP_triangle_inverse, .n = 200},
    {OP_rows_pass, .n = 1, .c = 1},
    {OP_rows_pass, .n = 33, .c = 31, .k = 7, .past = 1},
    {OP_rows_pass, .n = 300, .c = 8, .k = 257, .past = 64},
    {OP_rows_pass, .n = 300, .c = 8, .option = true},
    {OP_rows_pass, .n = 200, .c = 72, .k = 130, .past = 130, .gradient = true},
    {OP_rows_pass, .n = 90, .c = 256, .past = 3},
    {OP_rows_pass, .n = 40, .c = 600, .k = 39, .past = 2},
    {OP_rows_pass, .n = 20, .c = 1500, .k = 12, .gradient = true},
    {OP_rows_pass, .n = 7, .c = 4096, .past = 5},
    {OP_rows_pass, .n = 9, .c = 4095, .k = 4, .option = true},
    {OP_rows_pass, .n = 5000, .c = 2, .k = 4990, .past = 128},
    {OP_box_step, .n = 1},
    {OP_box_step, .n = 33, .k = 9},
    {OP_box_step, .n = 9000, .k = 8999},
    {OP_box_step, .n = 300, .k = 200, .inverse = true},
    {OP_box_step, .n = 300, .k = 31, .option = true},
};
const int op_case_count = sizeof op_cases / sizeof *op_cases;

enum dtype op_in_dtype(enum op op, int i) {
    if (op_is_double(op)) {
        bool list = i == (op == OP_box_step ? 2 : 1) && op != OP_product;
        return list ? DTYPE_I32 : DTYPE_F64;
    }
    if (op_is_factorization(op)) return DTYPE_F64;
    if (op == OP_hadamard && i == 2) return DTYPE_I32;
    bool tokens = op == OP_embedding || op == OP_embedding_grad || op == OP_cross_entropy;
    if (op == OP_output_error && i == 2) return DTYPE_F64;
    return tokens && i == 1 ? DTYPE_I32 : DTYPE_F32;
}

enum dtype op_out_dtype(enum op op, int i) {
    if (op == OP_kl_divergence && i == 1) return DTYPE_I32;
    if (op == OP_output_error) return i == 1 ? DTYPE_F64 : DTYPE_F32;
    bool is_double = op_is_factorization(op) || op_is_double(op) || op == OP_cross_entropy || op == OP_kl_divergence ||
                     op == OP_row_dot || op == OP_sum_squares || op == OP_exact_sum || (op == OP_sketch && i != 1);
    return is_double ? DTYPE_F64 : DTYPE_F32;
}

static bool is_logits(enum op op, int i) {
    return (op == OP_cross_entropy && i == 0) || (op == OP_kl_divergence && i == 1);
}

bool op_changes_input(const struct op_call *call, int i) {
    if (is_logits(call->op, i)) return call->params.loss.gradient;
    if (call->op == OP_adamw) return i < 3;
    if (call->op == OP_box_step) return i == 3;
    if (op_is_factorization(call->op)) return true;
    return i == 0 && op_output_is_input(call->op);
}

bool op_accumulates(enum op op) {
    switch (op) {
    case OP_copy:
    case OP_matmul:
    case OP_hadamard:
    case OP_gram:
    case OP_product:
    case OP_rmsnorm_grad:
    case OP_rmsnorm_gain_grad:
    case OP_sum_squares:
    case OP_output_error:
    case OP_sample_products:
    case OP_sketch:
    case OP_exact_sum:
    case OP_grid_interpolate_grad: return true;
    default: return false;
    }
}

bool op_output_is_input(enum op op) { return op == OP_rope || op == OP_adamw || op == OP_cholesky; }

static struct matrix normal(struct rng *rng, int64_t rows, int64_t cols, double size) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    for (int64_t i = 0; i < rows * cols; i++) m.x[i] = (double)(float)(size * rng_normal(*rng, (uint64_t)i));
    return m;
}

static struct matrix uniform(struct rng *rng, int64_t rows, int64_t cols) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    for (int64_t i = 0; i < rows * cols; i++) m.x[i] = (double)rng_uniform(*rng, (uint64_t)i);
    return m;
}

// Integers first .. below - 1.
static struct matrix integers(struct rng *rng, int64_t rows, int64_t first, int64_t below) {
    struct matrix m = matrix_new(rows, 1);
    rng->stream++;
    for (int64_t i = 0; i < rows; i++) m.x[i] = (double)(first + rng_bits(*rng, (uint64_t)i) % (below - first));
    return m;
}

// rstd, or o and lse, as the forward op leaves them in float.
static void saved_by(enum op forward, struct op_call call, struct matrix a, struct matrix b, struct matrix *first,
                     struct matrix *second) {
    int64_t heads = forward == OP_attention ? call.params.attention.heads : 1;
    int64_t cols = forward == OP_attention ? heads * call.params.attention.head_dim : a.cols;
    struct operands o = {.in = {a, b}, .out = {matrix_new(a.rows, cols), matrix_new(a.rows, heads)}};
    call.op = forward;
    op_reference(&call, &o);
    for (int64_t i = 0; i < a.rows * cols; i++) o.out[0].x[i] = (double)(float)o.out[0].x[i];
    for (int64_t i = 0; i < a.rows * heads; i++) o.out[1].x[i] = (double)(float)o.out[1].x[i];
    if (first)
        *first = o.out[0];
    else
        matrix_free(&o.out[0]);
    *second = o.out[1];
}

static void build_dense(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    int64_t n = t->n, c = t->c, k = t->k;
    o->out[0] = matrix_new(n, c);
    switch (t->op) {
    case OP_fill: call->params.value = 0.625; break;
    case OP_matmul:
        call->params.matmul = (struct matmul_params){t->ta, t->tb};
        o->in[0] = t->ta ? normal(rng, k, n, 1) : normal(rng, n, k, 1);
        o->in[1] = t->tb ? normal(rng, c, k, 1) : normal(rng, k, c, 1);
        break;
    case OP_embedding: o->in[0] = normal(rng, k, c, 1), o->in[1] = integers(rng, n, 0, k); break;
    case OP_embedding_grad:
        o->in[0] = normal(rng, n, c, 1), o->in[1] = integers(rng, n, 0, k);
        matrix_free(&o->out[0]);
        o->out[0] = normal(rng, k, c, 1);
        break;
    case OP_sum_squares:
    case OP_row_dot:
        call->params.factor = 0.75;
        o->in[0] = normal(rng, n, c, 1);
        if (t->op == OP_row_dot) o->in[1] = normal(rng, n, c, 1);
        matrix_free(&o->out[0]);
        o->out[0] = matrix_new(t->op == OP_row_dot ? n : k, 1);
        break;
    case OP_output_error:
        call->params.factor = 0.75;
        for (int i = 0; i < 2; i++) o->in[i] = normal(rng, n, c, 1);
        o->in[2] = matrix_new(k, 1), o->out[1] = matrix_new(n, 1);
        for (int64_t i = 0; i < k; i++) o->in[2].x[i] = t->option && i == 1 ? 0 : 3.5 + (double)i;
        break;
    default: o->in[0] = normal(rng, n, c, 1);
    }
}

static void build_rmsnorm(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    struct matrix x = normal(rng, t->n, t->c, 2), gain = normal(rng, 1, t->c, 1), rstd = {0};
    call->params.eps = 1e-5;
    o->in[0] = x;
    o->out[0] = matrix_new(t->op == OP_rmsnorm_gain_grad ? t->k : t->n, t->c);
    if (t->op == OP_rmsnorm)
        o->in[1] = gain, o->out[1] = matrix_new(t->n, 1);
    else
        saved_by(OP_rmsnorm, *call, x, gain, NULL, &rstd);
    if (t->op == OP_rmsnorm_gain_grad) {
        matrix_free(&gain);
        o->in[1] = rstd, o->in[2] = normal(rng, t->n, t->c, 1);
    } else if (t->op != OP_rmsnorm) {
        o->in[1] = gain, o->in[2] = rstd, o->in[3] = normal(rng, t->n, t->c, 1);
        if (t->option) o->in[4] = normal(rng, 1, t->c, 1);
    }
}

// One matrix per width for the whole process.
static const struct hadamard *case_matrix(int64_t n) {
    static struct hadamard *matrices[8192];
    if (!matrices[n]) REQUIRE(hadamard_new(n, true, &matrices[n]) == STATUS_OK, "matrix of the case");
    return matrices[n];
}

static void build_hadamard(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    const struct hadamard *h = case_matrix(t->c);
    call->params.hadamard = (struct hadamard_params){.matrix = h, .transposed = t->inverse};
    o->in[0] = normal(rng, t->n, t->c, 1);
    if (!t->option) o->in[1] = integers(rng, t->c, 0, 2), o->in[1].rows = 1, o->in[1].cols = t->c;
    for (int64_t i = 0; i < o->in[1].cols; i++) o->in[1].x[i] = 2 * o->in[1].x[i] - 1;
    o->in[2] = matrix_new(h->table_rows, h->words);
    for (int64_t i = 0; i < h->table_rows * h->words; i++) o->in[2].x[i] = h->tables[i];
    o->out[0] = matrix_new(t->n, t->c);
}

static void build_rope(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    call->params.rope = (struct rope_params){t->seq, t->past, t->heads, t->d, t->inverse};
    o->in[0] = normal(rng, t->n, t->heads * t->d, 1);
    o->in[1] = matrix_new(t->past + t->seq, t->d / 2), o->in[2] = matrix_new(t->past + t->seq, t->d / 2);
    for (int64_t i = 0; i < o->in[1].rows * o->in[1].cols; i++) {
        double angle = 6 * (double)rng_uniform(*rng, (uint64_t)i);
        o->in[1].x[i] = cos(angle), o->in[2].x[i] = sin(angle);
    }
}

static void build_attention(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    call->params.attention =
        (struct attention_params){t->seq, t->past, t->window, t->heads, t->kv, t->d, 1 / sqrt((double)t->d)};
    int64_t width = t->heads * t->d, all = (t->heads + 2 * t->kv) * t->d;
    o->out[0] = matrix_new(t->n, t->op == OP_attention_grad ? all : width);
    if (t->op == OP_attention_cached) {
        o->in[0] = normal(rng, t->n, width, 1);
        for (int i = 1; i < 3; i++) o->in[i] = normal(rng, t->past + t->n + 2, t->kv * t->d, 1);
        return;
    }
    o->in[0] = normal(rng, t->n, all, 1.5);
    for (int64_t i = 0; i < t->n && t->option; i++)
        for (int64_t j = 0; j < width; j++) o->in[0].x[i * all + j] *= 3;
    if (t->op == OP_attention) {
        o->out[1] = matrix_new(t->n, t->heads);
        return;
    }
    saved_by(OP_attention, *call, o->in[0], (struct matrix){0}, &o->in[1], &o->in[2]);
    o->in[3] = normal(rng, t->n, t->op == OP_attention_grad ? width : all, 1);
}

static void build_loss(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o) {
    call->params.loss = (struct loss_params){t->gradient, 0.3};
    o->in[0] = normal(rng, t->n, t->c, 3);
    o->out[0] = matrix_new(t->n, 1);
    if (t->op == OP_cross_entropy) {
        o->in[1] = integers(rng, t->n, t->n > 1 ? -1 : 0, t->c);
        return;
    }
    o->in[1] = normal(rng, t->n, t->c, 0.5);
    for (int64_t i = 0; i < t->n * t->c; i++) o->in[1].x[i] = (double)(float)(o->in[1].x[i] + o->in[0].x[i]);
    if (t->option) o->out[1] = matrix_new(t->n, 1);
}

// The grid of a case: one of the grids, or a codebook with uneven gaps that leaves out zero.
static struct grid case_grid(const struct op_case *t) {
    struct grid grid;
    struct grid_options options = {.kind = t->kind, .bits = t->bits, .group_size = t->group};
    REQUIRE(grid_new(&options, &grid) == STATUS_OK, "grid of the case");
    if (!t->option) return grid;
    grid.uniform = false;
    grid.scale_divisor = 1;
    for (int i = 0; i < grid.n_levels; i++) {
        double place = (2.0 * i + 1) / grid.n_levels - 1;
        grid.levels[i] = (float)(place * fabs(place));
    }
    return grid;
}

// Weights, some of them on the grid, outside it, or in a group of equal ones, and their scales.
static void build_weights(const struct op_case *t, struct rng *rng, const struct grid *grid, struct matrix *to_w,
                          struct matrix *to_scale) {
    struct matrix w = normal(rng, t->n, t->c, 0.1), scale = matrix_new(t->n, grid_scale_cols(grid, t->c));
    int64_t group = grid_group_cols(grid, t->c), groups = grid_groups(grid, t->c);
    float *values = malloc((size_t)(t->n * t->c) * sizeof *values);
    float *scales = malloc((size_t)(t->n * scale.cols) * sizeof *scales);
    for (int64_t i = 3; i < t->n; i += 16) // scale 0
        for (int64_t j = 0; j < min_cols(group, t->c); j++) matrix_row(w, i)[j] = grid->kind == GRID_Q4_1 ? 0.25 : 0;
    for (int64_t k = 0; k < t->n * t->c; k++) values[k] = (float)w.x[k];
    REQUIRE(grid_fit(grid, "w", values, t->n, t->c, scales) == STATUS_OK, "scales of the case");
    for (int64_t k = 0; k < t->n * scale.cols; k++) scale.x[k] = (double)scales[k];
    for (int64_t i = 0; i < t->n; i++)
        for (int64_t j = i % 5; j < t->c; j += 5) { // weights on the grid and far outside it
            float s = (float)matrix_row(scale, i)[j / group];
            float level = grid->levels[(i + j) % grid->n_levels] * (j % 3 == 0 ? 1.0f : j % 3 == 1 ? 1.0f : 2.5f);
            float offset = grid->has_offset ? (float)matrix_row(scale, i)[groups + j / group] : 0;
            matrix_row(w, i)[j] = (double)(s * level + offset);
        }
    free(values);
    free(scales);
    *to_w = w, *to_scale = scale;
}

static void build_grid(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o,
                       struct grid *grid) {
    struct matrix w, scale;
    *grid = case_grid(t);
    build_weights(t, rng, grid, &w, &scale);
    call->params.grid = grid;
    o->in[0] = w;
    o->in[1] = scale;
    o->out[0] = matrix_new(t->n, t->c);
    if (t->op == OP_grid_interpolate || t->op == OP_grid_round) o->in[2] = uniform(rng, t->n, t->c);
    if (t->op == OP_grid_interpolate_grad) o->in[2] = normal(rng, t->n, t->c, 1);
}

static void build_adamw(const struct op_case *t, struct rng *rng, struct op_call *call, struct operands *o,
                        struct grid *grid) {
    call->params.adamw = (struct adamw_params){.rate = 0.05,
                                               .beta1 = 0.9,
                                               .beta2 = 0.95,
                                               .eps = 1e-8,
                                               .decay = 0.1,
                                               .step = 3,
                                               .low = -INFINITY,
                                               .high = INFINITY,
                                               .factor = 0.7,
                                               .limit = t->bits == 8 ? 0 : 0.5,
                                               .strength = 0.2,
                                               .grid = grid,
                                               .rng = {.seed = 5, .stream = RNG_ROUND}};
    if (t->option) call->params.adamw.low = 0, call->params.adamw.high = 1, call->params.adamw.concave = 0.6;
    if (t->gradient) call->params.adamw.random = true, call->params.adamw.pull = (struct rng){6, RNG_ROUND + 1};
    o->in[0] = uniform(rng, t->n, t->c);
    o->in[1] = normal(rng, t->n, t->c, 0.1);
    o->in[2] = uniform(rng, t->n, t->c);
    o->in[3] = normal(rng, t->n, t->c, 1);
    if (!t->bits) return;
    *grid = case_grid(t);
    build_weights(t, rng, grid, &o->in[4], &o->in[5]);
}

void op_case_build(const struct op_case *t, bool accumulate, uint64_t seed, struct op_call *call, struct operands *o,
                   struct grid *grid) {
    struct rng rng = {.seed = seed, .stream = RNG_TEST};
    *call = (struct op_call){.op = t->op, .accumulate = accumulate};
    *o = (struct operands){0};
    if (op_is_double(t->op)) {
        rows_case_build(t, &rng, call, o);
        return;
    }
    switch (t->op) {
    case OP_rmsnorm:
    case OP_rmsnorm_grad:
    case OP_rmsnorm_gain_grad:
    case OP_rmsnorm_tangent: build_rmsnorm(t, &rng, call, o); break;
    case OP_hadamard: build_hadamard(t, &rng, call, o); break;
    case OP_rope: build_rope(t, &rng, call, o); break;
    case OP_attention:
    case OP_attention_grad:
    case OP_attention_tangent:
    case OP_attention_cached: build_attention(t, &rng, call, o); break;
    case OP_swiglu:
        o->in[0] = normal(&rng, t->n, 2 * t->c, 3);
        o->out[0] = matrix_new(t->n, t->c);
        break;
    case OP_swiglu_grad:
    case OP_swiglu_tangent:
        o->in[0] = normal(&rng, t->n, 2 * t->c, 3);
        o->in[1] = normal(&rng, t->n, t->op == OP_swiglu_grad ? t->c : 2 * t->c, 1);
        o->out[0] = matrix_new(t->n, t->op == OP_swiglu_grad ? 2 * t->c : t->c);
        break;
    case OP_cross_entropy:
    case OP_kl_divergence: build_loss(t, &rng, call, o); break;
    case OP_grid_offset:
    case OP_grid_interpolate:
    case OP_grid_interpolate_grad:
    case OP_grid_round:
    case OP_grid_nearest: build_grid(t, &rng, call, o, grid); break;
    case OP_adamw: build_adamw(t, &rng, call, o, grid); break;
    case OP_eigh:
    case OP_cholesky:
    case OP_svd: factorization_build(t, &rng, o); break;
    case OP_sample_products:
    case OP_sketch:
    case OP_exact_sum: sample_build(t, &rng, call, o); break;
    default: build_dense(t, &rng, call, o); break;
    }
    if (!accumulate) return;
    rng.stream += 100;
    for (int64_t i = 0; i < o->out[0].rows * o->out[0].cols; i++) o->out[0].x[i] = rng_normal(rng, (uint64_t)i);
}
