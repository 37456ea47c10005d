// Small numbers packed without gaps: number i takes bits [i b, (i + 1) b) of the stream, bit k of the stream is bit k % 8
// of byte k / 8. Read as little-endian 32-bit words this is the packing of GPTQ and of compressed-tensors.
#ifndef DQ_DATA_BIT_STREAM_H
#define DQ_DATA_BIT_STREAM_H

#include <stdint.h>

// Bytes of n numbers of `bits` bits, 1 to 8.
static inline int64_t bit_stream_bytes(int64_t n, int bits) { return n / 8 * bits + (n % 8 * bits + 7) / 8; }

// `bytes` [bit_stream_bytes]; what is left of its last byte becomes zero. Numbers must be below 2^bits.
void bit_stream_pack(const uint8_t *numbers, int64_t n, int bits, uint8_t *bytes);
void bit_stream_unpack(const uint8_t *bytes, int64_t n, int bits, uint8_t *numbers);

#endif
