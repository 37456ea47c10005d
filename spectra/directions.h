// Directions in the space of the weights that count: how roundings of a model move it, w_hat - w. Inner products of samples'
// gradients with them are their first-order loss changes.
//
//     TRY(directions_new(model, groups, &directions));
//     TRY(directions_add_nearest(directions, 4, 32));                  // "rtn"
//     TRY(directions_add_folder(directions, "discquant", "run/model"));
//     … directions->views … sketch_options.directions
#ifndef DQ_SPECTRA_DIRECTIONS_H
#define DQ_SPECTRA_DIRECTIONS_H

#include "data/model.h"
#include "spectra/groups.h"

struct directions {
    struct model *model;         // borrowed
    const struct groups *groups; // borrowed
    int64_t n;
    char **names;       // [n] "rtn", "discquant"
    char **labels;      // [n] what decides it: "rtn=bits 4 group_size 32", "discquant=crc32:…"
    double *squares;    // [n] squared length
    struct view *views; // [weights] F32 [n, rows * cols] on the backend; empty where n = 0 or the weight does not count
};

enum status directions_new(struct model *model, const struct groups *groups, struct directions **out);
void directions_free(struct directions *directions); // accepts NULL

// Rounding of the matrices inside layers to the nearest point of a symmetric grid with 16-bit scales. The model has no grid
// before or afterwards.
enum status directions_add_nearest(struct directions *directions, int bits, int64_t group_size);

// A model folder with the same tensors.
enum status directions_add_folder(struct directions *directions, const char *name, const char *path);

#endif
