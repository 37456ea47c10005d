// `discquant-bench speed`: the time of a DiscQuant step on random weights, as a share of what the machine can do.
#ifndef DQ_BENCH_SPEED_H
#define DQ_BENCH_SPEED_H

#include "data/program.h"

// A step is teacher forward, student forward, backward and update, of 8 windows of 256 tokens at 3 bits, group -1.
//   step-stories260K  hidden 64, intermediate 172, 5 layers, 8 heads, 4 key/value heads, vocabulary 512, tied head
//   step-medium       hidden 512, intermediate 1408, 8 layers, 8 heads, vocabulary 8192
struct speed_settings {
    const char *cases[8]; // none = all
    int n_cases;
    int64_t seconds; // time per case, about
};

// One JSON line per case on stdout: case, seconds (median), seconds_best, tokens_per_second, gflops (products and attention of a step
// by their shapes, over the median), sgemm_gflops (cblas_sgemm at 1024^3 on all threads, measured between the steps),
// share, planned_bytes, buffer_bytes_peak and peak_memory_bytes (resident set of the process).
enum status speed_run(const struct program_common *common, const struct speed_settings *settings);

bool speed_has_case(const char *name);

#endif
