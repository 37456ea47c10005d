// `discquant-spectra synthetic`: planted spectra through the whole estimator, to see that it gives back what was planted.
//
//   OUT/metrics.jsonl  a line per replicate: replicate, alpha, c, envelope, naive_slope, moment2, rank_largest, rank_moment, each with its
//                      …_se; kappa, trace, residual, last_rank; with --alternatives held_out_power, …_broken, …_exponential
//   OUT/result.json    the settings (alpha_true, c_true, kappa_true, trace_true, moment2_true …); means over replicates of what a line
//                      holds; alpha_sd: spread of alpha over replicates; alpha_se: root mean square of the stated errors;
//                      alpha_within: replicates within two of their stated errors; naive_slope_below_1: how many; seconds
//   OUT/eigenvalues_true.npy, eigenvalues.npy, eigenvalues_expected.npy, eigenvalues_debiased.npy, eigenvalues_debiased_se.npy
//                      [min(samples, dim)] of replicate 0
#ifndef DQ_SPECTRA_SYNTHETIC_H
#define DQ_SPECTRA_SYNTHETIC_H

#include "data/program.h"
#include "spectra/planted.h"
#include "spectra/spectrum_fit.h"

struct synthetic_settings {
    struct planted_options planted;
    struct spectrum_options fit;
    int64_t replicates;
};

enum status synthetic_spectra_run(const struct program_common *common, const struct synthetic_settings *settings);

extern const struct command synthetic_command;

#endif
