// Every op at a transformer's shape. Activations and weights have the device's type; what core/ops/op.h wants in F32, and
// gradients of weights, are F32. Ops that move numbers are a share of the copy's bandwidth, products and attention of the matrix rate.
#include "bench/device_speed.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/quant/grid.h"
#include "core/quant/hadamard.h"

#include <math.h>
#include <stdio.h>

struct sizes {
    int64_t tokens, hidden, inter, heads, kv_heads, head_dim, vocab, seq_len;
};

static struct sizes sizes_of(const struct device_speed *bench) {
    const struct device_shape *s = bench->options.shape;
    const struct transformer_config *c = &s->config;
    return (struct sizes){s->batch * s->seq_len, c->hidden,   c->intermediate, c->heads,
                          c->kv_heads,           c->head_dim, c->vocab,        s->seq_len};
}

static bool is_product(enum op op) {
    return op == OP_sample_products || op == OP_gram || op == OP_product || op == OP_triangle_inverse ||
           op == OP_attention || op == OP_attention_grad || op == OP_attention_tangent || op == OP_attention_cached ||
           op == OP_eigh || op == OP_cholesky || op == OP_svd;
}

// written: bytes that an op which changes its inputs writes, besides what op_cost counts.
static void op_print(const struct device_speed *bench, const char *label, const struct op_call *call, double written,
                     double seconds) {
    struct op_cost cost = op_cost(call);
    const struct device_peak *peak = &bench->peak;
    double bytes = (cost.bytes + written) / seconds, flops = cost.flops / seconds;
    double best = bench->dtype == DTYPE_BF16 ? peak->bf16_flops : peak->f32_flops;
    printf("{\"case\": \"op\", \"device\": \"%s\", \"shape\": \"%s\", \"op\": \"%s\", \"dtype\": \"%s\", "
           "\"rows\": %lld, \"cols\": %lld, \"seconds\": %.9f, \"gbytes_per_second\": %.3f, \"share_of_copy\": %.3f",
           bench->options.device, bench->options.shape->name, label, dtype_name(call->in[0].dtype),
           (long long)call->out[0].rows, (long long)call->out[0].cols, seconds, 1e-9 * bytes, bytes / peak->bytes);
    if (is_product(call->op)) printf(", \"tflops\": %.4f, \"share_of_products\": %.3f", 1e-12 * flops, flops / best);
    printf("}\n");
    fflush(stdout);
}

static enum status op_time(struct device_speed *bench, const char *label, struct op_call call, double written) {
    double seconds;
    enum status status = device_seconds(bench, &call, &seconds);
    if (status == STATUS_OK) op_print(bench, label, &call, written, seconds);
    return status;
}

static double view_bytes(struct view v) { return (double)(view_count(v) * dtype_bytes(v.dtype)); }

#define MATRIX(name, dtype, rows, cols, mean, deviation)                                                               \
    struct view name;                                                                                                  \
    TRY(device_matrix(bench, dtype, rows, cols, mean, deviation, &name))
#define TIME(label, written, ...) TRY(op_time(bench, label, (struct op_call){__VA_ARGS__}, written))

