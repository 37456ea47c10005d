#include "walk/gram.h"

#include "core/base/mem.h"
#include "walk/rows.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#undef I // of <complex.h>

enum { TILE = 256, CHUNK = 256, PARTS_MOST = 8, PART_LEAST = 512, SUMS = 3, SLAB = 1 << 20 };

struct gram_scratch {
    int64_t parts, cols;
    double *partial;  // [parts, cols, cols]
    double *sums;     // [parts, SUMS, cols padded]
    double *gathered; // [threads, 2, CHUNK, TILE]
    int threads;
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

enum status gram_scratch_new(int64_t n, int64_t cols, struct gram_scratch **out) {
    enum status status = STATUS_OK;
    struct gram_scratch *s = mem_new(1, sizeof *s);
    s->cols = max_i64(cols, 1);
    s->parts = min_i64(PARTS_MOST, max_i64(1, n / (64 * s->cols))); // partial matrices stay below an eighth of the rows
    s->threads = omp_get_max_threads();
    void *p = NULL;
    TRY(mem_buffer_new(s->parts * s->cols * s->cols * 8, "partial Gram matrices", &p));
    s->partial = p;
    TRY(mem_buffer_new(s->parts * SUMS * ((s->cols + 7) / 8 * 8) * 8, "partial sums", &p));
    s->sums = p;
    TRY(mem_buffer_new((int64_t)s->threads * 2 * CHUNK * min_i64(TILE, (s->cols + 7) / 8 * 8) * 8, "gathered rows",
                       &p));
    s->gathered = p;
    *out = s;
    s = NULL;
done:
    gram_scratch_free(s);
    return status;
}

void gram_scratch_free(struct gram_scratch *s) {
    if (!s) return;
    mem_buffer_free(s->partial);
    mem_buffer_free(s->sums);
    mem_buffer_free(s->gathered);
    free(s);
}

struct job {
    struct gram_rows rows;
    const int64_t *ids;
    const struct gram_sums *sums;
    int64_t first, n; // of the list of ids
    int64_t stride;   // of gathered rows
    double *partial;  // [cols, cols] or NULL
    double *partial_sums;
};

static void gather(double *to, const struct job *job, int64_t first, int64_t n, int64_t column, int64_t cols) {
    for (int64_t k = 0; k < n; k++) {
        const double *row = job->rows.a + job->ids[first + k] * job->rows.stride + column;
        if (k + 2 < n) __builtin_prefetch(job->rows.a + job->ids[first + k + 2] * job->rows.stride + column);
        memcpy(to + k * job->stride, row, (size_t)cols * sizeof *to);
    }
}

// Block (i, j) of the partial Gram matrix, i >= j in tiles, and for i = j the sums over these columns.
static void tile(const struct job *job, int64_t i, int64_t j, double *gathered) {
    int64_t cols = job->rows.cols, at_i = i * TILE, at_j = j * TILE;
    int64_t wide_i = min_i64(TILE, cols - at_i), wide_j = min_i64(TILE, cols - at_j);
    int64_t padded = min_i64(TILE, (cols + 7) / 8 * 8 - at_i);
    int64_t step = job->ids ? CHUNK : SLAB;
    double *to = job->partial ? job->partial + at_i * cols + at_j : NULL;
    for (int64_t first = job->first; first < job->first + job->n; first += step) {
        int64_t n = min_i64(step, job->first + job->n - first), stride = job->rows.stride;
        const double *a = job->rows.a + first * stride + at_i, *b = job->rows.a + first * stride + at_j;
        if (job->ids) {
            stride = job->stride;
            gather(gathered, job, first, n, at_i, padded);
            if (i != j) gather(gathered + CHUNK * stride, job, first, n, at_j, wide_j);
            a = gathered, b = gathered + CHUNK * stride;
        }
        double beta = first == job->first ? 0 : 1;
        if (to && i == j)
            cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)wide_i, (int)n, 1, a, (int)stride, beta, to,
                        (int)cols);
        else if (to)
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)wide_i, (int)wide_j, (int)n, 1, a, (int)stride, b,
                        (int)stride, beta, to, (int)cols);
        for (int s = 0; i == j && job->sums && s < job->sums->n; s++) {
            double *sum = job->partial_sums + s * ((cols + 7) / 8 * 8) + at_i;
            for (int64_t k = 0; k < n; k++) row_add(sum, job->sums->weight[s][first + k], a + k * stride, padded);
        }
    }
}

