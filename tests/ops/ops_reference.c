#include "tests/ops/ops.h"

#include "core/quant/hadamard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct matrix matrix_new(int64_t rows, int64_t cols) {
    struct matrix m = {calloc((size_t)(rows * cols) + 1, sizeof(double)), rows, cols};
    REQUIRE(m.x, "out of memory");
    return m;
}

void matrix_free(struct matrix *m) {
    free(m->x);
    *m = (struct matrix){0};
}

struct matrix matrix_copy(struct matrix m) {
    struct matrix copy = matrix_new(m.rows, m.cols);
    memcpy(copy.x, m.x, (size_t)(m.rows * m.cols) * sizeof(double));
    return copy;
}

void operands_free(struct operands *o) {
    for (int i = 0; i < OP_INPUTS; i++) matrix_free(&o->in[i]);
    for (int i = 0; i < OP_OUTPUTS; i++) matrix_free(&o->out[i]);
}

#define AT(m, i, j) matrix_row(m, i)[j]
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

static double put(const struct op_call *call, double old, double value) {
    return call->accumulate ? old + value : value;
}

static void dense(const struct op_call *c, struct operands *o) {
    struct matrix a = o->in[0], b = o->in[1], y = o->out[0];
    EACH(i, y.rows) EACH(j, y.cols) {
        double value = 0;
        if (c->op == OP_fill) value = c->params.value;
        if (c->op == OP_copy) value = AT(a, i, j);
        if (c->op == OP_embedding) value = AT(a, (int64_t)AT(b, i, 0), j);
        if (c->op == OP_matmul) {
            bool ta = c->params.matmul.transpose_a, tb = c->params.matmul.transpose_b;
            EACH(k, ta ? a.rows : a.cols) value += (ta ? AT(a, k, i) : AT(a, i, k)) * (tb ? AT(b, j, k) : AT(b, k, j));
        }
        if (c->op == OP_row_dot) EACH(k, a.cols) value += c->params.factor * AT(a, i, k) * AT(b, i, k);
        if (c->op == OP_sum_squares) {
            int64_t per = a.rows / y.rows;
            EACH(r, per) EACH(k, a.cols) value += AT(a, i * per + r, k) * AT(a, i * per + r, k);
        }
        AT(y, i, j) = put(c, AT(y, i, j), value);
    }
}

static void output_error(const struct op_call *c, struct operands *o) {
    struct matrix y = o->in[0], t = o->in[1];
    int64_t per = y.rows / o->in[2].rows;
    EACH(i, y.rows) {
        double squares = o->in[2].x[i / per], error = 0;
        EACH(j, y.cols) {
            double d = AT(y, i, j) - AT(t, i, j), *to = &AT(o->out[0], i, j);
            error += d * d;
            *to = put(c, *to, squares > 0 ? 2 * c->params.factor * d / squares : 0);
        }
        o->out[1].x[i] = squares > 0 ? error / squares : 0;
    }
}

static void embedding_grad(struct operands *o) {
    EACH(i, o->in[0].rows) EACH(j, o->in[0].cols) AT(o->out[0], (int64_t)AT(o->in[1], i, 0), j) += AT(o->in[0], i, j);
}

static void rmsnorm(const struct op_call *c, struct operands *o) {
    struct matrix x = o->in[0], gain = o->in[1];
    EACH(i, x.rows) {
        double mean = 0;
        EACH(j, x.cols) mean += AT(x, i, j) * AT(x, i, j) / (double)x.cols;
        double r = 1 / sqrt(mean + c->params.eps);
        AT(o->out[1], i, 0) = r;
        EACH(j, x.cols) AT(o->out[0], i, j) = AT(x, i, j) * r * AT(gain, 0, j);
    }
}

