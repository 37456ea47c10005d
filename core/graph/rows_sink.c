// Per-sample gradients, tile by tile (core/graph/weight.h).
//
// A tile is a block of rows of one weight for as many samples as fit into cache, so that who writes coordinate by coordinate
// writes more than one number at a place.
#include "core/graph/weight.h"

#include "core/base/mem.h"

#include <stdlib.h>
#include <string.h>

// A tile has TILE_ROWS_LEAST rows or about TILE_PART elements per sample; samples until TILE_ELEMENTS, at least 8.
enum { TILE_ROWS_LEAST = 64, TILE_PART = 1 << 14, TILE_ELEMENTS = 1 << 20, TILE_SAMPLES_LEAST = 8 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static struct view sample_rows(struct step *step, struct view v, int64_t first, int64_t n) {
    int64_t t = step_options(step)->seq_len;
    return view_rows(v, first * t, n * t);
}

// Whole samples in `rows` rows.
static int64_t sample_count(struct step *step, int64_t rows) {
    int64_t n = step_options(step)->seq_len;
    REQUIRE(rows % n == 0, "the sink sees whole samples");
    return rows / n;
}

static int64_t tile_rows(const struct rows_sink *self, const struct weight *weight) {
    int64_t rows = TILE_PART / weight->cols;
    if (rows < TILE_ROWS_LEAST) rows = TILE_ROWS_LEAST;
    return least(self->tile_rows > 0 ? self->tile_rows : rows, weight->rows);
}

static int64_t tile_samples(int64_t samples, int64_t rows, int64_t cols) {
    int64_t n = TILE_ELEMENTS / (rows * cols);
    return least(n < TILE_SAMPLES_LEAST ? TILE_SAMPLES_LEAST : n, samples);
}

// Whether samples first .. first + n - 1 of this weight have been given before in this pass.
static bool given(const struct rows_sink *self, const struct weight *weight, int64_t first, int64_t n) {
    REQUIRE(first + n <= self->samples, "the sink was made for this many samples");
    if (weight != self->shared) return false;
    for (int64_t b = 1; b < n; b++)
        REQUIRE(self->shared_given[first + b] == self->shared_given[first], "parts of a pass come in the same order");
    return n > 0 && self->shared_given[first];
}

static void give(struct rows_sink *self, const struct weight *weight, int64_t first, int64_t n) {
    for (int64_t b = 0; weight == self->shared && b < n; b++) self->shared_given[first + b] = true;
}

// `grads` [samples * rows, cols] is on the backend. A plan has no numbers to hand over.
static enum status hand_over(struct rows_sink *self, struct step *step, struct view grads, struct rows_tile tile) {
    enum status status = STATUS_OK;
    struct backend *backend = step_backend(step);
    if (backend->dry) return STATUS_OK;
    if (backend->fns->host_memory) {
        TRY(backend_sync(backend));
        tile.grad = grads.data;
    } else {
        int64_t bytes = view_count(grads) * 4;
        if (bytes > self->host_bytes) {
            mem_buffer_free(self->host);
            self->host = NULL;
            self->host_bytes = 0;
            TRY(mem_buffer_new(bytes, "per-sample gradients", &self->host));
            self->host_bytes = bytes;
        }
        TRY(backend_read(backend, grads, self->host));
        TRY(backend_sync(backend));
        tile.grad = self->host;
    }
    TRY(self->take(self->context, &tile));
done:
    return status;
}

static enum status rows_product(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                                struct view x, int64_t first) {
    struct rows_sink *self = (struct rows_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows), before = sample_count(step, first);
    int64_t most_rows = tile_rows(self, weight), most_samples = tile_samples(samples, most_rows, weight->cols);
    bool add = given(self, weight, before, samples);
    struct view room;
    TRY(step_take(step, DTYPE_F32, most_samples * most_rows, weight->cols, &room));
    for (int64_t row = 0; row < weight->rows; row += most_rows) {
        int64_t rows = least(most_rows, weight->rows - row);
        for (int64_t b = 0; b < samples; b += most_samples) {
            int64_t n = least(most_samples, samples - b);
            TRY(backend_run(
                step_backend(step),
                &(struct op_call){.op = OP_sample_products,
                                  .in = {view_cols(sample_rows(step, dy, b, n), row, rows), sample_rows(step, x, b, n)},
                                  .out = {view_rows(room, 0, n * rows)}}));
            TRY(hand_over(
                self, step, view_rows(room, 0, n * rows),
                (struct rows_tile){
                    .weight = weight, .first = before + b, .samples = n, .row = row, .rows = rows, .add = add}));
        }
    }
    give(self, weight, before, samples);
    step_release(step, mark);
done:
    return status;
}

static enum status rows_gain(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                             struct view x, struct view rstd) {
    struct rows_sink *self = (struct rows_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows);
    bool add = given(self, weight, 0, samples);
    struct view grads;
    TRY(step_take(step, DTYPE_F32, samples, weight->cols, &grads));
    TRY(backend_run(step_backend(step),
                    &(struct op_call){.op = OP_rmsnorm_gain_grad, .in = {x, rstd, dy}, .out = {grads}}));
    TRY(hand_over(self, step, grads, (struct rows_tile){.weight = weight, .samples = samples, .rows = 1, .add = add}));
    give(self, weight, 0, samples);
    step_release(step, mark);
done:
    return status;
}

// A table's gradient is scattered, so a tile is all of it, for one sample.
static enum status rows_table(struct grad_sink *sink, struct step *step, struct weight *weight, struct view dy,
                              struct view tokens) {
    struct rows_sink *self = (struct rows_sink *)sink;
    enum status status = STATUS_OK;
    struct step_mark mark = step_mark(step);
    int64_t samples = sample_count(step, dy.rows);
    bool add = given(self, weight, 0, samples);
    struct view grad;
    TRY(step_take(step, DTYPE_F32, weight->rows, weight->cols, &grad));
    for (int64_t b = 0; b < samples; b++) {
        TRY(backend_run(step_backend(step), &(struct op_call){.op = OP_fill, .out = {grad}, .params.value = 0}));
        TRY(backend_run(step_backend(step),
                        &(struct op_call){.op = OP_embedding_grad,
                                          .in = {sample_rows(step, dy, b, 1), sample_rows(step, tokens, b, 1)},
                                          .out = {grad}}));
        TRY(hand_over(
            self, step, grad,
            (struct rows_tile){.weight = weight, .first = b, .samples = 1, .rows = weight->rows, .add = add}));
    }
    give(self, weight, 0, samples);
    step_release(step, mark);
done:
    return status;
}

struct rows_sink *rows_sink_new(int64_t samples, const struct weight *shared, rows_take *take, void *context) {
    REQUIRE(samples > 0, "a pass has samples");
    struct rows_sink *self = mem_new(1, sizeof *self);
    *self = (struct rows_sink){.sink = {rows_product, rows_gain, rows_table},
                               .take = take,
                               .context = context,
                               .samples = samples,
                               .shared = shared};
    self->shared_given = mem_new((size_t)samples, sizeof *self->shared_given);
    return self;
}

void rows_sink_free(struct rows_sink *self) {
    if (!self) return;
    mem_buffer_free(self->host);
    free(self->shared_given);
    free(self);
}

void rows_sink_begin(struct rows_sink *self) {
    memset(self->shared_given, 0, (size_t)self->samples * sizeof *self->shared_given);
}

// ---- rows to a matrix ----

// Coordinates are turned in blocks of BLOCK, one cache line of each sample, for GROUP samples at a time.
enum { BLOCK = 16, GROUP = 64, BLOCKS_PER_PART = 64 };

static void turn_block(const struct rows_matrix *to, const struct rows_tile *tile, int64_t coordinate,
                       const float *grad, int64_t sample_size, int64_t n) {
    float block[GROUP][BLOCK];
    for (int64_t b = 0; b < tile->samples; b += GROUP) {
        int64_t samples = least(GROUP, tile->samples - b);
        for (int64_t k = 0; k < samples; k++) memcpy(block[k], grad + (b + k) * sample_size, (size_t)n * sizeof(float));
        for (int64_t i = 0; i < n; i++) {
            double scale = to->scale ? to->scale[coordinate + i] : 1;
            double *out = to->values + (coordinate + i) * to->stride + to->column + tile->first + b;
            for (int64_t k = 0; k < samples; k++) out[k] = (tile->add ? out[k] : 0) + scale * (double)block[k][i];
        }
    }
}

enum status rows_to_matrix(void *context, const struct rows_tile *tile) {
    const struct rows_matrix *to = context;
    int64_t size = tile->rows * tile->weight->cols, part = BLOCK * BLOCKS_PER_PART, parts = (size + part - 1) / part;
    int64_t coordinate = to->first[tile->weight->index] + tile->row * tile->weight->cols;
    REQUIRE(to->column + tile->first + tile->samples <= to->stride, "the columns are there");
#pragma omp parallel for schedule(static) if (parts > 1)
    for (int64_t p = 0; p < parts; p++)
        for (int64_t i = p * part; i < least(size, (p + 1) * part); i += BLOCK)
            turn_block(to, tile, coordinate + i, tile->grad + i, size, least(BLOCK, size - i));
    return STATUS_OK;
}

// ---- rows times a direction ----

// LANES sums that a compiler may keep in vectors; their order is fixed.
enum { LANES = 8 };

static double inner(const float *a, const double *b, int64_t n) {
    double sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int64_t l = 0; l < LANES; l++) sums[l] += (double)a[i + l] * b[i + l];
    for (int64_t l = 0; i + l < n; l++) sums[l] += (double)a[i + l] * b[i + l];
    for (int64_t l = 0; l < LANES; l++) sum += sums[l];
    return sum;
}

enum status rows_to_inner(void *context, const struct rows_tile *tile) {
    const struct rows_inner *to = context;
    int64_t size = tile->rows * tile->weight->cols;
    const double *direction = to->direction + to->first[tile->weight->index] + tile->row * tile->weight->cols;
#pragma omp parallel for schedule(static) if (tile->samples > 1)
    for (int64_t b = 0; b < tile->samples; b++)
        to->sums[tile->first + b] += inner(tile->grad + b * size, direction, size);
    return STATUS_OK;
}
