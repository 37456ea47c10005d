// Weights drawn at random: the start of a training, and models for tests and benchmarks.
#ifndef DQ_CORE_NN_RANDOM_SOURCE_H
#define DQ_CORE_NN_RANDOM_SOURCE_H

#include "core/nn/tensor_source.h"

#include <stdint.h>

struct random_source {
    uint64_t seed;
    double gain;        // matrices [out, in]: normal with standard deviation gain / sqrt(in)
    double norm_spread; // vectors: 1 + norm_spread * normal
};

// A tensor's numbers depend on the seed and its name only. `self` is borrowed.
struct tensor_source random_source(const struct random_source *self);

#endif