static void rmsnorm_grad(const struct op_call *c, struct operands *o) {
    struct matrix x = o->in[0], gain = o->in[1], rstd = o->in[2], dy = o->in[3], dx = o->out[0];
    EACH(i, x.rows) {
        double r = AT(rstd, i, 0), mean = 0;
        EACH(j, x.cols) mean += AT(dy, i, j) * AT(gain, 0, j) * AT(x, i, j) * r / (double)x.cols;
        EACH(j, x.cols) {
            double value = r * (AT(dy, i, j) * AT(gain, 0, j) - AT(x, i, j) * r * mean);
            AT(dx, i, j) = put(c, AT(dx, i, j), value);
        }
    }
}

static void rmsnorm_gain_grad(const struct op_call *c, struct operands *o) {
    struct matrix x = o->in[0], rstd = o->in[1], dy = o->in[2], dgain = o->out[0];
    int64_t per = x.rows / dgain.rows;
    EACH(s, dgain.rows) EACH(j, x.cols) {
        double sum = 0;
        for (int64_t i = s * per; i < (s + 1) * per; i++) sum += AT(dy, i, j) * AT(x, i, j) * AT(rstd, i, 0);
        AT(dgain, s, j) = put(c, AT(dgain, s, j), sum);
    }
}

static void rmsnorm_tangent(struct operands *o) {
    struct matrix x = o->in[0], gain = o->in[1], rstd = o->in[2], xd = o->in[3], gaind = o->in[4];
    EACH(i, x.rows) {
        double r = AT(rstd, i, 0), mean = 0;
        EACH(j, x.cols) mean += AT(xd, i, j) * AT(x, i, j) * r / (double)x.cols;
        EACH(j, x.cols) {
            double xh = AT(x, i, j) * r, along_gain = gaind.rows ? AT(gaind, 0, j) : 0;
            AT(o->out[0], i, j) = r * (AT(xd, i, j) - xh * mean) * AT(gain, 0, j) + xh * along_gain;
        }
    }
}

// The matrix by its entries; they are judged by tests/unit/hadamard_test.c.
static void hadamard(const struct op_call *c, struct operands *o) {
    const struct hadamard_params *p = &c->params.hadamard;
    struct matrix x = o->in[0], signs = o->in[1], y = o->out[0];
    double factor = 1 / sqrt((double)p->matrix->order);
    EACH(n, x.rows) EACH(i, x.cols) {
        double sum = 0;
        EACH(j, x.cols) {
            int entry = p->transposed ? hadamard_entry(p->matrix, j, i) : hadamard_entry(p->matrix, i, j);
            sum += entry * (signs.rows && !p->transposed ? AT(signs, 0, j) : 1) * AT(x, n, j);
        }
        double value = factor * sum * (signs.rows && p->transposed ? AT(signs, 0, i) : 1);
        AT(y, n, i) = (c->accumulate ? AT(y, n, i) : 0) + value;
    }
}

static void rope(const struct op_call *c, struct operands *o) {
    const struct rope_params *p = &c->params.rope;
    int64_t half = p->head_dim / 2;
    EACH(n, o->in[0].rows) EACH(h, p->heads) EACH(i, half) {
        int64_t position = p->offset + n % p->seq_len;
        double cosine = AT(o->in[1], position, i), sine = AT(o->in[2], position, i) * (p->inverse ? -1 : 1);
        double *x = matrix_row(o->in[0], n) + h * p->head_dim, a = x[i], b = x[i + half];
        x[i] = a * cosine - b * sine;
        x[i + half] = b * cosine + a * sine;
    }
}

// One head of one sequence: rows and columns of q, k, v inside the matrices.
struct head {
    int64_t row, q, k, v, h;
};

static bool visible(const struct attention_params *p, int64_t i, int64_t j) {
    return j <= i && (p->window == 0 || j > i - p->window);
}

static double score(const struct attention_params *p, struct matrix a, struct matrix b, struct head at, int64_t i,
                    int64_t j) {
    double sum = 0;
    EACH(e, p->head_dim) sum += AT(a, at.row + i, at.q + e) * AT(b, at.row + j, at.k + e);
    return p->scale * sum;
}

