// The ops: everything a backend must be able to do, and the exact meaning of each.
//
// A call names its inputs, outputs and parameters; backend_run (core/backend/backend.h) checks it against the shape rule
// and runs the backend's kernel. Derivatives are ops themselves (x_grad: reverse, x_tangent: forward); how they are put
// together is in core/graph. `=` overwrites the output, `+=` when op_call.accumulate is set. Inputs and outputs do not
// overlap except where an op says "in place".
//
// Views are F32 unless said otherwise. A backend with `bf16` takes BF16 too, rounding results to nearest (adamw: at random), everything
// in between fp32 at least: everywhere but for gains, their gradients and tangents, rstd, lse, cos, sin and scale. Activations (x, y, qkv,
// o, gu, h, logits, …, their gradients and tangents) of one call have one dtype; so have a, b of matmul, whose y may also be F32,
// and p, m, v of adamw. Free of each other are the dtypes of a and y of copy, of tables and their rows, and of w, x, y, dy,
// dx, g on a grid.
//
// Dimension letters: N rows (tokens), T tokens per sequence (sequences lie one after another, N = B * T), C width, H
// query heads, K key/value heads, d head width, I width inside the MLP, V vocabulary, O x I' weight matrix.
//
// op                 in                                              out                       meaning
// fill               -                                               y [N, C]                  y = value
// copy               a [N, C]                                        y [N, C]                  y (+)= a
// matmul             a, b                                            y [N, C]                  y (+)= op(a) op(b), op = transpose on request
// embedding          table [V, C], tokens [N, 1] I32                 y [N, C]                  y_n = table[tokens_n]
// embedding_grad     dy [N, C], tokens [N, 1] I32                    dtable [V, C]             dtable[tokens_n] += dy_n, n ascending (always adds)
// rmsnorm            x [N, C], gain [1, C]                           y [N, C], rstd [N, 1]     rstd = (mean_c x^2 + eps)^(-1/2), y = x rstd gain
// rmsnorm_grad       x, gain, rstd, dy                               dx [N, C]                 dx (+)= rstd (u - xh mean_c(u xh)), u = dy gain, xh = x rstd
// rmsnorm_gain_grad  x, rstd, dy                                     dgain [S, C]              row s (+)= sum of dy xh over its N / S consecutive rows
// rmsnorm_tangent    x, gain, rstd, xd [N, C], gaind [1, C] or none  yd [N, C]                 yd = rstd (xd - xh mean(xd xh)) gain + xh gaind
// rope               x [N, heads d] in place, cos, sin [>=T, d/2]    x                         rotates (x_i, x_{i+d/2}) by the angle of position offset + n mod T; inverse: by minus it
// attention          qkv [N, (H + 2K) d]                             o [N, H d], lse [N, H]    causal softmax(q k^T scale) v per head; lse = log sum exp of scaled scores
// attention_grad     qkv, o, lse, do [N, H d]                        dqkv [N, (H + 2K) d]      =
// attention_tangent  qkv, o, lse, qkvd                               od [N, H d]               directional derivative along qkvd
// attention_cached   q [n, H d], k, v [>= past + n, K d]             o [n, H d]                query i is at position past + i of one sequence
// swiglu             gu [N, 2I]: gate | up                           h [N, I]                  h = silu(gate) up, silu(g) = g / (1 + e^-g)
// swiglu_grad        gu, dh [N, I]                                   dgu [N, 2I]               =
// swiglu_tangent     gu, gud [N, 2I]                                 hd [N, I]                 =
// cross_entropy      logits [N, V] changed, targets [N, 1] I32       loss [N, 1] F64           loss = lse - logit[target]; target -1: 0. With gradient: logits = weight (softmax - onehot), 0 for target -1; without: unchanged
// kl_divergence      teacher [N, V], student [N, V] changed          kl [N, 1] F64, agree [N, 1] I32 or none
//                                                                                              kl = sum_v p log(p / q); agree = first argmax equal. With gradient: student = weight (q - p); without: unchanged
// row_dot            a, b [N, C]                                     y [N, 1] F64              y_n = factor sum_c a b
// sum_squares        a [N, C]                                        y [S, 1] F64              row s (+)= sum of squares of its N / S consecutive rows
// output_error       y, t [N, C], squares [S, 1] F64                 dy [N, C], error [N, 1] F64
//                                                                                              error_n = |y_n - t_n|^2 / squares_s, dy (+)= 2 factor (y - t) / squares_s, n among the N / S consecutive
//                                                                                              rows of s; 0 where squares_s = 0
//
// Samples, one per row or per equal part of the rows; n coordinates of a weight, row-major, from `first` on; D directions; J sketches of k numbers.
// sample_products    dy [N, O], x [N, I']                            y [S O, I']               y_s (+)= dy_s^T x_s over the S equal parts of the rows
// sketch             a [S, n], directions [D, n] or none             norms [S, 1] F64, sketches [S, J k] or none, inner [S, D] F64 or none
//                                                                                              norms_s (+)= |a_s|^2, sketches_s (+)= (S_1 a_s, ..., S_J a_s), inner_sd (+)= <a_s, direction_d>
// exact_sum          a [S, n]                                        y [1, n] F64              y_c (+)= sum over s of a_sc rounded to a multiple of 2^-40, ascending; NaN for ever once |y_c| reaches 2^12
//
// The maps of a sketch. Word i of a stream is rng_bits({seed, purpose + SKETCHES_MOST stream + j}, i) for sketch j = 0 .. J - 1; K = k rounded up to a multiple of 128.
// SKETCH_ROTATION    coordinate c is added to bucket (c + r) mod k, r = floor(k w / 2^32) with word w = c / k of RNG_SKETCH_ROTATION; with a minus where
//                    bit c mod 32 of word c / 32 of RNG_SKETCH_ENTRY is set
// SKETCH_RADEMACHER  S has entries +-k^(-1/2), minus where bit i mod 32 of word i / 32 of RNG_SKETCH_ENTRY is set, i = c K + b for bucket b
// SKETCH_GAUSSIAN    S has entries k^(-1/2) z_i: z_2m, z_2m+1 = r cos t, r sin t; r = sqrt(-2 ln ((floor(w_2m / 512) + 1/2) 2^-23)), t = 2 pi w_2m+1 2^-32, words of RNG_SKETCH_ENTRY
//
// The rotation is a CountSketch whose hash is a random shift of each run of k coordinates: any two coordinates of different runs meet with
// probability 1 / k, those of one run never. Var |S x|^2 = 2/k (|x|^4 - sum over runs |x_run|^4), at most a Gaussian map's, whatever x is (Charikar, Chen and
// Farach-Colton, ICALP 2002, for independent hashes).
//
// Weights on a quantization grid (core/quant/grid.h): weights w [O, I'], scale [O, groups], or [O, 2 groups] = scales | offsets where the
// grid has offsets; down <= w <= up are the neighbours of w, equal where w is on the grid or outside its range.
// grid_offset        w, scale                                        y [O, I']                 (w - down) / (up - down); 0 where up = down
// grid_interpolate   w, scale, x [O, I']                             y [O, I']                 down (1 - x) + up x
// grid_interpolate_grad  w, scale, dy                                dx [O, I']                dx (+)= dy (up - down)
// grid_round         w, scale, x                                     y [O, I']                 up where x > 1/2, else down
// grid_nearest       w, scale                                        y [O, I']                 nearer neighbour of w, the lower one in a tie
// adamw              p, m, v [O, I'] in place, g, w, scale           p                         AdamW with gradient d = clamp(factor g, -limit, limit) + strength (1 - 2 y) + concave (1 - 2 p), y as grid_offset, 1/2 where up = down;
//                                                                                              decoupled weight decay, bias-corrected, then clamped to [low, high]. w, scale none: no pull; limit 0: no clamp.
//                                                                                              With `random` (w, scale none) element i, counted row by row, is pulled by strength (2 u_i - 1), u_i = rng_uniform(pull, i)
//                                                                                              Where v is infinite it stays so, and without decay p stays as it is: frozen
//
// Hadamard matrices H of order m that divides C, in C / m blocks along a row (core/quant/hadamard.h):
// hadamard           x [N, C], signs [1, C] F32 or none,             y [N, C]                  y (+)= H (signs x) / sqrt(m); transposed: signs (H^T x) / sqrt(m), the inverse
//                    tables I32 of the matrix, none without factors
//
// BF16 results of adamw are rounded stochastically: the low 16 random bits are added to the bits of the float, which are then cut; infinities
// and NaN stay. Element i (row * I' + column) takes words 4 (step O I' + i) + {0, 1, 2} of `rng` for p, m, v: one Philox block per element.
//
// Factorizations of dense F64 matrices (LAPACK's; signs of vectors and bases of equal values are the backend's choice). A number
// that is not finite is STATUS_INVALID. They wait for the device.
// eigh               a [n, n] symmetric, in place                    values [n, 1]             a v_i = values_i v_i, values ascending; row i of a becomes v_i, rows are orthonormal. Reads the lower triangle
// cholesky           a [n, n] symmetric, in place                    a                         a becomes L, lower triangular, with L L^T = a; zeros above. Reads the lower triangle. Not positive definite: STATUS_INVALID
// svd                a [m, n], lost                                  s [k, 1], u [m, k], vt [k, n]
//                                                                                              a = u diag(s) vt, k = min(m, n), s descending
//
// Dense F64 matrices, all operands F64 but lists of rows, I32; listed rows differ from each other. Sums in double.
// rows_gather        a [n, C], rows [k, 1] or none                   y [k, C]                  y_j = a of row rows_j; without a list all of a, k = n
// row_squares        a [n, C]                                        y [n, 1]                  y_i = sum_c a_ic^2
// gram               a [n, C]                                        y [C, C]                  y (+)= factor a^T a, both triangles; factor in `scaled`
// product            a, b                                            y [N, C]                  y (+)= factor op(a) op(b), op = transpose on request; at most one
// triangle_inverse   a [n, n] lower triangular, diagonal not 0       y [n, n]                  a^-1, zeros above. Reads the lower triangle
// rows_pass          a [n, m], rows [k, 1] or none, x, y [n, 1], c [2, m]
//                                                                    d, h [k, 1], sums [2, m]  with i = rows_j: d_j = x_i - a_i . c_0, h_j = g_i(t) - a_i . c_1,
//                                                                                              sums_0 = sum_j (d_j + step h_j - y_i) a_i, sums_1 = sum_j g_i(t + 1) a_i
//                                                                                              c [1, m]: no noise, h none, sums [1, m], h_j = 0. At most ROWS_PASS_COLS columns
// box_step           d, h [k, 1], rows [k, 1], x [n, 1] in place     z [k, 1], s [1, 1]        z_j = d_j + s h_j, x of row rows_j becomes z_j; s = step or, with `limit`, the least of step and
//                                                                                              min(d_j, 1 - d_j) / |h_j| over 0 <= d_j <= 1: as far as the box [0, 1] allows; 0 / 0 = 0. h none: z = d, s = 0
//
// Noise of rows_pass: g_i(t) is 0 for t < 0, else a sign, bit t mod 64 of the number whose upper 32 bits are word w, whose lower are word w + 1 of
// `rng`, w = 2 (n floor(t / 64) + i), 1 for a set bit, -1 for none; or (normal) rng_normal(rng, n t + i).
#ifndef DQ_CORE_OPS_OP_H
#define DQ_CORE_OPS_OP_H

