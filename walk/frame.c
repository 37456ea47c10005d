#include "walk/frame.h"

#include "core/base/clock.h"
#include "core/base/mem.h"
#include "walk/device.h"
#include "walk/gram.h"
#include "walk/rows.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#undef I // of <complex.h>

static const double WEAK = 1e-11; // eigenvalues of the Gram matrix below this share of the largest are not believed
static const double WELL = 1e-6;  // from this share on, the first pass leaves columns orthonormal to 1e-10
static const double RANK_LEAST = 1e-12;

enum { BLOCK = 256, PARTS = 64, ALONE = 32768 };

struct making {
    double *a; // [n, stride]
    int64_t n, m, stride;
    double *gram, *eigen, *values, *map; // [m, m], [m, m], [m], [m, m]
    struct gram_scratch *scratch;
    struct backend *backend;
    struct device_matrix *device; // the rows in place of a, where there is a backend
};

enum status frame_matrix_new(int64_t n, int64_t m, double **out) {
    REQUIRE(n >= 0 && m >= 0, "sizes are not negative");
    void *p = NULL;
    int64_t stride = frame_stride(m), bytes;
    if (__builtin_mul_overflow(n, stride, &bytes) || __builtin_mul_overflow(bytes, (int64_t)8, &bytes))
        return status_set(STATUS_NO_MEMORY, "a matrix of %lld x %lld numbers is larger than any memory", (long long)n,
                          (long long)m);
    enum status status = mem_buffer_new(bytes, "the matrix of constraints", &p);
    if (status != STATUS_OK) return status;
#pragma omp parallel for schedule(static) if (n * stride > ALONE)
    for (int64_t i = 0; i < n; i++) memset((double *)p + i * stride, 0, (size_t)stride * sizeof(double));
    *out = p;
    return STATUS_OK;
}

// Largest magnitude; the first number that is not finite is an error. Clears the padding.
static enum status look_over(struct making *f, double *largest) {
    double most = 0;
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(max : most) reduction(min : bad) if (f->n * f->stride > ALONE)
    for (int64_t i = 0; i < f->n; i++) {
        double *row = f->a + i * f->stride, sum = 0;
        for (int64_t j = 0; j < f->m; j++) most = fmax(most, fabs(row[j]));
        for (int64_t j = 0; j < f->m; j++) sum += row[j] * 0.0;
        if (isnan(sum) && i < bad) bad = i;
        for (int64_t j = f->m; j < f->stride; j++) row[j] = 0;
    }
    if (bad < f->n) {
        int64_t j = 0;
        while (isfinite(f->a[bad * f->stride + j])) j++;
        return status_set(STATUS_INVALID,
                          "the matrix of constraints holds %g in row %lld at coordinate %lld; leave that sample out",
                          f->a[bad * f->stride + j], (long long)j, (long long)bad);
    }
    *largest = most;
    return STATUS_OK;
}

static void scale_all(struct making *f, double factor) {
#pragma omp parallel for schedule(static) if (f->n * f->stride > ALONE)
    for (int64_t i = 0; i < f->n; i++)
        for (int64_t j = 0; j < f->m; j++) f->a[i * f->stride + j] *= factor;
}

// a <- a map, map [m, cols] in rows; columns beyond cols become zero. Upper triangular maps stay in place.
static enum status transform(struct making *f, const double *map, int64_t cols, bool triangular) {
    if (f->device) return device_matrix_transform(f->device, map, f->m); // whose columns beyond cols are zero
    int64_t blocks = (f->n + BLOCK - 1) / BLOCK;
    void *p = NULL;
    enum status status = mem_buffer_new((int64_t)omp_get_max_threads() * BLOCK * f->stride * 8, "transformed rows", &p);
    if (status != STATUS_OK) return status;
#pragma omp parallel for schedule(static) if (f->n * f->stride > ALONE)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * BLOCK, rows = f->n - first < BLOCK ? f->n - first : BLOCK;
        double *a = f->a + first * f->stride, *to = (double *)p + omp_get_thread_num() * BLOCK * f->stride;
        if (triangular && cols == f->m) {
            cblas_dtrmm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, (int)rows, (int)cols, 1, map,
                        (int)f->m, a, (int)f->stride);
            continue;
        }
        if (cols > 0)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)cols, (int)f->m, 1, a,
                        (int)f->stride, map, (int)f->m, 0, to, (int)f->stride);
        for (int64_t i = 0; i < rows; i++) {
            memcpy(a + i * f->stride, to + i * f->stride, (size_t)cols * sizeof *a);
            memset(a + i * f->stride + cols, 0, (size_t)(f->stride - cols) * sizeof *a);
        }
    }
    mem_buffer_free(p);
    return STATUS_OK;
}

