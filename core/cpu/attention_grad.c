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

// Eight rows: scores s become probabilities, dp becomes ds.
static void differentiate(const struct attention_params *p, int64_t query, int64_t base, int64_t n, float *s, float *dp,
                          const float *lse, const float *delta) {
    for (int64_t i = 0; i < 8; i++, s += SCORES_STRIDE, dp += SCORES_STRIDE) {
        struct seen seen = seen_in_tile(p, query + i, base, n);
        fill_outside(s, seen, n, -INFINITY);
        float lse_i = lse[i], delta_i = delta[i];
        for (int64_t j = 0; j < n; j += LANES) {
            lanes e = lanes_exp2(lanes_load(s + j) - lse_i);
            lanes_store(s + j, e);
            lanes_store(dp + j, e * (lanes_load(dp + j) - delta_i));
        }
    }
}

static void query_tile(const struct attention_params *p, struct buffers b, int64_t first, int64_t n, int64_t base,
                       int64_t width, const float *lse, const float *delta) {
    int64_t last = first + n, padded = 0, at = base * width;
    for (int64_t i = 0; i < QUERIES; i += 8) {
        int64_t keys = min_i64(min_i64(first + i + 8, last) - base, KEYS), before = padded;
        float *s = b.probabilities + i * SCORES_STRIDE, *ds = b.dscores + i * SCORES_STRIDE;
        if (keys <= 0 || i >= n) continue;
        padded = round_up(keys, PANEL);
        score_rows(b.query_eights + i * width, b.key_panels + at, width, padded, s, false);
        score_rows(b.dout_eights + i * width, b.value_panels + at, width, padded, ds, false);
        differentiate(p, first + i, base, padded, s, ds, lse + i, delta + i);
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

static void query_block(const struct op_call *call, struct buffers b, int64_t row, int64_t h, int64_t first,
                        int64_t width) {
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, n = min_i64(QUERIES, p->seq_len - first);
    struct head q = head_at(call->in[0], row, h, d), o = head_at(call->in[1], row, h, d);
    struct head dout = head_at(call->in[3], row, h, d), dq = head_at(call->out[0], row, h, d);
    float lse[QUERIES] = {0}, delta[QUERIES] = {0};
    pack_rows(q, first, n, QUERIES, width, (float)(p->scale * LOG2_E), b.queries);
    pack_eights(b.queries, QUERIES, width, b.query_eights);
    pack_rows(q, first, n, QUERIES, width, (float)p->scale, b.queries);
    pack_rows(dout, first, n, QUERIES, width, 1, b.dout);
    pack_eights(b.dout, QUERIES, width, b.dout_eights);
    for (int64_t i = 0; i < QUERIES * width; i++) b.dqueries[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        lse[i] = (float)((double)view_f32(call->in[2], row + first + i)[h] * LOG2_E);
        delta[i] = dot_f32(head_row(dout, first + i), head_row(o, first + i), d);
    }
    for (int64_t base = first_key(p, first) / PANEL * PANEL; base < first + n; base += KEYS)
        query_tile(p, b, first, n, base, width, lse, delta);
    for (int64_t i = 0; i < n; i++) {
        float *to = head_row(dq, first + i);
        for (int64_t e = 0; e < d; e++) to[e] = b.dqueries[i * width + e] * (float)p->scale;
    }
}

static void copy_out(struct head to, int64_t n, int64_t width, const float *rows) {
    for (int64_t i = 0; i < n; i++) {
        float *row = head_row(to, i);
        for (int64_t e = 0; e < to.d; e++) row[e] = rows[i * width + e];
    }
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
    copy_out(head_at(call->out[0], row, k, d), T, width, b.dkeys);
    copy_out(head_at(call->out[0], row, v, d), T, width, b.dvalues);
}

enum status cpu_attention_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return attention_run(call, buffer_floats, task);
}
