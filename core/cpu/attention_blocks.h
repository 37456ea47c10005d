// Softmax attention of blocks of queries in one pass over the keys with a running maximum, for attention.c and
// attention_cached.c.
//
// Per block of queries and tile of keys (attention_tiles.h): scores, softmax against the largest score so far, output rescaled and added to.
// With T <= KEYS there is one tile and nothing is rescaled. Tiles that the mask hides are skipped, eight queries at a time.
// Scores are in units of log(2), so that softmax is a power of two. Where the lengths of queries and keys say that no score exceeds
// BOUND, the maximum is not needed: scores become powers in registers. Exponentials are the larger part of the work for narrow
// heads.
#ifndef DQ_CORE_CPU_ATTENTION_BLOCKS_H
#define DQ_CORE_CPU_ATTENTION_BLOCKS_H

#include "core/cpu/attention_tiles.h"

// Keys and values of one head, ready for products.
struct packed_head {
    float *keys, *values; // panels of K, rows of V: [length, width]
    float longest_key;    // largest length of a row of K
};

static inline int64_t packed_floats(int64_t length, int64_t width) { return 2 * length * width; }

// Scratch of one thread for a block of queries; floats.
struct block_buffers {
    float *rows, *eights; // queries, scaled: [QUERIES, width]
    float *out;           // [QUERIES, width]
    float *scores;        // [QUERIES, SCORES_STRIDE]
};

static inline int64_t block_floats(int64_t width) { return 3 * QUERIES * width + QUERIES * SCORES_STRIDE; }

static inline struct block_buffers block_buffers_at(float *base, int64_t width) {
    struct block_buffers b = {.rows = base};
    b.eights = b.rows + QUERIES * width;
    b.out = b.eights + QUERIES * width;
    b.scores = b.out + QUERIES * width;
    return b;
}

// s_j = 2^(s_j - max); the sum. n is a multiple of PANEL.
static inline float exponentials(float *s, int64_t n, float max) {
    lanes sum_a = {0}, sum_b = {0};
    for (int64_t j = 0; j < n; j += 2 * LANES) {
        lanes a = lanes_exp2(lanes_load(s + j) - max), b = lanes_exp2(lanes_load(s + j + LANES) - max);
        lanes_store(s + j, a);
        lanes_store(s + j + LANES, b);
        sum_a += a;
        sum_b += b;
    }
    return lanes_sum(sum_a + sum_b);
}

// Where no score can be larger, sums of powers of two neither overflow nor vanish without a maximum.
enum { BOUND = 50 };

// Eight rows of scores [8, n] become probabilities relative to max; out is brought to the new maximum.
static inline void soften(const struct attention_params *p, int64_t query, int64_t base, int64_t n, float *s,
                          float *out, int64_t width, float *max, float *sum) {
    for (int64_t i = 0; i < 8; i++, s += SCORES_STRIDE, out += width) {
        struct seen seen = seen_in_tile(p, query + i, base, n);
        if (seen.to == 0) {
            fill_outside(s, seen, n, 0);
            continue;
        }
        fill_outside(s, seen, n, -INFINITY);
        float largest = row_max(s, n), before = max[i];
        if (largest < before) largest = before;
        if (before != -INFINITY && largest > before) {
            float shrink = exp2_f32(before - largest);
            sum[i] *= shrink;
            for (int64_t e = 0; e < width; e++) out[e] *= shrink;
        }
        max[i] = largest;
        sum[i] += exponentials(s, n, largest);
    }
}

// Eight rows with scores of at most BOUND: powers of two of the scores themselves.
static inline void powers(const struct attention_params *p, int64_t query, int64_t base, int64_t n, const float *eights,
                          const float *panels, int64_t width, float *s, float *sum) {
    const float zero[8] = {0};
    lanes row_sum[8] = {{0}};
    struct seen seen[8];
    for (int64_t i = 0; i < 8; i++) seen[i] = seen_in_tile(p, query + i, base, n);
    finished_rows(FINISH_POWER_BOUNDED, eights, panels, width, zero, seen, n, NULL, s, row_sum);
    for (int64_t i = 0; i < 8; i++) sum[i] += lanes_sum(row_sum[i]);
}

