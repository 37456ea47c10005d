// One pass through a network: a record of layers on values, its memory, and the way back.
//
//     TRY(step_new(backend, &step));
//     for (;;) {
//         step_begin(step, (struct step_options){.gradient = true});
//         struct value *x = step_input(step, tokens_embedded);
//         TRY(record_linear(step, x, weight, y, 0));             // core/graph/layers.h
//         TRY(step_seed(step, y, &dy));                         // whoever has the loss fills dy
//         TRY(step_backward(step));                             // gradients of weights go to their sinks
//     }
//
// Memory of a step is a stack of backend memory: step_take pushes, step_release pops to a mark, step_begin empties it. It
// is kept from step to step, so that a run allocates once. step_plan says beforehand how much that will be.
//
// Segments (one per layer of a network) bound it: without gradients what a segment used is popped when it ends; with
// `recompute` only its input is kept and it is run again on the way back; gradients of values inside a segment are
// popped as soon as the segment has been left backwards.
#ifndef DQ_CORE_GRAPH_STEP_H
#define DQ_CORE_GRAPH_STEP_H

#include "core/backend/backend.h"

struct step;
struct weight;
struct node;
struct output_tap;

// A result and, once asked for, the gradient of the loss and the directional derivative that belong to it.
struct value {
    struct view data;
    struct view grad;    // same shape as data, valid when has_grad
    struct view tangent; // same shape as data, valid when has_tangent
    bool needs_grad, has_grad, has_tangent;
};

// How a layer is differentiated. The forward function (record_…) runs the layer, its tangent too when an input has one,
// and appends a node; `reverse` adds the node's part to the gradients of its inputs and hands weight gradients to sinks.
struct node {
    enum status (*reverse)(struct step *step, struct node *node);
    struct value *in[2], *out;
    struct weight *weight;
    struct view saved[2]; // what reverse needs besides the values
    union op_params params;
    int64_t column; // linear, output: first column of `out` that is its own
    int64_t cols;   // output
    struct output_tap *output;
    struct segment *segment; // of a segment's node
};

struct step_options {
    bool gradient;    // record, so that step_backward can follow
    bool recompute;   // keep only the inputs of segments
    int64_t seq_len;  // rows per sample: what per-sample sinks call one sample
    enum dtype dtype; // of values, their gradients and tangents, and of weights when they are used; F32 when not given
};

enum status step_new(struct backend *backend, struct step **out);
void step_free(struct step *step); // accepts NULL
void step_begin(struct step *step, struct step_options options);
// Other options for what follows in the same step; memory and values stay. For a teacher's pass without gradients before
// a student's with them. Nothing may have been recorded yet.
void step_switch(struct step *step, struct step_options options);

struct backend *step_backend(const struct step *step);
const struct step_options *step_options(const struct step *step);

// Uninitialized backend memory that lives until a mark below it is released or the next step begins.
enum status step_take(struct step *step, enum dtype dtype, int64_t rows, int64_t cols, struct view *out);
struct step_mark {
    int64_t chunk, used;
};
struct step_mark step_mark(const struct step *step);
void step_release(struct step *step, struct step_mark mark);

// Bytes in use at the worst moment since step_new or step_peak_reset.
int64_t step_peak_bytes(const struct step *step);
void step_peak_reset(struct step *step);
// One block for `bytes`, so that the steps to come need no second one. Between steps only.
enum status step_reserve(struct step *step, int64_t bytes);

// Zeroed host memory that lives until the next step begins.
void *step_object(struct step *step, size_t size);

// A value over memory of the caller, without a gradient; needs_grad may be set by the caller.
struct value *step_input(struct step *step, struct view data);
// A value with fresh memory.
enum status step_value(struct step *step, int64_t rows, int64_t cols, bool needs_grad, struct value **out);
// Memory for its tangent, or for its gradient to be filled by the caller.
enum status step_tangent(struct step *step, struct value *value);
enum status step_seed(struct step *step, struct value *value, struct view *grad);

// For reverse functions: where to put a part of the gradient of `value`; *accumulate says whether to add to it.
enum status step_grad(struct step *step, struct value *value, struct view *grad, bool *accumulate);
// Gives the memory of from's gradient to `to`, which has the same shape; adds when `to` has one already.
enum status step_grad_pass(struct step *step, struct value *from, struct value *to);

// Appends a node (copied) when recording.
void step_append(struct step *step, struct node node);

// Runs `run` as a segment: it makes *out, of the shape of `in`, from `in` and its context, which must live until the
// step ends. Without gradients the memory of `in` may be reused for *out: `in` is lost.
typedef enum status segment_run(struct step *step, void *context, struct value *in, struct value **out);
enum status step_segment(struct step *step, segment_run *run, void *context, struct value *in, struct value **out);

// Whether a layer may overwrite its input (no gradient will ask for it).
bool step_may_overwrite(const struct step *step);

// From the last node to the first.
enum status step_backward(struct step *step);

// Plans a step: runs `body` with a backend that only counts and returns the bytes of step memory it needs.
typedef enum status step_body(struct step *step, void *context);
enum status step_plan(struct backend *backend, step_body *body, void *context, int64_t *bytes);

#endif