static void attention_head(const struct attention_params *p, struct operands *o, struct head at) {
    struct matrix qkv = o->in[0];
    EACH(i, p->seq_len) {
        double max = -INFINITY, sum = 0;
        EACH(j, p->seq_len) if (visible(p, i, j)) max = fmax(max, score(p, qkv, qkv, at, i, j));
        EACH(j, p->seq_len) if (visible(p, i, j)) sum += exp(score(p, qkv, qkv, at, i, j) - max);
        double lse = max + log(sum), *out = matrix_row(o->out[0], at.row + i) + at.q;
        AT(o->out[1], at.row + i, at.h) = lse;
        EACH(e, p->head_dim) out[e] = 0;
        EACH(j, p->seq_len) if (visible(p, i, j)) {
            double prob = exp(score(p, qkv, qkv, at, i, j) - lse);
            EACH(e, p->head_dim) out[e] += prob * AT(qkv, at.row + j, at.v + e);
        }
    }
}

static void attention_grad_head(const struct attention_params *p, struct operands *o, struct head at) {
    struct matrix qkv = o->in[0], out = o->in[1], lse = o->in[2], dout = o->in[3], d = o->out[0];
    EACH(i, p->seq_len) {
        const double *do_i = matrix_row(dout, at.row + i) + at.q;
        double delta = 0;
        EACH(e, p->head_dim) delta += do_i[e] * AT(out, at.row + i, at.q + e);
        EACH(j, p->seq_len) if (visible(p, i, j)) {
            double prob = exp(score(p, qkv, qkv, at, i, j) - AT(lse, at.row + i, at.h)), dp = 0;
            EACH(e, p->head_dim) dp += do_i[e] * AT(qkv, at.row + j, at.v + e);
            double ds = p->scale * prob * (dp - delta);
            EACH(e, p->head_dim) {
                AT(d, at.row + j, at.v + e) += prob * do_i[e];
                AT(d, at.row + i, at.q + e) += ds * AT(qkv, at.row + j, at.k + e);
                AT(d, at.row + j, at.k + e) += ds * AT(qkv, at.row + i, at.q + e);
            }
        }
    }
}

static void attention_tangent_head(const struct attention_params *p, struct operands *o, struct head at) {
    struct matrix qkv = o->in[0], out = o->in[1], lse = o->in[2], qkvd = o->in[3], od = o->out[0];
    EACH(i, p->seq_len) {
        double mean = 0, *od_i = matrix_row(od, at.row + i) + at.q;
        EACH(e, p->head_dim) od_i[e] = 0;
        EACH(j, p->seq_len) if (visible(p, i, j)) {
            double prob = exp(score(p, qkv, qkv, at, i, j) - AT(lse, at.row + i, at.h));
            double pd = prob * (score(p, qkvd, qkv, at, i, j) + score(p, qkv, qkvd, at, i, j));
            mean += pd;
            EACH(e, p->head_dim) od_i[e] += pd * AT(qkv, at.row + j, at.v + e) + prob * AT(qkvd, at.row + j, at.v + e);
        }
        EACH(e, p->head_dim) od_i[e] -= mean * AT(out, at.row + i, at.q + e);
    }
}

static void attention(const struct op_call *c, struct operands *o) {
    const struct attention_params *p = &c->params.attention;
    if (c->op == OP_attention_grad) EACH(i, o->out[0].rows * o->out[0].cols) o->out[0].x[i] = 0;
    EACH(b, o->in[0].rows / p->seq_len) EACH(h, p->heads) {
        int64_t kv = h / (p->heads / p->kv_heads);
        struct head at = {b * p->seq_len, h * p->head_dim, (p->heads + kv) * p->head_dim,
                          (p->heads + p->kv_heads + kv) * p->head_dim, h};
        if (c->op == OP_attention) attention_head(p, o, at);
        if (c->op == OP_attention_grad) attention_grad_head(p, o, at);
        if (c->op == OP_attention_tangent) attention_tangent_head(p, o, at);
    }
}

