// Which weights count, and in which group (a layer of the network) each stands.
//
//     struct groups *groups = groups_new(model, PARAMETERS_LINEAR, NULL, true);
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

// Layers of a network, counted from 0, as ranges; none: every weight of the network, in a layer or not.
enum { LAYER_RANGES_MOST = 64 };
struct layer_set {
    int n;
    struct {
        int64_t first, last;
    } ranges[LAYER_RANGES_MOST];
};

struct groups {
    int64_t n;          // groups, at least 1
    char **names;       // [n]
    int64_t n_weights;  // of the model
    int64_t *of;        // [n_weights] group of each weight, -1 = does not count
    int64_t parameters; // entries of the weights that count
};

// per_layer false: one group, "whole". `layers`: only weights inside of these, which the network has, count; NULL: all.
struct groups *groups_new(const struct transformer *model, enum parameter_set set, const struct layer_set *layers,
                          bool per_layer);
void groups_free(struct groups *groups); // accepts NULL

#endif