static enum status elementwise(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    struct view tokens;
    MATRIX(x, T, s.tokens, s.hidden, 0, 1);
    MATRIX(y, T, s.tokens, s.hidden, 0, 1);
    MATRIX(f32, DTYPE_F32, s.tokens, s.hidden, 0, 1);
    MATRIX(table, T, s.vocab, s.hidden, 0, 1);
    MATRIX(table_grad, DTYPE_F32, s.vocab, s.hidden, 0, 1);
    MATRIX(dot, DTYPE_F64, s.tokens, 1, 0, 1);
    MATRIX(squares, DTYPE_F64, 1, 1, 1, 0);
    TRY(device_integers(bench, s.tokens, s.vocab, &tokens));
    // Of the tables only the rows that occur move.
    double unread = view_bytes(y) - view_bytes(table), unread_grad = 2 * view_bytes(f32) - view_bytes(table_grad);
    TIME("fill", 0, .op = OP_fill, .out = {y}, .params.value = 1);
    TIME("copy", 0, .op = OP_copy, .in = {x}, .out = {y});
    TIME("copy +=", 0, .op = OP_copy, .accumulate = true, .in = {x}, .out = {y});
    TIME("copy to fp32", 0, .op = OP_copy, .in = {x}, .out = {f32});
    TIME("embedding", unread, .op = OP_embedding, .in = {table, tokens}, .out = {y});
    TIME("embedding_grad", unread_grad, .op = OP_embedding_grad, .in = {x, tokens}, .out = {table_grad});
    TIME("row_dot", 0, .op = OP_row_dot, .in = {x, y}, .out = {dot}, .params.factor = 1);
    TIME("sum_squares", 0, .op = OP_sum_squares, .in = {x}, .out = {view_rows(dot, 0, 1)});
    TIME("output_error", 0, .op = OP_output_error, .in = {x, x, squares}, .out = {y, dot}, .params.factor = 1);
done:
    device_matrices_free(bench);
    return status;
}

// Activations of incoherence processing; in blocks where the width has no Hadamard matrix.
static enum status transforms(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    struct hadamard *h = NULL;
    struct view tables = {0};
    MATRIX(x, bench->dtype, s.tokens, s.hidden, 0, 1);
    MATRIX(y, bench->dtype, s.tokens, s.hidden, 0, 1);
    MATRIX(signs, DTYPE_F32, 1, s.hidden, 1, 0);
    TRY(hadamard_new(s.hidden, true, &h));
    if (h->n_factors) {
        TRY(backend_matrix_new(bench->backend, DTYPE_I32, h->table_rows, h->words, "factors", &tables));
        TRY(backend_write(bench->backend, tables, h->tables));
    }
    struct hadamard_params params = {.matrix = h};
    TIME("hadamard", 0, .op = OP_hadamard, .in = {x, signs, tables}, .out = {y}, .params.hadamard = params);
done:
    backend_matrix_free(bench->backend, &tables);
    hadamard_free(h);
    device_matrices_free(bench);
    return status;
}

static enum status norms(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    MATRIX(x, T, s.tokens, s.hidden, 0, 1);
    MATRIX(y, T, s.tokens, s.hidden, 0, 1);
    MATRIX(dy, T, s.tokens, s.hidden, 0, 1);
    MATRIX(gain, DTYPE_F32, 1, s.hidden, 1, 0.1);
    MATRIX(gain_grad, DTYPE_F32, 1, s.hidden, 0, 1);
    MATRIX(rstd, DTYPE_F32, s.tokens, 1, 1, 0.1);
    TIME("rmsnorm", 0, .op = OP_rmsnorm, .in = {x, gain}, .out = {y, rstd}, .params.eps = 1e-5);
    TIME("rmsnorm_grad", 0, .op = OP_rmsnorm_grad, .in = {x, gain, rstd, dy}, .out = {y});
    TIME("rmsnorm_grad +=", 0, .op = OP_rmsnorm_grad, .accumulate = true, .in = {x, gain, rstd, dy}, .out = {y});
    TIME("rmsnorm_gain_grad", 0, .op = OP_rmsnorm_gain_grad, .in = {x, rstd, dy}, .out = {gain_grad});
    TIME("rmsnorm_tangent", 0, .op = OP_rmsnorm_tangent, .in = {x, gain, rstd, dy}, .out = {y});
done:
    device_matrices_free(bench);
    return status;
}

static enum status gates(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    MATRIX(gu, T, s.tokens, 2 * s.inter, 0, 1);
    MATRIX(dgu, T, s.tokens, 2 * s.inter, 0, 1);
    MATRIX(h, T, s.tokens, s.inter, 0, 1);
    TIME("swiglu", 0, .op = OP_swiglu, .in = {gu}, .out = {h});
    TIME("swiglu_grad", 0, .op = OP_swiglu_grad, .in = {gu, h}, .out = {dgu});
    TIME("swiglu_tangent", 0, .op = OP_swiglu_tangent, .in = {gu, dgu}, .out = {h});
done:
    device_matrices_free(bench);
    return status;
}

