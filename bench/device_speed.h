// `discquant-bench speed --device NAME`: what a device reaches at the shape of a transformer, as a share of what it can.
//
//     TRY(device_speed_open(&options, &bench));
//     TRY(device_speed_products(bench));      // the matrix rates, and the bandwidth of a copy
//     TRY(device_speed_ops(bench));
//     TRY(device_speed_step(bench));
//     device_speed_close(bench);
//
// Each measurement is one JSON line on stdout. Times are medians of several batches of calls, each ended by waiting for the
// device, after calls that are not timed.
#ifndef DQ_BENCH_DEVICE_SPEED_H
#define DQ_BENCH_DEVICE_SPEED_H

#include "core/backend/backend.h"
#include "core/nn/config.h"

struct device_shape {
    const char *name;
    struct transformer_config config;
    int64_t batch, seq_len;
    int64_t long_bytes;  // of the matrix that is copied: several times the device's cache
    int64_t square;      // of one more product, for comparison with other people's figures
    int64_t factor_size; // of the matrices that are factored
};

// phi3-mini: Phi-3-mini-4k, 8 windows of 2048 tokens. tiny: for trying the program out.
const struct device_shape *device_shape_find(const char *name); // NULL when there is none

struct device_speed_options {
    const char *device;
    const struct device_shape *shape;
    double seconds, step_seconds; // per product or op, and for the steps, about
};

struct device_peak {
    double f32_flops, bf16_flops; // per second, best product of the shape; bf16 0 where the device has none
    double bytes;                 // per second, copying, read + written
};

enum { DEVICE_VIEWS_MAX = 16 };

struct device_speed {
    struct device_speed_options options;
    struct backend *backend;
    enum dtype dtype; // of activations and weights: BF16 where the device has it
    struct device_peak peak;
    struct view held[DEVICE_VIEWS_MAX]; // matrices of the measurement under way
    int n_held;
    uint64_t made; // matrices so far
};

enum status device_speed_open(const struct device_speed_options *options, struct device_speed **out);
void device_speed_close(struct device_speed *bench); // accepts NULL

enum status device_speed_products(struct device_speed *bench);
enum status device_speed_ops(struct device_speed *bench);
enum status device_speed_step(struct device_speed *bench);

// A matrix of the measurement under way: normal with this mean and deviation (a block of numbers over and over), or integers
// 0 .. below - 1.
enum status device_matrix(struct device_speed *bench, enum dtype dtype, int64_t rows, int64_t cols, double mean,
                          double deviation, struct view *out);
enum status device_integers(struct device_speed *bench, int64_t rows, int64_t below, struct view *out);
void device_matrices_free(struct device_speed *bench);

// Median seconds of one call.
enum status device_seconds(struct device_speed *bench, const struct op_call *call, double *seconds);

#endif
