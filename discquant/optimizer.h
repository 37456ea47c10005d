// The DiscQuant optimizer (paper, Section 3): projected stochastic gradient descent on
//
//     min over x in [0, 1]^n of  <c*, x> + lambda / delta^2 E KL(p_w || p_{w^x}),    w^x = down (1 - x) + up x,  c* = 1 - 2y,
//
// as its reference code does it. With g the gradient of the mean KL over all positions of a batch, one step is
//
//     d = clamp(lambda / delta^2 g, -clamp, clamp) + strength (1 - 2y)        element by element
//     x = projection onto [0, 1] of AdamW(x, d),  learning rate: linear warmup from 0, then cosine to 0
//
// discquant/finish.h says how the last steps differ, so that x ends at a vertex or what it is rounded to is optimized itself; the
// paper stops at x and rounds it to nearest. discquant/NOTES.md has figures.
//
// Where one pass sees the whole batch a weight is updated on the way back, as soon as its gradient is there: no gradient outlives
// its weight's turn, which saves as many bytes as x has. The moments, and the gradients that several passes add up, have the
// dtype of x; in BF16 the update rounds x and moments stochastically.
//
// delta^2 is rounding.step2. The teacher is the same weights in another form; there is no second model.
//
// Variants. `objective`: another distance than the KL, or a weighted sum of them (discquant/objective.h), whose gradient is g. `random`: the linear
// term is <c, x> with c uniform in [-1, 1]^n instead of c*, from Philox (seed, RNG_DIRECTION + index of the weight), for weights without freedom
// too (the paper's Table 9). `latent`: x holds latent weights instead (WEIGHT_STRAIGHT; quantization-aware training by distillation with
// the straight-through estimator, Table 4): the network is their rounding to the nearest grid points, d = g, and nothing projects them; lambda,
// clamp, the linear term and the finish are not used.
#ifndef DQ_DISCQUANT_OPTIMIZER_H
#define DQ_DISCQUANT_OPTIMIZER_H

#include "core/nn/output_match.h"
#include "discquant/finish.h"
#include "discquant/objective.h"

struct optimizer_options {
    int64_t steps, warmup;  // warmup steps are counted in steps
    int64_t batch, seq_len; // windows per step, tokens per window
    int64_t
        micro_batch; // windows per pass; gradients of the passes of a step are added in memory of their own. 0 = batch
    double lambda, clamp; // clamp 0 = none
    double rate, decay;   // learning rate and weight decay of AdamW
    double strength;      // of the linear term; the paper's is 1
    struct finish finish; // its strength: of the linear term from then on
    bool recompute;       // keep only the inputs of layers
    uint64_t seed;        // of the stochastic rounding of x and moments in BF16, of a random linear term
    struct objective objective;
    bool random, latent;
};

struct optimizer {
    struct grad_sink sink; // updates a weight when it gets its gradient
    struct rounding *rounding;
    struct optimizer_options options;
    struct step *step;
    struct view *m, *v;                     // per weight of the model; empty for those that are not rounded
    struct view tokens, kl;                 // of one pass
    struct view targets, cross_entropy;     // the same, where the objective has ground truth
    struct output_match *layers, *matrices; // where the objective has them
    double *host_losses;
    int32_t *host_targets;
    int64_t done;             // steps taken
    double objective;         // mean over the batch of the last step, before it; the KL where that is the objective
    int64_t activation_bytes; // planned for one pass, reserved in one block
};

// Gives the rounded weights gradients and moments. x must have been initialized.
enum status optimizer_new(struct rounding *rounding, struct step *step, const struct optimizer_options *options,
                          struct optimizer **out);
void optimizer_free(struct optimizer *optimizer); // accepts NULL

// Bytes that weights, scales, x, gradients, moments and the activations of a pass are planned to take.
int64_t optimizer_planned_bytes(const struct optimizer *optimizer);

// One step on tokens [batch, seq_len] (host); *kl is the mean KL over the batch before it, whatever the objective.
// STATUS_INVALID when that is not finite; x is as it was.
enum status optimizer_step(struct optimizer *optimizer, const int32_t *tokens, double *kl);

// Learning rate of step `done` (counted from 0), as Transformers' cosine schedule with warmup.
double optimizer_rate(const struct optimizer_options *options, int64_t done);

#endif