static enum status attention(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    int64_t width = s.heads * s.head_dim, all = (s.heads + 2 * s.kv_heads) * s.head_dim;
    int64_t rotated = s.heads + s.kv_heads, past = 2 * s.seq_len - 1;
    struct attention_params p = {s.seq_len, 0, 0, s.heads, s.kv_heads, s.head_dim, 1 / sqrt((double)s.head_dim)};
    struct attention_params cached = p;
    cached.past = past;
    MATRIX(qkv, T, s.tokens, all, 0, 1);
    MATRIX(dqkv, T, s.tokens, all, 0, 1);
    MATRIX(o, T, s.tokens, width, 0, 1);
    MATRIX(dout, T, s.tokens, width, 0, 1);
    MATRIX(lse, DTYPE_F32, s.tokens, s.heads, 0, 1);
    MATRIX(angles, DTYPE_F32, s.seq_len, s.head_dim / 2, 0.70710678, 0);
    MATRIX(cache, T, past + 1, s.kv_heads * s.head_dim, 0, 1);
    struct view turned = view_cols(dqkv, 0, rotated * s.head_dim);
    TIME("rope", 0, .op = OP_rope, .in = {turned, angles, angles}, .out = {turned},
         .params.rope = {s.seq_len, 0, rotated, s.head_dim, false});
    TIME("attention", 0, .op = OP_attention, .in = {qkv}, .out = {o, lse}, .params.attention = p);
    TIME("attention_tangent", 0, .op = OP_attention_tangent, .in = {qkv, o, lse, dqkv}, .out = {dout},
         .params.attention = p);
    TIME("attention_grad", 0, .op = OP_attention_grad, .in = {qkv, o, lse, dout}, .out = {dqkv}, .params.attention = p);
    TIME("attention_cached", 0, .op = OP_attention_cached, .in = {view_rows(o, 0, 1), cache, cache},
         .out = {view_rows(dout, 0, 1)}, .params.attention = cached);
done:
    device_matrices_free(bench);
    return status;
}

// As many rows of logits as a head takes at once. Repeated calls find a gradient where the logits were: the same work.
static enum status losses(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    int64_t rows = s.tokens < 2048 ? s.tokens : 2048;
    struct view targets, agree;
    MATRIX(teacher, T, rows, s.vocab, 0, 2);
    MATRIX(student, T, rows, s.vocab, 0, 2);
    MATRIX(loss, DTYPE_F64, rows, 1, 0, 1);
    TRY(device_integers(bench, rows, s.vocab, &targets));
    TRY(device_integers(bench, rows, 2, &agree));
    struct loss_params gradient = {true, 1e-3};
    TIME("kl_divergence", 0, .op = OP_kl_divergence, .in = {teacher, student}, .out = {loss, agree});
    TIME("kl_divergence, gradient", view_bytes(student), .op = OP_kl_divergence, .in = {teacher, student},
         .out = {loss}, .params.loss = gradient);
    TIME("cross_entropy", 0, .op = OP_cross_entropy, .in = {teacher, targets}, .out = {loss});
    TIME("cross_entropy, gradient", view_bytes(student), .op = OP_cross_entropy, .in = {student, targets},
         .out = {loss}, .params.loss = gradient);
done:
    device_matrices_free(bench);
    return status;
}

