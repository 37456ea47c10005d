// attention_cached on the CPU: few queries against a long cache of keys and values of one sequence.
//
// One thread per (query, head); scores of the row in scratch, then softmax, then the weighted sum of values. Traffic: the
// visible part of the cache once per query and query head.
#include "core/cpu/cpu.h"
#include "core/cpu/lanes.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>

// s [n]: scores on entry, e^(s - max) on return; the sum is returned.
static float exponentials(float *s, int64_t n) {
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
    float inverse = 1 / exponentials(s, n);
    for (int64_t c = 0; c < d; c++) o[c] = 0;
    for (int64_t j = 0; j < n; j++) {
        const float *v = view_f32(values, first + j) + at;
        float weight = s[j] * inverse;
#pragma omp simd
        for (int64_t c = 0; c < d; c++) o[c] += weight * v[c];
    }
}

enum status cpu_attention_cached(struct backend *backend, const struct op_call *call) {
    (void)backend;
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
