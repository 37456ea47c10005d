// attention_grad on the CPU, in tiles (attention_tiles.h). Probabilities are recomputed from the saved lse, as powers
// of two of scores in units of log(2):
//
//   P = e^(S - lse), S = scale Q K^T      dP = dO V^T        dS = P (dP - delta), delta_i = sum_e do_ie o_ie
//   dV += P^T dO                          dQ = scale dS K    dK += dS^T (scale Q)
//
// Tasks (sequence, key/value head) over threads: dK and dV of a task are summed by one thread, query heads and blocks of
// queries in ascending order. Traffic: qkv, o, do read and dqkv written once, tiles stay in cache.
#include "core/cpu/cpu.h"
#include "core/cpu/attention_tiles.h"

// Scratch of one thread; floats. The first five are [length, width], the next five [QUERIES, width].
struct buffers {
    float *keys, *key_panels, *value_panels, *dkeys, *dvalues;
    float *queries, *query_eights, *dout, *dout_eights, *dqueries;
    float *probabilities, *dscores; // [QUERIES, SCORES_STRIDE]
};

static int64_t buffer_floats(int64_t length, int64_t width) {
    return 5 * length * width + 5 * QUERIES * width + 2 * QUERIES * SCORES_STRIDE;
}

static struct buffers buffers_at(float *base, int64_t length, int64_t width) {
    struct buffers b;
    float **const long_ones[] = {&b.keys, &b.key_panels, &b.value_panels, &b.dkeys, &b.dvalues};
    float **const short_ones[] = {&b.queries, &b.query_eights, &b.dout, &b.dout_eights, &b.dqueries};
    for (int i = 0; i < 5; i++, base += length * width) *long_ones[i] = base;
    for (int i = 0; i < 5; i++, base += QUERIES * width) *short_ones[i] = base;
    b.probabilities = base;
    b.dscores = base + QUERIES * SCORES_STRIDE;
    return b;
}

static void query_tile(const struct attention_params *p, struct buffers b, int64_t first, int64_t n, int64_t base,
                       int64_t width, const float *lse, const float *delta) {
    int64_t last = first + n, padded = 0, at = base * width;
    for (int64_t i = 0; i < QUERIES; i += 8) {
        int64_t keys = min_i64(min_i64(first + i + 8, last) - base, KEYS), before = padded;
        float *s = b.probabilities + i * SCORES_STRIDE, *ds = b.dscores + i * SCORES_STRIDE;
        if (keys <= 0 || i >= n) continue;
        padded = round_up(keys, LANES);
        struct seen seen[8];
        for (int64_t r = 0; r < 8; r++) seen[r] = seen_in_tile(p, first + i + r, base, padded);
        finished_rows(FINISH_POWER, b.query_eights + i * width, b.key_panels + at, width, lse + i, seen, padded, NULL,
                      s, NULL);
        finished_rows(FINISH_TIMES, b.dout_eights + i * width, b.value_panels + at, width, delta + i, NULL, padded, s,
                      ds, NULL);
        weigh_rows(ds, b.keys + at, width, keys, b.dqueries + i * width);
        // The eight rows above may have had fewer panels; the products down the columns below run over all of them.
        for (int64_t r = 0; i > 0 && r < i; r++)
            for (int64_t j = before; j < padded; j++)
                b.probabilities[r * SCORES_STRIDE + j] = b.dscores[r * SCORES_STRIDE + j] = 0;
    }
    int64_t keys = round_up(min_i64(last - base, KEYS), 8);
    if (keys <= 0) return;
    weigh_columns(b.probabilities, b.dout, width, keys, n, b.dvalues + at);
    weigh_columns(b.dscores, b.queries, width, keys, n, b.dkeys + at);
}

// Sum of a_e b_e in eight lanes. (dot_f32 is slow on eight numbers: gcc reduces its lanes one by one.)
static inline float dot_short(const float *a, const float *b, int64_t n) {
    float sum[8] = {0};
    int64_t e = 0;
    for (; e + 8 <= n; e += 8)
        for (int64_t l = 0; l < 8; l++) sum[l] += a[e + l] * b[e + l];
    for (; e < n; e++) sum[e % 8] += a[e] * b[e];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static void query_block(const struct op_call *call, struct buffers b, int64_t row, int64_t h, int64_t first,
                        int64_t width) {
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, n = min_i64(QUERIES, p->seq_len - first);
    struct head q = head_at(call->in[0], row, h, d), o = head_at(call->in[1], row, h, d);
    struct head dout = head_at(call->in[3], row, h, d), dq = head_at(call->out[0], row, h, d);
    float lse[QUERIES] = {0}, delta[QUERIES] = {0};
    pack_rows(q, first, n, QUERIES, width, (float)(p->scale * LOG2_E), b.queries);
    pack_eights(b.queries, QUERIES, width, b.query_eights);
    pack_rows(dout, first, n, QUERIES, width, 1, b.dout);
    pack_eights(b.dout, QUERIES, width, b.dout_eights);
    for (int64_t i = 0; i < QUERIES * width; i++) b.dqueries[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        lse[i] = (float)((double)view_f32(call->in[2], row + first + i)[h] * LOG2_E);
        delta[i] = dot_short(head_row(o, first + i), b.dout + i * width, d);
    }
    for (int64_t base = first_key(p, first) / PANEL * PANEL; base < first + n; base += KEYS)
        query_tile(p, b, first, n, base, width, lse, delta);
    unpack_rows(dq, first, n, width, (float)p->scale, b.dqueries);
}

static void task(const struct op_call *call, float *scratch, int64_t length, int64_t width, int64_t row, int64_t kv) {
    struct buffers b = buffers_at(scratch, length, width);
    const struct attention_params *p = &call->params.attention;
    int64_t T = p->seq_len, d = p->head_dim, group = p->heads / p->kv_heads;
    int64_t k = p->heads + kv, v = k + p->kv_heads;
    pack_rows(head_at(call->in[0], row, v, d), 0, T, length, width, 1, b.keys);
    pack_panels(b.keys, length, width, b.value_panels);
    pack_rows(head_at(call->in[0], row, k, d), 0, T, length, width, 1, b.keys);
    pack_panels(b.keys, length, width, b.key_panels);
    for (int64_t i = 0; i < length * width; i++) b.dkeys[i] = b.dvalues[i] = 0;
    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
        for (int64_t first = 0; first < T; first += QUERIES) query_block(call, b, row, h, first, width);
    unpack_rows(head_at(call->out[0], row, k, d), 0, T, width, (float)LOG_2, b.dkeys);
    unpack_rows(head_at(call->out[0], row, v, d), 0, T, width, 1, b.dvalues);
}

enum status cpu_attention_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return attention_run(call, buffer_floats, task);
}
