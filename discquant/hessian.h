// Gram matrices of the inputs of linear layers, H = X^T X over the rows (tokens) of all calibration windows: with E = W - W' the
// squared error of the outputs is  sum over tokens |x E^T|^2 = tr(E H E^T).
//
//     TRY(hessian_new(weight->cols, &hessian));
//     weight->tap = &hessian->tap;                // then forward passes: core/nn/stream.h
//
// Products of the rows of one pass are made by the backend in fp32, in blocks of columns of the lower triangle; passes are added in
// double, in their order. Relative error of entries about 1e-6 of the diagonal's.
#ifndef DQ_DISCQUANT_HESSIAN_H
#define DQ_DISCQUANT_HESSIAN_H

#include "core/nn/transformer.h"

struct hessian {
    struct input_tap tap;
    int64_t n;    // inputs
    double *sum;  // [n, n], entries (i, j) with j <= i
    int64_t rows; // of X
    float *part;  // [HESSIAN_BLOCK, n] one product
};

enum { HESSIAN_BLOCK = 256 };

// STATUS_NO_MEMORY with `name` in the message.
enum status hessian_new(int64_t n, const char *name, struct hessian **out);
void hessian_free(struct hessian *hessian); // accepts NULL

// STATUS_INVALID, naming the layer, when an entry is not finite.
enum status hessian_check(const struct hessian *hessian, const char *name);

// tr(E H E^T) for E [rows, n]: squared error of the outputs, summed over rows of X and of E.
double hessian_error(const struct hessian *hessian, const float *e, int64_t rows);

#endif
