// Which weights count, and in which group (a layer of the network) each stands.
//
//     struct groups *groups = groups_new(model, GROUPS_LINEAR, true);
//     for (int64_t i = 0; i < model->n_weights; i++) … groups->of[i] …    // -1: does not count
//     groups_free(groups);
//
// Groups follow the network: "embedding", "layer 0" … "layer L-1", "final_norm", "head"; those without a weight that counts are
// left out. A head that is tied to the embedding is the embedding.
#ifndef DQ_SPECTRA_GROUPS_H
#define DQ_SPECTRA_GROUPS_H

#include "core/nn/transformer.h"

enum parameter_set {
    PARAMETERS_LINEAR, // matrices inside layers: what rounding methods round
    PARAMETERS_ALL,    // embedding, gains of norms and head too
};

struct groups {
    int64_t n;          // groups, at least 1
    char **names;       // [n]
    int64_t n_weights;  // of the model
    int64_t *of;        // [n_weights] group of each weight, -1 = does not count
    int64_t parameters; // entries of the weights that count
};

// per_layer false: one group, "whole".
struct groups *groups_new(const struct transformer *model, enum parameter_set set, bool per_layer);
void groups_free(struct groups *groups); // accepts NULL

#endif
