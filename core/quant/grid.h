// Quantization grids: the points a weight may be rounded to.
//
//     TRY(grid_new(&(struct grid_options){.kind = GRID_BLOCK, .bits = 3, .group_size = 64}, &grid));
//     TRY(grid_check(&grid, name, cols));
//     TRY(grid_fit(&grid, name, w, rows, cols, scale)); // core/quant/grid_fit.h; scale [rows, grid_scale_cols(&grid, cols)]
//     struct neighbours near = grid_neighbours(&grid, w[k], scale[group], 0);
//
// A weight matrix w [rows, cols] is cut along its columns (the inputs) into groups of `group_size`; where the grid allows it, the last
// group of a row is shorter. The weights of a group may take the values scale * level + offset for the levels of the grid's codebook.
// A code is the index of a level. A row of scales is [groups], or [groups | groups] = scales, then offsets, where the grid has offsets.
// A scale may be negative or zero. Scales and offsets are rounded to what the grid's format stores before neighbours are taken, so that
// what is evaluated is what can be stored; values are products and sums in fp32, rounded for nf4, nvfp4 and q4_1
// only.
//
//     grid        bits   group           levels                scale, offset                           rule for the scale
//     block       2..8   any (row)       -2^(b-1) ..2^(b-1)-1  fp16                                    max|w| / ((2^b - 1) / 2)
//     asymmetric  2..8   any (row)       0 .. 2^b - 1          fp16, -scale z for z in 0 .. 2^b - 1    (max(w, 0) - min(w, 0)) / (2^b - 1)
//     nf4         4      any (64)        16 normal quantiles   fp16                                    max|w|
//     mxfp4       4      32, no rest     +-{0 .5 1 1.5 2 3 4 6}  2^k (E8M0)                            2^(floor(log2 max|w|) - 2)
//     nvfp4       4      16, no rest     the same              E4M3 times a number of the tensor       max|w| / 6, the tensor's max|w| / (6 * 448)
//     q4_0        4      32, no rest     -8 .. 7               fp16, any sign                          w of largest magnitude / -8
//     q4_1        4      32, no rest     0 .. 15               fp16, fp16                              (max - min) / 15, min
//     q8_0        8      32, no rest     -128 .. 127           fp16                                    max|w| / 127
//     q3_k        3      16 in 256       -4 .. 3               fp16 times a number in -32 .. 31        w of largest magnitude / -4, its largest / -32
//
// block: the paper's block scaling (Section 4.1, after Frantar et al. 2024). Its largest level lies half a step inside max|w|, so the
// largest weights of positive sign are outside the range and have no freedom: down = up. nf4: Dettmers et al. 2023 (QLoRA), Appendix E. mxfp4:
// OCP Microscaling Formats v1.0, sections 5.3.3 and 6.3. nvfp4: NVIDIA's two-level scaling of the same elements; the number of the tensor has
// 20 bits, so that its product with an E4M3 number is a float. q*: the blocks of llama.cpp (ggml), with its choice of d.
#ifndef DQ_CORE_QUANT_GRID_H
#define DQ_CORE_QUANT_GRID_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { GRID_LEVELS_MAX = 256 };

enum grid_kind {
    GRID_BLOCK,
    GRID_ASYMMETRIC,
    GRID_NF4,
    GRID_MXFP4,
    GRID_NVFP4,
    GRID_Q4_0,
    GRID_Q4_1,
    GRID_Q8_0,
    GRID_Q3_K,
};
#define GRID_NAMES "block|asymmetric|nf4|mxfp4|nvfp4|q4_0|q4_1|q8_0|q3_k"

enum scale_search { SCALE_SEARCH_NONE, SCALE_SEARCH_MSE };
#define SCALE_SEARCH_NAMES "none|mse"

struct grid {
    enum grid_kind kind;
    enum scale_search search;
    int bits;             // of a code
    int64_t group_size;   // -1 = the whole row
    int64_t block;        // widths are multiples of it; 1: any
    double scale_divisor; // of the rule for the scale
    bool has_offset;
    int n_levels;
    float levels[GRID_LEVELS_MAX]; // ascending
    bool uniform;                  // levels are consecutive integers, so neighbours are floor and ceiling
};

struct neighbours {
    float down, up;
};

struct grid_options {
    enum grid_kind kind;
    int bits;           // 0 = the grid's own, 4 where it takes several
    int64_t group_size; // 0 = the grid's own, in brackets in the table
    enum scale_search search;
};

// STATUS_INVALID names --bits or --group-size when the grid does not take what is given.
enum status grid_new(const struct grid_options *options, struct grid *out);

// Puts the grid's own numbers where bits or group_size is 0. Fails as grid_new.
enum status grid_options_complete(struct grid_options *options);

// Block scaling: bits 2 .. 8, group_size -1 or >= 1; STATUS_INVALID otherwise.
enum status grid_block(int bits, int64_t group_size, struct grid *out);

const char *grid_kind_name(enum grid_kind kind);
const char *scale_search_name(enum scale_search search);

// options as strings of a file: "block", "none". False: there is no such name.
bool grid_kind_named(const char *name, enum grid_kind *kind);
bool scale_search_named(const char *name, enum scale_search *search);

// STATUS_INVALID with the tensor's name when a matrix of this width cannot lie on the grid.
enum status grid_check(const struct grid *grid, const char *name, int64_t cols);

// Groups per row of a matrix of this width.
int64_t grid_groups(const struct grid *grid, int64_t cols);

// Number of columns in one (full) group of a matrix of this width.
int64_t grid_group_cols(const struct grid *grid, int64_t cols);

// Numbers per row of scales: groups, or twice as many with offsets.
int64_t grid_scale_cols(const struct grid *grid, int64_t cols);

// Codes, scales, offsets and what else the format stores of a matrix, divided by its number of weights.
double grid_bits_per_weight(const struct grid *grid, int64_t rows, int64_t cols);

// Neighbours of one weight, down <= up; offset 0 without offsets. The definition, to the bit; backends vectorize it.
struct neighbours grid_neighbours(const struct grid *grid, float w, float scale, float offset);

float grid_value(const struct grid *grid, int code, float scale, float offset);

// The code whose value is nearest to `value`, the lower value in a tie: inverts grid_value. Scale 0: the code of the level nearest to 0.
int grid_code(const struct grid *grid, float value, float scale, float offset);

#ifdef __cplusplus
}
#endif
#endif