// Largest Euclidean length of rows [n, width] that are zero-padded to panels; NaN or infinite where a number is.
static inline float longest_in_panels(const float *panels, int64_t n, int64_t width) {
    lanes longest = {0}, spoilt = {0};
    for (int64_t i = 0; i < n; i += PANEL, panels += width * PANEL)
        for (int64_t l = 0; l < PANEL; l += LANES) {
            lanes square = {0};
            for (int64_t e = 0; e < width; e++) {
                lanes x = lanes_load(panels + e * PANEL + l);
                square += x * x;
            }
            longest = lanes_max(square, longest);
            spoilt += 0 * square;
        }
    return sqrtf(lanes_largest(longest)) + lanes_sum(spoilt);
}

static inline float longest_in_eights(const float *eights, int64_t n, int64_t width) {
    float longest = 0, spoilt = 0;
    for (int64_t i = 0; i < n; i += 8, eights += width * 8) {
        float square[8] = {0};
        for (int64_t e = 0; e < width; e++)
            for (int64_t l = 0; l < 8; l++) square[l] += eights[e * 8 + l] * eights[e * 8 + l];
        for (int64_t l = 0; l < 8; l++) longest = fmaxf(longest, square[l]), spoilt += 0 * square[l];
    }
    return sqrtf(longest) + spoilt;
}

// n keys and values into `base`, of packed_floats(length, width).
static inline struct packed_head pack_head(struct head keys, struct head values, int64_t n, int64_t length,
                                           int64_t width, float *base) {
    struct packed_head packed = {.keys = base, .values = base + length * width};
    pack_rows(keys, 0, n, length, width, 1, packed.values);
    pack_panels(packed.values, length, width, packed.keys);
    packed.longest_key = longest_in_panels(packed.keys, length, width);
    pack_rows(values, 0, n, length, width, 1, packed.values);
    return packed;
}

// Queries at positions first .. first + QUERIES - 1, as far as there are any (p->seq_len of the sequence): out of q into o, both of which
// have a row per position. lse [n], one float apart by lse_stride, unless NULL: log sum exp of their scores.
static inline void query_block(const struct attention_params *p, struct packed_head packed, struct block_buffers b,
                               struct head q, struct head o, int64_t first, int64_t width, float *lse,
                               int64_t lse_stride) {
    int64_t n = min_i64(QUERIES, p->seq_len - first), last = first + n;
    float max[QUERIES], sum[QUERIES];
    pack_rows(q, first, n, QUERIES, width, (float)(p->scale * LOG2_E), b.rows);
    pack_eights(b.rows, QUERIES, width, b.eights);
    bool bounded = longest_in_eights(b.eights, QUERIES, width) * packed.longest_key <= BOUND;
    for (int64_t i = 0; i < QUERIES; i++) max[i] = bounded ? 0 : -INFINITY, sum[i] = 0;
    for (int64_t i = 0; i < QUERIES * width; i++) b.out[i] = 0;
    for (int64_t base = first_key(p, first) / PANEL * PANEL; base < last; base += KEYS)
        for (int64_t i = 0; i < QUERIES; i += 8) {
            int64_t keys = min_i64(min_i64(first + i + 8, last) - base, KEYS);
            if (keys <= 0 || i >= n) continue;
            const float *eights = b.eights + i * width, *panels = packed.keys + base * width;
            float *s = b.scores + i * SCORES_STRIDE, *out = b.out + i * width;
            if (bounded) {
                powers(p, first + i, base, round_up(keys, LANES), eights, panels, width, s, sum + i);
            } else {
                score_rows(eights, panels, width, round_up(keys, PANEL), s, false);
                soften(p, first + i, base, round_up(keys, PANEL), s, out, width, max + i, sum + i);
            }
            weigh_rows(s, packed.values + base * width, width, keys, out);
        }
    for (int64_t i = 0; i < n; i++) {
        float *to = head_row(o, first + i), inverse = 1 / sum[i];
        for (int64_t e = 0; e < p->head_dim; e++) to[e] = b.out[i * width + e] * inverse;
        if (lse) lse[i * lse_stride] = (float)((double)max[i] * LOG_2) + logf(sum[i]);
    }
}

#endif
