// Weights are expressions: what a layer multiplies by is made, when it is needed, from what is stored. One network
// serves as the original, the interpolated and the rounded model; no second copy of anything is kept.
//
//     form                  value                            what a gradient of the value means for the variables
//     WEIGHT_STORED         stored                           stored: itself
//     WEIGHT_INTERPOLATED   down (1 - x) + up x              x: times (up - down)
//     WEIGHT_ROUNDED        up where x > 1/2, else down      x: the same, as if it were interpolated (straight-through)
//     WEIGHT_STRAIGHT       nearest grid point of x          x (latent weights): itself, as if rounding were the identity
//
// down and up are the neighbours of `stored` on the grid; `scale` belongs to it. For WEIGHT_STRAIGHT x holds latent weights
// of the size of weights, and down, up are theirs.
//
// A matrix may carry a low-rank adapter {A [r, in], B [out, r]}, two weights of their own with sinks, gradients and directions like any
// other: its layer is y = x W^T + (x A^T) B^T, and W takes no part in what the adapter learns. It belongs to the matrix in use: the
// original of a matrix on a grid (WEIGHT_STORED) is without, so that one network is teacher and student. core/nn/lora.h makes them.
//
// A matrix with a rotation is the matrix in rotated coordinates, and all of this but the adapter belongs to them (core/graph/rotation.h).
#ifndef DQ_CORE_GRAPH_WEIGHT_H
#define DQ_CORE_GRAPH_WEIGHT_H

#include "core/graph/rotation.h"
#include "core/graph/step.h"
#include "core/quant/grid.h"

enum weight_form { WEIGHT_STORED, WEIGHT_INTERPOLATED, WEIGHT_ROUNDED, WEIGHT_STRAIGHT };

struct grad_sink;
struct input_tap;

struct weight {
    char *name;            // of the tensor in the checkpoint
    int64_t rows, cols;    // [out, in]; a vector is [1, n]
    bool is_linear;        // a matrix inside a layer: what rounding methods round
    int64_t index;         // position among the weights of its network: stream of its random numbers
    struct view stored;    // [rows, cols] F32 or BF16; gains of norms F32
    enum dtype file_dtype; // how the checkpoint stores it
    enum weight_form form;
    const struct grid *grid; // NULL = not quantized
    struct view scale;       // [rows, grid_scale_cols] F32 with a grid
    struct view x;           // [rows, cols] variables, see above; F32 or BF16
    struct view
        grad; // [rows, cols] sum of gradients with respect to the variables; filled by accumulate_sink. Gains: F32
    struct view
        direction; // [rows, cols] tangent of the value in forward mode, matrices in the step's dtype; empty = zero
    struct grad_sink *sink;          // receives the gradient of the value; NULL = nobody asks for it
    struct input_tap *tap;           // sees what the value is multiplied by; NULL = nobody asks for it
    struct output_tap *output;       // sees the product and adds to its gradient; NULL = nobody does
    struct weight *adapter[2];       // A, B, matrices in F32; borrowed; NULL = none
    const struct rotation *rotation; // borrowed; NULL = none
};

// Sees the input x [N, in] of a weight's product in the forward pass, in the step's dtype and as it is multiplied. It must have
// used the view when it returns, and leaves x as it is. Layers that are recomputed on the way back call it again.
struct input_tap {
    enum status (*take)(struct input_tap *tap, struct step *step, const struct weight *weight, struct view x);
};

// {A, B} where they take part in the layer of `weight`, else NULL.
struct weight *const *weight_adapter(const struct weight *weight);

// Whether a layer must hand gradients to sinks of the weight or of its adapter; whether one of them has a direction.
bool weight_needs_grad(const struct weight *weight);
bool weight_has_direction(const struct weight *weight);

// The value in the step's dtype, as a view that lives until the current mark is released (stored in that dtype: for ever).
// Between uses it is made anew: a layer's value costs one pass over its weights, its products N passes.
enum status weight_value(struct step *step, const struct weight *weight, struct view *out);

