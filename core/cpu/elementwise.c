// fill, copy, row_dot, sum_squares, output_error on the CPU.
//
// Elementwise ops: pieces of 4096 elements over threads. Reductions: float products, summed in double in lanes fixed at
// compile time; one thread per row of the output. Traffic: every operand once.
#include "core/cpu/cpu.h"
#include "core/cpu/parts.h"

enum status cpu_fill(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view y = call->out[0];
    float value = (float)call->params.value;
    struct pieces cut = pieces_of(y, view_is_contiguous(y));
#pragma omp parallel for if (cut.count > ALONE)
    for (int64_t p = 0; p < cut.count; p++) {
        struct piece at = piece_at(cut, p);
        float *to = view_f32(y, at.row) + at.first;
        for (int64_t i = 0; i < at.n; i++) to[i] = value;
    }
    return STATUS_OK;
}

enum status cpu_copy(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0], y = call->out[0];
    bool accumulate = call->accumulate;
    struct pieces cut = pieces_of(y, view_is_contiguous(a) && view_is_contiguous(y));
#pragma omp parallel for if (cut.count > ALONE)
    for (int64_t p = 0; p < cut.count; p++) {
        struct piece at = piece_at(cut, p);
        const float *from = view_f32(a, at.row) + at.first;
        float *to = view_f32(y, at.row) + at.first;
        if (accumulate) {
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++) to[i] += from[i];
        } else {
#pragma omp simd
            for (int64_t i = 0; i < at.n; i++) to[i] = from[i];
        }
    }
    return STATUS_OK;
}

static double dot(const float *a, const float *b, int64_t n) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

enum status cpu_row_dot(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0], b = call->in[1], y = call->out[0];
    double factor = call->params.factor;
    int64_t part = rows_per_part(a.cols), parts = ceil_div(a.rows, part);
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(a.rows, (p + 1) * part); i++)
            *view_f64(y, i) = factor * dot(view_f32(a, i), view_f32(b, i), a.cols);
    return STATUS_OK;
}

// Each output row gathers its own block of input rows, so a single output is the work of one thread; the callers that
// matter have one row per sequence or per weight matrix row.
enum status cpu_sum_squares(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0], y = call->out[0];
    int64_t per_output = a.rows / y.rows;
#pragma omp parallel for if (view_count(a) > PIECE)
    for (int64_t s = 0; s < y.rows; s++) {
        double sum = call->accumulate ? *view_f64(y, s) : 0;
        for (int64_t i = 0; i < per_output; i++) {
            const float *row = view_f32(a, s * per_output + i);
            sum += dot(row, row, a.cols);
        }
        *view_f64(y, s) = sum;
    }
    return STATUS_OK;
}

static double error_row(const float *y, const float *t, int64_t n, float factor, bool accumulate, float *dy) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float d = y[i] - t[i];
        sum += (double)d * (double)d;
        dy[i] = (accumulate ? dy[i] : 0) + factor * d;
    }
    return sum;
}

enum status cpu_output_error(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view y = call->in[0], t = call->in[1], squares = call->in[2], dy = call->out[0], error = call->out[1];
    int64_t part = rows_per_part(y.cols), parts = ceil_div(y.rows, part), rows_each = y.rows / squares.rows;
#pragma omp parallel for if (parts > ALONE)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < min_i64(y.rows, (p + 1) * part); i++) {
            double total = *view_f64(squares, i / rows_each), share = total > 0 ? 1 / total : 0;
            float factor = (float)(2 * call->params.factor * share);
            *view_f64(error, i) =
                share * error_row(view_f32(y, i), view_f32(t, i), y.cols, factor, call->accumulate, view_f32(dy, i));
        }
    return STATUS_OK;
}