#include "core/base/rng.h"
#include "core/tensor/view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct grid;
struct hadamard;

enum op {
#define OP(name) OP_##name,
#include "core/ops/op_list.h"
#undef OP
    OP_COUNT
};

enum { OP_INPUTS = 6, OP_OUTPUTS = 3 };

struct matmul_params {
    bool transpose_a, transpose_b; // op(a) is [rows of y, k], op(b) is [k, cols of y]
};

struct rope_params {
    int64_t seq_len, offset, heads, head_dim;
    bool inverse;
};

struct attention_params {
    int64_t seq_len; // T; attention_cached: unused
    int64_t past;    // attention_cached: keys before the first query
    int64_t window;  // keys each query sees, itself included; 0 = all earlier ones
    int64_t heads, kv_heads, head_dim;
    double scale; // of the scores, head_dim^(-1/2)
};

struct loss_params {
    bool gradient;
    double weight; // factor of the gradient
};

struct adamw_params {
    double rate, beta1, beta2, eps, decay;
    int64_t step;     // 1 for the first update
    double low, high; // -INFINITY, INFINITY for no projection
    double factor, limit, strength;
    const struct grid *grid; // of w
    struct rng rng;          // of BF16 results
    bool random;
    struct rng pull; // with `random`
    double concave;
};

