#include "theory/theorem3.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <lapacke.h>

#include <math.h>

double theorem3_kept(const double *samples, int64_t m, int64_t n, const double *d) {
    double d2 = 0, worst = 0;
    for (int64_t j = 0; j < n; j++) d2 += d[j] * d[j];
    for (int64_t i = 0; i < m; i++) {
        const double *g = samples + i * n;
        double product = 0, g2 = 0;
        for (int64_t j = 0; j < n; j++) product += g[j] * d[j], g2 += g[j] * g[j];
        if (product != 0) worst = fmax(worst, fabs(product) / sqrt(g2 * d2));
    }
    return worst;
}

int64_t theorem3_integral(const double *x, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += x[i] == 0 || x[i] == 1;
    return count;
}

bool theorem3_is_good(const double *x, int64_t n) { return theorem3_integral(x, n) >= n - n / 2; }

// The Gram matrix of the draws has the same largest eigenvalue and is r by r.
enum status theorem3_covariance(const double *draws, int64_t r, int64_t n, double *norm) {
    REQUIRE(r >= 1 && n >= 1 && r <= 1 << 15 && n <= INT32_MAX, "sizes of LAPACK");
    enum status status = STATUS_OK;
    void *gram = NULL, *values = NULL;
    TRY(mem_buffer_new(r * r * (int64_t)sizeof(double), "Gram matrix", &gram));
    TRY(mem_buffer_new(r * (int64_t)sizeof(double), "eigenvalues", &values));
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, (int)r, (int)n, 1 / (double)r, draws, (int)n, 0, gram, (int)r);
    lapack_int info = LAPACKE_dsyev(LAPACK_COL_MAJOR, 'N', 'L', (lapack_int)r, gram, (lapack_int)r, values);
    if (info != 0) TRY(status_set(STATUS_INVALID, "Theorem 3 (iii): eigenvalues were not found (dsyev %d)", (int)info));
    *norm = ((double *)values)[r - 1];
done:
    mem_buffer_free(gram);
    mem_buffer_free(values);
    return status;
}

double theorem3_inflation(int64_t r, int64_t n) {
    double edge = 1 + sqrt((double)n / (double)r);
    return edge * edge;
}
