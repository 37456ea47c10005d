#include "data/gguf_blocks.h"

#include "core/tensor/dtype.h"

#include <math.h>
#include <string.h>

struct gguf_type_facts gguf_type_facts_of(int64_t type) {
    switch (type) {
    case GGUF_F32: return (struct gguf_type_facts){"F32", 1, 4};
    case GGUF_F16: return (struct gguf_type_facts){"F16", 1, 2};
    case GGUF_BF16: return (struct gguf_type_facts){"BF16", 1, 2};
    case GGUF_Q4_0: return (struct gguf_type_facts){"Q4_0", 32, 18};
    case GGUF_Q4_1: return (struct gguf_type_facts){"Q4_1", 32, 20};
    case GGUF_Q8_0: return (struct gguf_type_facts){"Q8_0", 32, 34};
    case GGUF_Q3_K: return (struct gguf_type_facts){"Q3_K", 256, 110};
    case GGUF_MXFP4: return (struct gguf_type_facts){"MXFP4", 32, 17};
    default: return (struct gguf_type_facts){0};
    }
}

static void half_put(uint16_t half, uint8_t *out) { out[0] = (uint8_t)half, out[1] = (uint8_t)(half >> 8); }
static float half_get(const uint8_t *from) { return fp16_to_float((uint16_t)(from[0] | from[1] << 8)); }

// Byte j holds weight j in its low and weight j + 16 in its high half.
static void nibbles_put(const uint8_t q[32], uint8_t out[16]) {
    for (int j = 0; j < 16; j++) out[j] = (uint8_t)(q[j] | q[j + 16] << 4);
}

void gguf_q4_0_pack(uint16_t d, const uint8_t q[32], uint8_t out[18]) {
    half_put(d, out);
    nibbles_put(q, out + 2);
}

void gguf_q4_1_pack(uint16_t d, uint16_t m, const uint8_t q[32], uint8_t out[20]) {
    half_put(d, out);
    half_put(m, out + 2);
    nibbles_put(q, out + 4);
}

void gguf_q8_0_pack(uint16_t d, const int8_t q[32], uint8_t out[34]) {
    half_put(d, out);
    memcpy(out + 2, q, 32);
}

void gguf_mxfp4_pack(uint8_t e, const uint8_t codes[32], uint8_t out[17]) {
    out[0] = e;
    nibbles_put(codes, out + 1);
}

// hmask[32], qs[64], scales[12], d. Weight e: its two low bits in qs[e / 128 * 32 + e % 32] at 2 (e / 32 % 4), its high
// bit in hmask[e % 32] at e / 32. Scale i: low half in byte i % 8 (second half of the byte for i >= 8), two high bits in
// byte 8 + i % 4 at 2 (i / 4).
void gguf_q3_k_pack(uint16_t d, const uint8_t sc[16], const uint8_t q[256], uint8_t out[110]) {
    uint8_t *hmask = out, *qs = out + 32, *scales = out + 96;
    memset(out, 0, 110);
    for (int e = 0; e < 256; e++) {
        qs[e / 128 * 32 + e % 32] |= (uint8_t)((q[e] & 3) << 2 * (e / 32 % 4));
        hmask[e % 32] |= (uint8_t)((q[e] >> 2) << (e / 32));
    }
    for (int i = 0; i < 16; i++) {
        scales[i % 8] |= (uint8_t)((sc[i] & 15) << 4 * (i / 8));
        scales[8 + i % 4] |= (uint8_t)((sc[i] >> 4) << 2 * (i / 4));
    }
    half_put(d, out + 108);
}

static void q3_k_floats(const uint8_t *block, float *out) {
    const uint8_t *hmask = block, *qs = block + 32, *scales = block + 96;
    float d = half_get(block + 108);
    for (int e = 0; e < 256; e++) {
        int i = e / 16;
        int sc = (scales[i % 8] >> 4 * (i / 8) & 15) | (scales[8 + i % 4] >> 2 * (i / 4) & 3) << 4;
        int q = (qs[e / 128 * 32 + e % 32] >> 2 * (e / 32 % 4) & 3) | (hmask[e % 32] >> (e / 32) & 1) << 2;
        out[e] = d * (float)(sc - 32) * (float)(q - 4);
    }
}

static void small_block_floats(enum gguf_type type, const uint8_t *block, float *out) {
    static const float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    float d = type == GGUF_MXFP4 ? ldexpf(1, block[0] - 127) : half_get(block);
    const uint8_t *q = block + (type == GGUF_MXFP4 ? 1 : type == GGUF_Q4_1 ? 4 : 2);
    for (int j = 0; j < 32; j++) {
        int nibble = q[j % 16] >> 4 * (j / 16) & 15;
        switch (type) {
        case GGUF_Q4_0: out[j] = d * (float)(nibble - 8); break;
        case GGUF_Q4_1: out[j] = d * (float)nibble + half_get(block + 2); break;
        case GGUF_MXFP4: out[j] = d * e2m1[nibble]; break;
        default: out[j] = d * (float)(int8_t)q[j];
        }
    }
}

void gguf_to_float(enum gguf_type type, const uint8_t *bytes, int64_t n, float *out) {
    struct gguf_type_facts facts = gguf_type_facts_of(type);
    if (facts.weights == 1) {
        dtype_to_float(type == GGUF_F32 ? DTYPE_F32 : type == GGUF_F16 ? DTYPE_F16 : DTYPE_BF16, bytes, out, n);
        return;
    }
    for (int64_t i = 0; i < n / facts.weights; i++) {
        const uint8_t *block = bytes + i * facts.bytes;
        if (type == GGUF_Q3_K)
            q3_k_floats(block, out + i * facts.weights);
        else
            small_block_floats(type, block, out + i * facts.weights);
    }
}