// grad (+)= the gradient with respect to the variables, given the factors of the gradient of the value:
// dy [N, out], x [N, in], d value = dy^T x.
enum status weight_pull_back(struct step *step, const struct weight *weight, struct view dy, struct view x,
                             struct view grad, bool accumulate);

// Sums of products are fp32 in any step: gradients that sinks make of the factors are F32 where they are not weight.grad.
//
// A gradient sink decides what becomes of the factors of a weight's gradient. It must have used the views when it
// returns. One sample is step_options.seq_len consecutive rows. A weight that two layers share gets two calls.
struct grad_sink {
    // value [out, in] of a product: dy [n, out], x [n, in] are rows first .. first + n - 1 of the pass, whole samples; the
    // gradient is the sum of dy^T x over the calls.
    enum status (*product)(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                           struct view x, int64_t first);
    // gain [1, C] of a norm: the gradient is the sum over all rows of dy x rstd.
    enum status (*gain)(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy, struct view x,
                        struct view rstd);
    // table [V, C] of an embedding: row tokens_n of the gradient gets dy_n; all rows.
    enum status (*table)(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                         struct view tokens);
};

// Adds every gradient to weight.grad, which the caller has zeroed. For training and for DiscQuant. Stateless.
extern struct grad_sink accumulate_sink;

// Per-sample gradients themselves, "rows", handed to `take` tile by tile; nothing of the size of samples x all weights
// is held. For the matrix M of the walk, inner products with a direction, and what else needs single entries.
//
//     struct rows_matrix matrix = {.values = m, .stride = n_samples, .first = first};
//     struct rows_sink *rows = rows_sink_new(batch, NULL, rows_to_matrix, &matrix);
//     weight->sink = &rows->sink;
//     rows_sink_begin(rows);                       // before every pass
//
// A tile's numbers are dY_b^T X_b in fp32, cut by the weight's shape alone: how many samples share a pass or a tile does
// not change how they are computed. The caller scales: with transformer_loss.gradient_weight = 1 / (seq_len - 1) a row
// is the gradient of its sample's own mean loss, whatever the batch.
struct rows_tile {
    const struct weight *weight;
    int64_t first, samples; // samples first .. first + samples - 1 of the pass
    int64_t row, rows;      // rows row .. row + rows - 1 of the weight
    const float *grad;      // host [samples, rows, cols], with respect to the value
    bool add;               // the same entries were given before in this pass: the gradient is the sum (shared weight)
};
typedef enum status rows_take(void *context, const struct rows_tile *tile);

struct rows_sink {
    struct grad_sink sink;
    rows_take *take;
    void *context;
    int64_t samples;             // of a pass, at most
    int64_t tile_rows;           // rows of a weight per tile; 0 = chosen by its shape
    const struct weight *shared; // weight that two layers use, or NULL
    bool *shared_given;          // [samples]
    void *host;                  // copy of a tile, for backends without host memory
    int64_t host_bytes;
};

struct rows_sink *rows_sink_new(int64_t samples, const struct weight *shared, rows_take *take, void *context);
void rows_sink_free(struct rows_sink *sink); // accepts NULL
void rows_sink_begin(struct rows_sink *sink);

// Where rows go, by coordinates: entry (r, c) of a weight is coordinate first[weight.index] + r cols + c.

// values[i, column + b] = scale[i] times coordinate i of sample b's gradient; the product is exact in double. Other columns
// stay as they are.
struct rows_matrix {
    double *values; // [coordinates, stride]
    int64_t stride, column;
    const int64_t *first; // [weights]
    const double *scale;  // [coordinates], NULL = 1
};
rows_take rows_to_matrix;

// sums[b] += <sample b's gradient, direction>, products and sums in double, in an order that no batch or thread changes.
struct rows_inner {
    double *sums;            // [samples] of the pass, zeroed by the caller
    const int64_t *first;    // [weights]
    const double *direction; // [coordinates]
};
rows_take rows_to_inner;

#endif
