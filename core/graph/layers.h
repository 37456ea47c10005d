// The layers a transformer is made of, as recorded ops: each runs forward, carries the directional derivative along when
// an input or its weight has one, and appends a node with its reverse.
//
// Shapes: x [N, C] and so on as in core/ops/op.h; N rows are whole sequences of step_options.seq_len rows where a
// layer knows about positions.
#ifndef DQ_CORE_GRAPH_LAYERS_H
#define DQ_CORE_GRAPH_LAYERS_H

#include "core/graph/weight.h"

// y = table[tokens], y [N, C]; tokens I32 [N, 1] must outlive the step.
enum status record_embedding(struct step *step, struct weight *table, struct view tokens, struct value **y);

// y = x rstd gain.
enum status record_rmsnorm(struct step *step, struct value *x, struct weight *gain, double eps, struct value **y);

// Columns column .. column + out of y = x W^T, W [out, in]. y is there already (step_value), needs_grad set; its other
// columns belong to other layers.
enum status record_linear(struct step *step, struct value *x, struct weight *weight, struct value *y, int64_t column);

// Shows x to the weight's tap as record_linear does, without the product.
enum status linear_tap(struct step *step, struct value *x, const struct weight *weight);

// y = residual + x W^T. Where no gradient needs it the residual's memory becomes y's.
enum status record_linear_residual(struct step *step, struct value *x, struct weight *weight, struct value *residual,
                                   struct value **y);

// Rotates the first heads * head_dim columns of x in place.
enum status record_rope(struct step *step, struct value *x, struct view cos, struct view sin,
                        struct rope_params params);

// o = causal attention over qkv [N, (H + 2K) d].
enum status record_attention(struct step *step, struct value *qkv, struct attention_params params, struct value **o);

// h = silu(gate) up from gu [N, 2I].
enum status record_swiglu(struct step *step, struct value *gu, struct value **h);

#endif
