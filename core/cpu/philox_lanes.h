// Several blocks of a random stream at once: the words of core/base/philox.h, eight blocks in the 64-bit lanes of AVX-512.
#ifndef DQ_CORE_CPU_PHILOX_LANES_H
#define DQ_CORE_CPU_PHILOX_LANES_H

#include "core/base/philox.h"
#include "core/base/rng.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

enum { PHILOX_BLOCKS = 8 };

// words [4][PHILOX_BLOCKS]: word i of block first + b at words[i][b].
static inline void philox_blocks(struct rng rng, uint64_t first, uint32_t words[4][PHILOX_BLOCKS]) {
#if defined(__AVX512F__)
    // The products ignore the upper halves of their lanes, so that low words need not be cut out.
    __m512i block = _mm512_add_epi64(_mm512_set1_epi64((long long)first), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    __m512i c0 = block, c1 = _mm512_srli_epi64(block, 32), m0 = _mm512_set1_epi64(0xD2511F53),
            m1 = _mm512_set1_epi64(0xCD9E8D57), c2 = _mm512_set1_epi64((long long)(uint32_t)rng.stream),
            c3 = _mm512_set1_epi64((long long)(rng.stream >> 32));
    uint32_t k0 = (uint32_t)rng.seed, k1 = (uint32_t)(rng.seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        __m512i p0 = _mm512_mul_epu32(c0, m0), p1 = _mm512_mul_epu32(c2, m1);
        c0 = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(p1, 32), c1), _mm512_set1_epi64((long long)k0));
        c2 = _mm512_xor_si512(_mm512_xor_si512(_mm512_srli_epi64(p0, 32), c3), _mm512_set1_epi64((long long)k1));
        c1 = p1, c3 = p0;
    }
    __m512i c[4] = {c0, c1, c2, c3};
    for (int i = 0; i < 4; i++) _mm256_storeu_si256((__m256i *)words[i], _mm512_cvtepi64_epi32(c[i]));
#else
    for (int b = 0; b < PHILOX_BLOCKS; b++) {
        uint32_t block[4];
        philox_block(rng.seed, rng.stream, first + (uint64_t)b, block);
        for (int i = 0; i < 4; i++) words[i][b] = block[i];
    }
#endif
}

#endif
