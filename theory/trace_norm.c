#include "theory/trace_norm.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <lapacke.h>

#include <math.h>

enum status trace_norm_error(const double *rows, int64_t m, const double *lambda, int64_t n, double *norm) {
    REQUIRE(m >= 1 && n >= 1 && m <= INT32_MAX, "sizes of LAPACK");
    if (n > TRACE_NORM_MOST)
        return status_set(STATUS_UNSUPPORTED, "trace norm: n = %lld, at most %d can be decomposed directly",
                          (long long)n, TRACE_NORM_MOST);
    enum status status = STATUS_OK;
    void *buffer = NULL, *values = NULL;
    TRY(mem_buffer_new(n * n * (int64_t)sizeof(double), "covariance", &buffer));
    TRY(mem_buffer_new(n * (int64_t)sizeof(double), "eigenvalues", &values));
    double *error = buffer, sum = 0;
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)n, (int)m, 1 / (double)m, rows, (int)n, 0, error, (int)n);
    for (int64_t k = 0; k < n; k++) error[k * n + k] -= lambda[k];
    lapack_int info = LAPACKE_dsyev(LAPACK_COL_MAJOR, 'N', 'L', (lapack_int)n, error, (lapack_int)n, values);
    if (info != 0) TRY(status_set(STATUS_INVALID, "trace norm: eigenvalues were not found (dsyev %d)", (int)info));
    for (int64_t k = 0; k < n; k++) sum += fabs(((double *)values)[k]);
    *norm = sum;
done:
    mem_buffer_free(buffer);
    mem_buffer_free(values);
    return status;
}
