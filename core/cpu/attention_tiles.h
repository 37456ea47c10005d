// What the attention kernels share: how heads are copied into tiles, and products of tiles that stay in the first-level
// cache. Included by attention*.c only.
//
// One task is one key/value head of one sequence with all its query heads. Queries go in blocks of QUERIES rows, keys in
// tiles of KEYS columns, so that a tile of scores [QUERIES, KEYS] is all that is ever held of the T x T matrix. Head
// widths are padded with zeros to a multiple of 8 (`width`), sequences to a multiple of PANEL (`length`).
//
//   rows    [length, width]                  a copy of a head: right operand of P V, dS K, dS^T Q, P^T dO
//   panels  [length / PANEL, width, PANEL]   transposed in panels: right operand of Q K^T, dO V^T
//   eights  [rows / 8, width, 8]             transposed eight rows at a time: left operand of the same
//
// Every product makes eight rows at a time in registers; its left operand has strides known at compile time, so that the eight
// broadcasts need one address.
#ifndef DQ_CORE_CPU_ATTENTION_TILES_H
#define DQ_CORE_CPU_ATTENTION_TILES_H

#include "core/base/mem.h"
#include "core/cpu/eight_rows.h"
#include "core/cpu/parts.h"
#include "core/cpu/vector_math.h"
#include "core/ops/op.h"

#include <omp.h>

enum {
    QUERIES = 16,
    KEYS = 256,
    PANEL = 32,
    SCORES_STRIDE = KEYS + 16, // rows of a tile fall into different cache sets
};

// s [8, n] (+)= eights panels^T, n a multiple of PANEL; s has rows of SCORES_STRIDE.
static inline void score_rows(const float *eights, const float *panels, int64_t width, int64_t n, float *s, bool add) {
    for (int64_t j = 0; j < n; j += PANEL) {
        if (add)
            eight_rows(eights, 1, 8, panels + j * width, PANEL, s + j, SCORES_STRIDE, PANEL, width, true);
        else
            eight_rows(eights, 1, 8, panels + j * width, PANEL, s + j, SCORES_STRIDE, PANEL, width, false);
    }
}

// The keys of a tile that starts at key `base`, as seen by query i: columns from .. to - 1 of the tile.
struct seen {
    int64_t from, to;
};

// Eight rows of what follows from x = eights panels^T - offset, for the columns at `panel`, in registers from the products to
// the result y: 2^x, 0 where a row does not see (BOUNDED: |x| <= 125), or y = x times p.
enum finish { FINISH_POWER, FINISH_POWER_BOUNDED, FINISH_TIMES };

#define DEFINE_FINISHED(name, vectors)                                                                                 \
    static inline __attribute__((always_inline)) void name(                                                            \
        enum finish finish, const float *eights, const float *panel, int64_t width, const float *offset,               \
        const struct seen *seen, int64_t j, bool edge, const float *p, float *y, lanes *row_sum) {                     \
        lanes x[8][vectors];                                                                                           \
        UNROLL for (int i = 0; i < 8; i++) UNROLL for (int v = 0; v < vectors; v++) x[i][v] = lanes_of(-offset[i]);    \
        for (int64_t e = 0; e < width; e++) {                                                                          \
            lanes b[vectors];                                                                                          \
            UNROLL for (int v = 0; v < vectors; v++) b[v] = lanes_load(panel + e * PANEL + v * LANES);                 \
            UNROLL for (int i = 0; i < 8; i++) UNROLL for (int v = 0; v < vectors; v++) x[i][v] +=                     \
                eights[e * 8 + i] * b[v];                                                                              \
        }                                                                                                              \
        UNROLL for (int i = 0; i < 8; i++) UNROLL for (int v = 0; v < vectors; v++) {                                  \
            lanes z = x[i][v];                                                                                         \
            int64_t at = i * SCORES_STRIDE + v * LANES;                                                                \
            if (finish == FINISH_POWER) z = lanes_exp2(z);                                                             \
            if (finish == FINISH_POWER_BOUNDED) z = lanes_exp2_bounded(z);                                             \
            if (finish == FINISH_TIMES) z *= lanes_load(p + at);                                                       \
            if (edge) z = lanes_between(z, (int32_t)(j + v * LANES), (int32_t)seen[i].from, (int32_t)seen[i].to, 0);   \
            lanes_store(y + at, z);                                                                                    \
            if (row_sum) row_sum[i] += z;                                                                              \
        }                                                                                                              \
    }

