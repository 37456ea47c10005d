// Helpers of the shape rules; used by core/ops/*.c only.
#ifndef DQ_CORE_OPS_SHAPE_H
#define DQ_CORE_OPS_SHAPE_H

#include "core/ops/op.h"

#define OP(op)                                                                                                         \
    const char *op##_check(const struct op_call *call);                                                                \
    double op##_flops(const struct op_call *call);
#include "core/ops/op_list.h"
#undef OP

// A rule is a list of WANT(condition, "what is wrong"), ended by `return NULL`.
#define WANT(condition, text)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) return text;                                                                                 \
    } while (0)

static inline bool is_matrix(struct view v, enum dtype dtype) {
    return v.rows > 0 && v.cols > 0 && v.stride >= v.cols && v.dtype == dtype;
}
static inline bool is_f32(struct view v) { return is_matrix(v, DTYPE_F32); }
// What ops compute with: F32 or BF16, arithmetic inside is fp32 at least.
static inline bool is_float(struct view v) { return is_matrix(v, DTYPE_F32) || is_matrix(v, DTYPE_BF16); }
static inline bool is_shape(struct view v, int64_t rows, int64_t cols) { return v.rows == rows && v.cols == cols; }
static inline bool is_f32_shape(struct view v, int64_t rows, int64_t cols) {
    return is_f32(v) && is_shape(v, rows, cols);
}
// Of the dtype of `like`.
static inline bool is_same_float(struct view v, struct view like) { return is_float(v) && v.dtype == like.dtype; }
static inline bool is_same_float_shape(struct view v, struct view like, int64_t rows, int64_t cols) {
    return is_same_float(v, like) && is_shape(v, rows, cols);
}
static inline bool is_like(struct view v, struct view like) {
    return is_same_float(v, like) && view_same_shape(v, like);
}
static inline bool is_column(struct view v, enum dtype dtype, int64_t rows) {
    return is_matrix(v, dtype) && is_shape(v, rows, 1);
}
static inline bool is_absent(struct view v) { return v.rows == 0; }
static inline double elements(struct view v) { return (double)view_count(v); }

#endif
