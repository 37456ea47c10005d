// attention, its gradient and its tangent on the CPU: the plain version, one head of one sequence at a time.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>

static void add_scaled(float *y, float k, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] += k * x[i];
}

// First key that query i sees.
static int64_t first_key(const struct attention_params *p, int64_t i) {
    return p->window > 0 ? max_i64(0, i + 1 - p->window) : 0;
}

// Scratch of one row of T scores per thread.
static enum status scores_new(int64_t n, void **out) {
    return mem_buffer_new(omp_get_max_threads() * n * (int64_t)sizeof(float), "attention scores", out);
}

enum status cpu_attention(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view qkv = call->in[0], o = call->out[0], lse = call->out[1];
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, group = p->heads / p->kv_heads, sequences = qkv.rows / p->seq_len;
    void *scratch = NULL;
    enum status status = scores_new(p->seq_len, &scratch);
    if (status != STATUS_OK) return status;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            float *s = (float *)scratch + omp_get_thread_num() * p->seq_len;
            int64_t row = b * p->seq_len, k_at = (p->heads + h / group) * d, v_at = k_at + p->kv_heads * d;
            for (int64_t i = 0; i < p->seq_len; i++) {
                const float *q = view_f32(qkv, row + i) + h * d;
                float *o_i = view_f32(o, row + i) + h * d, max = -INFINITY, sum = 0;
                for (int64_t j = first_key(p, i); j <= i; j++) {
                    s[j] = (float)p->scale * dot_f32(q, view_f32(qkv, row + j) + k_at, d);
                    max = fmaxf(max, s[j]);
                }
                for (int64_t c = 0; c < d; c++) o_i[c] = 0;
                for (int64_t j = first_key(p, i); j <= i; j++) {
                    float e = exp_f32(s[j] - max);
                    sum += e;
                    add_scaled(o_i, e, view_f32(qkv, row + j) + v_at, d);
                }
                for (int64_t c = 0; c < d; c++) o_i[c] /= sum;
                view_f32(lse, row + i)[h] = max + logf(sum);
            }
        }
    mem_buffer_free(scratch);
    return STATUS_OK;
}

static void grad_head(const struct op_call *call, int64_t row, int64_t h) {
    struct view qkv = call->in[0], o = call->in[1], lse = call->in[2], dout = call->in[3], dqkv = call->out[0];
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, group = p->heads / p->kv_heads;
    int64_t k_at = (p->heads + h / group) * d, v_at = k_at + p->kv_heads * d;
    for (int64_t i = 0; i < p->seq_len; i++) {
        const float *q = view_f32(qkv, row + i) + h * d, *do_i = view_f32(dout, row + i) + h * d;
        float *dq = view_f32(dqkv, row + i) + h * d, lse_i = view_f32(lse, row + i)[h];
        float delta = dot_f32(do_i, view_f32(o, row + i) + h * d, d);
        for (int64_t c = 0; c < d; c++) dq[c] = 0;
        for (int64_t j = first_key(p, i); j <= i; j++) {
            const float *k = view_f32(qkv, row + j) + k_at, *v = view_f32(qkv, row + j) + v_at;
            float prob = exp_f32((float)p->scale * dot_f32(q, k, d) - lse_i);
            float ds = (float)p->scale * prob * (dot_f32(do_i, v, d) - delta);
            add_scaled(view_f32(dqkv, row + j) + v_at, prob, do_i, d);
            add_scaled(dq, ds, k, d);
            add_scaled(view_f32(dqkv, row + j) + k_at, ds, q, d);
        }
    }
}

enum status cpu_attention_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view dqkv = call->out[0];
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, group = p->heads / p->kv_heads, sequences = dqkv.rows / p->seq_len;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t kv = 0; kv < p->kv_heads; kv++) {
            for (int64_t i = 0; i < p->seq_len; i++) {
                float *dk = view_f32(dqkv, b * p->seq_len + i) + (p->heads + kv) * d, *dv = dk + p->kv_heads * d;
                for (int64_t c = 0; c < d; c++) dk[c] = dv[c] = 0;
            }
            for (int64_t h = kv * group; h < (kv + 1) * group; h++) grad_head(call, b * p->seq_len, h);
        }
    return STATUS_OK;
}

enum status cpu_attention_tangent(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view qkv = call->in[0], o = call->in[1], lse = call->in[2], qkvd = call->in[3], od = call->out[0];
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, group = p->heads / p->kv_heads, sequences = qkv.rows / p->seq_len;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t h = 0; h < p->heads; h++) {
            int64_t row = b * p->seq_len, k_at = (p->heads + h / group) * d, v_at = k_at + p->kv_heads * d;
            for (int64_t i = 0; i < p->seq_len; i++) {
                const float *q = view_f32(qkv, row + i) + h * d, *qd = view_f32(qkvd, row + i) + h * d;
                const float *o_i = view_f32(o, row + i) + h * d;
                float *od_i = view_f32(od, row + i) + h * d, lse_i = view_f32(lse, row + i)[h], mean = 0;
                for (int64_t c = 0; c < d; c++) od_i[c] = 0;
                for (int64_t j = first_key(p, i); j <= i; j++) {
                    const float *kv = view_f32(qkv, row + j), *kvd = view_f32(qkvd, row + j);
                    float prob = exp_f32((float)p->scale * dot_f32(q, kv + k_at, d) - lse_i);
                    float sd = (float)p->scale * prob * (dot_f32(qd, kv + k_at, d) + dot_f32(q, kvd + k_at, d));
                    mean += sd;
                    add_scaled(od_i, sd, kv + v_at, d);
                    add_scaled(od_i, prob, kvd + v_at, d);
                }
                add_scaled(od_i, -mean, o_i, d);
            }
        }
    return STATUS_OK;
}
