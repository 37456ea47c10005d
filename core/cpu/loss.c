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
#include "core/cpu/lanes.h"
#include "core/cpu/parts.h"

#include "core/base/mem.h"

#include <math.h>
#include <omp.h>

static int64_t first_equal(const float *x, int64_t n, float value) {
    enum { BLOCK = 64 };
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        int hits = 0;
        for (int l = 0; l < BLOCK; l++) hits |= x[i + l] == value;
        if (hits) break;
    }
    for (; i < n; i++)
        if (x[i] == value) return i;
    return n;
}

// The sum of a_v = e^(x_v - max); x_v = a_v on request.
static inline __attribute__((always_inline)) double exponentials(float *x, int64_t n, float max, bool keep) {
    wide_lanes sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes a = lanes_exp(lanes_load(x + i) - max);
        if (keep) lanes_store(x + i, a);
        sum += lanes_widen(a);
    }
    if (i < n) {
        lanes a = lanes_exp(lanes_load_some(x + i, n - i, -INFINITY) - max);
        if (keep) lanes_store_some(x + i, n - i, a);
        sum += lanes_widen(a);
    }
    return wide_sum(sum);
}

static double cross_entropy_row(float *logits, int64_t n, int32_t target, const struct loss_params *params) {
    if (target < 0) {
        if (params->gradient)
            for (int64_t i = 0; i < n; i++) logits[i] = 0;
        return 0;
    }
    REQUIRE(target < n, "target outside the vocabulary");
    float max = row_max(logits, n);
    double chosen = (double)logits[target];
    double sum = params->gradient ? exponentials(logits, n, max, true) : exponentials(logits, n, max, false);
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
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(logits.rows, (p + 1) * part); i++)
            *view_f64(loss, i) =
                cross_entropy_row(view_f32(logits, i), logits.cols, *view_i32(targets, i), &call->params.loss);
    return STATUS_OK;
}

struct kl_sums {
    wide_lanes teacher, student, weighted; // a, b, a (t - s)
};

// One vector: t, s become their exponentials a, b.
static inline __attribute__((always_inline)) void kl_vector(lanes *t, lanes *s, float max_t, float max_s,
                                                            struct kl_sums *sums) {
    lanes difference = *t - *s, a = lanes_exp(*t - max_t), b = lanes_exp(*s - max_s);
    int_lanes some = a > 0; // 0 times an infinite difference counts as 0
    sums->teacher += lanes_widen(a);
    sums->student += lanes_widen(b);
    sums->weighted += lanes_widen((lanes)(some & (int_lanes)(a * difference)));
    *t = a;
    *s = b;
}

// Sums over a row; keeps the exponentials, the teacher's in a [n], the student's in place of its logits, on request.
static inline __attribute__((always_inline)) struct kl_sums kl_sums(const float *teacher, float *student, float *a,
                                                                    int64_t n, float max_t, float max_s, bool keep) {
    struct kl_sums sums = {{0}, {0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes t = lanes_load(teacher + i), s = lanes_load(student + i);
        kl_vector(&t, &s, max_t, max_s, &sums);
        if (keep) lanes_store(a + i, t);
        if (keep) lanes_store(student + i, s);
    }
    if (i < n) {
        lanes t = lanes_load_some(teacher + i, n - i, -INFINITY), s = lanes_load_some(student + i, n - i, -INFINITY);
        kl_vector(&t, &s, max_t, max_s, &sums);
        if (keep) lanes_store_some(a + i, n - i, t);
        if (keep) lanes_store_some(student + i, n - i, s);
    }
    return sums;
}

// scratch [n] is for the teacher's exponentials.
static double kl_row(const float *teacher, float *student, float *scratch, int64_t n, const struct loss_params *params,
                     int32_t *agree) {
    float max_t = row_max(teacher, n), max_s = row_max(student, n);
    if (agree) *agree = first_equal(teacher, n, max_t) == first_equal(student, n, max_s);
    struct kl_sums sums;
    if (params->gradient)
        sums = kl_sums(teacher, student, scratch, n, max_t, max_s, true);
    else
        sums = kl_sums(teacher, student, scratch, n, max_t, max_s, false);
    double sum_t = wide_sum(sums.teacher), sum_s = wide_sum(sums.student), weighted = wide_sum(sums.weighted);
    if (params->gradient) {
        float k_t = (float)(params->weight / sum_t), k_s = (float)(params->weight / sum_s);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) student[i] = student[i] * k_s - scratch[i] * k_t;
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
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++) {
        float *row = (float *)(void *)((char *)scratch + omp_get_thread_num() * row_bytes);
        for (int64_t i = p * part; i < min_i64(teacher.rows, (p + 1) * part); i++)
            *view_f64(kl, i) = kl_row(view_f32(teacher, i), view_f32(student, i), row, cols, &call->params.loss,
                                      agree.rows ? view_i32(agree, i) : NULL);
    }
    mem_buffer_free(scratch);
    return STATUS_OK;
}
