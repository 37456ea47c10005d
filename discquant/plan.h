// How much of the device's memory a run takes, before anything is read or computed: the run itself on a backend without memory
// (backend_plan), from config.json alone.
//
//     TRY(memory_plan_make(common, settings, &plan));
//     memory_plan_print(&plan, common, settings);
//     TRY(memory_plan_check(&plan, common->device));
#ifndef DQ_DISCQUANT_PLAN_H
#define DQ_DISCQUANT_PLAN_H

#include "discquant/run.h"

// Bytes.
struct memory_plan {
    int64_t weights, scales, x, gradients, moments;
    int64_t activations; // memory of a step at its worst moment, optimization and evaluation
    int64_t logits;      // the part of it that holds a few rows of logits at a time
    int64_t adapters;    // low-rank ones: values, gradients, moments
    int64_t tables;      // positions, tokens, losses
    int64_t reserve;     // what the device's libraries and its context take
};

int64_t memory_plan_total(const struct memory_plan *plan);

// STATUS_UNSUPPORTED for a precision that the device does not compute in.
enum status memory_plan_make(const struct program_common *common, const struct run_settings *settings,
                             struct memory_plan *out);

// A table on stdout.
void memory_plan_print(const struct memory_plan *plan, const struct program_common *common,
                       const struct run_settings *settings);

// Opens the device; STATUS_NO_MEMORY when the plan does not fit into what is free there (CPU: into the machine's memory).
enum status memory_plan_check(const struct memory_plan *plan, const char *device);

#endif
