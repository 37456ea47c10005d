// attention on the CPU: one task per sequence and key/value head, shared among threads (attention_blocks.h).
// Traffic: qkv read and o written once, tiles stay in cache.
#include "core/cpu/attention_blocks.h"
#include "core/cpu/cpu.h"

static int64_t task_floats(int64_t length, int64_t width) { return packed_floats(length, width) + block_floats(width); }

static void task(const struct op_call *call, float *scratch, int64_t length, int64_t width, int64_t row, int64_t kv) {
    const struct attention_params *p = &call->params.attention;
    int64_t d = p->head_dim, group = p->heads / p->kv_heads;
    struct view qkv = call->in[0], lse = call->out[1];
    struct packed_head packed =
        pack_head(head_at(qkv, row, p->heads + kv, d), head_at(qkv, row, p->heads + p->kv_heads + kv, d), p->seq_len,
                  length, width, scratch);
    struct block_buffers buffers = block_buffers_at(scratch + packed_floats(length, width), width);
    for (int64_t h = kv * group; h < (kv + 1) * group; h++)
        for (int64_t first = 0; first < p->seq_len; first += QUERIES)
            query_block(p, packed, buffers, head_at(qkv, row, h, d), head_at(call->out[0], row, h, d), first, width,
                        view_f32(lse, row + first) + h, lse.stride);
}

enum status cpu_attention(struct backend *backend, const struct op_call *call) {
    (void)backend;
    return attention_run(call, task_floats, task);
}
