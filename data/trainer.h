// Trains all weights of a transformer to predict the next token. With g the gradient of the mean cross entropy over the
// predictions of a batch (batch windows, seq_len - 1 predictions each), one step is
//
//     g = g min(1, clip / |g|)                     |g|: over all weights together
//     w = AdamW(w, g), beta 0.9, 0.95              decay on matrices, not on gains and the embedding
//     rate: linear warmup from 0, then cosine to a tenth
//
//     TRY(transformer_new(backend, &config, DTYPE_F32, trainer_start(&start), &model));   // data/trainer_start.h
//     TRY(trainer_new(model, step, &options, &trainer));
//     while (trainer->done < options.steps) TRY(trainer_step(trainer, tokens, &loss));
#ifndef DQ_DATA_TRAINER_H
#define DQ_DATA_TRAINER_H

#include "core/nn/transformer.h"
#include "data/adamw.h"
#include "data/checkpoint.h"
#include "data/trainer_start.h"

struct trainer_options {
    int64_t steps, warmup;
    int64_t batch, seq_len;   // windows per step, tokens per window
    double rate, decay, clip; // clip 0 = none
};

struct trainer {
    struct transformer *model;
    struct trainer_options options;
    struct step *step;
    struct adamw *adamw;
    struct view tokens, targets, loss, squares; // of one step; squares [n_weights, 1]
    int32_t *host_targets;
    double *host_loss, *host_squares;
    int64_t done;             // steps taken
    double norm;              // of the last step's gradient, before clipping
    int64_t activation_bytes; // planned for a step, reserved in one block
};

// Gives every weight a gradient.
enum status trainer_new(struct transformer *model, struct step *step, const struct trainer_options *options,
                        struct trainer **out);
void trainer_free(struct trainer *trainer); // accepts NULL

// One step on tokens [batch, seq_len] (host); *loss is the mean cross entropy in nats before it. STATUS_INVALID when loss
// or gradient is no longer finite.
enum status trainer_step(struct trainer *trainer, const int32_t *tokens, double *loss);

// Learning rate of step `done`, counted from 0.
double trainer_rate(const struct trainer_options *options, int64_t done);

// Weights, moments and the number of steps, into a checkpoint that must not outlive the trainer, and back.
enum status trainer_save(const struct trainer *trainer, struct checkpoint *state);
enum status trainer_load(struct trainer *trainer, const struct checkpoint *state);

#endif
