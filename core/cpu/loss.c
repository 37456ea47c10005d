// cross_entropy and kl_divergence on the CPU: rows over threads in small blocks.
//
// With a_v = e^(logit_v - max), Z = sum a_v:
//   cross entropy   loss = max + log Z - logit[target]
//   KL(p || q)      = sum_v p_v (t_v - s_v) - (lse_t - lse_s),  p = a / Z of the teacher t, lse = max + log Z
// Exponentials are floats, Z and the weighted sum are doubles, so that p sums to one to double precision and a small KL
// does not drown in the rounding of two large lse. One exponential per logit: they are kept in the logits' own buffer (student)
// and in a row of scratch (teacher) for the gradient. Traffic: logits read twice and written once, twice with a gradient;
// the second and third pass of a row find it in cache.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>

static int64_t first_equal(const float *x, int64_t n, float value) {
    for (int64_t i = 0; i < n; i++)
        if (x[i] == value) return i;
    return n;
}

static double sum_exponentials(const float *x, int64_t n, float max) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)exp_f32(x[i] - max);
    return sum;
}

// x_v = e^(x_v - max); returns the sum.
static double exponentials(float *x, int64_t n, float max) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        x[i] = exp_f32(x[i] - max);
        sum += (double)x[i];
    }
    return sum;
}

static double cross_entropy_row(float *logits, int64_t n, int32_t target, const struct loss_params *params) {
    if (target < 0) {
        if (params->gradient)
            for (int64_t i = 0; i < n; i++) logits[i] = 0;
        return 0;
    }
    REQUIRE(target < n, "target outside the vocabulary");
    float max = max_f32(logits, n);
    double chosen = (double)logits[target];
    double sum = params->gradient ? exponentials(logits, n, max) : sum_exponentials(logits, n, max);
    if (params->gradient) {
        float k = (float)(params->weight / sum);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) logits[i] *= k;
        logits[target] -= (float)params->weight;
    }
    return (double)max - chosen + log(sum);
}

enum status cpu_cross_entropy(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view logits = call->in[0], targets = call->in[1], loss = call->out[0];
    int64_t part = rows_per_part(logits.cols), parts = ceil_div(logits.rows, part);
#pragma omp parallel for if (parts > 1)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(logits.rows, (p + 1) * part); i++)
            *view_f64(loss, i) =
                cross_entropy_row(view_f32(logits, i), logits.cols, *view_i32(targets, i), &call->params.loss);
    return STATUS_OK;
}

// exponentials [n] is scratch for the teacher's.
static double kl_row(const float *teacher, float *student, float *exponentials_t, int64_t n,
                     const struct loss_params *params, int32_t *agree) {
    float max_t = max_f32(teacher, n), max_s = max_f32(student, n);
    if (agree) *agree = first_equal(teacher, n, max_t) == first_equal(student, n, max_s);
    double sum_t = 0, sum_s = 0, weighted = 0;
#pragma omp simd reduction(+ : sum_t, sum_s, weighted)
    for (int64_t i = 0; i < n; i++) {
        float difference = teacher[i] - student[i];
        float a = exp_f32(teacher[i] - max_t), b = exp_f32(student[i] - max_s);
        if (params->gradient) {
            exponentials_t[i] = a;
            student[i] = b;
        }
        sum_t += (double)a;
        sum_s += (double)b;
        weighted += (double)(a > 0 ? a * difference : 0);
    }
    if (params->gradient) {
        float k_t = (float)(params->weight / sum_t), k_s = (float)(params->weight / sum_s);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) student[i] = student[i] * k_s - exponentials_t[i] * k_t;
    }
    return weighted / sum_t - (((double)max_t - (double)max_s) + (log(sum_t) - log(sum_s)));
}

enum status cpu_kl_divergence(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view teacher = call->in[0], student = call->in[1], kl = call->out[0], agree = call->out[1];
    int64_t cols = teacher.cols, part = rows_per_part(cols), parts = ceil_div(teacher.rows, part);
    void *scratch = NULL;
    int64_t row_bytes = ceil_div(cols, 16) * 64;
    enum status status = mem_buffer_new(omp_get_max_threads() * row_bytes, "softmax of one row per thread", &scratch);
    if (status != STATUS_OK) return status;
#pragma omp parallel for if (parts > 1)
    for (int64_t p = 0; p < parts; p++) {
        float *row = (float *)(void *)((char *)scratch + omp_get_thread_num() * row_bytes);
        for (int64_t i = p * part; i < min_i64(teacher.rows, (p + 1) * part); i++)
            *view_f64(kl, i) = kl_row(view_f32(teacher, i), view_f32(student, i), row, cols, &call->params.loss,
                                      agree.rows ? view_i32(agree, i) : NULL);
    }
    mem_buffer_free(scratch);
    return STATUS_OK;
}