static enum status take_gram(struct making *f) {
    if (f->device) return device_matrix_gram(f->device, f->m, f->gram);
    memset(f->gram, 0, (size_t)(f->m * f->m) * sizeof *f->gram);
    struct gram_rows rows = {f->a, f->n, f->stride, f->m};
    gram_add(f->gram, 1, rows, NULL, f->n, NULL, f->scratch);
    return STATUS_OK;
}

static enum status eigen(struct making *f, double *gram, int64_t size, double *values) {
    return f->device ? device_eigen(f->backend, gram, size, values) : symmetric_eigen(gram, size, values);
}

// map <- R^-1 of the leading size x size block of the Gram matrix, R^T R; upper triangular, zeros elsewhere.
static enum status inverse_triangle(struct making *f, int64_t size) {
    int64_t m = f->m;
    memset(f->map, 0, (size_t)(m * m) * sizeof *f->map);
    if (f->device) return device_inverse_triangle(f->backend, f->gram, m, size, f->map);
    for (int64_t i = 0; i < size; i++)
        for (int64_t j = i; j < size; j++) f->map[i * m + j] = f->gram[i * m + j];
    // Row-major upper is column-major lower: G = L L^T there, R = L^T.
    int info = size ? LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', (int)size, f->map, (int)m) : 0;
    if (info == 0 && size) info = LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'L', 'N', (int)size, f->map, (int)m);
    if (info != 0)
        return status_set(STATUS_INVALID, "the constraints cannot be made orthonormal (direction %d of %lld)", info,
                          (long long)size);
    return STATUS_OK;
}

// One more pass that makes the first `cols` columns orthonormal to rounding.
static enum status polish(struct making *f, int64_t cols) {
    enum status status = STATUS_OK;
    TRY(take_gram(f));
    TRY(inverse_triangle(f, cols));
    TRY(transform(f, f->map, cols, true));
done:
    return status;
}

// Second pass where columns `strong` .. m - 1 belong to directions that the Gram matrix did not resolve (frame.h). Writes
// their singular values relative to their common scale to t, falling, and the number kept to *rank.
static enum status resolve_weak(struct making *f, int64_t strong, double least, double *t, int64_t *rank) {
    enum status status = STATUS_OK;
    int64_t m = f->m, weak = m - strong;
    double *across = mem_new((size_t)(strong * weak + 1), 8), *schur = mem_new((size_t)(weak * weak), 8);
    TRY(take_gram(f));
    TRY(inverse_triangle(f, strong));
    // across = R^-T G_uc, [strong, weak]; schur = G_cc - across^T across
    for (int64_t i = 0; i < strong; i++) memcpy(across + i * weak, f->gram + i * m + strong, (size_t)weak * 8);
    if (strong)
        cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasTrans, CblasNonUnit, (int)strong, (int)weak, 1, f->map,
                    (int)m, across, (int)weak);
    for (int64_t i = 0; i < weak; i++) memcpy(schur + i * weak, f->gram + (strong + i) * m + strong, (size_t)weak * 8);
    if (strong)
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)weak, (int)weak, (int)strong, -1, across, (int)weak,
                    across, (int)weak, 1, schur, (int)weak);
    TRY(eigen(f, schur, weak, t));
    int64_t kept = 0;
    for (int64_t k = 0; k < weak; k++) {
        t[k] = sqrt(fmax(t[k], 0));
        if (t[k] >= least && kept == k) kept = k + 1;
    }
    // across <- R^-1 across = G_uu^-1 G_uc, then the columns of the map: -across W / t above, W / t below.
    if (strong)
        cblas_dtrmm(CblasRowMajor, CblasLeft, CblasUpper, CblasNoTrans, CblasNonUnit, (int)strong, (int)weak, 1, f->map,
                    (int)m, across, (int)weak);
    for (int64_t k = 0; k < kept; k++) {
        for (int64_t i = 0; i < strong; i++)
            f->map[i * m + strong + k] = -cblas_ddot((int)weak, across + i * weak, 1, schur + k * weak, 1) / t[k];
        for (int64_t i = 0; i < weak; i++) f->map[(strong + i) * m + strong + k] = schur[k * weak + i] / t[k];
    }
    TRY(transform(f, f->map, strong + kept, false));
    *rank = strong + kept;
