// Factorizations of the device's library: cuSOLVER (solver.cu), or LAPACKE in the emulation (tests/cuda_host).
//
// As LAPACK has them: column-major, doubles, memory on the device, `info` on the host: 0, or what was not possible. They
// wait for the device.
#ifndef DQ_CORE_CUDA_SOLVER_CUH
#define DQ_CORE_CUDA_SOLVER_CUH

#include "core/cuda/device.cuh"

struct solver;

extern "C" {

enum status solver_open(struct device *device, struct solver **out) CUDA_SYMBOL(solver_open);
void solver_close(struct solver *solver) CUDA_SYMBOL(solver_close); // accepts NULL; before the device is closed

// Symmetric a [n, n], read in its upper triangle: columns become eigenvectors, values [n] ascending.
enum status solver_eigh(struct solver *solver, int64_t n, double *a, int64_t lda, double *values, int *info)
    CUDA_SYMBOL(solver_eigh);

// Upper triangle of a [n, n]: u with u^T u = a. info k: the leading minor of size k is not positive definite.
enum status solver_cholesky(struct solver *solver, int64_t n, double *a, int64_t lda, int *info)
    CUDA_SYMBOL(solver_cholesky);

// a [m, n], m >= n, which is lost: values [n] descending, u [m, n], vt [n, n].
enum status solver_svd(struct solver *solver, int64_t m, int64_t n, double *a, int64_t lda, double *values, double *u,
                       int64_t ldu, double *vt, int64_t ldvt, int *info) CUDA_SYMBOL(solver_svd);
}

#endif
