// `discquant-bench speed`: the time of a DiscQuant step on random weights, as a share of what the machine can do; on any device
// also of products and of every op (bench/device_speed.h).
#ifndef DQ_BENCH_SPEED_H
#define DQ_BENCH_SPEED_H

#include "data/program.h"

// A step is teacher forward, student forward, backward and update, of 8 windows of 256 tokens at 3 bits, group -1.
//   step-stories260K  hidden 64, intermediate 172, 5 layers, 8 heads, 4 key/value heads, vocabulary 512, tied head
//   step-medium       hidden 512, intermediate 1408, 8 layers, 8 heads, vocabulary 8192
// On any device, at the shape of a transformer:
//   products          the matrix rates and the bandwidth of a copy, which shares refer to; runs before the other two
//   ops               every op
//   step              one step with recomputation
struct speed_settings {
    const char *cases[8]; // none = step-… on the CPU, products, ops and step on other devices
    int n_cases;
    int64_t seconds;                  // time per case, about; -1: 10, and 0.2 per product and op
    const struct device_shape *shape; // of the cases on any device; NULL = phi3-mini
};

// One JSON line per case on stdout: case, seconds (median), seconds_best, tokens_per_second, gflops (products and attention of a step
// by their shapes, over the median), sgemm_gflops (cblas_sgemm at 1024^3 on all threads, measured between the steps),
// share, planned_bytes, buffer_bytes_peak and peak_memory_bytes (resident set of the process).
enum status speed_run(const struct program_common *common, const struct speed_settings *settings);

bool speed_has_case(const char *name);

#endif
