#include "core/graph/rotation.h"

enum status rotation_run(struct step *step, const struct rotation_side *side, bool transposed, struct view x,
                         struct view y, bool accumulate) {
    return backend_run(step_backend(step),
                       &(struct op_call){.op = OP_hadamard,
                                         .accumulate = accumulate,
                                         .in = {x, side->signs, side->tables},
                                         .out = {y},
                                         .params.hadamard = {.matrix = side->matrix, .transposed = transposed}});
}
