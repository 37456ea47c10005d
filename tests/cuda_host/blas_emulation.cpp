// blas.cuh by CBLAS, in double or in fp32; bf16 operands are converted first, so that sums are in fp32 as on the GPU, in another order.
#include "tests/cuda_host/device_memory.h"

#include "core/base/mem.h"
#include "core/cuda/blas.cuh"

#include <cblas.h>
#include <stdlib.h>
#include <vector>

struct blas {
    char unused;
};

extern "C" enum status blas_open(struct device *, struct blas **out) {
    *out = (struct blas *)mem_new(1, sizeof **out);
    return STATUS_OK;
}

extern "C" void blas_close(struct blas *blas) { free(blas); }

static std::vector<float> floats_of(struct view v) {
    std::vector<float> all((size_t)view_count(v));
    for (int64_t i = 0; i < v.rows; i++)
        dtype_to_float(v.dtype, (const char *)v.data + i * v.stride * dtype_bytes(v.dtype), &all[(size_t)(i * v.cols)],
                       v.cols);
    return all;
}

extern "C" enum status blas_product(struct blas *, struct view a, bool transpose_a, struct view b, bool transpose_b,
                                    struct view y, bool accumulate) {
    device_memory_open();
    std::vector<float> left = floats_of(a), right = floats_of(b), product;
    if (accumulate)
        product = floats_of(y);
    else
        product.resize((size_t)view_count(y));
    cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
                (int)y.rows, (int)y.cols, (int)(transpose_a ? a.rows : a.cols), 1, left.data(), (int)a.cols,
                right.data(), (int)b.cols, accumulate ? 1 : 0, product.data(), (int)y.cols);
    for (int64_t i = 0; i < y.rows; i++)
        dtype_from_float(y.dtype, &product[(size_t)(i * y.cols)], (char *)y.data + i * y.stride * dtype_bytes(y.dtype),
                         y.cols);
    device_memory_close();
    return STATUS_OK;
}

extern "C" enum status blas_sample_products(struct blas *blas, int64_t samples, struct view a, struct view b,
                                            struct view y, bool accumulate) {
    enum status status = STATUS_OK;
    int64_t inner = a.rows / samples, rows = y.rows / samples;
    for (int64_t s = 0; s < samples; s++)
        TRY(blas_product(blas, view_rows(a, s * inner, inner), true, view_rows(b, s * inner, inner), false,
                         view_rows(y, s * rows, rows), accumulate));
done:
    return status;
}

static CBLAS_TRANSPOSE transposed(bool yes) { return yes ? CblasTrans : CblasNoTrans; }

extern "C" enum status blas_double_product(struct blas *, double factor, struct view a, bool transpose_a, struct view b,
                                           bool transpose_b, struct view y, bool accumulate) {
    device_memory_open();
    cblas_dgemm(CblasRowMajor, transposed(transpose_a), transposed(transpose_b), (int)y.rows, (int)y.cols,
                (int)(transpose_a ? a.rows : a.cols), factor, (const double *)a.data, (int)a.stride,
                (const double *)b.data, (int)b.stride, accumulate ? 1 : 0, (double *)y.data, (int)y.stride);
    device_memory_close();
    return STATUS_OK;
}

extern "C" enum status blas_gram(struct blas *, double factor, struct view a, struct view y, bool accumulate) {
    device_memory_open();
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (int)a.cols, (int)a.rows, factor, (const double *)a.data,
                (int)a.stride, accumulate ? 1 : 0, (double *)y.data, (int)y.stride);
    device_memory_close();
    return STATUS_OK;
}

extern "C" enum status blas_triangle_solve(struct blas *, struct view a, struct view y) {
    device_memory_open();
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)y.rows, (int)y.cols, 1,
                (const double *)a.data, (int)a.stride, (double *)y.data, (int)y.stride);
    device_memory_close();
    return STATUS_OK;
}
