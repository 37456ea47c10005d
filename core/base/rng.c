#include "core/base/rng.h"

#include "core/base/philox.h"

#include <math.h>

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) { philox(counter, key, out); }

static void rng_block(struct rng rng, uint64_t block, uint32_t out[4]) {
    philox_block(rng.seed, rng.stream, block, out);
}

uint32_t rng_bits(struct rng rng, uint64_t index) {
    uint32_t words[4];
    rng_block(rng, index / 4, words);
    return words[index % 4];
}

float rng_uniform(struct rng rng, uint64_t index) { return philox_uniform(rng_bits(rng, index)); }

void rng_uniform_fill(struct rng rng, uint64_t first, float *out, int64_t n) {
    uint32_t words[4];
    for (int64_t i = 0; i < n; i++) {
        uint64_t index = first + (uint64_t)i;
        if (i == 0 || index % 4 == 0) rng_block(rng, index / 4, words);
        out[i] = philox_uniform(words[index % 4]);
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