static void add_up(double *gram, double sign, const struct gram_scratch *s, int64_t parts) {
    int64_t cols = s->cols;
#pragma omp parallel for schedule(static) if (cols > 64)
    for (int64_t i = 0; i < cols; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t p = 0; p < parts; p++) sum += s->partial[(p * cols + i) * cols + j];
            gram[i * cols + j] += sign * sum;
            gram[j * cols + i] = gram[i * cols + j];
        }
}

void gram_add(double *gram, double sign, struct gram_rows rows, const int64_t *ids, int64_t n_ids,
              const struct gram_sums *sums, struct gram_scratch *s) {
    REQUIRE(rows.cols == s->cols || rows.cols == 0, "scratch of another size");
    REQUIRE(!sums || sums->n <= SUMS, "too many sums");
    if (n_ids == 0 || rows.cols == 0) return;
    int64_t cols = rows.cols, padded = (cols + 7) / 8 * 8, tiles = (cols + TILE - 1) / TILE;
    int64_t parts = min_i64(s->parts, max_i64(1, n_ids / PART_LEAST)), per_part = (n_ids + parts - 1) / parts;
    int64_t tasks = parts * tiles * tiles, stride = min_i64(TILE, padded);
    if (sums) memset(s->sums, 0, (size_t)(parts * SUMS * padded) * sizeof *s->sums);
#pragma omp parallel for schedule(dynamic) if (tasks > 1 && n_ids * cols > 32768)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t p = task / (tiles * tiles), i = task / tiles % tiles, j = task % tiles;
        if (j > i || p * per_part >= n_ids || (!gram && i != j)) continue;
        struct job job = {rows,
                          ids,
                          sums,
                          p * per_part,
                          min_i64(per_part, n_ids - p * per_part),
                          stride,
                          gram ? s->partial + p * cols * cols : NULL,
                          s->sums + p * SUMS * padded};
        tile(&job, i, j, s->gathered + omp_get_thread_num() * 2 * CHUNK * stride);
    }
    parts = (n_ids + per_part - 1) / per_part;
    if (gram) add_up(gram, sign, s, parts);
    for (int k = 0; sums && k < sums->n; k++)
        for (int64_t p = 0; p < parts; p++) row_add(sums->sum[k], 1, s->sums + (p * SUMS + k) * padded, padded);
}

// ---- systems

enum status solver_new(struct solver *solver, int64_t size) {
    enum status status = STATUS_OK;
    *solver = (struct solver){.size = size};
    void *p = NULL;
    TRY(mem_buffer_new(size * size * 8, "a factor of the Gram matrix", &p));
    solver->factor = p;
    TRY(mem_buffer_new((3 * size + 8) * 8, "work of a solver", &p));
    solver->values = p;
    solver->work = solver->values + size;
done:
    if (status != STATUS_OK) solver_free(solver);
    return status;
}

void solver_free(struct solver *solver) {
    mem_buffer_free(solver->factor);
    mem_buffer_free(solver->values);
    *solver = (struct solver){0};
}

bool solver_try(struct solver *solver, const double *gram) {
    int64_t size = solver->size;
    if (size == 0) return true;
    memcpy(solver->factor, gram, (size_t)(size * size) * sizeof *gram);
    // Column-major upper is row-major lower.
    if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (int)size, solver->factor, (int)size) != 0) return false;
    double smallest = INFINITY, largest = 0;
    for (int64_t i = 0; i < size; i++) {
        double d = solver->factor[i * size + i];
        smallest = fmin(smallest, d), largest = fmax(largest, d);
    }
    solver->rank = size;
    return smallest > 1e-6 * largest;
}

