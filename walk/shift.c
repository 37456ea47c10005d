#include "walk/shift.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { TURNS = 500, SLICE = 1 << 20 };

// coefficients [m] = -(M M^T)^+ offsets; gram [m, m] becomes its eigenvectors.
static enum status solve(double *gram, int64_t m, const double *offsets, double *lambda, double *coefficients) {
    if (LAPACKE_dsyevd(LAPACK_ROW_MAJOR, 'V', 'U', (lapack_int)m, gram, (lapack_int)m, lambda) != 0)
        return status_set(STATUS_INVALID,
                          "the Gram matrix of the samples has no eigenvalues: a gradient is not finite");
    memset(coefficients, 0, (size_t)m * sizeof *coefficients);
    for (int64_t k = 0; k < m; k++) {
        double along = 0;
        if (!(lambda[k] > 1e-10 * lambda[m - 1])) continue;
        for (int64_t i = 0; i < m; i++) along += gram[i * m + k] * offsets[i];
        for (int64_t i = 0; i < m; i++) coefficients[i] -= gram[i * m + k] * along / lambda[k];
    }
    return STATUS_OK;
}

enum status shift_new(const double *matrix, int64_t n, int64_t m, int64_t stride, const double *offsets, double *t,
                      double *left) {
    enum status status = STATUS_OK;
    void *buffer = NULL;
    double norm2 = 0, rest2 = 0;
    TRY(mem_buffer_new((m * m + 3 * m) * (int64_t)sizeof(double), "the samples' Gram matrix", &buffer));
    double *gram = buffer, *lambda = gram + m * m, *coefficients = lambda + m, *sums = coefficients + m;
    for (int64_t i = 0; i < n; i += SLICE)
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)m, (int)(n - i < SLICE ? n - i : SLICE), 1,
                    matrix + i * stride, (int)stride, i ? 1 : 0, gram, (int)m);
    TRY(solve(gram, m, offsets, lambda, coefficients));
    memset(sums, 0, (size_t)m * sizeof *sums);
    for (int64_t i = 0; i < n; i++) {
        const double *row = matrix + i * stride;
        double delta = 0;
        for (int64_t k = 0; k < m; k++) delta += row[k] * coefficients[k];
        for (int64_t k = 0; k < m; k++) sums[k] += row[k] * delta;
        t[i] += delta;
    }
    for (int64_t k = 0; k < m; k++) {
        norm2 += offsets[k] * offsets[k];
        rest2 += (offsets[k] + sums[k]) * (offsets[k] + sums[k]);
    }
    *left = norm2 > 0 ? sqrt(rest2 / norm2) : 0;
done:
    mem_buffer_free(buffer);
    return status;
}

enum status shift_into_box(const struct frame *frame, double *t, double *work, double *residual) {
    int64_t n = frame->n;
    double *x = work, *d = work + n, enough = 1e-12 * sqrt((double)n);
    memcpy(x, t, (size_t)n * sizeof *x);
    for (int turn = 0;; turn++) {
        for (int64_t i = 0; i < n; i++) x[i] = fmin(1, fmax(0, x[i]));
        *residual = frame_residual(frame, x, t, NULL);
        if (*residual <= enough || turn == TURNS) break;
        for (int64_t i = 0; i < n; i++) d[i] = x[i] - t[i];
        frame_project(frame, d);
        for (int64_t i = 0; i < n; i++) x[i] = t[i] + d[i];
    }
    memcpy(t, x, (size_t)n * sizeof *t);
    return STATUS_OK;
}
