// solver.cuh by LAPACKE.
#include "tests/cuda_host/device_memory.h"

#include "core/base/mem.h"
#include "core/cuda/solver.cuh"

#include <lapacke.h>
#include <stdlib.h>

struct solver {
    char unused;
};

extern "C" enum status solver_open(struct device *, struct solver **out) {
    *out = (struct solver *)mem_new(1, sizeof **out);
    return STATUS_OK;
}

extern "C" void solver_close(struct solver *solver) { free(solver); }

static enum status answer(int result, int *info) {
    device_memory_close();
    REQUIRE(result >= 0, "arguments of LAPACK");
    *info = result;
    return STATUS_OK;
}

extern "C" enum status solver_eigh(struct solver *, int64_t n, double *a, int64_t lda, double *values, int *info) {
    device_memory_open();
    return answer(LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'U', (int)n, a, (int)lda, values), info);
}

extern "C" enum status solver_cholesky(struct solver *, int64_t n, double *a, int64_t lda, int *info) {
    device_memory_open();
    return answer(LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'U', (int)n, a, (int)lda), info);
}

extern "C" enum status solver_svd(struct solver *, int64_t m, int64_t n, double *a, int64_t lda, double *values,
                                  double *u, int64_t ldu, double *vt, int64_t ldvt, int *info) {
    REQUIRE(m >= n, "cuSOLVER has no SVD of a matrix with fewer rows than columns");
    device_memory_open();
    return answer(
        LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (int)m, (int)n, a, (int)lda, values, u, (int)ldu, vt, (int)ldvt), info);
}
