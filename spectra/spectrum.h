// `discquant-spectra spectrum`: samples of gradients, the eigenvalues of their covariance, and what follows from them.
//
//   OUT/records, OUT/sums        the samples (spectra/store.h, spectra/sums.h), unless --store names them
//   OUT/eigenvalues.npy, eigenvalue_roots.npy   [min(samples, dim)] as sampled, mean over sketches, falling; the roots are
//                                the singular values of the samples' matrix over sqrt(samples)
//   OUT/eigenvalues_debiased.npy, eigenvalues_debiased_se.npy   what they say of the gradients' own covariance, and one
//                                standard error; NaN beyond the ranks of the fit
//   … _centred, _exact           around the mean; of the gradients themselves (--exact)
//   OUT/eigenvalues_by_group.npy, eigenvalue_roots_by_group.npy   [groups, min(samples, dim)] with --per-layer
//   OUT/losses.npy, norms2.npy   [samples], of the order of windows
//   OUT/metrics.jsonl            a line per group, per number of directions of beta, per rounding
//   OUT/result.json              samples, first_sample, seq_len, parameters, dim, sketches, seconds, tokens_per_second, mean_loss;
//                                of all weights together: figures.h; beta_directions, beta_lower (held out), its interval
//                                beta_lower_ci_low, beta_lower_ci_high, beta_sample_lower, beta_upper at the most directions
//                                that the samples can say something about; of each rounding NAME: beta_NAME, beta_NAME_ci_low,
//                                beta_NAME_ci_high, rms_product_NAME (nats), distance2_NAME; with --exact: alpha_exact and so on,
//                                exact_within_1se (share of ranks 3 … 100 where sketches and gradients agree to one error)
#ifndef DQ_SPECTRA_SPECTRUM_H
#define DQ_SPECTRA_SPECTRUM_H

#include "spectra/sampling.h"

struct spectrum_settings {
    struct sampling_settings sampling;
    const char *store; // run folder whose samples are used; NULL: they are made
    bool samples_only, exact;
};

enum status spectrum_run(const struct program_common *common, const struct spectrum_settings *settings);

extern const struct command spectrum_command;

#endif