DEFINE_FINISHED(finished_one, 1)
DEFINE_FINISHED(finished_two, 2)

// y [8, n], n a multiple of LANES; row_sum [8], unless NULL, += over the columns.
static inline __attribute__((always_inline)) void
finished_columns(enum finish finish, const float *eights, const float *panels, int64_t width, const float *offset,
                 const struct seen *seen, int64_t n, const float *p, float *y, lanes *row_sum) {
    int64_t from = 0, to = n; // what all eight rows see
    for (int i = 0; i < 8 && finish != FINISH_TIMES; i++)
        from = max_i64(from, seen[i].from), to = min_i64(to, seen[i].to);
    for (int64_t j = 0, step; j < n; j += step) {
        const float *panel = panels + j / PANEL * PANEL * width + j % PANEL;
        bool two = LANES == 16 && j % PANEL == 0 && j + PANEL <= n;
        step = two ? 2 * LANES : LANES;
        bool edge = finish != FINISH_TIMES && (j < from || j + step > to);
        if (two && !edge)
            finished_two(finish, eights, panel, width, offset, seen, j, false, p + j, y + j, row_sum);
        else if (two)
            finished_two(finish, eights, panel, width, offset, seen, j, true, p + j, y + j, row_sum);
        else if (!edge)
            finished_one(finish, eights, panel, width, offset, seen, j, false, p + j, y + j, row_sum);
        else
            finished_one(finish, eights, panel, width, offset, seen, j, true, p + j, y + j, row_sum);
    }
}

static inline __attribute__((always_inline)) void finished_rows(enum finish finish, const float *eights,
                                                                const float *panels, int64_t width, const float *offset,
                                                                const struct seen *seen, int64_t n, const float *p,
                                                                float *y, lanes *row_sum) {
    if (width == 8) // the products are eight instructions, no loop
        finished_columns(finish, eights, panels, 8, offset, seen, n, p, y, row_sum);
    else
        finished_columns(finish, eights, panels, width, offset, seen, n, p, y, row_sum);
}

// c [8, width] += p [8, k] rows [k, width]; p has rows of SCORES_STRIDE.
static inline void weigh_rows(const float *p, const float *rows, int64_t width, int64_t k, float *c) {
    eight_rows(p, SCORES_STRIDE, 1, rows, width, c, width, width, k, true);
}

// c [n, width] += p^T [n, k] rows [k, width], n a multiple of 8.
static inline void weigh_columns(const float *p, const float *rows, int64_t width, int64_t n, int64_t k, float *c) {
    for (int64_t i = 0; i < n; i += 8)
        eight_rows(p + i, 1, SCORES_STRIDE, rows, width, c + i * width, width, width, k, true);
}

// Where a head lies: columns first .. first + d of rows row .. row + n of a view.
struct head {
    struct view view;
    int64_t row, first, d;
};

static inline struct head head_at(struct view view, int64_t row, int64_t index, int64_t d) {
    return (struct head){view, row, index * d, d};
}
static inline float *head_row(struct head h, int64_t i) { return view_f32(h.view, h.row + i) + h.first; }

static inline int64_t round_up(int64_t n, int64_t multiple) { return ceil_div(n, multiple) * multiple; }

// rows [padded, width] = factor * rows first .. first + n of the head, zeros beyond n and d.
static inline __attribute__((always_inline)) void copy_in(struct head h, int64_t first, int64_t n, int64_t padded,
                                                          int64_t d, int64_t width, float factor, float *rows) {
    for (int64_t i = 0; i < n; i++, rows += width) {
        const float *from = head_row(h, first + i);
        for (int64_t e = 0; e < d; e++) rows[e] = factor * from[e];
        for (int64_t e = d; e < width; e++) rows[e] = 0;
    }
    for (int64_t e = 0; e < (padded - n) * width; e++) rows[e] = 0;
}
static inline void pack_rows(struct head h, int64_t first, int64_t n, int64_t padded, int64_t width, float factor,
                             float *rows) {
    if (h.d == 8) // one vector, not a loop
        copy_in(h, first, n, padded, 8, 8, factor, rows);
    else
        copy_in(h, first, n, padded, h.d, width, factor, rows);
}

