// Methods of rounding: how x, or the latent weights, of a prepared model (core/nn/rounding.h) come about.
//
// To add one: a file with a `const struct method`, its row in methods.c, its options in command.c.
#ifndef DQ_DISCQUANT_METHOD_H
#define DQ_DISCQUANT_METHOD_H

#include "discquant/run.h"

struct method {
    const char *name; // of --method
    bool calibrates;  // reads --calibration
    bool optimizes;   // runs a struct optimizer with run_settings.optimizer: part of the memory plan
    bool latent;      // which holds latent weights
    double rate;      // its default learning rate
    // Settings of its own that decide the result, so that --resume refuses others; NULL: none.
    void (*describe)(const struct run_settings *settings, struct record *record);
    // x is that of round-to-nearest. Leaves the result in run->rounding, adds figures to run_folder_result(run->folder), keeps
    // and takes up states of an interrupted run (run_folder_checkpoint_save, _load). NULL: round-to-nearest it is.
    enum status (*work)(struct run *run);
};

extern const struct method method_rtn, method_discquant, method_qat;
extern const struct method method_gptq, method_adaround, method_signround;

extern const struct method *const methods[];
extern const char method_names[]; // of all, for args_choice

#endif
