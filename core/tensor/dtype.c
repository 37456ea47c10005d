#include "core/tensor/dtype.h"

#include "core/base/status.h"

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = {"F32", 4}, [DTYPE_F16] = {"F16", 2}, [DTYPE_BF16] = {"BF16", 2}, [DTYPE_F64] = {"F64", 8},
    [DTYPE_I32] = {"I32", 4}, [DTYPE_I64] = {"I64", 8}, [DTYPE_U8] = {"U8", 1},
};

int64_t dtype_bytes(enum dtype dtype) { return dtypes[dtype].bytes; }
const char *dtype_name(enum dtype dtype) { return dtypes[dtype].name; }

float fp16_to_float(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, magnitude = bits & 0x7FFFu;
    if (magnitude >= 0x7C00u) return float_from_bits(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);
    if (magnitude >= 0x400u) return float_from_bits(sign | ((magnitude << 13) + ((127u - 15u) << 23)));
    float tiny = (float)magnitude * 0x1p-24f;
    return sign ? -tiny : tiny;
}

uint16_t fp16_from_float(float value) {
    uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (magnitude >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {
        // Below 2^-14 the result is subnormal: adding 1/2 leaves the multiple of 2^-24 in the low mantissa bits,
        // rounded by the addition itself.
        float shifted = float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (float_to_bits(shifted) - 0x3F000000u));
    }
    uint32_t rounded = magnitude - ((127u - 15u) << 23) + 0xFFFu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | rounded >> 13);
}

// Elements are moved with memcpy because files do not align their tensors.
#define CONVERT_FROM(type, convert)                                                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type element;                                                                                                  \
        memcpy(&element, (const char *)from + i * (int64_t)sizeof element, sizeof element);                            \
        to[i] = convert(element);                                                                                      \
    }                                                                                                                  \
    return

void dtype_to_float(enum dtype dtype, const void *from, float *to, int64_t n) {
    switch (dtype) {
    case DTYPE_F32: memmove(to, from, (size_t)n * sizeof *to); return;
    case DTYPE_F16: CONVERT_FROM(uint16_t, fp16_to_float);
    case DTYPE_BF16: CONVERT_FROM(uint16_t, bf16_to_float);
    case DTYPE_F64: CONVERT_FROM(double, (float));
    default: REQUIRE(0, "not a float dtype");
    }
}

#define CONVERT_TO(type, convert)                                                                                      \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type element = convert(from[i]);                                                                               \
        memcpy((char *)to + i * (int64_t)sizeof element, &element, sizeof element);                                    \
    }                                                                                                                  \
    return

void dtype_from_float(enum dtype dtype, const float *from, void *to, int64_t n) {
    switch (dtype) {
    case DTYPE_F32: memmove(to, from, (size_t)n * sizeof *from); return;
    case DTYPE_F16: CONVERT_TO(uint16_t, fp16_from_float);
    case DTYPE_BF16: CONVERT_TO(uint16_t, bf16_from_float);
    case DTYPE_F64: CONVERT_TO(double, (double));
    default: REQUIRE(0, "not a float dtype");
    }
}
