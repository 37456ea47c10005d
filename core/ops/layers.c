// Shape rules and costs of the layers of a transformer and of its losses.
#include "core/ops/shape.h"

static bool are_tokens(struct view v, int64_t rows) { return is_column(v, DTYPE_I32, rows); }

const char *embedding_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && is_float(c->out[0]) && c->in[0].cols == c->out[0].cols,
         "embedding: table [V, C], y [N, C]");
    WANT(are_tokens(c->in[1], c->out[0].rows), "embedding: tokens are I32 [N, 1]");
    return NULL;
}
double embedding_flops(const struct op_call *c) {
    (void)c;
    return 0;
}

const char *embedding_grad_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && is_float(c->out[0]) && c->in[0].cols == c->out[0].cols,
         "embedding_grad: dy [N, C], dtable [V, C]");
    WANT(are_tokens(c->in[1], c->in[0].rows), "embedding_grad: tokens are I32 [N, 1]");
    return NULL;
}
double embedding_grad_flops(const struct op_call *c) { return elements(c->in[0]); }

const char *rmsnorm_check(const struct op_call *c) {
    struct view x = c->in[0];
    WANT(is_float(x) && is_f32_shape(c->in[1], 1, x.cols), "rmsnorm: x [N, C], gain [1, C]");
    WANT(is_like(c->out[0], x), "rmsnorm: y [N, C] of the dtype of x");
    WANT(is_column(c->out[1], DTYPE_F32, x.rows), "rmsnorm: rstd [N, 1]");
    WANT(c->params.eps >= 0, "rmsnorm: eps >= 0");
    return NULL;
}
double rmsnorm_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }

const char *rmsnorm_grad_check(const struct op_call *c) {
    struct view x = c->in[0];
    WANT(is_float(x) && is_f32_shape(c->in[1], 1, x.cols), "rmsnorm_grad: x [N, C], gain [1, C]");
    WANT(is_column(c->in[2], DTYPE_F32, x.rows), "rmsnorm_grad: rstd [N, 1]");
    WANT(is_like(c->in[3], x) && is_like(c->out[0], x), "rmsnorm_grad: dy, dx [N, C] of the dtype of x");
    return NULL;
}
double rmsnorm_grad_flops(const struct op_call *c) { return 8 * elements(c->in[0]); }

const char *rmsnorm_gain_grad_check(const struct op_call *c) {
    struct view x = c->in[0], dgain = c->out[0];
    WANT(is_float(x) && is_column(c->in[1], DTYPE_F32, x.rows), "rmsnorm_gain_grad: x [N, C], rstd [N, 1]");
    WANT(is_like(c->in[2], x), "rmsnorm_gain_grad: dy [N, C] of the dtype of x");
    WANT(is_f32(dgain) && dgain.cols == x.cols && x.rows % dgain.rows == 0,
         "rmsnorm_gain_grad: dgain [S, C], S divides N");
    return NULL;
}
double rmsnorm_gain_grad_flops(const struct op_call *c) { return 3 * elements(c->in[0]); }

const char *rmsnorm_tangent_check(const struct op_call *c) {
    struct view x = c->in[0];
    WANT(is_float(x) && is_f32_shape(c->in[1], 1, x.cols), "rmsnorm_tangent: x [N, C], gain [1, C]");
    WANT(is_column(c->in[2], DTYPE_F32, x.rows), "rmsnorm_tangent: rstd [N, 1]");
    WANT(is_like(c->in[3], x), "rmsnorm_tangent: xd [N, C] of the dtype of x");
    WANT(is_absent(c->in[4]) || is_f32_shape(c->in[4], 1, x.cols), "rmsnorm_tangent: gaind [1, C] or none");
    WANT(is_like(c->out[0], x), "rmsnorm_tangent: yd [N, C] of the dtype of x");
    return NULL;
}
double rmsnorm_tangent_flops(const struct op_call *c) { return 10 * elements(c->in[0]); }

