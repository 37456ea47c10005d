// rope on the CPU: blocks of rows over threads. The common half widths are compile-time constants, so that the
// rotation of a narrow head becomes a few vector instructions instead of a short loop. Traffic: x twice.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

static inline __attribute__((always_inline)) void rotate_row(float *x, const float *cos, const float *sin, float sign,
                                                             int64_t heads, int64_t half) {
    for (int64_t h = 0; h < heads; h++, x += 2 * half) {
#pragma omp simd
        for (int64_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half], s = sign * sin[i];
            x[i] = a * cos[i] - b * s;
            x[i + half] = b * cos[i] + a * s;
        }
    }
}

enum status cpu_rope(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view x = call->out[0], cos = call->in[1], sin = call->in[2];
    const struct rope_params *p = &call->params.rope;
    float sign = p->inverse ? -1 : 1;
    int64_t half = p->head_dim / 2, part = rows_per_part(x.cols), parts = ceil_div(x.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t b = 0; b < parts; b++)
        for (int64_t n = b * part; n < min_i64(x.rows, (b + 1) * part); n++) {
            int64_t position = p->offset + n % p->seq_len;
            float *x_n = view_f32(x, n);
            const float *c = view_f32(cos, position), *s = view_f32(sin, position);
            if (half == 4)
                rotate_row(x_n, c, s, sign, p->heads, 4);
            else if (half == 32)
                rotate_row(x_n, c, s, sign, p->heads, 32);
            else if (half == 64)
                rotate_row(x_n, c, s, sign, p->heads, 64);
            else
                rotate_row(x_n, c, s, sign, p->heads, half);
        }
    return STATUS_OK;
}
