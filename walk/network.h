// A real network as an instance of the rounding problem (paper, Sections 1.1 and 2, Appendix C).
//
//     TRY(network_new(model->transformer, model->step, &grid, &(struct network_options){.seq_len = 64}, &network));
//     TRY(network_draw(corpus, 64, seed, 0, m, tokens));               // m windows
//     TRY(network_matrix_new(network, tokens, m, &(struct network_matrix_options){0}, &matrix));   // ready for a walk
//     TRY(network_draw(corpus, 64, seed, m, fresh, tokens));           // others
//     TRY(network_inner(network, tokens, fresh, d, products));         // d = x - y; QE is the mean of their squares
//     TRY(network_loss_change(network, tokens, fresh, x, change));     // what the products approximate
//
// Coordinates are the entries of all matrices inside layers, row by row, in the order of the network. Coordinate i has
// neighbours down_i <= up_i on the grid, step s_i = up_i - down_i, and a variable x_i with w^x = down (1 - x) + up x;
// y_i = (w_i - down_i) / s_i. The sample g_k is s times the gradient of window k's mean next-token cross entropy at the
// network's own weights: <g_k, x - y> is the first order of the loss change from w^y to w^x.
//
// Weights on the grid or outside its range have down = up: s = 0, y = 0, their rows of M are zero, and a walk freezes them
// at the start. Outside the range w^y is not w: rounding moves them whatever x is, which network_clip_offsets measures.
//
// network_start lets rounding depart from another point: y is that point then, and gradients are those of the network with the
// weights w^y, the neighbours staying those of w. Then nothing is clipped: w^y is what the gradients belong to.
//
// Numbers are the same bits for any number of threads. Another `batch` changes them by fp32 rounding.
#ifndef DQ_WALK_NETWORK_H
#define DQ_WALK_NETWORK_H

#include "core/nn/rounding.h"
#include "data/corpus.h"

struct network_options {
    int64_t seq_len; // tokens of a window, at least 2
    int64_t batch;   // windows per pass; 0 = as many as make 2048 tokens, at least 8
    bool recompute;  // keep only the inputs of layers between forward and backward
    void (*progress)(void *context, int64_t done, int64_t total); // windows, after each pass
    void *progress_context;
};

struct network {
    struct transformer *model; // borrowed, as is step; on a grid until network_free
    struct step *step;
    struct network_options options;
    struct rounding *rounding; // model_save_rounded (data/model.h) after network_set
    int64_t n;                 // coordinates
    int64_t frozen;            // of these with s = 0
    int64_t *first;            // [weights of the model] coordinate of the first entry, -1 = not rounded
    double *y, *s;             // [n]
    bool interpolated;         // network_start was called: gradients at w^y instead of w
};

enum status network_new(struct transformer *model, struct step *step, const struct grid *grid,
                        const struct network_options *options, struct network **out);
void network_free(struct network *network); // accepts NULL

// y = x [n], in [0, 1] and exact in fp32, with 0 where s = 0.
void network_start(struct network *network, const double *x);

// Windows first .. first + n - 1 of the corpus in an order that (seed) decides: tokens [n, seq_len]. What is drawn with
// other `first` shares no window. STATUS_INVALID: there are not so many.
enum status network_draw(const struct corpus *corpus, int64_t seq_len, uint64_t seed, int64_t first, int64_t n,
                         int32_t *tokens);

// ---- gradients: tokens [windows, seq_len] on the host ----
// STATUS_INVALID where a loss is not finite.

// M, coordinate-major: rows[i stride + k] = coordinate i of g_k, k < windows <= stride; the rest of a row stays as it is.
enum status network_rows(struct network *network, const int32_t *tokens, int64_t windows, int64_t stride, double *rows);

// The same in memory of its own or in a mapped file. Takes n stride 8 bytes; what is written to a mapped M later changes the
// file. A file larger than memory is slow: every pass writes a few columns of every row.
struct network_matrix_options {
    int64_t stride;   // 0 = windows rounded up to whole cache lines
    const char *path; // a .npy file [n, stride] that appears when M is complete; NULL: in memory
    bool scratch;     // no file appears: the room on the disk is free again when M is, or the process ends
};
struct network_matrix {
    double *values; // [n, stride]; columns from m on are zero
    int64_t n, m, stride;
    void *buffer, *map;
    int64_t map_bytes;
};
enum status network_matrix_new(struct network *network, const int32_t *tokens, int64_t windows,
                               const struct network_matrix_options *options, struct network_matrix **out);
void network_matrix_free(struct network_matrix *matrix); // accepts NULL; the file stays

// products[k] = <g_k, d>, d [n]; no row is held, sums in double: M^T d for the numbers that M has.
enum status network_inner(struct network *network, const int32_t *tokens, int64_t windows, const double *d,
                          double *products);

// offsets[k] = <gradient of window k, w^y - w>: what clipping by the grid adds to every rounding's loss change. 0 after
// network_start.
enum status network_clip_offsets(struct network *network, const int32_t *tokens, int64_t windows, double *offsets);

// ---- losses ----

// The model's variables become x [n], in fp32; NULL = y. For transformer_set_form and model_save_rounded.
enum status network_set(struct network *network, const double *x);

// x [n] of another rounding of the same weights to the same grid: 0 where its value is down, 1 where it is up. STATUS_INVALID
// names the tensor whose values lie elsewhere.
enum status network_get(const struct network *network, struct tensor_source rounded, double *x);

// Mean cross entropy of each window with w^x (interpolated: fractional x stay fractional), losses [windows]. NULL = w^y.
enum status network_losses(struct network *network, const int32_t *tokens, int64_t windows, const double *x,
                           double *losses);

// change[k] = loss at w^x - loss at w^y.
enum status network_loss_change(struct network *network, const int32_t *tokens, int64_t windows, const double *x,
                                double *change);

#endif
