// Sees the output of a product or of a whole layer when it is made, and adds to its gradient on the way back: for losses inside of a
// network.
//
//     weight->output = &my_tap.tap;                  // q, k, v, gate, up, …: rows x W^T of the product
//     model->layers[l].output = &my_tap.tap;         // hidden states behind layer l
//
// q, k and v are seen after positions have turned them (rope), which changes the norm of no difference: a tap that measures norms may
// take them for the products. Where the product is added to a residual (o, down) the tap sees the product alone, in memory of its own.
// Taps and directions (forward mode) do not meet.
#ifndef DQ_CORE_GRAPH_OUTPUT_TAP_H
#define DQ_CORE_GRAPH_OUTPUT_TAP_H

#include "core/graph/step.h"

struct output_tap {
    // y [N, cols] in the step's dtype, left as it is; twice in a step where layers are recomputed on the way back.
    enum status (*take)(struct output_tap *tap, struct step *step, struct view y);
    // On the way back, once, y as it was taken: adds the tap's part to dy [N, cols], the gradient so far.
    enum status (*pull)(struct output_tap *tap, struct step *step, struct view y, struct view dy);
};

// Columns column .. column + cols of y go to the tap; NULL: nothing happens.
enum status record_output(struct step *step, struct output_tap *tap, struct value *y, int64_t column, int64_t cols);

// y = residual + x. Where no gradient needs it the residual's memory becomes y's.
enum status record_sum(struct step *step, struct value *x, struct value *residual, struct value **y);

#endif
