#include "core/base/rng.h"

#include <math.h>

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

static void rng_block(struct rng rng, uint64_t block, uint32_t out[4]) {
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)rng.stream,
                           (uint32_t)(rng.stream >> 32)};
    uint32_t key[2] = {(uint32_t)rng.seed, (uint32_t)(rng.seed >> 32)};
    rng_philox(counter, key, out);
}

uint32_t rng_bits(struct rng rng, uint64_t index) {
    uint32_t words[4];
    rng_block(rng, index / 4, words);
    return words[index % 4];
}

static float uniform_from_bits(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

float rng_uniform(struct rng rng, uint64_t index) { return uniform_from_bits(rng_bits(rng, index)); }

void rng_uniform_fill(struct rng rng, uint64_t first, float *out, int64_t n) {
    uint32_t words[4];
    for (int64_t i = 0; i < n; i++) {
        uint64_t index = first + (uint64_t)i;
        if (i == 0 || index % 4 == 0) rng_block(rng, index / 4, words);
        out[i] = uniform_from_bits(words[index % 4]);
    }
}

double rng_normal(struct rng rng, uint64_t index) {
    uint32_t words[4];
    rng_block(rng, index / 2, words);
    const uint32_t *w = words + 2 * (index % 2);
    double u = ((double)w[0] + 1.0) * 0x1p-32; // (0, 1], so that the logarithm is finite
    double angle = 6.283185307179586476925 * ((double)w[1] * 0x1p-32);
    return sqrt(-2.0 * log(u)) * cos(angle);
}

void rng_permutation(struct rng rng, int64_t *out, int64_t n) {
    uint64_t index = 0;
    for (int64_t i = 0; i < n; i++) out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        // Rejection makes every value of 0 .. i equally likely: draws below 2^64 mod (i + 1) are thrown away.
        uint64_t bound = (uint64_t)i + 1, floor = -bound % bound, draw;
        do {
            draw = (uint64_t)rng_bits(rng, index) << 32 | rng_bits(rng, index + 1);
            index += 2;
        } while (draw < floor);
        int64_t j = (int64_t)(draw % bound), swap = out[i];
        out[i] = out[j];
        out[j] = swap;
    }
}
