// Where a transformer gets its weights from: named tensors that can be read as floats. Implemented by data/
// (checkpoints) and by tests and benchmarks (random weights).
#ifndef DQ_CORE_NN_TENSOR_SOURCE_H
#define DQ_CORE_NN_TENSOR_SOURCE_H

#include "core/base/status.h"
#include "core/tensor/dtype.h"

struct tensor_source {
    void *self;
    // Reads the whole tensor `name`, which must have the shape [rows, cols] (a vector of `cols` elements has rows = 1),
    // converted to float, into `out`. STATUS_FORMAT names the tensor when it is missing, has another shape or holds
    // NaN or infinity. `dtype` (may be NULL) receives the dtype it is stored in.
    enum status (*read)(void *self, const char *name, int64_t rows, int64_t cols, float *out, enum dtype *dtype);
};

#endif
