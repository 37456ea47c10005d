// The blocks of numbers in GGUF files: 32 or 256 consecutive weights of a row with their scales. d, m are fp16.
//
//   Q4_0   18 bytes per 32    d (q - 8)                      q in 0 .. 15
//   Q4_1   20 bytes per 32    d q + m                        q in 0 .. 15
//   Q8_0   34 bytes per 32    d q                            q in -128 .. 127
//   Q3_K  110 bytes per 256   d (sc - 32) (q - 4)            q in 0 .. 7, one sc in 0 .. 63 for 16 weights
//   MXFP4  17 bytes per 32    2^(e - 127) v                  v of E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and negative
//
// Products are exact in float; Q4_1's sum rounds once.
#ifndef DQ_DATA_GGUF_BLOCKS_H
#define DQ_DATA_GGUF_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

// Numbers of the file format.
enum gguf_type {
    GGUF_F32 = 0,
    GGUF_F16 = 1,
    GGUF_Q4_0 = 2,
    GGUF_Q4_1 = 3,
    GGUF_Q8_0 = 8,
    GGUF_Q3_K = 11,
    GGUF_BF16 = 30,
    GGUF_MXFP4 = 39,
};

// Weights and bytes of a block (1 and the element's for floats); name NULL: a type that is not read here.
struct gguf_type_facts {
    const char *name;
    int64_t weights, bytes;
};
struct gguf_type_facts gguf_type_facts_of(int64_t type);

void gguf_q4_0_pack(uint16_t d, const uint8_t q[32], uint8_t out[18]);
void gguf_q4_1_pack(uint16_t d, uint16_t m, const uint8_t q[32], uint8_t out[20]);
void gguf_q8_0_pack(uint16_t d, const int8_t q[32], uint8_t out[34]);
void gguf_q3_k_pack(uint16_t d, const uint8_t sc[16], const uint8_t q[256], uint8_t out[110]);
void gguf_mxfp4_pack(uint8_t e, const uint8_t codes[32], uint8_t out[17]); // codes of E2M1: sign 8, magnitude 0 .. 7

// n weights, whole blocks, of any type read here.
void gguf_to_float(enum gguf_type type, const uint8_t *bytes, int64_t n, float *out);

#endif
