// Rounding a network by a walk, from files to files: what `discquant-walk round` does. The same run measures rounding to
// nearest, independent random rounding, and the closest vertex of what keeps M x = M y (DiscQuant's objective).
//
// y are the weights themselves or, with --start, the x that a run of the program discquant kept (data/point.h): a finisher of
// its fractional rest. Gradients are then taken at that x, coordinates that are 0 or 1 there stay, and everything named below
// departs from it: distances, random rounding, loss changes. Beside _rtn there are _start (x itself) and _nearest (x rounded).
//
//   OUT/model/         the rounded model as a Hugging Face folder
//   OUT/metrics.jsonl  a line per rounding: rounding (before, walk, rtn, random, closest, those to compare) and its figures
//   OUT/result.json    of the walk: engine, m, rank, singular values' range, steps, matrix_reads, fractional,
//                      residual_max; of the instance: n, weights_fixed, clip_rms, clip_rms_left, energy, energy_total;
//                      and, for the walk and with _before (the walk before its final phase, fractional weights as they
//                      are), _rtn, _random, _closest and the names of --compare behind their names for the others:
//      distance2           |x - y|^2
//      qe_calibration      mean of (<g, x - y> + o)^2 over the samples of M; o: what weights outside the grid's range add
//      qe, qe_ci_low, qe_ci_high   the same over fresh windows, which M has not seen; 95 %
//      rms_product         its root: rms first-order change of a fresh window's loss, nats
//      qe_predicted        distance2 / (free coordinates - rank) mean |P g|^2, P onto the null space of M; others: without P
//      loss_change, loss_change_rms   mean and rms change of the fresh windows' loss, nats
//      kl, kl_se, perplexity, top1_agreement   of the rounded network on the validation windows
#ifndef DQ_WALK_ROUND_H
#define DQ_WALK_ROUND_H

#include "core/quant/grid.h"
#include "data/program.h"
#include "walk/instance.h"

enum { ROUND_FILES_MAX = 64, ROUND_COMPARED_MAX = 8 };

// Another rounding of the model: a folder on the same grid, and what its figures are called.
struct compared {
    char *name;
    const char *path;
};

struct round_settings {
    const char *model, *validation;
    const char *calibration[ROUND_FILES_MAX];
    int n_calibration;
    struct compared compared[ROUND_COMPARED_MAX];
    int n_compared;
    struct grid_options grid; // complete, or untouched with a start: its grid
    const char *start;        // run folder with an x of the model; NULL: the weights
    int64_t samples;          // windows that become rows of M
    int64_t fresh_samples;    // other windows of the calibration text; 0: those left, at most 256
    int64_t seq_len, batch;
    int64_t validation_samples; // 0: all
    bool recompute;
    const char *matrix;  // M in this file while the run lasts, which then is gone; NULL: in memory
    bool leave_clipping; // start at y even though weights outside the grid's range shift the losses
    struct walker walker;
    int64_t checkpoint_every; // steps
};

enum status round_run(const struct program_common *common, const struct round_settings *settings);

#endif
