#include "data/bit_stream.h"

void bit_stream_pack(const uint8_t *numbers, int64_t n, int bits, uint8_t *bytes) {
    uint32_t waiting = 0;
    int n_waiting = 0;
    for (int64_t i = 0; i < n; i++) {
        waiting |= (uint32_t)numbers[i] << n_waiting;
        for (n_waiting += bits; n_waiting >= 8; n_waiting -= 8, waiting >>= 8) *bytes++ = (uint8_t)waiting;
    }
    if (n_waiting) *bytes = (uint8_t)waiting;
}

void bit_stream_unpack(const uint8_t *bytes, int64_t n, int bits, uint8_t *numbers) {
    uint32_t waiting = 0, mask = (1u << bits) - 1;
    int n_waiting = 0;
    for (int64_t i = 0; i < n; i++) {
        if (n_waiting < bits) waiting |= (uint32_t)*bytes++ << n_waiting, n_waiting += 8;
        numbers[i] = (uint8_t)(waiting & mask);
        waiting >>= bits, n_waiting -= bits;
    }
}
