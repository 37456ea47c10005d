// The phase of a run that trains low-rank adapters on the rounded model (discquant/adapter_trainer.h) and saves them:
//
//   OUT/adapter/       PEFT's layout, on OUT/model; with --incoherence on OUT/model-hf too
//   OUT/merged/        with --lora-merge: the rounded model with the adapters added in; its matrices are off the grid
//   OUT/result.json    + lora_rank, lora_alpha, lora_steps, lora_parameters, kl_lora, kl_lora_se, perplexity_lora, top1_agreement_lora
//   OUT/metrics.jsonl  + lines with "phase": "lora": step, learning_rate, kl_calibration, kl, perplexity, seconds
//
// Its states hold the rounded model as well: a run that is resumed in this phase does not round again.
#ifndef DQ_DISCQUANT_ADAPTERS_H
#define DQ_DISCQUANT_ADAPTERS_H

#include "discquant/run.h"

// What decides the result, into the settings of the run folder.
void adapters_describe(const struct run_settings *settings, struct record *record);

// Adapters as the settings want them, without values. STATUS_INVALID where --lora-targets names none of the model's matrices, STATUS_UNSUPPORTED
// for --lora-merge on a folder of rotated weights.
enum status adapters_attach(const struct run_settings *settings, struct transformer *model, struct lora **out);

// The options that a run with these settings trains adapters with.
struct adapter_trainer_options adapters_options(const struct run_settings *settings, enum weight_form form);

// *out: the state of an interrupted run that had come to this phase; rounding and result are as they were then. NULL: there is none.
enum status adapters_resume(struct run *run, struct checkpoint **out);

// Trains, measures and saves; run->rounding is the result of the method. state: of adapters_resume.
enum status adapters_work(struct run *run, const struct checkpoint *state);

#endif