static void attention_cached(const struct op_call *c, struct operands *o) {
    const struct attention_params *p = &c->params.attention;
    struct matrix q = o->in[0], k = o->in[1], v = o->in[2];
    EACH(i, q.rows) EACH(h, p->heads) {
        int64_t at = h / (p->heads / p->kv_heads) * p->head_dim, last = p->past + i;
        int64_t first = p->window && last + 1 > p->window ? last + 1 - p->window : 0;
        double *out = matrix_row(o->out[0], i) + h * p->head_dim, sum = 0;
        EACH(e, p->head_dim) out[e] = 0;
        for (int64_t j = first; j <= last; j++) {
            double s = 0;
            EACH(e, p->head_dim) s += p->scale * AT(q, i, h * p->head_dim + e) * AT(k, j, at + e);
            sum += exp(s); // scores of the cases are small
            EACH(e, p->head_dim) out[e] += exp(s) * AT(v, j, at + e);
        }
        EACH(e, p->head_dim) out[e] /= sum;
    }
}

static void swiglu(const struct op_call *c, struct operands *o) {
    struct matrix gu = o->in[0], b = o->in[1], y = o->out[0];
    int64_t width = gu.cols / 2;
    EACH(n, gu.rows) EACH(i, width) {
        double g = AT(gu, n, i), u = AT(gu, n, width + i), s = 1 / (1 + exp(-g)), slope = s + g * s * (1 - s);
        if (c->op == OP_swiglu) AT(y, n, i) = g * s * u;
        if (c->op == OP_swiglu_tangent) AT(y, n, i) = slope * AT(b, n, i) * u + g * s * AT(b, n, width + i);
        if (c->op == OP_swiglu_grad) AT(y, n, i) = AT(b, n, i) * u * slope, AT(y, n, width + i) = AT(b, n, i) * g * s;
    }
}

static double log_sum_exp(const double *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    EACH(i, n) max = fmax(max, x[i]);
    EACH(i, n) sum += exp(x[i] - max);
    return max + log(sum);
}

static int64_t argmax(const double *x, int64_t n) {
    int64_t best = 0;
    EACH(i, n) if (x[i] > x[best]) best = i;
    return best;
}

static void cross_entropy(const struct op_call *c, struct operands *o) {
    struct matrix logits = o->in[0];
    EACH(i, logits.rows) {
        double *row = matrix_row(logits, i), lse = log_sum_exp(row, logits.cols);
        int64_t target = (int64_t)AT(o->in[1], i, 0);
        AT(o->out[0], i, 0) = target < 0 ? 0 : lse - row[target];
        if (!c->params.loss.gradient) continue;
        EACH(j, logits.cols) row[j] = target < 0 ? 0 : c->params.loss.weight * (exp(row[j] - lse) - (j == target));
    }
}

static void kl_divergence(const struct op_call *c, struct operands *o) {
    struct matrix teacher = o->in[0], student = o->in[1];
    EACH(i, teacher.rows) {
        double *t = matrix_row(teacher, i), *s = matrix_row(student, i), kl = 0;
        double lse_t = log_sum_exp(t, teacher.cols), lse_s = log_sum_exp(s, teacher.cols);
        EACH(j, teacher.cols) kl += exp(t[j] - lse_t) * ((t[j] - lse_t) - (s[j] - lse_s));
        AT(o->out[0], i, 0) = kl;
        if (o->out[1].rows) AT(o->out[1], i, 0) = argmax(t, teacher.cols) == argmax(s, teacher.cols);
        if (!c->params.loss.gradient) continue;
        EACH(j, teacher.cols) s[j] = c->params.loss.weight * (exp(s[j] - lse_s) - exp(t[j] - lse_t));
    }
}