// The largest matrix of a layer at 3 bits, one scale per row.
static enum status weights(struct device_speed *bench) {
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    enum dtype T = bench->dtype;
    struct grid grid;
    TRY(grid_block(3, -1, &grid));
    int64_t rows = 2 * s.inter, cols = s.hidden;
    MATRIX(w, T, rows, cols, 0, 0.02);
    MATRIX(y, T, rows, cols, 0, 1);
    MATRIX(x, T, rows, cols, 0.5, 0.1);
    MATRIX(m, T, rows, cols, 0, 0.01);
    MATRIX(v, T, rows, cols, 1, 0.01);
    MATRIX(g, DTYPE_F32, rows, cols, 0, 1);
    MATRIX(scale, DTYPE_F32, rows, grid_groups(&grid, cols), 0.02, 0.001);
    TIME("grid_offset", 0, .op = OP_grid_offset, .in = {w, scale}, .out = {y}, .params.grid = &grid);
    TIME("grid_interpolate", 0, .op = OP_grid_interpolate, .in = {w, scale, x}, .out = {y}, .params.grid = &grid);
    TIME("grid_round", 0, .op = OP_grid_round, .in = {w, scale, x}, .out = {y}, .params.grid = &grid);
    TIME("grid_nearest", 0, .op = OP_grid_nearest, .in = {w, scale}, .out = {y}, .params.grid = &grid);
    TIME("grid_interpolate_grad", 0, .op = OP_grid_interpolate_grad, .in = {w, scale, g}, .out = {y},
         .params.grid = &grid);
    TIME("adamw", 2 * view_bytes(m), .op = OP_adamw, .in = {x, m, v, g, w, scale}, .out = {x},
         .params.adamw = {.rate = 1e-3,
                          .beta1 = 0.9,
                          .beta2 = 0.999,
                          .eps = 1e-8,
                          .step = 10,
                          .low = 0,
                          .high = 1,
                          .factor = 1,
                          .limit = 0.5,
                          .strength = 0.1,
                          .grid = &grid});
done:
    device_matrices_free(bench);
    return status;
}

// Per-sample gradients of the largest matrix of a layer, a tile of SAMPLES; four sketches of 2048 numbers, one direction.
static enum status samples(struct device_speed *bench) {
    enum { SAMPLES = 2, SKETCHES = 4, DIM = 2048, TILE_ROWS = 512 };
    enum status status = STATUS_OK;
    struct sizes s = sizes_of(bench);
    int64_t out = s.hidden < TILE_ROWS ? s.hidden : (int64_t)TILE_ROWS, in = s.inter, n = out * in;
    MATRIX(dy, bench->dtype, SAMPLES * s.seq_len, out, 0, 1);
    MATRIX(x, bench->dtype, SAMPLES * s.seq_len, in, 0, 1);
    MATRIX(grads, DTYPE_F32, SAMPLES * out, in, 0, 1);
    MATRIX(direction, DTYPE_F32, 1, n, 0, 1);
    MATRIX(norms, DTYPE_F64, SAMPLES, 1, 0, 1);
    MATRIX(inner, DTYPE_F64, SAMPLES, 1, 0, 1);
    MATRIX(sketches, DTYPE_F32, SAMPLES, SKETCHES * DIM, 0, 1);
    MATRIX(sum, DTYPE_F64, 1, n, 0, 1);
    struct view rows = view_new(grads.data, DTYPE_F32, SAMPLES, n);
    TIME("sample_products", 0, .op = OP_sample_products, .in = {dy, x}, .out = {grads});
    TIME("sketch", 0, .op = OP_sketch, .in = {rows, direction}, .out = {norms, sketches, inner},
         .params.sketch = {.kind = SKETCH_ROTATION, .sketches = SKETCHES, .seed = 1});
    TIME("sketch, norms", 0, .op = OP_sketch, .in = {rows}, .out = {norms});
    TIME("exact_sum", 0, .op = OP_exact_sum, .in = {rows}, .out = {sum});
done:
    device_matrices_free(bench);
    return status;
}

