// Losses of every token with weights moved along a direction, and their directional derivatives, batch by batch.
//
//     TRY(taylor_passes_new(model, directions, tokens, windows, seq_len, batch, &passes));
//     taylor_passes_aim(passes, 0);                                     // the first direction
//     TRY(taylor_passes_run(passes, 0, n, losses, tangents));           // f(w), <gradient of f, d>
//     taylor_passes_aim(passes, -1);
//     TRY(taylor_passes_move(passes, 0, t));
//     TRY(taylor_passes_run(passes, 0, n, losses, NULL));               // f(w + t d)
#ifndef DQ_SPECTRA_TAYLOR_PASS_H
#define DQ_SPECTRA_TAYLOR_PASS_H

#include "spectra/directions.h"

// Cross entropy of the next token, -log p, nats: seq_len - 1 numbers per window.
struct taylor_passes {
    struct model *model;                 // borrowed, as is what follows; fp32
    const struct directions *directions; // fp32 rows per weight
    const int32_t *tokens;               // [windows, seq_len], host
    int64_t windows, seq_len, batch;
    int64_t moved; // where the weights are: w + at (direction `moved`), for messages
    double at;
    bool *moves;                                   // [directions, weights] whether a direction has entries there
    struct view on_device, targets, loss, tangent; // [batch * seq_len, 1]
    int32_t *host_targets;
    double *host; // [batch * seq_len]
};

// batch 0: as many windows as make 2048 tokens, on an accelerator 16384.
enum status taylor_passes_new(struct model *model, const struct directions *directions, const int32_t *tokens,
                              int64_t windows, int64_t seq_len, int64_t batch, struct taylor_passes **out);
void taylor_passes_free(struct taylor_passes *passes); // accepts NULL; the model is as it was

// Weights become w + t d in fp32, w read from the model's folder: t = 0 restores them to the bit.
enum status taylor_passes_move(struct taylor_passes *passes, int64_t direction, double t);

// With tangents of weights along a direction; -1: none.
void taylor_passes_aim(struct taylor_passes *passes, int64_t direction);

// Windows first .. first + n - 1, n <= batch: losses [n, seq_len - 1] and, unless NULL, their derivatives along the direction that
// was aimed at. STATUS_INVALID where one is not finite.
enum status taylor_passes_run(struct taylor_passes *passes, int64_t first, int64_t n, double *losses, double *tangents);

#endif