// Kinds of random maps S from coordinates to k numbers, E S^T S = 1, defined above.
enum sketch_kind { SKETCH_NONE, SKETCH_ROTATION, SKETCH_GAUSSIAN, SKETCH_RADEMACHER };
enum { SKETCHES_MOST = 256 };

struct sketch_params {
    enum sketch_kind kind;
    int64_t sketches; // J
    int64_t first;    // coordinate of the first column of a
    int64_t stream;   // of the random numbers: the weight's index, below 2^24
    uint64_t seed;
};

struct hadamard_params {
    const struct hadamard *matrix; // of the width of x
    bool transposed;
};

struct scaled_params {
    double factor;
    bool transpose_a, transpose_b; // product: as of matmul
};

enum { ROWS_PASS_COLS = 4096 };

struct rows_pass_params {
    double step;
    int64_t time; // t; at least -1
    bool normal;
    struct rng rng;
};

struct box_step_params {
    double step;
    bool limit;
};

union op_params {
    double value;  // fill
    double factor; // row_dot, output_error
    double eps;    // rmsnorm
    struct matmul_params matmul;
    struct rope_params rope;
    struct attention_params attention;
    struct loss_params loss;
    const struct grid *grid; // grid_*
    struct adamw_params adamw;
    struct sketch_params sketch;
    struct hadamard_params hadamard;
    struct scaled_params scaled; // gram, product
    struct rows_pass_params rows_pass;
    struct box_step_params box_step;
};

struct op_call {
    enum op op;
    bool accumulate;
    struct view in[OP_INPUTS]; // unused ones have rows = 0
    struct view out[OP_OUTPUTS];
    union op_params params;
};

struct op_cost {
    double flops; // multiplications and additions, two per multiply-add
    double bytes; // least traffic: every input read once, every output written once
};

struct op_info {
    const char *name;
    // NULL when shapes, dtypes and parameters fit, else what is wrong.
    const char *(*check)(const struct op_call *call);
    double (*flops)(const struct op_call *call);
};

extern const struct op_info op_infos[OP_COUNT];

struct op_cost op_cost(const struct op_call *call);

#ifdef __cplusplus
}
#endif
#endif