done:
    free(across);
    free(schur);
    return status;
}

// Eigenvectors of the first Gram matrix, scaled, as the map; returns the number of directions that it resolves.
static int64_t first_map(struct making *f, double weak_scale, double *singular) {
    int64_t m = f->m, strong = 0;
    for (int64_t k = 0; k < m; k++) {
        singular[k] = sqrt(fmax(f->values[k], 0));
        if (f->values[k] >= WEAK * f->values[0]) strong = k + 1;
    }
    for (int64_t k = 0; k < m; k++) {
        double scale = k < strong ? singular[k] : weak_scale;
        for (int64_t i = 0; i < m; i++) f->map[i * m + k] = f->eigen[k * m + i] / scale;
    }
    return strong;
}

static enum status whiten(struct making *f, double tolerance, struct frame *frame) {
    enum status status = STATUS_OK;
    double largest = 0, scale = 1;
    int64_t m = f->m;
    TRY(look_over(f, &largest));
    if (largest > 1e100 || (largest > 0 && largest < 1e-100)) {
        int exponent = ilogb(largest);
        scale = ldexp(1, exponent);
        scale_all(f, ldexp(1, -(exponent / 2))); // in two steps: 2^-exponent may be too large for a double
        scale_all(f, ldexp(1, exponent / 2 - exponent));
    }
    if (f->backend) TRY(device_matrix_new(f->backend, f->a, f->n, f->stride, &f->device));
    if (largest == 0) goto done; // rank 0
    TRY(take_gram(f));
    memcpy(f->eigen, f->gram, (size_t)(m * m) * sizeof *f->eigen);
    TRY(eigen(f, f->eigen, m, f->values));
    double top = sqrt(f->values[0]), weak_scale = sqrt(WEAK) * top;
    int64_t strong = first_map(f, weak_scale, frame->singular), rank = strong;
    TRY(transform(f, f->map, m, false));
    frame->passes = f->values[m - 1] < WELL * f->values[0] ? 2 : 1;
    if (strong < m) {
        TRY(resolve_weak(f, strong, tolerance / sqrt(WEAK), frame->singular + strong, &rank));
        for (int64_t k = strong; k < m; k++) frame->singular[k] *= weak_scale;
        frame->passes = 3;
    }
    while (rank > 0 && frame->singular[rank - 1] < tolerance * top) rank--;
    if (frame->passes > 1) TRY(polish(f, rank));
    frame->rank = rank;
    double all = 0, dropped = 0;
    for (int64_t k = m; k-- > 0;) {
        double energy = frame->singular[k] * frame->singular[k];
        all += energy;
        if (k >= rank) dropped += energy;
        frame->singular[k] *= scale;
    }
    frame->dropped_energy = dropped / all;
done:
    return status;
}

static void measure_rows(struct frame *f) {
    f->width = frame_stride(f->rank);
#pragma omp parallel for schedule(static) if (f->n * f->stride > ALONE)
    for (int64_t i = 0; i < f->n; i++) f->norm2[i] = row_dot(f->q + i * f->stride, f->q + i * f->stride, f->width);
}

