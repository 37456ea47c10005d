// matmul and sample_products: left to the device's library (core/cuda/blas.cuh).
#include "core/cuda/blas.cuh"

extern "C" enum status cuda_matmul(struct backend *backend, const struct op_call *call) {
    const struct matmul_params *p = &call->params.matmul;
    return blas_product(cuda_state_of(backend)->blas, call->in[0], p->transpose_a, call->in[1], p->transpose_b,
                        call->out[0], call->accumulate);
}

extern "C" enum status cuda_sample_products(struct backend *backend, const struct op_call *call) {
    int64_t samples = call->out[0].rows / call->in[0].cols;
    return blas_sample_products(cuda_state_of(backend)->blas, samples, call->in[0], call->in[1], call->out[0],
                                call->accumulate);
}