const char *rope_check(const struct op_call *c) {
    const struct rope_params *p = &c->params.rope;
    struct view x = c->in[0];
    WANT(is_float(x) && c->out[0].data == x.data && is_like(c->out[0], x), "rope: x is rotated in place");
    WANT(p->heads > 0 && p->head_dim > 0 && p->head_dim % 2 == 0 && x.cols == p->heads * p->head_dim,
         "rope: x [N, H d]");
    WANT(p->seq_len > 0 && x.rows % p->seq_len == 0 && p->offset >= 0, "rope: rows are whole sequences");
    for (int i = 1; i <= 2; i++)
        WANT(is_f32(c->in[i]) && c->in[i].cols == p->head_dim / 2 && c->in[i].rows >= p->offset + p->seq_len,
             "rope: cos, sin [T, d/2]");
    return NULL;
}
double rope_flops(const struct op_call *c) { return 3 * elements(c->in[0]); }

static const char *attention_sizes(const struct op_call *c, struct view qkv, struct view o) {
    const struct attention_params *p = &c->params.attention;
    WANT(p->heads > 0 && p->kv_heads > 0 && p->heads % p->kv_heads == 0 && p->head_dim > 0 && p->window >= 0,
         "attention: heads, kv_heads, head_dim");
    WANT(is_float(qkv) && qkv.cols == (p->heads + 2 * p->kv_heads) * p->head_dim, "attention: qkv [N, (H + 2K) d]");
    WANT(p->seq_len > 0 && qkv.rows % p->seq_len == 0, "attention: rows are whole sequences");
    WANT(is_same_float_shape(o, qkv, qkv.rows, p->heads * p->head_dim), "attention: o [N, H d] of the dtype of qkv");
    return NULL;
}

// Query-key pairs of one head of one sequence that the mask lets through.
static double attention_pairs(const struct attention_params *p) {
    double t = (double)p->seq_len, w = p->window > 0 && p->window < p->seq_len ? (double)p->window : t;
    return w * (w + 1) / 2 + (t - w) * w;
}

static double attention_products(const struct op_call *c, double products) {
    const struct attention_params *p = &c->params.attention;
    double sequences = (double)c->in[0].rows / (double)p->seq_len;
    return products * 2 * (double)p->head_dim * (double)p->heads * sequences * attention_pairs(p);
}

const char *attention_check(const struct op_call *c) {
    const char *wrong = attention_sizes(c, c->in[0], c->out[0]);
    WANT(!wrong, wrong);
    WANT(is_f32_shape(c->out[1], c->in[0].rows, c->params.attention.heads), "attention: lse [N, H]");
    return NULL;
}
double attention_flops(const struct op_call *c) { return attention_products(c, 2); }

static const char *attention_saved(const struct op_call *c) {
    const char *wrong = attention_sizes(c, c->in[0], c->in[1]);
    WANT(!wrong, wrong);
    WANT(is_f32_shape(c->in[2], c->in[0].rows, c->params.attention.heads), "attention: lse [N, H]");
    return NULL;
}

const char *attention_grad_check(const struct op_call *c) {
    const char *wrong = attention_saved(c);
    WANT(!wrong, wrong);
    WANT(is_like(c->in[3], c->in[1]), "attention_grad: do [N, H d]");
    WANT(is_like(c->out[0], c->in[0]), "attention_grad: dqkv [N, (H + 2K) d]");
    return NULL;
}
double attention_grad_flops(const struct op_call *c) { return attention_products(c, 5); }

const char *attention_tangent_check(const struct op_call *c) {
    const char *wrong = attention_saved(c);
    WANT(!wrong, wrong);
    WANT(is_like(c->in[3], c->in[0]), "attention_tangent: qkvd [N, (H + 2K) d]");
    WANT(is_like(c->out[0], c->in[1]), "attention_tangent: od [N, H d]");
    return NULL;
}
double attention_tangent_flops(const struct op_call *c) { return attention_products(c, 5); }