// Neighbours come from the scalar definition in float: they must be equal to the bit, or w - down is another number.
static void on_grid(const struct op_call *c, const struct grid *grid, struct matrix w, struct matrix scale,
                    struct matrix x, struct matrix y) {
    int64_t group = grid_group_cols(grid, w.cols);
    EACH(i, w.rows) EACH(j, w.cols) {
        float shift = grid->has_offset ? (float)AT(scale, i, scale.cols / 2 + j / group) : 0;
        struct neighbours near = grid_neighbours(grid, (float)AT(w, i, j), (float)AT(scale, i, j / group), shift);
        double down = (double)near.down, up = (double)near.up, value = AT(w, i, j), *to = &AT(y, i, j);
        double offset = up > down ? (value - down) / (up - down) : 0.5, second = x.rows ? AT(x, i, j) : 0;
        if (c->op == OP_grid_offset) *to = up > down ? offset : 0;
        if (c->op == OP_grid_interpolate) *to = down * (1 - second) + up * second;
        if (c->op == OP_grid_interpolate_grad) *to = put(c, *to, second * (up - down));
        if (c->op == OP_grid_round) *to = second > 0.5 ? up : down;
        if (c->op == OP_grid_nearest) *to = value - down <= up - value ? down : up;
        if (c->op == OP_adamw) *to += c->params.adamw.strength * (1 - 2 * offset);
    }
}

static void adamw(const struct op_call *c, struct operands *o) {
    const struct adamw_params *p = &c->params.adamw;
    double bias1 = 1 - pow(p->beta1, (double)p->step), bias2 = 1 - pow(p->beta2, (double)p->step);
    struct matrix d = matrix_copy(o->in[3]);
    EACH(i, d.rows * d.cols) {
        d.x[i] *= p->factor;
        if (p->limit > 0) d.x[i] = fmin(fmax(d.x[i], -p->limit), p->limit);
    }
    if (o->in[4].rows) on_grid(c, p->grid, o->in[4], o->in[5], (struct matrix){0}, d);
    EACH(i, d.rows * d.cols)
    if (p->random) d.x[i] += p->strength * (2 * (double)rng_uniform(p->pull, (uint64_t)i) - 1);
    EACH(i, d.rows * d.cols) {
        double *x = &o->in[0].x[i], *m = &o->in[1].x[i], *v = &o->in[2].x[i];
        d.x[i] += p->concave * (1 - 2 * *x);
        *x *= 1 - p->rate * p->decay;
        *m = p->beta1 * *m + (1 - p->beta1) * d.x[i];
        *v = p->beta2 * *v + (1 - p->beta2) * d.x[i] * d.x[i];
        *x -= p->rate * (*m / bias1) / (sqrt(*v / bias2) + p->eps);
        *x = fmin(fmax(*x, p->low), p->high);
    }
    matrix_free(&d);
}

void op_reference(const struct op_call *c, struct operands *o) {
    if (op_is_double(c->op)) {
        rows_reference(c, o);
        return;
    }
    switch (c->op) {
    case OP_embedding_grad: embedding_grad(o); break;
    case OP_output_error: output_error(c, o); break;
    case OP_rmsnorm: rmsnorm(c, o); break;
    case OP_rmsnorm_grad: rmsnorm_grad(c, o); break;
    case OP_rmsnorm_gain_grad: rmsnorm_gain_grad(c, o); break;
    case OP_rmsnorm_tangent: rmsnorm_tangent(o); break;
    case OP_hadamard: hadamard(c, o); break;
    case OP_rope: rope(c, o); break;
    case OP_attention:
    case OP_attention_grad:
    case OP_attention_tangent: attention(c, o); break;
    case OP_attention_cached: attention_cached(c, o); break;
    case OP_swiglu:
    case OP_swiglu_grad:
    case OP_swiglu_tangent: swiglu(c, o); break;
    case OP_cross_entropy: cross_entropy(c, o); break;
    case OP_kl_divergence: kl_divergence(c, o); break;
    case OP_grid_offset:
    case OP_grid_interpolate:
    case OP_grid_interpolate_grad:
    case OP_grid_round:
    case OP_grid_nearest: on_grid(c, c->params.grid, o->in[0], o->in[1], o->in[2], o->out[0]); break;
    case OP_adamw: adamw(c, o); break;
    case OP_sample_products:
    case OP_sketch:
    case OP_exact_sum: sample_reference(c, o); break;
    default: dense(c, o); break;
    }
}
