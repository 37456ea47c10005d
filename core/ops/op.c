#include "core/ops/shape.h"

const struct op_info op_infos[OP_COUNT] = {
#define OP(op) {#op, op##_check, op##_flops},
#include "core/ops/op_list.h"
#undef OP
};

static double view_bytes(struct view v) { return elements(v) * (double)dtype_bytes(v.dtype); }

struct op_cost op_cost(const struct op_call *call) {
    struct op_cost cost = {.flops = op_infos[call->op].flops(call)};
    for (int i = 0; i < OP_INPUTS; i++) cost.bytes += view_bytes(call->in[i]);
    for (int i = 0; i < OP_OUTPUTS; i++) cost.bytes += view_bytes(call->out[i]) * (call->accumulate ? 2 : 1);
    return cost;
}
