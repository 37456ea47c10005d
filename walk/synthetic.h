// Rounding synthetic instances, replicate after replicate: what `discquant-walk synthetic` does. Every replicate draws M, y
// and the walk's noise anew.
//
//   OUT/metrics.jsonl  a line per replicate: replicate, the figures of walk/instance.h, qe_rtn, qe_random
//   OUT/result.json    n, m, rank, engine, final, alpha, c, basis, distribution, replicates; means over replicates: steps,
//                      matrix_reads, fractional_walk, fractional, distance2, qe_walk (before the final phase), qe
//                      with qe_ci_low and qe_ci_high (95 %), qe_rtn, qe_random; fractional_most (before the final
//                      phase) and residual_max; qe_predicted: the law of theory/error_law.h for whole walks;
//                      qe_predicted_distance: the same with the measured |x - y|^2; bias_z: mean of <x - y, u> over its
//                      standard error, u along P (1 - 2y), about standard normal for unbiased walks; seconds
#ifndef DQ_WALK_SYNTHETIC_H
#define DQ_WALK_SYNTHETIC_H

#include "data/program.h"
#include "walk/instance.h"

struct synthetic_settings {
    struct problem problem;
    struct walker walker;
    int64_t replicates;
    int64_t checkpoint_every; // replicates; 0: about every 5 seconds
};

// Why this walk does nothing with so many samples, or NULL: walks that stop at 16 m fractional coordinates need
// n > 16 m, as Theorem 2 does.
const char *synthetic_refusal(const struct problem *problem, const struct walker *walker);

enum status synthetic_run(const struct program_common *common, const struct synthetic_settings *settings);

// Names of what the settings hold.
extern const char *const basis_names[], *const distribution_names[], *const finish_names[];

#endif
