// Factorizations by cuSOLVER's 64-bit interface. Work spaces live for one call.
#include "core/cuda/solver.cuh"

#include "core/base/mem.h"

#include <cusolverDn.h>
#include <stdlib.h>

struct solver {
    struct device *device;
    cusolverDnHandle_t handle;
    cusolverDnParams_t params;
    int *info; // on the device
};

struct work {
    size_t device_bytes, host_bytes;
    void *device, *host;
};

static enum status failed(cusolverStatus_t error, const char *what) {
    if (error == CUSOLVER_STATUS_SUCCESS) return STATUS_OK;
    return status_set(STATUS_DEVICE, "cuSOLVER failed at %s: status %d", what, (int)error);
}

extern "C" enum status solver_open(struct device *device, struct solver **out) {
    enum status status = STATUS_OK;
    struct solver *solver = (struct solver *)mem_new(1, sizeof *solver);
    void *info = NULL;
    solver->device = device;
    TRY(failed(cusolverDnCreate(&solver->handle), "opening"));
    TRY(failed(cusolverDnCreateParams(&solver->params), "opening"));
    TRY(failed(cusolverDnSetStream(solver->handle, device_stream(device)), "setting its stream"));
    TRY(failed(cusolverDnSetDeterministicMode(solver->handle, CUSOLVER_DETERMINISTIC_RESULTS), "its mode"));
    TRY(device_alloc(device, sizeof(int), "result of cuSOLVER", &info));
    solver->info = (int *)info;
    *out = solver;
    solver = NULL;
done:
    solver_close(solver);
    return status;
}

extern "C" void solver_close(struct solver *solver) {
    if (!solver) return;
    device_free(solver->device, solver->info);
    if (solver->params) cusolverDnDestroyParams(solver->params);
    if (solver->handle) cusolverDnDestroy(solver->handle);
    free(solver);
}

static enum status work_new(struct solver *solver, struct work *work) {
    enum status status = STATUS_OK;
    TRY(device_alloc(solver->device, (int64_t)work->device_bytes, "work space of cuSOLVER", &work->device));
    TRY(mem_buffer_new((int64_t)work->host_bytes, "work space of cuSOLVER", &work->host));
done:
    return status;
}

static void work_free(struct solver *solver, struct work *work) {
    device_free(solver->device, work->device);
    mem_buffer_free(work->host);
}

// A negative info would be a wrong argument of ours.
static enum status info_read(struct solver *solver, int *info) {
    enum status status = device_read(solver->device, info, solver->info, sizeof *info);
    REQUIRE(status != STATUS_OK || *info >= 0, "arguments of cuSOLVER");
    return status;
}

extern "C" enum status solver_eigh(struct solver *solver, int64_t n, double *a, int64_t lda, double *values,
                                   int *info) {
    enum status status = STATUS_OK;
    struct work work = {};
    TRY(failed(cusolverDnXsyevd_bufferSize(solver->handle, solver->params, CUSOLVER_EIG_MODE_VECTOR,
                                           CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, lda, CUDA_R_64F, values,
                                           CUDA_R_64F, &work.device_bytes, &work.host_bytes),
               "planning syevd"));
    TRY(work_new(solver, &work));
    TRY(failed(cusolverDnXsyevd(solver->handle, solver->params, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, n,
                                CUDA_R_64F, a, lda, CUDA_R_64F, values, CUDA_R_64F, work.device, work.device_bytes,
                                work.host, work.host_bytes, solver->info),
               "syevd"));
    TRY(info_read(solver, info));
done:
    work_free(solver, &work);
    return status;
}

extern "C" enum status solver_cholesky(struct solver *solver, int64_t n, double *a, int64_t lda, int *info) {
    enum status status = STATUS_OK;
    struct work work = {};
    TRY(failed(cusolverDnXpotrf_bufferSize(solver->handle, solver->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a,
                                           lda, CUDA_R_64F, &work.device_bytes, &work.host_bytes),
               "planning potrf"));
    TRY(work_new(solver, &work));
    TRY(failed(cusolverDnXpotrf(solver->handle, solver->params, CUBLAS_FILL_MODE_UPPER, n, CUDA_R_64F, a, lda,
                                CUDA_R_64F, work.device, work.device_bytes, work.host, work.host_bytes, solver->info),
               "potrf"));
    TRY(info_read(solver, info));
done:
    work_free(solver, &work);
    return status;
}

extern "C" enum status solver_svd(struct solver *solver, int64_t m, int64_t n, double *a, int64_t lda, double *values,
                                  double *u, int64_t ldu, double *vt, int64_t ldvt, int *info) {
    enum status status = STATUS_OK;
    struct work work = {};
    TRY(failed(cusolverDnXgesvd_bufferSize(solver->handle, solver->params, 'S', 'S', m, n, CUDA_R_64F, a, lda,
                                           CUDA_R_64F, values, CUDA_R_64F, u, ldu, CUDA_R_64F, vt, ldvt, CUDA_R_64F,
                                           &work.device_bytes, &work.host_bytes),
               "planning gesvd"));
    TRY(work_new(solver, &work));
    TRY(failed(cusolverDnXgesvd(solver->handle, solver->params, 'S', 'S', m, n, CUDA_R_64F, a, lda, CUDA_R_64F, values,
                                CUDA_R_64F, u, ldu, CUDA_R_64F, vt, ldvt, CUDA_R_64F, work.device, work.device_bytes,
                                work.host, work.host_bytes, solver->info),
               "gesvd"));
    TRY(info_read(solver, info));
done:
    work_free(solver, &work);
    return status;
}
