// A borrowed rectangle of numbers: what kernels read and write.
//
// Everything the toolkit computes with is a matrix. Outer dimensions collapse into rows: hidden states of B sequences of
// T tokens are [B * T, C], row b * T + t; a vector is [1, n] or [n, 1]. Shapes in comments are row-major, outermost
// first. A row is contiguous; rows may be further apart than their width, so that a view can be a range of columns.
// Views are passed by value and own nothing. `data` belongs to the backend that made it: host code reads it through
// backend_read unless the backend is the CPU.
#ifndef DQ_CORE_TENSOR_VIEW_H
#define DQ_CORE_TENSOR_VIEW_H

#include "core/base/status.h"
#include "core/tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct view {
    void *data;
    int64_t rows, cols;
    int64_t stride; // elements from one row to the next, >= cols
    enum dtype dtype;
};

static inline struct view view_new(void *data, enum dtype dtype, int64_t rows, int64_t cols) {
    struct view v = {data, rows, cols, cols, dtype};
    return v;
}

static inline struct view view_cols(struct view v, int64_t first, int64_t n) {
    REQUIRE(first >= 0 && n >= 0 && first + n <= v.cols, "columns out of range");
    if (v.data) v.data = (char *)v.data + first * dtype_bytes(v.dtype);
    v.cols = n;
    return v;
}

static inline struct view view_rows(struct view v, int64_t first, int64_t n) {
    REQUIRE(first >= 0 && n >= 0 && first + n <= v.rows, "rows out of range");
    if (v.data) v.data = (char *)v.data + first * v.stride * dtype_bytes(v.dtype);
    v.rows = n;
    return v;
}

static inline int64_t view_count(struct view v) { return v.rows * v.cols; }
static inline bool view_is_contiguous(struct view v) { return v.stride == v.cols || v.rows <= 1; }
static inline bool view_same_shape(struct view a, struct view b) { return a.rows == b.rows && a.cols == b.cols; }

// Row i of a host view, as the type the dtype says.
static inline float *view_f32(struct view v, int64_t row) { return (float *)v.data + row * v.stride; }
static inline double *view_f64(struct view v, int64_t row) { return (double *)v.data + row * v.stride; }
static inline int32_t *view_i32(struct view v, int64_t row) { return (int32_t *)v.data + row * v.stride; }

#endif
