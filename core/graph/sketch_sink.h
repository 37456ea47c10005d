// Statistics of per-sample gradients, made while the gradients pass by: exact squared norms, sketches, the sum over samples,
// inner products with given directions. One backward pass per batch; a sample's gradient of a weight exists in a tile of the
// size of a cache only.
//
//     struct sketch_options options = {.kind = SKETCH_ROTATION, .dim = 2048, .sketches = 4, .n_groups = n, .group = group};
//     TRY(sketch_sink_new(backend, model->weights, model->n_weights, &options, batch, &sink));
//     sketch_sink_attach(sink);                            // weight->sink of the weights that count
//     TRY(sketch_sink_begin(sink, tokens));                // before every pass, a new step has begun
//     … forward, loss with gradient_weight = 1 / (seq_len - 1), step_backward …
//     TRY(sketch_sink_end(sink, n));                       // sink->norms, sink->sketches, sink->inner of n samples
//
// Gradients are with respect to the values of weights, in fp32; the caller scales: with the gradient weight above a sample's
// gradient is that of its own mean loss, whatever the batch.
//
// A group is a set of weights, such as a layer, that shares a norm and sketches: the sketch of a group is the sum of its
// weights' sketches, that of several groups the sum of theirs, as it is with squared norms. Random numbers are a function of
// (seed, sketch, weight->index, coordinate): neither the grouping, the batch, the backend nor the other sketches change them.
//
// A weight that is both table and head counts once, with the sum of both parts: sketches, sums and inner products are linear,
// and the squared norm has the cross term 2 <head part, table part>, for which the rows of the head part that the sample's
// tokens name are kept, [T, C] numbers per sample.
#ifndef DQ_CORE_GRAPH_SKETCH_SINK_H
#define DQ_CORE_GRAPH_SKETCH_SINK_H

#include "core/graph/weight.h"

struct sketch_options {
    enum sketch_kind kind;       // SKETCH_NONE: no sketches
    int64_t dim, sketches;       // k, J: independent sketches of k numbers, J <= SKETCHES_MOST
    uint64_t seed;               // of the sketches: the same seed, the same maps
    int64_t n_groups;            //
    const int64_t *group;        // [weights] group of a weight, -1: it does not count. Copied
    const struct weight *shared; // counted weight that is both table and head, or NULL
    bool sum;                    // keep the sum of gradients over all samples of all passes
    // Inner products: for every counted weight a view F32 [n_directions, rows * cols] of the backend, row d the entries of
    // direction d; an empty one stands for zeros. [weights], kept.
    int64_t n_directions;
    const struct view *directions;
};

struct sketch_sink {
    struct grad_sink sink;
    int64_t samples; // of a pass, at most
    double *norms;   // [samples, groups] squared norms; host, as what follows, complete after sketch_sink_end
    float *sketches; // [samples, groups, J, k]
    double *inner;   // [samples, directions]
    struct sketch_state *own;
};

enum status sketch_sink_new(struct backend *backend, struct weight *weights, int64_t n_weights,
                            const struct sketch_options *options, int64_t samples, struct sketch_sink **out);
void sketch_sink_free(struct sketch_sink *sink); // accepts NULL; weights that still have the sink lose it

// Makes this the sink of the weights that count, and takes sinks from the others.
void sketch_sink_attach(struct sketch_sink *sink);

// Before a pass. tokens: the pass's, I32 [samples T, 1] on the backend, borrowed until the end; only a shared weight needs them,
// else it may be empty.
enum status sketch_sink_begin(struct sketch_sink *sink, struct view tokens);
// After step_backward: fetches the numbers of the n samples of the pass.
enum status sketch_sink_end(struct sketch_sink *sink, int64_t n);

// values [rows * cols]: the sum of a counted weight's gradients over all passes since the sink was made. Entries are rounded to
// multiples of 2^-40 before they are added in double, so that sums below 2^12 are exact, and those of any split of the samples
// add up to the same bits. STATUS_INVALID where a sum has left that range or a gradient is not finite.
enum status sketch_sink_sum(struct sketch_sink *sink, const struct weight *weight, double *values);

#endif
