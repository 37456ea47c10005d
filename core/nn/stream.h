// The hidden states of many windows, carried through a network layer by layer: every window passes a layer before the next layer
// begins, so that the layer's matrices can be looked at and changed in between at the cost of one pass through the network.
//
//     TRY(stream_new(model, step, &(struct stream_options){.windows = n, .seq_len = T}, &stream));
//     TRY(stream_start(stream, tokens));                     // [n, T] on the host
//     while (stream->layer < model->config.layers)
//         for (int part = LAYER_ATTENTION; part <= LAYER_MLP; part++) {
//             TRY(stream_enter(stream, part));               // inputs of q, k, v or gate, up, to their taps
//             …                                              // these matrices may change: forms, x, scales
//             TRY(stream_inner(stream, part));               // inputs of o or down, to its tap
//             …
//             TRY(stream_leave(stream, part));               // behind the MLP: the next layer
//         }
//
// Weights are used in the form they have. A tap sees the windows in their order, `batch` of them per call, once per window; whoever
// sets a tap takes it off before the matrix is used. Held on the backend, in the model's dtype: one hidden state per token, and one inner
// state, C + max(H d, I) numbers per token.
#ifndef DQ_CORE_NN_STREAM_H
#define DQ_CORE_NN_STREAM_H

#include "core/nn/transformer.h"

struct stream_options {
    int64_t windows, seq_len;
    int64_t batch; // windows per pass; 0 = as many as make 2048 tokens, on an accelerator 16384
};

struct stream {
    struct transformer *model;
    struct step *step;
    struct stream_options options;
    int64_t layer;      // that comes next
    struct view hidden; // [windows * seq_len, C] its input; between the parts of a layer: the MLP's
    struct view inner;  // room for [windows * seq_len, max(H d, I)]; empty until stream_inner
    struct view tokens; // I32, of one pass
};

// STATUS_NO_MEMORY when the states do not fit; STATUS_INVALID when the model has not that many positions.
enum status stream_new(struct transformer *model, struct step *step, const struct stream_options *options,
                       struct stream **out);
void stream_free(struct stream *stream); // accepts NULL

// Embeds; layer = 0.
enum status stream_start(struct stream *stream, const int32_t *tokens);

enum status stream_enter(struct stream *stream, enum layer_part part);
enum status stream_inner(struct stream *stream, enum layer_part part);
enum status stream_leave(struct stream *stream, enum layer_part part);

// A whole layer at once: the same bits as its parts.
enum status stream_layer(struct stream *stream);

// Hidden states of windows first .. first + n - 1, [n * seq_len, C].
struct view stream_windows(const struct stream *stream, int64_t first, int64_t n);

#endif
