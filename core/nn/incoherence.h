// Rotations for all matrices inside the layers of a transformer (core/graph/rotation.h): the network computes what it did, and its
// weights are stored in coordinates in which no single one stands out.
//
//     TRY(incoherence_new(model, ROTATION_HADAMARD, &incoherence));
//     TRY(incoherence_rotate(incoherence, seed));       // signs drawn, weights rotated
//     TRY(rounding_new(model, &grid, …));               // scales, neighbours, gradients: all of the rotated weights
//
// Rotations are made in double and stored in the model's dtype. Equal widths share a Hadamard matrix; signs are a matrix's own.
#ifndef DQ_CORE_NN_INCOHERENCE_H
#define DQ_CORE_NN_INCOHERENCE_H

#include "core/nn/transformer.h"

struct incoherence {
    struct transformer *model; // borrowed; its matrices carry the rotations until incoherence_free
    enum rotation_kind kind;
    struct rotation_width {
        struct hadamard *matrix, *identity;
        struct view tables;
    } * widths; // [n_widths], ascending
    int64_t n_widths;
    struct rotation *rotations; // [n_weights of the model]
};

// Makes the matrices of all widths and gives every linear weight a rotation with signs 1; stored weights are taken as they are.
// STATUS_UNSUPPORTED lists the widths without a Hadamard matrix; never in blocks (hadamard_new). With ROTATION_HADAMARD_IN the outputs'
// side is the identity and its signs stay 1.
enum status incoherence_new(struct transformer *model, enum rotation_kind kind, struct incoherence **out);
// The weights stay rotated.
void incoherence_free(struct incoherence *incoherence); // accepts NULL

// Signs of 1 and -1, host [cols] and [rows] of the weight.
enum status incoherence_signs_set(struct incoherence *incoherence, struct weight *weight, const float *in,
                                  const float *out);
enum status incoherence_signs_get(const struct incoherence *incoherence, const struct weight *weight, float *in,
                                  float *out);

// Draws all signs: bit i mod 32 of word i / 32 of Philox (seed, RNG_INCOHERENCE + index of the weight), -1 where it is set, i over the
// inputs and then, from the next whole word, the outputs. Then rotates the stored weights.
enum status incoherence_rotate(struct incoherence *incoherence, uint64_t seed);

// w [rows, cols] of the weight, host: from the network's coordinates to rotated ones, or back. In double.
enum status incoherence_apply(const struct incoherence *incoherence, const struct weight *weight, bool back, float *w);

#endif
