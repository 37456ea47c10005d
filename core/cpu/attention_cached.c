// attention_cached on the CPU: the last queries of one sequence against a cache of its keys and values.
//
// A few queries (a token is generated): one thread per (query, head); scores of the row in scratch, then softmax, then the weighted sum of
// values. Traffic: the visible part of the cache once per query and query head.
// More (a text is read): the visible part of the cache is packed once, then blocks of queries as in attention.c.
#include "core/cpu/attention_blocks.h"
#include "core/cpu/cpu.h"
#include "core/cpu/lanes.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

// ---- a few queries ----

// s [n]: scores on entry, e^(s - max) on return; the sum is returned.
static float row_exponentials(float *s, int64_t n) {
    float max = row_max(s, n), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        s[j] = exp_f32(s[j] - max);
        sum += s[j];
    }
    return sum;
}

static void one_query(const struct op_call *call, int64_t i, int64_t h, float *s) {
    struct view keys = call->in[1], values = call->in[2];
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, at = h / (p->heads / p->kv_heads) * d, last = p->past + i;
    int64_t first = p->window > 0 ? max_i64(0, last + 1 - p->window) : 0, n = last + 1 - first;
    const float *q = view_f32(call->in[0], i) + h * d;
    float *o = view_f32(call->out[0], i) + h * d, scale = (float)p->scale;
    for (int64_t j = 0; j < n; j++) {
        const float *k = view_f32(keys, first + j) + at;
        s[j] = scale * dot_f32(q, k, d);
    }
    float inverse = 1 / row_exponentials(s, n);
    for (int64_t c = 0; c < d; c++) o[c] = 0;
    for (int64_t j = 0; j < n; j++) {
        const float *v = view_f32(values, first + j) + at;
        float weight = s[j] * inverse;
#pragma omp simd
        for (int64_t c = 0; c < d; c++) o[c] += weight * v[c];
    }
}

static enum status few_queries(const struct op_call *call) {
    const struct attention_params *p = &call->params.attention;
    int64_t queries = call->in[0].rows, longest = p->past + queries;
    void *scratch = NULL;
    enum status status =
        mem_buffer_new(omp_get_max_threads() * longest * (int64_t)sizeof(float), "attention scores", &scratch);
    if (status != STATUS_OK) return status;
#pragma omp parallel for collapse(2) if (queries * p->heads * longest * p->head_dim > PIECE)
    for (int64_t i = 0; i < queries; i++)
        for (int64_t h = 0; h < p->heads; h++) one_query(call, i, h, (float *)scratch + omp_get_thread_num() * longest);
    mem_buffer_free(scratch);
    return STATUS_OK;
}

// ---- many ----

static enum status many_queries(const struct op_call *call) {
    enum status status = STATUS_OK;
    struct attention_params p = call->params.attention;
    // Positions are counted from the panel of the first key that anything sees.
    int64_t start = first_key(&p, p.past) / PANEL * PANEL, past = p.past - start, d = p.head_dim;
    p.seq_len = past + call->in[0].rows;
    int64_t length = round_up(p.seq_len, PANEL), width = round_up(d, 8), group = p.heads / p.kv_heads;
    int64_t packed_each = round_up(packed_floats(length, width), 16), block_each = round_up(block_floats(width), 16);
    struct packed_head *packed = mem_new((size_t)p.kv_heads, sizeof *packed);
    void *scratch = NULL;
    TRY(mem_buffer_new((p.kv_heads * packed_each + omp_get_max_threads() * block_each) * (int64_t)sizeof(float),
                       "tiles of attention", &scratch));
    float *blocks = (float *)scratch + p.kv_heads * packed_each;
#pragma omp parallel
    {
#pragma omp for
        for (int64_t k = 0; k < p.kv_heads; k++)
            packed[k] = pack_head(head_at(call->in[1], start, k, d), head_at(call->in[2], start, k, d), p.seq_len,
                                  length, width, (float *)scratch + k * packed_each);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t h = 0; h < p.heads; h++)
            for (int64_t first = past; first < p.seq_len; first += QUERIES)
                query_block(&p, packed[h / group], block_buffers_at(blocks + omp_get_thread_num() * block_each, width),
                            head_at(call->in[0], -past, h, d), head_at(call->out[0], -past, h, d), first, width, NULL,
                            0);
    }
done:
    mem_buffer_free(scratch);
    free(packed);
    return status;
}

enum status cpu_attention_cached(struct backend *backend, const struct op_call *call) {
    (void)backend;
    enum { FEW = 8 }; // a block of queries has eight rows at a time
    return call->in[0].rows < FEW ? few_queries(call) : many_queries(call);
}