const char *attention_cached_check(const struct op_call *c) {
    const struct attention_params *p = &c->params.attention;
    struct view q = c->in[0], k = c->in[1], v = c->in[2];
    WANT(p->heads > 0 && p->kv_heads > 0 && p->heads % p->kv_heads == 0 && p->head_dim > 0 && p->window >= 0 &&
             p->past >= 0,
         "attention_cached: heads, kv_heads, head_dim");
    WANT(is_float(q) && q.cols == p->heads * p->head_dim, "attention_cached: q [n, H d]");
    WANT(is_same_float(k, q) && is_same_float(v, q) && k.cols == p->kv_heads * p->head_dim && v.cols == k.cols,
         "attention_cached: k, v [., K d]");
    WANT(k.rows >= p->past + q.rows && v.rows >= p->past + q.rows, "attention_cached: keys are missing");
    WANT(is_like(c->out[0], q), "attention_cached: o [n, H d]");
    return NULL;
}
double attention_cached_flops(const struct op_call *c) {
    const struct attention_params *p = &c->params.attention;
    return 4 * elements(c->in[0]) * ((double)p->past + 0.5 * (double)(c->in[0].rows + 1));
}

const char *swiglu_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && c->in[0].cols % 2 == 0, "swiglu: gu [N, 2I]");
    WANT(is_same_float_shape(c->out[0], c->in[0], c->in[0].rows, c->in[0].cols / 2), "swiglu: h [N, I]");
    return NULL;
}
double swiglu_flops(const struct op_call *c) { return 5 * elements(c->out[0]); }

const char *swiglu_grad_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && c->in[0].cols % 2 == 0, "swiglu_grad: gu [N, 2I]");
    WANT(is_same_float_shape(c->in[1], c->in[0], c->in[0].rows, c->in[0].cols / 2), "swiglu_grad: dh [N, I]");
    WANT(is_like(c->out[0], c->in[0]), "swiglu_grad: dgu [N, 2I]");
    return NULL;
}
double swiglu_grad_flops(const struct op_call *c) { return 6 * elements(c->in[0]); }

const char *swiglu_tangent_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && c->in[0].cols % 2 == 0, "swiglu_tangent: gu [N, 2I]");
    WANT(is_like(c->in[1], c->in[0]), "swiglu_tangent: gud [N, 2I]");
    WANT(is_same_float_shape(c->out[0], c->in[0], c->in[0].rows, c->in[0].cols / 2), "swiglu_tangent: hd [N, I]");
    return NULL;
}
double swiglu_tangent_flops(const struct op_call *c) { return 6 * elements(c->in[0]); }

const char *cross_entropy_check(const struct op_call *c) {
    WANT(is_float(c->in[0]), "cross_entropy: logits [N, V]");
    WANT(are_tokens(c->in[1], c->in[0].rows), "cross_entropy: targets are I32 [N, 1]");
    WANT(is_column(c->out[0], DTYPE_F64, c->in[0].rows), "cross_entropy: loss is F64 [N, 1]");
    return NULL;
}
double cross_entropy_flops(const struct op_call *c) { return 4 * elements(c->in[0]); }

const char *kl_divergence_check(const struct op_call *c) {
    WANT(is_float(c->in[0]) && is_like(c->in[1], c->in[0]), "kl_divergence: teacher, student [N, V] of one dtype");
    WANT(is_column(c->out[0], DTYPE_F64, c->in[0].rows), "kl_divergence: kl is F64 [N, 1]");
    WANT(is_absent(c->out[1]) || is_column(c->out[1], DTYPE_I32, c->in[0].rows),
         "kl_divergence: agree is I32 [N, 1] or none");
    return NULL;
}
double kl_divergence_flops(const struct op_call *c) { return 10 * elements(c->in[0]); }
