// The weights that training starts from: a `tensor_source` for transformer_new.
//
//     struct trainer_start start = {.seed = 5, .config = &config};
//     TRY(transformer_new(backend, &config, DTYPE_F32, trainer_start(&start), &model));
//
// Gains are 1; matrices normal with standard deviation 1 / sqrt(hidden) for the embedding, so that tokens outweigh what random
// layers add to them, 0.02 for an untied head, 1 / sqrt(inputs) for q, 0.5 / sqrt(inputs) for v, gate and up, and
// 1 / sqrt(2 layers) of that for down. k begins as q and o as v transposed, so that heads look for tokens like their own
// and copy what they find (Trockman and Kolter, "Mimetic initialization of self-attention layers", 2023).
//
// The heads of the first two layers begin as an induction circuit (Olsson et al., "In-context learning and induction heads", 2022):
// in layer 0 head h looks at the token h + 1 places back and writes down a short code of it; in layer 1 head h looks for
// places where the code h + 1 back equals the one h back here, so for what stood there last time. data/NOTES.md has what it gains.
#ifndef DQ_DATA_TRAINER_START_H
#define DQ_DATA_TRAINER_START_H

#include "core/nn/config.h"
#include "core/nn/tensor_source.h"

struct trainer_start {
    uint64_t seed;
    const struct transformer_config *config; // separate q, k, v
};
struct tensor_source trainer_start(const struct trainer_start *start); // borrowed

#endif
