// Incoherence processing: a matrix that is stored, rounded and differentiated in rotated coordinates, inside of a layer whose function is
// the unrotated one (Chee et al., QuIP, NeurIPS 2023; Tseng et al., QuIP#, ICML 2024, with Hadamard matrices):
//
//     value = W~ = H_out S_out W S_in H_in^T,     y = x W^T = rotation^T_out(rotation_in(x) W~^T)
//     rotation(x) = H S x,  rotation^T(y) = S H^T y,     H orthogonal (core/quant/hadamard.h), S diagonal with entries +-1
//
// All that belongs to the matrix lives in these coordinates: stored, x, grad, direction, the factors (dy, x) that its sink gets, what its
// tap sees. An adapter belongs to the layer's function, on x and y as they are. core/nn/incoherence.h makes rotations.
#ifndef DQ_CORE_GRAPH_ROTATION_H
#define DQ_CORE_GRAPH_ROTATION_H

#include "core/graph/step.h"
#include "core/quant/hadamard.h"

struct rotation_side {
    const struct hadamard *matrix; // of the width
    struct view tables;            // the matrix's, on the backend
    struct view signs;             // [1, width] F32
};

struct rotation {
    struct rotation_side in, out;
};

// y (+)= rotation(x), or rotation^T(x); rows of x and y.
enum status rotation_run(struct step *step, const struct rotation_side *side, bool transposed, struct view x,
                         struct view y, bool accumulate);

#endif
