// eigh, cholesky, svd by LAPACK, one thread: the same bits for any number of threads.
//
// LAPACK counts columns where views count rows: a row-major matrix is the column-major one of its transpose, with the
// row stride as leading dimension. A symmetric matrix is its own transpose, so columns of eigenvectors come out as rows,
// and the lower triangle is LAPACK's upper one; the SVD of a^T = v s u^T has u and v^T in the places of v and u^T.
#include "core/cpu/cpu.h"

#include "core/base/mem.h"

#include <lapacke.h>
#include <limits.h>
#include <math.h>

#undef I // of <complex.h>

static bool fits(struct view v) { return v.rows <= INT_MAX && v.cols <= INT_MAX && v.stride <= INT_MAX; }

// LAPACK's integers have 32 bits, sizes of its work space included.
static enum status too_large(const char *op, struct view a) {
    return status_set(STATUS_UNSUPPORTED, "%s: a matrix of %lld x %lld is too large for LAPACK's 32-bit integers", op,
                      (long long)a.rows, (long long)a.cols);
}

static enum status check_finite(const char *op, struct view a, bool lower) {
    for (int64_t i = 0; i < a.rows; i++)
        for (int64_t j = 0; j < (lower ? i + 1 : a.cols); j++)
            if (!isfinite(view_f64(a, i)[j]))
                return status_set(STATUS_INVALID, "%s: the matrix has a number that is not finite", op);
    return STATUS_OK;
}

// Values into a column, whose rows may lie apart.
static void values_put(const double *values, struct view column) {
    for (int64_t i = 0; i < column.rows; i++) *view_f64(column, i) = values[i];
}

static enum status no_convergence(const char *op, lapack_int info) {
    return status_set(STATUS_INVALID, "%s: no convergence (LAPACK's info %d)", op, (int)info);
}

enum status cpu_eigh(struct backend *backend, const struct op_call *call) {
    (void)backend;
    enum status status = STATUS_OK;
    struct view a = call->in[0];
    int64_t n = a.rows, work_size = 1 + 6 * n + 2 * n * n, integers = 3 + 5 * n; // least sizes
    void *values = NULL, *work = NULL, *integer_work = NULL;
    if (!fits(a) || work_size > INT_MAX) return too_large("eigh", a);
    TRY(check_finite("eigh", a, true));
    TRY(mem_buffer_new(n * 8, "work space of eigh", &values));
    TRY(mem_buffer_new(work_size * 8, "work space of eigh", &work));
    TRY(mem_buffer_new(integers * (int64_t)sizeof(lapack_int), "work space of eigh", &integer_work));
    lapack_int info = LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'U', (lapack_int)n, a.data, (lapack_int)a.stride,
                                          values, work, (lapack_int)work_size, integer_work, (lapack_int)integers);
    REQUIRE(info >= 0, "arguments of dsyevd");
    values_put(values, call->out[0]);
    if (info > 0) status = no_convergence("eigh", info);
done:
    mem_buffer_free(values);
    mem_buffer_free(work);
    mem_buffer_free(integer_work);
    return status;
}

enum status cpu_cholesky(struct backend *backend, const struct op_call *call) {
    (void)backend;
    struct view a = call->in[0];
    if (!fits(a)) return too_large("cholesky", a);
    enum status status = check_finite("cholesky", a, true);
    if (status != STATUS_OK) return status;
    lapack_int info = LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (lapack_int)a.rows, a.data, (lapack_int)a.stride);
    REQUIRE(info >= 0, "arguments of dpotrf");
    for (int64_t i = 0; i < a.rows; i++)
        for (int64_t j = i + 1; j < a.cols; j++) view_f64(a, i)[j] = 0;
    if (info > 0)
        return status_set(STATUS_INVALID,
                          "cholesky: the matrix is not positive definite, its leading minor of size %d is not",
                          (int)info);
    return STATUS_OK;
}

enum status cpu_svd(struct backend *backend, const struct op_call *call) {
    (void)backend;
    enum status status = STATUS_OK;
    struct view a = call->in[0], u = call->out[1], vt = call->out[2];
    int64_t k = a.rows < a.cols ? a.rows : a.cols, longer = a.rows + a.cols - k;
    void *values = NULL, *work = NULL, *integer_work = NULL;
    // Least size for 's' (dgesdd), and room for blocks of 64.
    int64_t least = 4 * k * k + 7 * k + longer + 64 * (longer + 3 * k);
    if (!fits(a) || !fits(u) || !fits(vt) || least > INT_MAX) return too_large("svd", a);
    TRY(check_finite("svd", a, false));
    TRY(mem_buffer_new(k * 8, "work space of svd", &values));
    TRY(mem_buffer_new(least * 8, "work space of svd", &work));
    TRY(mem_buffer_new(8 * k * (int64_t)sizeof(lapack_int), "work space of svd", &integer_work));
    lapack_int info = LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, 'S', (lapack_int)a.cols, (lapack_int)a.rows, a.data,
                                          (lapack_int)a.stride, values, vt.data, (lapack_int)vt.stride, u.data,
                                          (lapack_int)u.stride, work, (lapack_int)least, integer_work);
    REQUIRE(info >= 0, "arguments of dgesdd");
    values_put(values, call->out[0]);
    if (info > 0) status = no_convergence("svd", info);
done:
    mem_buffer_free(values);
    mem_buffer_free(work);
    mem_buffer_free(integer_work);
    return status;
}
