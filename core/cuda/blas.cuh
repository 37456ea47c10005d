// Matrix products of the device's library: cuBLAS (blas.cu), or CBLAS in the emulation (tests/cuda_host).
#ifndef DQ_CORE_CUDA_BLAS_CUH
#define DQ_CORE_CUDA_BLAS_CUH

#include "core/cuda/device.cuh"

extern "C" {

enum status blas_open(struct device *device, struct blas **out) CUDA_SYMBOL(blas_open);
void blas_close(struct blas *blas) CUDA_SYMBOL(blas_close); // accepts NULL; before the device is closed

// y (+)= op(a) op(b), op = transpose on request. a, b both F32 or both BF16, y of their type or F32; sums in fp32.
enum status blas_product(struct blas *blas, struct view a, bool transpose_a, struct view b, bool transpose_b,
                         struct view y, bool accumulate) CUDA_SYMBOL(blas_product);

// y_s (+)= a_s^T b_s over `samples` equal parts of the rows of a, b and y; y is F32.
enum status blas_sample_products(struct blas *blas, int64_t samples, struct view a, struct view b, struct view y,
                                 bool accumulate) CUDA_SYMBOL(blas_sample_products);

// y (+)= factor op(a) op(b), F64, sums in double.
enum status blas_double_product(struct blas *blas, double factor, struct view a, bool transpose_a, struct view b,
                                bool transpose_b, struct view y, bool accumulate) CUDA_SYMBOL(blas_double_product);

// F64, lower triangle alone: y (+)= factor a^T a.
enum status blas_gram(struct blas *blas, double factor, struct view a, struct view y, bool accumulate)
    CUDA_SYMBOL(blas_gram);

// y <- a^-1 y, F64, a [n, n] lower triangular.
enum status blas_triangle_solve(struct blas *blas, struct view a, struct view y) CUDA_SYMBOL(blas_triangle_solve);
}

#endif