enum status frame_new(double *matrix, int64_t n, int64_t m, const struct frame_options *options, struct frame **out) {
    enum status status = STATUS_OK;
    double start = clock_seconds(), tolerance = options ? options->rank_tolerance : 0;
    struct frame *frame = NULL;
    struct making f = {.a = matrix, .n = n, .m = m, .stride = frame_stride(m)};
    if (options) f.backend = options->backend;
    void *p = NULL, *numbers = NULL;
    REQUIRE(((uintptr_t)matrix & 63) == 0, "the matrix is aligned to 64 bytes");
    REQUIRE(tolerance >= 0 && tolerance < 1, "the tolerance of the rank is a share");
    if (n < 1 || m < 1 || m > 40000) {
        status = status_set(
            STATUS_INVALID,
            "%lld constraints on %lld coordinates: there must be 1 to 40000 of the former and 1 of the latter at least",
            (long long)m, (long long)n);
        goto done;
    }
    frame = mem_new(1, sizeof *frame);
    *frame = (struct frame){.n = n, .m = m, .stride = f.stride, .q = matrix, .singular = mem_new((size_t)m, 8)};
    TRY(mem_buffer_new(n * 8, "leverages", &p));
    frame->norm2 = p;
    TRY(mem_buffer_new((3 * m * m + m) * 8, "Gram matrices", &numbers));
    f.gram = numbers, f.eigen = f.gram + m * m, f.map = f.eigen + m * m, f.values = f.map + m * m;
    if (!f.backend) TRY(gram_scratch_new(n, m, &f.scratch));
    TRY(whiten(&f, fmax(tolerance, RANK_LEAST), frame));
    if (f.device) TRY(device_matrix_read(f.device, matrix));
    measure_rows(frame);
    frame->device = f.device;
    f.device = NULL;
    frame->seconds = clock_seconds() - start;
    *out = frame;
    frame = NULL;
done:
    device_matrix_free(f.device);
    gram_scratch_free(f.scratch);
    mem_buffer_free(numbers);
    frame_free(frame);
    return status;
}

void frame_free(struct frame *frame) {
    if (!frame) return;
    device_matrix_free(frame->device);
    mem_buffer_free(frame->norm2);
    free(frame->singular);
    free(frame);
}

// sum_i d_i q_i with d = x - y, or x where y is NULL.
static void sum_rows(const struct frame *f, const double *x, const double *y, double *out) {
    int64_t per_part = (f->n + PARTS - 1) / PARTS, width = f->width;
    double *parts = mem_new((size_t)(PARTS * width + 8), 8);
    double *aligned = (double *)(((uintptr_t)parts + 63) & ~(uintptr_t)63);
#pragma omp parallel for schedule(dynamic) if (f->n * width > ALONE)
    for (int64_t p = 0; p < PARTS; p++)
        for (int64_t i = p * per_part; i < f->n && i < (p + 1) * per_part; i++)
            row_add(aligned + p * width, y ? x[i] - y[i] : x[i], f->q + i * f->stride, width);
    for (int64_t k = 0; k < width; k++) {
        out[k] = 0;
        for (int64_t p = 0; p < PARTS; p++) out[k] += aligned[p * width + k];
    }
    free(parts);
}

double frame_residual(const struct frame *frame, const double *x, const double *y, double *out) {
    double *sums = out ? out : mem_new((size_t)frame->width + 1, 8), most = 0;
    sum_rows(frame, x, y, sums);
    for (int64_t k = 0; k < frame->rank; k++) most = fmax(most, fabs(sums[k]));
    if (!out) free(sums);
    return most;
}

void frame_project(const struct frame *frame, double *d) {
    double *numbers = mem_new((size_t)frame->width + 16, 8);
    double *sums = (double *)(((uintptr_t)numbers + 63) & ~(uintptr_t)63);
    sum_rows(frame, d, NULL, sums);
#pragma omp parallel for schedule(static) if (frame->n * frame->stride > ALONE)
    for (int64_t i = 0; i < frame->n; i++) d[i] -= row_dot(sums, frame->q + i * frame->stride, frame->width);
    free(numbers);
}