// Rows first .. first + n of the head = factor * rows [n, width].
static inline __attribute__((always_inline)) void copy_out(struct head h, int64_t first, int64_t n, int64_t d,
                                                           int64_t width, float factor, const float *rows) {
    for (int64_t i = 0; i < n; i++, rows += width) {
        float *to = head_row(h, first + i);
        for (int64_t e = 0; e < d; e++) to[e] = factor * rows[e];
    }
}
static inline void unpack_rows(struct head h, int64_t first, int64_t n, int64_t width, float factor,
                               const float *rows) {
    if (h.d == 8)
        copy_out(h, first, n, 8, 8, factor, rows);
    else
        copy_out(h, first, n, h.d, width, factor, rows);
}

// out [padded / size, width, size] = rows [n, width] transposed `size` rows at a time.
static inline __attribute__((always_inline)) void transpose_rows(const float *rows, int64_t padded, int64_t width,
                                                                 int64_t size, float *out) {
    for (int64_t i = 0; i < padded; i += size)
        for (int64_t e = 0; e < width; e++)
            for (int64_t l = 0; l < size; l++) out[i * width + e * size + l] = rows[(i + l) * width + e];
}
static inline void pack_panels(const float *rows, int64_t padded, int64_t width, float *panels) {
    transpose_rows(rows, padded, width, PANEL, panels);
}
static inline void pack_eights(const float *rows, int64_t padded, int64_t width, float *eights) {
    if (width == 8)
        transpose_rows(rows, padded, 8, 8, eights);
    else
        transpose_rows(rows, padded, width, 8, eights);
}

// Keys that query i sees: first .. last, both included.
static inline int64_t first_key(const struct attention_params *p, int64_t i) {
    return p->window > 0 ? max_i64(0, i + 1 - p->window) : 0;
}

static inline struct seen seen_in_tile(const struct attention_params *p, int64_t i, int64_t base, int64_t n) {
    struct seen seen = {max_i64(0, first_key(p, i) - base), min_i64(n, i + 1 - base)};
    if (i >= p->seq_len || seen.to <= seen.from) seen = (struct seen){0, 0}; // rows of padding see nothing
    return seen;
}

// s [n] outside the seen columns = value; n is a multiple of LANES.
static inline void fill_outside(float *s, struct seen seen, int64_t n, float value) {
    int32_t from = (int32_t)seen.from, to = (int32_t)seen.to;
    for (int32_t j = 0; j < from; j += LANES) lanes_store(s + j, lanes_between(lanes_load(s + j), j, from, to, value));
    for (int32_t j = to / LANES * LANES; j < n; j += LANES)
        lanes_store(s + j, lanes_between(lanes_load(s + j), j, from, to, value));
}

// One sequence and key/value head: the sequence starts at `row`. `scratch` is this thread's, of as many floats as the op asks
// for; length and width are seq_len and head_dim rounded up to whole panels and lanes.
typedef void attention_task(const struct op_call *call, float *scratch, int64_t length, int64_t width, int64_t row,
                            int64_t kv);

// Shares the tasks of an op among threads.
static inline enum status attention_run(const struct op_call *call, int64_t (*floats_of)(int64_t length, int64_t width),
                                        attention_task *task) {
    const struct attention_params *p = &call->params.attention;
    int64_t sequences = call->in[0].rows / p->seq_len, length = round_up(p->seq_len, PANEL),
            width = round_up(p->head_dim, 8), floats = round_up(floats_of(length, width), 16);
    void *scratch = NULL;
    enum status status =
        mem_buffer_new(omp_get_max_threads() * floats * (int64_t)sizeof(float), "tiles of attention", &scratch);
    if (status != STATUS_OK) return status;
#pragma omp parallel for collapse(2) schedule(dynamic)
    for (int64_t b = 0; b < sequences; b++)
        for (int64_t kv = 0; kv < p->kv_heads; kv++)
            task(call, (float *)scratch + omp_get_thread_num() * floats, length, width, b * p->seq_len, kv);
    mem_buffer_free(scratch);
    return STATUS_OK;
}

#endif