enum status solver_factor(struct solver *solver, const double *gram) {
    enum status status = STATUS_OK;
    if (solver_try(solver, gram)) return STATUS_OK;
    int64_t size = solver->size;
    memcpy(solver->factor, gram, (size_t)(size * size) * sizeof *gram);
    TRY(symmetric_eigen(solver->factor, size, solver->values));
    solver->rank = 0;
    for (int64_t k = 0; k < size; k++) {
        if (solver->values[k] > 1e-12 * solver->values[0]) solver->rank = k + 1;
    }
    // A full rank beside a failed Cholesky would be read as Cholesky: the weakest direction counts as dropped.
    if (solver->rank == size) solver->rank = size - 1;
done:
    return status;
}

void solver_solve(const struct solver *solver, const double *b, double *x) {
    int64_t size = solver->size;
    if (size == 0) return;
    if (solver->rank == size) {
        if (x != b) memcpy(x, b, (size_t)size * sizeof *x);
        cblas_dtrsv(CblasRowMajor, CblasLower, CblasNoTrans, CblasNonUnit, (int)size, solver->factor, (int)size, x, 1);
        cblas_dtrsv(CblasRowMajor, CblasLower, CblasTrans, CblasNonUnit, (int)size, solver->factor, (int)size, x, 1);
        return;
    }
    double *t = solver->work;
    if (solver->rank == 0) {
        memset(x, 0, (size_t)size * sizeof *x);
        return;
    }
    cblas_dgemv(CblasRowMajor, CblasNoTrans, (int)solver->rank, (int)size, 1, solver->factor, (int)size, b, 1, 0, t, 1);
    for (int64_t k = 0; k < solver->rank; k++) t[k] /= solver->values[k];
    cblas_dgemv(CblasRowMajor, CblasTrans, (int)solver->rank, (int)size, 1, solver->factor, (int)size, t, 1, 0, x, 1);
}

void solver_leverage(const struct solver *solver, double *rows, int64_t n, int64_t stride, double *out) {
    int64_t size = solver->size;
    if (solver->rank == size && size > 0 && n > 0)
        cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (int)n, (int)size, 1,
                    solver->factor, (int)size, rows, (int)stride);
    for (int64_t i = 0; i < n; i++) {
        const double *a = rows + i * stride;
        double sum = 0;
        if (solver->rank == size) {
            for (int64_t k = 0; k < size; k++) sum += a[k] * a[k];
        } else {
            for (int64_t k = 0; k < solver->rank; k++) {
                double t = cblas_ddot((int)size, solver->factor + k * size, 1, a, 1);
                sum += t * t / solver->values[k];
            }
        }
        out[i] = sum;
    }
}

double solver_norm(const struct solver *solver, const double *other, double *v, int steps) {
    int64_t size = solver->size;
    double norm = 0, *t = solver->work + size;
    for (int s = 0; s < steps && size > 0; s++) {
        double length = cblas_dnrm2((int)size, v, 1);
        if (!(length > 1e-150))
            for (int64_t k = 0; k < size; k++) v[k] = 1 + (double)(k * 7919 % 101) / 101;
        length = cblas_dnrm2((int)size, v, 1);
        cblas_dscal((int)size, 1 / length, v, 1);
        if (other)
            cblas_dsymv(CblasRowMajor, CblasLower, (int)size, 1, other, (int)size, v, 1, 0, t, 1);
        else
            memcpy(t, v, (size_t)size * sizeof *t);
        solver_solve(solver, t, v);
        norm = cblas_dnrm2((int)size, v, 1);
    }
    return norm;
}

enum status symmetric_eigen(double *gram, int64_t size, double *values) {
    if (size == 0) return STATUS_OK;
    if (LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (int)size, gram, (int)size, values) != 0)
        return status_set(STATUS_INVALID, "the eigenvalues of a %lld x %lld Gram matrix do not converge",
                          (long long)size, (long long)size);
    for (int64_t k = 0; k < size / 2; k++) { // rising to falling; eigenvectors are rows of the row-major matrix
        double swap = values[k];
        values[k] = values[size - 1 - k], values[size - 1 - k] = swap;
        cblas_dswap((int)size, gram + k * size, 1, gram + (size - 1 - k) * size, 1);
    }
    return STATUS_OK;
}
