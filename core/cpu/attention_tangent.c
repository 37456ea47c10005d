// attention_tangent on the CPU, in tiles (attention_tiles.h): the derivative of the output along (Qd, Kd, Vd).
//
//   P = e^(S - lse), S = scale Q K^T      Sd = scale (Qd K^T + Q Kd^T)
//   od_i = sum_j P_ij (Sd_ij v_j + vd_j) - (sum_j P_ij Sd_ij) o_i
//
// Tasks (sequence, key/value head) over threads. Traffic: qkv, qkvd, o read and od written once.
#include "core/cpu/cpu.h"
#include "core/cpu/attention_tiles.h"

// Scratch of one thread; floats. The first four are [length, width], the next four [QUERIES, width].
struct buffers {
    float *key_panels, *dkey_panels, *values, *dvalues;
    float *rows, *eights, *deights, *out;
    float *probabilities, *dscores; // [QUERIES, SCORES_STRIDE]
};

static int64_t buffer_floats(int64_t length, int64_t width) {
    return 4 * length * width + 4 * QUERIES * width + 2 * QUERIES * SCORES_STRIDE;
}

static struct buffers buffers_at(float *base, int64_t length, int64_t width) {
    struct buffers b;
    float **const long_ones[] = {&b.key_panels, &b.dkey_panels, &b.values, &b.dvalues};
    float **const short_ones[] = {&b.rows, &b.eights, &b.deights, &b.out};
    for (int i = 0; i < 4; i++, base += length * width) *long_ones[i] = base;
    for (int i = 0; i < 4; i++, base += QUERIES * width) *short_ones[i] = base;
    b.probabilities = base;
    b.dscores = base + QUERIES * SCORES_STRIDE;
    return b;
}

// Eight rows: s becomes P, sd becomes P Sd; mean_i += its sum.
static void differentiate(const struct attention_params *p, int64_t query, int64_t base, int64_t n, float *s, float *sd,
                          const float *lse, float *mean) {
    for (int64_t i = 0; i < 8; i++, s += SCORES_STRIDE, sd += SCORES_STRIDE) {
        struct seen seen = seen_in_tile(p, query + i, base, n);
        fill_outside(s, seen, n, -INFINITY);
        lanes sum = {0};
        float lse_i = lse[i], unit = (float)LOG_2; // sd too is in units of log(2)
        for (int64_t j = 0; j < n; j += LANES) {
            lanes e = lanes_exp2(lanes_load(s + j) - lse_i), w = e * lanes_load(sd + j) * unit;
            lanes_store(s + j, e);
            lanes_store(sd + j, w);
            sum += w;
        }
        mean[i] += lanes_sum(sum);
    }
}

static void query_block(const struct op_call *call, struct buffers b, int64_t row, int64_t h, int64_t first,
                        int64_t width) {
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, n = min_i64(QUERIES, p->seq_len - first), last = first + n;
    struct head o = head_at(call->in[1], row, h, d), od = head_at(call->out[0], row, h, d);
    float lse[QUERIES] = {0}, mean[QUERIES] = {0};
    pack_rows(head_at(call->in[0], row, h, d), first, n, QUERIES, width, (float)(p->scale * LOG2_E), b.rows);
    pack_eights(b.rows, QUERIES, width, b.eights);
    pack_rows(head_at(call->in[3], row, h, d), first, n, QUERIES, width, (float)(p->scale * LOG2_E), b.rows);
    pack_eights(b.rows, QUERIES, width, b.deights);
    for (int64_t i = 0; i < n; i++) lse[i] = (float)((double)view_f32(call->in[2], row + first + i)[h] * LOG2_E);
    for (int64_t i = 0; i < QUERIES * width; i++) b.out[i] = 0;
    for (int64_t base = first_key(p, first) / PANEL * PANEL; base < last; base += KEYS)
        for (int64_t i = 0; i < QUERIES; i += 8) {
            int64_t keys = min_i64(min_i64(first + i + 8, last) - base, KEYS), padded = round_up(keys, PANEL),
                    at = base * width;
            if (keys <= 0 || i >= n) continue;
            float *s = b.probabilities + i * SCORES_STRIDE, *sd = b.dscores + i * SCORES_STRIDE;
            score_rows(b.eights + i * width, b.key_panels + at, width, padded, s, false);
            score_rows(b.deights + i * width, b.key_panels + at, width, padded, sd, false);
            score_rows(b.eights + i * width, b.dkey_panels + at, width, padded, sd, true);
            differentiate(p, first + i, base, padded, s, sd, lse + i, mean + i);
            weigh_rows(sd, b.values + at, width, keys, b.out + i * width);
            weigh_rows(s, b.dvalues + at, width, keys, b.out + i * width);
        }
    for (int64_t i = 0; i < n; i++) {
        const float *o_i = head_row(o, first + i);
        float *to = head_row(od, first + i);
        for (int64_t e = 0; e < d; e++) to[e] = b.out[i * width + e] - mean[i] * o_i[e];
    }
}

static void task(const struct op_call *call, float *scratch, int64_t length, int64_t width, int64_t row, int64_t kv) {
    struct buffers b = buffers_at(scratch, length, width);
    const struct attention_params *p = &call->params.attention;
    int64_t T = p->seq_len, d = p->head_dim, group = p->heads / p->kv_heads;
    int64_t k = p->heads + kv, v = k + p->kv_heads;
    pack_rows(head_at(call->in[0], row, k, d), 0, T, length, width, 1, b.values);
    pack_panels(b.values, length, width, b.key_panels);
    pack_rows(head_at(call->in[3], row, k, d), 0, T, length, width, 1, b.values);
    pack_panels(b.values, length, width, b.dkey_panels);
    pack_rows(head_at(call->in[0], row, v, d), 0, T, length, width, 1, b.values);
    pack_rows(head_at(call->in[3], row, v, d), 0, T, length, width, 1, b.dvalues);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
        for (int64_t first = 0; first < T; first += QUERIES) query_block(call, b, row, h, first, width);
}

enum status cpu_attention_tangent(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return attention_run(call, buffer_floats, task);
}
