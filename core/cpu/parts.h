// How elementwise work is cut: into pieces of at most PIECE neighbouring elements, given by the shape alone.
//
//     struct pieces cut = pieces_of(y, view_is_contiguous(a) && view_is_contiguous(y));
//     #pragma omp parallel for
//     for (int64_t p = 0; p < cut.count; p++) {
//         struct piece at = piece_at(cut, p);
//         float *y_p = view_f32(y, at.row) + at.first;       // at.n elements
//     }
//
// Contiguous views are one long row, so that narrow matrices make full pieces too.
#ifndef DQ_CORE_CPU_PARTS_H
#define DQ_CORE_CPU_PARTS_H

#include "core/tensor/view.h"

// Up to ALONE pieces are one thread's work: waking another one costs more than it does (5 to 50 us against 1 us a piece).
enum { PIECE = 4096, ALONE = 6 };

struct pieces {
    int64_t cols, per_row, count;
};

struct piece {
    int64_t row, first, n;
};

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

static inline struct pieces pieces_of(struct view v, bool contiguous) {
    int64_t rows = contiguous ? 1 : v.rows, cols = contiguous ? v.rows * v.cols : v.cols;
    struct pieces cut = {.cols = cols, .per_row = ceil_div(cols, PIECE)};
    cut.count = rows * cut.per_row;
    return cut;
}

static inline struct piece piece_at(struct pieces cut, int64_t p) {
    struct piece at = {.row = p / cut.per_row, .first = p % cut.per_row * PIECE};
    at.n = min_i64(PIECE, cut.cols - at.first);
    return at;
}

// Rows per part for work that goes row by row: about PIECE elements, so that small matrices stay on one thread.
static inline int64_t rows_per_part(int64_t cols) { return max_i64(1, PIECE / max_i64(1, cols)); }

#endif