// Matrices in double of the walks: a [tokens, WIDTH], all rows.
static enum status rows(struct device_speed *bench) {
    enum { WIDTH = 256 };
    enum status status = STATUS_OK;
    int64_t n = sizes_of(bench).tokens;
    MATRIX(a, DTYPE_F64, n, WIDTH, 0, 1);
    MATRIX(y, DTYPE_F64, n, WIDTH, 0, 1);
    MATRIX(square, DTYPE_F64, WIDTH, WIDTH, 0, 1);
    MATRIX(inverse, DTYPE_F64, WIDTH, WIDTH, 0, 1);
    MATRIX(c, DTYPE_F64, 2, WIDTH, 0, 1);
    MATRIX(sums, DTYPE_F64, 2, WIDTH, 0, 1);
    MATRIX(x, DTYPE_F64, n, 1, 0.5, 0.1);
    MATRIX(d, DTYPE_F64, n, 1, 0.5, 0.1);
    MATRIX(h, DTYPE_F64, n, 1, 0, 1);
    MATRIX(z, DTYPE_F64, n, 1, 0, 1);
    MATRIX(length, DTYPE_F64, 1, 1, 0, 1);
    TIME("rows_gather", 0, .op = OP_rows_gather, .in = {a}, .out = {y});
    TIME("row_squares", 0, .op = OP_row_squares, .in = {a}, .out = {d});
    TIME("gram", 0, .op = OP_gram, .in = {a}, .out = {square}, .params.scaled.factor = 1);
    TIME("product", 0, .op = OP_product, .in = {a, square}, .out = {y}, .params.scaled.factor = 1);
    TIME("triangle_inverse", 0, .op = OP_triangle_inverse, .in = {square}, .out = {inverse});
    TIME("rows_pass", 0, .op = OP_rows_pass, .in = {a, {0}, x, x, c}, .out = {d, h, sums},
         .params.rows_pass = {.step = 0.1});
    TIME("box_step", 0, .op = OP_box_step, .in = {d, h, {0}, x}, .out = {z, length},
         .params.box_step = {.step = 0.1, .limit = true});
done:
    device_matrices_free(bench);
    return status;
}

// Best of three calls, each on a fresh copy of the matrix, which is its input and its work space.
static enum status factor_time(struct device_speed *bench, struct op_call call, const double *matrix) {
    enum status status = STATUS_OK;
    double best = INFINITY;
    for (int i = 0; i < 3; i++) {
        TRY(backend_write(bench->backend, call.in[0], matrix));
        TRY(backend_sync(bench->backend));
        double start = clock_seconds();
        TRY(backend_run(bench->backend, &call));
        TRY(backend_sync(bench->backend));
        best = fmin(best, clock_seconds() - start);
    }
    op_print(bench, op_infos[call.op].name, &call, 0, best);
done:
    return status;
}

// A symmetric matrix that its diagonal makes positive definite.
static enum status factorizations(struct device_speed *bench) {
    enum status status = STATUS_OK;
    int64_t n = bench->options.shape->factor_size;
    void *memory = NULL;
    MATRIX(a, DTYPE_F64, n, n, 0, 1);
    MATRIX(u, DTYPE_F64, n, n, 0, 1);
    MATRIX(vt, DTYPE_F64, n, n, 0, 1);
    MATRIX(values, DTYPE_F64, n, 1, 0, 1);
    TRY(mem_buffer_new(n * n * 8, "matrix", &memory));
    double *matrix = memory;
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++)
            matrix[i * n + j] = matrix[j * n + i] =
                (double)rng_uniform(rng, (uint64_t)(i * n + j)) + (i == j ? (double)n : 0);
    TRY(factor_time(bench, (struct op_call){.op = OP_eigh, .in = {a}, .out = {values}}, matrix));
    TRY(factor_time(bench, (struct op_call){.op = OP_cholesky, .in = {a}, .out = {a}}, matrix));
    TRY(factor_time(bench, (struct op_call){.op = OP_svd, .in = {a}, .out = {values, u, vt}}, matrix));
done:
    mem_buffer_free(memory);
    device_matrices_free(bench);
    return status;
}

enum status device_speed_ops(struct device_speed *bench) {
    enum status status = STATUS_OK;
    TRY(elementwise(bench));
    TRY(transforms(bench));
    TRY(norms(bench));
    TRY(gates(bench));
    TRY(attention(bench));
    TRY(losses(bench));
    TRY(weights(bench));
    TRY(samples(bench));
    TRY(rows(bench));
    TRY(factorizations(bench));
done:
    return status;
}
