// Products by cuBLAS: bf16 or fp32 operands with sums in fp32 (never TF32), or doubles; no atomics and one fixed workspace, so that a product
// of one shape has the same bits each time. cuBLAS is column-major: y = a b is asked for as y^T = b^T a^T.
#include "core/cuda/blas.cuh"

#include "core/base/mem.h"

#include <cublas_v2.h>
#include <stdlib.h>

enum { WORKSPACE_BYTES = 32 << 20 }; // what NVIDIA recommends for Hopper

struct blas {
    struct device *device;
    cublasHandle_t handle;
    void *workspace;
};

static enum status failed(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) return STATUS_OK;
    return status_set(STATUS_DEVICE, "cuBLAS failed at %s: %s", what, cublasGetStatusString(status));
}

extern "C" enum status blas_open(struct device *device, struct blas **out) {
    enum status status = STATUS_OK;
    struct blas *blas = (struct blas *)mem_new(1, sizeof *blas);
    cublasMath_t math = (cublasMath_t)(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    blas->device = device;
    TRY(failed(cublasCreate(&blas->handle), "opening"));
    TRY(device_alloc(device, WORKSPACE_BYTES, "workspace of cuBLAS", &blas->workspace));
    TRY(failed(cublasSetStream(blas->handle, device_stream(device)), "setting its stream"));
    TRY(failed(cublasSetWorkspace(blas->handle, blas->workspace, WORKSPACE_BYTES), "setting its workspace"));
    TRY(failed(cublasSetMathMode(blas->handle, math), "setting its precision"));
    TRY(failed(cublasSetAtomicsMode(blas->handle, CUBLAS_ATOMICS_NOT_ALLOWED), "turning off atomics"));
    *out = blas;
    blas = NULL;
done:
    blas_close(blas);
    return status;
}

extern "C" void blas_close(struct blas *blas) {
    if (!blas) return;
    if (blas->handle) cublasDestroy(blas->handle);
    device_free(blas->device, blas->workspace);
    free(blas);
}

static cudaDataType_t type_of(struct view v) { return v.dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

extern "C" enum status blas_product(struct blas *blas, struct view a, bool transpose_a, struct view b, bool transpose_b,
                                    struct view y, bool accumulate) {
    float one = 1, beta = accumulate ? 1.0f : 0.0f;
    int64_t inner = transpose_a ? a.rows : a.cols;
    return failed(cublasGemmEx_64(blas->handle, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, y.cols, y.rows, inner, &one, b.data,
                                  type_of(b), b.stride, a.data, type_of(a), a.stride, &beta, y.data, type_of(y),
                                  y.stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                  "a product");
}

extern "C" enum status blas_sample_products(struct blas *blas, int64_t samples, struct view a, struct view b,
                                            struct view y, bool accumulate) {
    float one = 1, beta = accumulate ? 1.0f : 0.0f;
    int64_t inner = a.rows / samples, rows = y.rows / samples;
    return failed(cublasGemmStridedBatchedEx_64(blas->handle, CUBLAS_OP_N, CUBLAS_OP_T, y.cols, rows, inner, &one,
                                                b.data, type_of(b), b.stride, inner * b.stride, a.data, type_of(a),
                                                a.stride, inner * a.stride, &beta, y.data, CUDA_R_32F, y.stride,
                                                rows * y.stride, samples, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                  "products of samples");
}

// Row-major lower triangles are column-major upper ones, and y = a b is y^T = b^T a^T here too.
extern "C" enum status blas_double_product(struct blas *blas, double factor, struct view a, bool transpose_a,
                                           struct view b, bool transpose_b, struct view y, bool accumulate) {
    double beta = accumulate ? 1 : 0;
    int64_t inner = transpose_a ? a.rows : a.cols;
    return failed(cublasDgemm_64(blas->handle, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                 transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, y.cols, y.rows, inner, &factor,
                                 (const double *)b.data, b.stride, (const double *)a.data, a.stride, &beta,
                                 (double *)y.data, y.stride),
                  "a product of doubles");
}

extern "C" enum status blas_gram(struct blas *blas, double factor, struct view a, struct view y, bool accumulate) {
    double beta = accumulate ? 1 : 0;
    return failed(cublasDsyrk_64(blas->handle, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, a.cols, a.rows, &factor,
                                 (const double *)a.data, a.stride, &beta, (double *)y.data, y.stride),
                  "a Gram matrix");
}

// y^T <- y^T a^-T: a^T is upper triangular for cuBLAS.
extern "C" enum status blas_triangle_solve(struct blas *blas, struct view a, struct view y) {
    double one = 1;
    return failed(cublasDtrsm_64(blas->handle, CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N,
                                 CUBLAS_DIAG_NON_UNIT, y.cols, y.rows, &one, (const double *)a.data, a.stride,
                                 (double *)y.data, y.stride),
                  "a triangular system");
}
