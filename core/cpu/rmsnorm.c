// rmsnorm, its gradients and its tangent on the CPU.
//
// Blocks of rows over threads; a row is read twice, the second time from cache. Sums over a row run in float lanes (a
// row is at most some thousand numbers), sums over rows in double. Traffic: every operand once.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

#include <math.h>

enum status cpu_rmsnorm(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view x = call->in[0], y = call->out[0], rstd = call->out[1];
    const float *gain = view_f32(call->in[1], 0);
    float eps = (float)call->params.eps;
    int64_t cols = x.cols, part = rows_per_part(cols), parts = ceil_div(x.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(x.rows, (p + 1) * part); i++) {
            const float *x_i = view_f32(x, i);
            float *y_i = view_f32(y, i);
            float r = 1 / sqrtf(dot_f32(x_i, x_i, cols) / (float)cols + eps);
            *view_f32(rstd, i) = r;
#pragma omp simd
            for (int64_t c = 0; c < cols; c++) y_i[c] = x_i[c] * r * gain[c];
        }
    return STATUS_OK;
}

static void grad_row(const float *x, const float *gain, float r, const float *dy, float *dx, int64_t cols,
                     bool accumulate) {
    float mean = 0; // of u xh
#pragma omp simd reduction(+ : mean)
    for (int64_t c = 0; c < cols; c++) mean += dy[c] * gain[c] * x[c];
    float k = mean / (float)cols * r * r;
    if (accumulate) {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) dx[c] += r * (dy[c] * gain[c] - x[c] * k);
    } else {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) dx[c] = r * (dy[c] * gain[c] - x[c] * k);
    }
}

enum status cpu_rmsnorm_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view x = call->in[0], rstd = call->in[2], dy = call->in[3], dx = call->out[0];
    const float *gain = view_f32(call->in[1], 0);
    int64_t part = rows_per_part(x.cols), parts = ceil_div(x.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(x.rows, (p + 1) * part); i++)
            grad_row(view_f32(x, i), gain, *view_f32(rstd, i), view_f32(dy, i), view_f32(dx, i), x.cols,
                     call->accumulate);
    return STATUS_OK;
}

// Column strips of GAIN_STRIP over threads: each strip sums its columns down all rows.
enum { GAIN_STRIP = 64 };

static void gain_strip(const struct op_call *call, int64_t s, int64_t first, int64_t n) {
    struct view x = call->in[0], rstd = call->in[1], dy = call->in[2], dgain = call->out[0];
    int64_t per_output = x.rows / dgain.rows;
    double sum[GAIN_STRIP] = {0};
    for (int64_t i = s * per_output; i < (s + 1) * per_output; i++) {
        const float *x_i = view_f32(x, i) + first, *dy_i = view_f32(dy, i) + first;
        float r = *view_f32(rstd, i);
#pragma omp simd
        for (int64_t c = 0; c < n; c++) sum[c] += (double)(dy_i[c] * x_i[c] * r);
    }
    float *to = view_f32(dgain, s) + first;
    for (int64_t c = 0; c < n; c++) to[c] = (float)(sum[c] + (call->accumulate ? (double)to[c] : 0));
}

enum status cpu_rmsnorm_gain_grad(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view dgain = call->out[0];
    int64_t strips = ceil_div(dgain.cols, GAIN_STRIP);
#pragma omp parallel for collapse(2) if (view_count(call->in[0]) > PIECE)
    for (int64_t s = 0; s < dgain.rows; s++)
        for (int64_t strip = 0; strip < strips; strip++)
            gain_strip(call, s, strip * GAIN_STRIP, min_i64(GAIN_STRIP, dgain.cols - strip * GAIN_STRIP));
    return STATUS_OK;
}

static void tangent_row(const float *x, const float *gain, float r, const float *xd, const float *gaind, float *yd,
                        int64_t cols) {
    float k = dot_f32(xd, x, cols) / (float)cols * r * r;
    if (gaind) {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) yd[c] = r * ((xd[c] - x[c] * k) * gain[c] + x[c] * gaind[c]);
    } else {
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) yd[c] = r * (xd[c] - x[c] * k) * gain[c];
    }
}

enum status cpu_rmsnorm_tangent(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view x = call->in[0], rstd = call->in[2], xd = call->in[3], yd = call->out[0];
    const float *gain = view_f32(call->in[1], 0), *gaind = call->in[4].rows ? view_f32(call->in[4], 0) : NULL;
    int64_t part = rows_per_part(x.cols), parts = ceil_div(x.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(x.rows, (p + 1) * part); i++)
            tangent_row(view_f32(x, i), gain, *view_f32(rstd, i), view_f32(xd, i), gaind, view_f32(yd, i), x.cols);
    return STATUS_OK;
}
