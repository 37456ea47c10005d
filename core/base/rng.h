// Random numbers as a function of (seed, stream, index): Philox4x32-10 of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). Any split of the indices over threads, devices or ranks
// gives the same numbers.
//
//     struct rng rng = {.seed = 42, .stream = RNG_INIT + layer};
//     rng_uniform_fill(rng, 0, x, n);
#ifndef DQ_CORE_BASE_RNG_H
#define DQ_CORE_BASE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rng {
    uint64_t seed;
    uint64_t stream; // separates uses of one seed: purpose in the upper 32 bits, instance in the lower
};

// Purposes, so that two uses of one seed never share numbers.
#define RNG_STREAM(purpose) ((uint64_t)(purpose) << 32)
#define RNG_INIT RNG_STREAM(1)            // initial values of parameters
#define RNG_ORDER RNG_STREAM(2)           // order of samples
#define RNG_TEST RNG_STREAM(3)            // inputs made by tests and benchmarks
#define RNG_STORY RNG_STREAM(4)           // documents of the synthetic corpus
#define RNG_ROUND RNG_STREAM(5)           // stochastic rounding of parameters and moments
#define RNG_SKETCH_ROTATION RNG_STREAM(6) // one word per segment of a sketch
#define RNG_SKETCH_ENTRY RNG_STREAM(7)    // signs, or entries of dense sketches
#define RNG_ADAPTER RNG_STREAM(8)         // initial values of low-rank adapters
#define RNG_INCOHERENCE RNG_STREAM(9)     // signs of rotations
#define RNG_DIRECTION RNG_STREAM(10)      // random linear terms

// One block of ten rounds: counter[4], key[2] -> out[4].
void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// The 32 random bits at `index`: word index % 4 of the block at counter (index / 4, stream), key = seed.
uint32_t rng_bits(struct rng rng, uint64_t index);

// Uniform in [0, 1): the upper 24 bits, exact in float.
float rng_uniform(struct rng rng, uint64_t index);
void rng_uniform_fill(struct rng rng, uint64_t first, float *out, int64_t n);

// Standard normal by Box-Muller; index i uses the two words 2i and 2i + 1. Fp64 inside.
double rng_normal(struct rng rng, uint64_t index);

// A uniformly random permutation of 0 .. n-1 (Fisher-Yates with unbiased bounded draws).
void rng_permutation(struct rng rng, int64_t *out, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
