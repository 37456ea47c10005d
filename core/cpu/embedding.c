// embedding and its gradient on the CPU.
//
// Forward: blocks of rows over threads, one copy per row. Gradient: the table is cut into TABLE_PARTS sets of rows
// (token id modulo TABLE_PARTS); every set walks all tokens in ascending order and adds those that are its own, so each
// table row is summed in token order by one thread. Traffic: dy once, touched table rows twice, tokens TABLE_PARTS times.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

#include <string.h>

enum { TABLE_PARTS = 16 };

enum status cpu_embedding(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view table = call->in[0], tokens = call->in[1], y = call->out[0];
    int64_t part = rows_per_part(y.cols), parts = ceil_div(y.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(y.rows, (p + 1) * part); i++) {
            int32_t token = *view_i32(tokens, i);
            REQUIRE(token >= 0 && token < table.rows, "token outside the vocabulary");
            memcpy(view_f32(y, i), view_f32(table, token), (size_t)y.cols * sizeof(float));
        }
    return STATUS_OK;
}

enum status cpu_embedding_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view dy = call->in[0], tokens = call->in[1], dtable = call->out[0];
#pragma omp parallel for schedule(dynamic) if (view_count(dy) > PIECE)
    for (int part = 0; part < TABLE_PARTS; part++)
        for (int64_t i = 0; i < dy.rows; i++) {
            int32_t token = *view_i32(tokens, i);
            if (token % TABLE_PARTS != part) continue;
            REQUIRE(token >= 0 && token < dtable.rows, "token outside the vocabulary");
            const float *from = view_f32(dy, i);
            float *to = view_f32(dtable, token);
#pragma omp simd
            for (int64_t c = 0; c < dy.cols; c++) to[c] += from[c];
        }
    return STATUS_OK;
}
