// Trains low-rank adapters (core/nn/lora.h) on a rounded network that stays as it is (paper, appendix E.3): with W the original
// matrices, W^ the rounded ones,
//
//     min over A, B of  E KL(p_W || p_{W^ + alpha / r B A})
//
// by AdamW (beta 0.9, 0.999, eps 1e-8) on A and B, gradients of the mean KL over all positions of a batch, learning rate as
// optimizer_rate. The teacher is the same network in the form WEIGHT_STORED, where matrices have no adapters.
//
//     TRY(adapter_trainer_new(lora, step, &options, &trainer));
//     while (trainer->done < options.steps) TRY(adapter_trainer_step(trainer, tokens, &kl));
//
// adapter[1] holds B' = s B, s = alpha / r, whose gradient is that of B over s: AdamW on B with rate e and decay d is AdamW on B' with
// the gradient times s, rate s e and decay d / s.
#ifndef DQ_DISCQUANT_ADAPTER_TRAINER_H
#define DQ_DISCQUANT_ADAPTER_TRAINER_H

#include "core/nn/lora.h"
#include "data/adamw.h"
#include "data/checkpoint.h"

struct adapter_trainer_options {
    int64_t steps, warmup;  // warmup steps are counted in steps
    int64_t batch, seq_len; // windows per step, tokens per window
    int64_t micro_batch;    // windows per pass; 0 = batch
    double rate, decay;     // learning rate and weight decay of AdamW
    enum weight_form form;  // of the rounded matrices
    bool recompute;         // keep only the inputs of layers
};

struct adapter_trainer {
    struct lora *lora;
    struct adapter_trainer_options options;
    struct step *step;
    struct adamw *adamw;    // of the adapters
    struct view tokens, kl; // of one pass
    double *host_kl;
    int64_t done;             // steps taken
    int64_t activation_bytes; // planned for one pass, reserved in one block
};

// Gives the adapters gradients and sinks. Their scaling is not 0.
enum status adapter_trainer_new(struct lora *lora, struct step *step, const struct adapter_trainer_options *options,
                                struct adapter_trainer **out);
void adapter_trainer_free(struct adapter_trainer *trainer); // accepts NULL

// One step on tokens [batch, seq_len] (host); *kl is the mean KL over the batch before it. STATUS_INVALID when that is not finite: the
// adapters are as they were.
enum status adapter_trainer_step(struct adapter_trainer *trainer, const int32_t *tokens, double *kl);

// Learning rate of step `done`, counted from 0.
double adapter_trainer_rate(const struct adapter_trainer_options *options, int64_t done);

// Bytes of adapters, gradients and moments.
int64_t adapter_trainer_bytes(const struct adapter_trainer *trainer);

// Adapters, moments and the number of steps, into a checkpoint that must not outlive the trainer, and back.
enum status adapter_trainer_save(const struct adapter_trainer *trainer, struct checkpoint *state);
enum status adapter_trainer_load(struct adapter_trainer *trainer, const struct checkpoint *state);

#endif
