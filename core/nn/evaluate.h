// How good a model is on windows of tokens, and how far it is from another one.
#ifndef DQ_CORE_NN_EVALUATE_H
#define DQ_CORE_NN_EVALUATE_H

#include "core/nn/transformer.h"

struct evaluate_options {
    enum weight_form form;         // of the model's weights that have a grid
    struct transformer *reference; // model to compare with, same vocabulary; may be the model itself; NULL = none
    enum weight_form reference_form;
    int64_t batch; // windows per pass; 0 = as many as make 2048 tokens, on an accelerator 16384. Changes rounding only
    void (*progress)(void *context, int64_t done, int64_t total, double mean_loss);
    void *progress_context;
};

struct evaluation {
    int64_t windows, tokens; // tokens = windows * seq_len
    // Per window, [windows], fp64:
    double *loss;           // mean cross entropy of its seq_len - 1 predictions, nats
    double *reference_loss; // the same of the reference; NULL without one
    double *kl;             // mean KL(reference || model) over its seq_len positions; NULL without a reference
    double *agreement;      // share of positions where both have the same most likely token
};

// tokens [windows, seq_len] on the host. The forms of the weights are WEIGHT_STORED afterwards.
enum status evaluate(struct transformer *model, struct step *step, const int32_t *tokens, int64_t windows,
                     int64_t seq_len, const struct evaluate_options *options, struct evaluation **out);
void evaluation_free(struct evaluation *evaluation); // accepts NULL

// Mean over windows of a per-window figure, and the standard error of that mean (0 for one window).
double evaluation_mean(const struct evaluation *evaluation, const double *per_window, double *standard_error);

#endif
