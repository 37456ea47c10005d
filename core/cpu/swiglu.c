// swiglu, its gradient and its tangent on the CPU: pieces of a row over threads, one exponential per element.
//
//   s = 1 / (1 + e^-g), silu(g) = g s, silu'(g) = s + g s (1 - s)
//
// Traffic: every operand once.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

static inline float silu_derivative(float g, float s) { return s + g * s * (1 - s); }

enum status cpu_swiglu(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view gu = call->in[0], h = call->out[0];
    int64_t width = h.cols, part = rows_per_part(width), parts = ceil_div(h.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t n = p * part; n < min_i64(h.rows, (p + 1) * part); n++) {
            const float *g = view_f32(gu, n), *u = g + width;
            float *h_n = view_f32(h, n);
#pragma omp simd
            for (int64_t i = 0; i < width; i++) h_n[i] = g[i] * sigmoid_f32(g[i]) * u[i];
        }
    return STATUS_OK;
}

enum status cpu_swiglu_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view gu = call->in[0], dh = call->in[1], dgu = call->out[0];
    int64_t width = dh.cols, part = rows_per_part(width), parts = ceil_div(dh.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t n = p * part; n < min_i64(dh.rows, (p + 1) * part); n++) {
            const float *g = view_f32(gu, n), *u = g + width, *dh_n = view_f32(dh, n);
            float *dg = view_f32(dgu, n), *du = dg + width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float s = sigmoid_f32(g[i]);
                dg[i] = dh_n[i] * u[i] * silu_derivative(g[i], s);
                du[i] = dh_n[i] * g[i] * s;
            }
        }
    return STATUS_OK;
}

enum status cpu_swiglu_tangent(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view gu = call->in[0], gud = call->in[1], hd = call->out[0];
    int64_t width = hd.cols, part = rows_per_part(width), parts = ceil_div(hd.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t n = p * part; n < min_i64(hd.rows, (p + 1) * part); n++) {
            const float *g = view_f32(gu, n), *u = g + width, *gd = view_f32(gud, n), *ud = gd + width;
            float *hd_n = view_f32(hd, n);
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float s = sigmoid_f32(g[i]);
                hd_n[i] = silu_derivative(g[i], s) * gd[i] * u[i] + g[i] * s * ud[i];
            }
        }
    return STATUS_OK;
}
