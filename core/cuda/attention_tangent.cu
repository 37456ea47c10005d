// attention_tangent on the GPU, plain fp32 for both types: the derivative of the output along (Qd, Kd, Vd).
//
//   P = e^(S - lse), S = scale Q K^T      Sd = scale (Qd K^T + Q Kd^T)
//   od_i = sum_j P_ij (Sd_ij v_j + vd_j) - (sum_j P_ij Sd_ij) o_i
//
// A block is 32 queries of one head, tiles of 32 keys; K, Kd and V, Vd take turns in the same shared memory.
//   shared memory: 4 x 32 rows of d floats and a tile of scores
// Bytes: qkv, qkvd, o read and od written once; keys and values again per tile of queries, from the L2 cache.
#include "core/cuda/attention_plain.cuh"

template <typename T, int WIDTH>
__global__ void attention_tangent_plain(struct attention_shape s, struct view qkv, struct view o, struct view lse,
                                        struct view qkvd, struct view od) {
    int tile = PLAIN_ROWS * s.pitch;
    float *q = shared_memory<float>(), *qd = q + tile, *right = qd + tile, *rightd = right + tile;
    float *scores = rightd + tile;
    struct attention_task task = attention_task(s, s.heads, PLAIN_ROWS, true);
    int first = task.tile * PLAIN_ROWS, valid = s.seq_len - first, kv = s.heads + task.head / (s.heads / s.kv_heads);
    struct attention_range range = keys_seen(s, first, PLAIN_ROWS, PLAIN_ROWS);
    load_plain(q, s, element<const T>(qkv, task.row + first, task.head * s.d), qkv.stride, valid);
    load_plain(qd, s, element<const T>(qkvd, task.row + first, task.head * s.d), qkvd.stride, valid);
    float y[2][WIDTH / 16] = {}, mean[2] = {}, below[2];
    for (int i = 0; i < 2; i++) {
        int row = plain_y() + 16 * i;
        below[i] =
            row < valid ? (float)((double)*element<float>(lse, task.row + first + row, task.head) * LOG2_E) : INFINITY;
    }
    for (int base = range.from; base < range.to; base += PLAIN_ROWS) {
        int left = s.seq_len - base;
        const T *k = element<const T>(qkv, task.row + base, kv * s.d), *v = k + s.kv_heads * s.d;
        const T *kd = element<const T>(qkvd, task.row + base, kv * s.d), *vd = kd + s.kv_heads * s.d;
        __syncthreads();
        load_plain(right, s, k, qkv.stride, left);
        load_plain(rightd, s, kd, qkvd.stride, left);
        __syncthreads();
        float p[2][2] = {}, pd[2][2] = {};
        multiply_plain_rows(p, s, q, right);
        multiply_plain_rows(pd, s, qd, right);
        multiply_plain_rows(pd, s, q, rightd);
        hide_plain<false>(p, s, first, base);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float *at = &p[i / 2][i % 2], *atd = &pd[i / 2][i % 2];
            *at = exp2f(*at * s.scale2 - below[i / 2]);
            *atd *= *at * s.scale;
            mean[i / 2] += *atd;
        }
        __syncthreads();
        load_plain(right, s, v, qkv.stride, left);
        load_plain(rightd, s, vd, qkvd.stride, left);
        __syncthreads();
        multiply_plain_weights<WIDTH>(y, s, pd, scores, right);
        multiply_plain_weights<WIDTH>(y, s, p, scores, rightd);
    }
    const T *out = element<const T>(o, task.row + first, task.head * s.d);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = plain_y() + 16 * i;
        float total = row_sum(mean[i]);
#pragma unroll
        for (int part = 0; part < WIDTH / 16; part++)
            if (row < valid && plain_col(part) < s.d)
                y[i][part] -= total * to_float(out[row * o.stride + plain_col(part)]);
    }
    const float one[2] = {1, 1};
    store_plain<T, WIDTH>(s, y, one, element<T>(od, task.row + first, task.head * s.d), od.stride, valid);
}

extern "C" enum status cuda_attention_tangent(struct backend *backend, const struct op_call *call) {
    struct attention_shape s = attention_shape(&call->params.attention, call->params.attention.seq_len);
    struct view qkv = call->in[0];
    enum status status = check_head_width(s);
    if (status != STATUS_OK || qkv.rows == 0) return status;
    WITH_PLAIN(T, WIDTH, qkv.dtype, s.d,
               status = LAUNCH((attention_tangent_plain<T, WIDTH>), attention_blocks(s, qkv.rows, s.heads, PLAIN_ROWS),
                               PLAIN_THREADS, plain_bytes(s, 4, 1), backend, s, qkv, call->in[1], call->in[2],
                               call->in[3], call->out[0]));
    return status;
}
