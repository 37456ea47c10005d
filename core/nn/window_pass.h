// One forward and backward pass over whole windows of text, each a sample: its loss is the mean of its own seq_len - 1
// predictions, whatever else is in the pass, and weights' sinks get the gradient of that.
//
//     TRY(window_pass_new(model, step, &(struct window_pass_options){.seq_len = 128, .windows = 16}, &pass));
//     TRY(window_pass_run(pass, tokens, 0, 16));        // pass->losses [16]
//     window_pass_free(pass);
//
// A pass always has the same shape. Windows that are not asked for take part without predictions: their gradients are zero,
// and those of the others have the same bits as if they were there.
#ifndef DQ_CORE_NN_WINDOW_PASS_H
#define DQ_CORE_NN_WINDOW_PASS_H

#include "core/nn/transformer.h"

struct window_pass_options {
    int64_t seq_len; // tokens of a window, at least 2
    int64_t windows; // of a pass; 0: window_pass_windows
    bool recompute;  // keep only the inputs of layers between forward and backward
};

struct window_pass {
    struct transformer *model; // borrowed, as is step
    struct step *step;
    struct window_pass_options options;
    struct view tokens; // I32 [windows * seq_len, 1] on the backend, of the last pass
    double *losses;     // [windows] nats; 0 for those not asked for
    struct view targets, loss;
    int32_t *host_tokens, *host_targets; // [windows * seq_len]
    double *host_loss;                   // [windows * seq_len]
};

// As many windows as make 2048 tokens, at least 8.
int64_t window_pass_windows(int64_t seq_len);

enum status window_pass_new(struct transformer *model, struct step *step, const struct window_pass_options *options,
                            struct window_pass **out);
void window_pass_free(struct window_pass *pass); // accepts NULL

// tokens [windows, seq_len] on the host; of windows before `first` and from first + n on they are not read. The weights' sinks
// are the caller's; `begin` (may be NULL) is called when the step has begun, for sinks that want to know.
// STATUS_INVALID names the window (counted from `first`) whose loss is not finite: what sinks have of the pass is void.
typedef enum status window_pass_begin(void *context, struct window_pass *pass);
enum status window_pass_run(struct window_pass *pass, const int32_t *tokens, int64_t first, int64_t n,
                            window_pass_begin *begin, void *context);

#endif
