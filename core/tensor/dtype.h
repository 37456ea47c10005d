// Number formats of tensors in files and in memory.
#ifndef DQ_CORE_TENSOR_DTYPE_H
#define DQ_CORE_TENSOR_DTYPE_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_U8,
    DTYPE_COUNT,
};

int64_t dtype_bytes(enum dtype dtype);    // of one element
const char *dtype_name(enum dtype dtype); // as safetensors spells it: "F32", "BF16", …

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bf16_to_float(uint16_t bits) { return float_from_bits((uint32_t)bits << 16); }

// Round to nearest, ties to even; NaN stays NaN.
static inline uint16_t bf16_from_float(float value) {
    uint32_t bits = float_to_bits(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// IEEE binary16, exact in both directions where a value fits; round to nearest even, overflow gives infinity.
float fp16_to_float(uint16_t bits);
uint16_t fp16_from_float(float value);

// n elements of any float dtype at `from` (any alignment) to float. F64 is rounded. Narrower elements may lie in the last bytes
// of `to` itself.
void dtype_to_float(enum dtype dtype, const void *from, float *to, int64_t n);
// n floats to a float dtype at `to` (any alignment); `to` may be `from` unless the dtype is F64.
void dtype_from_float(enum dtype dtype, const float *from, void *to, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
