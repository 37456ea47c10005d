#include "discquant/feedback.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

static const double damping_least = 1e-6, damping_most = 1e6, pivot_least = 1e-7;

// ---- the factorization ----

struct key {
    double value;
    int64_t index;
};

static int largest_first(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

static void order_make(const double *diagonal, int64_t n, bool ordered, int64_t *order) {
    struct key *keys = mem_new((size_t)n, sizeof *keys);
    for (int64_t i = 0; i < n; i++) keys[i] = (struct key){diagonal[i], i};
    if (ordered) qsort(keys, (size_t)n, sizeof *keys, largest_first);
    for (int64_t i = 0; i < n; i++) order[i] = keys[i].index;
    free(keys);
}

// The damped matrix, entry (a, b) that of the inputs that are rounded a-th and b-th from the end; lower triangle.
static void matrix_make(const struct feedback *self, const double *h, const double *diagonal, double *a) {
    int64_t n = self->n;
#pragma omp parallel for schedule(static, 8)
    for (int64_t i = 0; i < n; i++) {
        int64_t p = self->order[n - 1 - i];
        for (int64_t j = 0; j < i; j++) {
            int64_t q = self->order[n - 1 - j];
            a[i * n + j] = p > q ? h[p * n + q] : h[q * n + p];
        }
        a[i * n + i] = diagonal[p] + self->added;
    }
}

// M and D from the lower triangular factor of the reversed matrix; false where a pivot is too small.
static bool factor_take(struct feedback *self, const double *l, double mean) {
    int64_t n = self->n;
    for (int64_t k = 0; k < n; k++) {
        double root = l[(n - 1 - k) * n + n - 1 - k];
        self->pivots[k] = root * root;
        if (!(self->pivots[k] >= pivot_least * mean)) return false;
    }
#pragma omp parallel for schedule(static, 8)
    for (int64_t j = 0; j < n; j++) {
        const double *row = l + (n - 1 - j) * n;
        for (int64_t k = 0; k <= j; k++) self->factor[j * n + k] = k == j;
        for (int64_t k = j + 1; k < n; k++)
            self->factor[j * n + k] = (float)(row[n - 1 - k] / l[(n - 1 - k) * n + n - 1 - k]);
    }
    return true;
}

// One attempt with self->damping; *done says whether it succeeded.
static enum status attempt(struct feedback *self, struct backend *backend, const double *h, const double *diagonal,
                           double mean, double *a, bool *done) {
    enum status status = STATUS_OK;
    struct view view = {0};
    self->added = self->damping * mean;
    matrix_make(self, h, diagonal, a);
    TRY(backend_matrix_new(backend, DTYPE_F64, self->n, self->n, "a factor", &view));
    TRY(backend_write(backend, view, a));
    status = backend_run(backend, &(struct op_call){.op = OP_cholesky, .in = {view}, .out = {view}});
    *done = status == STATUS_OK;
    if (status == STATUS_INVALID) status = STATUS_OK; // finite as it is, it is not positive definite
    if (status != STATUS_OK || !*done) goto done;
    TRY(backend_read(backend, view, a));
    TRY(backend_sync(backend));
    *done = factor_take(self, a, mean);
done:
    backend_matrix_free(backend, &view);
    return status;
}

// The diagonal with dead inputs made harmless, and its mean.
static double diagonal_take(struct feedback *self, const struct hessian *hessian, double *diagonal) {
    double sum = 0, mean = 1;
    for (int64_t i = 0; i < self->n; i++) {
        diagonal[i] = hessian->sum[i * self->n + i];
        sum += diagonal[i];
        self->dead += diagonal[i] == 0;
    }
    if (self->dead < self->n) mean = sum / (double)(self->n - self->dead);
    for (int64_t i = 0; i < self->n; i++)
        if (diagonal[i] == 0) diagonal[i] = mean;
    return mean;
}

static enum status factorize(struct feedback *self, struct backend *backend, const struct hessian *hessian,
                             const char *name, const struct feedback_options *options) {
    enum status status = STATUS_OK;
    double *diagonal = mem_new((size_t)self->n, sizeof *diagonal);
    void *a = NULL;
    bool done = false;
    TRY(mem_buffer_new(self->n * self->n * 8, name, &a));
    double mean = diagonal_take(self, hessian, diagonal);
    order_make(diagonal, self->n, options->ordered, self->order);
    self->damping = options->damping;
    for (;;) {
        TRY(attempt(self, backend, hessian->sum, diagonal, mean, a, &done));
        if (done) break;
        if (self->damping > damping_most)
            TRY(status_set(STATUS_INVALID, "%s: the Hessian of its calibration inputs cannot be factorized", name));
        self->damping = fmax(10 * self->damping, damping_least);
        self->raised++;
    }
    // What was put on the diagonal of dead inputs is no part of the error.
    for (int64_t k = 0; k < self->n; k++)
        if (hessian->sum[self->order[k] * (self->n + 1)] == 0) self->pivots[k] = self->added;
done:
    mem_buffer_free(a);
    free(diagonal);
    return status;
}

enum status feedback_new(struct backend *backend, const struct hessian *hessian, const char *name,
                         const struct feedback_options *options, struct feedback **out) {
    enum status status = STATUS_OK;
    int64_t n = hessian->n;
    struct feedback *self = mem_new(1, sizeof *self);
    self->n = n;
    void *factor = NULL;
    self->order = mem_new((size_t)n, sizeof *self->order);
    self->pivots = mem_new((size_t)n, sizeof *self->pivots);
    TRY(hessian_check(hessian, name));
    TRY(mem_buffer_new(n * n * (int64_t)sizeof *self->factor, name, &factor));
    self->factor = factor;
    TRY(factorize(self, backend, hessian, name, options));
    *out = self;
    self = NULL;
done:
    feedback_free(self);
    return status;
}

void feedback_free(struct feedback *self) {
    if (!self) return;
    free(self->order);
    free(self->pivots);
    mem_buffer_free(self->factor);
    free(self);
}

// ---- rounding ----

enum { BLOCK = 128, PARTS = 8, PART_LEAST = 8, PART_MOST = 64 };

// Rows are independent of each other and cut into parts by their number alone.
static int64_t part_rows(int64_t rows) {
    int64_t part = (rows + PARTS - 1) / PARTS;
    return part < PART_LEAST ? PART_LEAST : part > PART_MOST ? PART_MOST : part;
}

struct rounding_job {
    const struct feedback *feedback;
    const struct grid *grid;
    const float *w, *scale; // [rows, n], [rows, scale_cols]
    int64_t scale_cols, groups, group_cols;
    float *v, *e; // [rows, n] in the order of rounding; [rows, BLOCK] w - q of a block
    float *q;
    double *errors; // [rows]
};

static float nearest_point(const struct rounding_job *job, int64_t row, int64_t input, float v) {
    int64_t group = input / job->group_cols;
    const float *scale = job->scale + row * job->scale_cols + group;
    struct neighbours near = grid_neighbours(job->grid, v, *scale, job->grid->has_offset ? scale[job->groups] : 0);
    return fabsf(v - near.down) <= fabsf(near.up - v) ? near.down : near.up;
}

// Columns first .. end - 1 of the order, for rows row .. row + n_rows - 1.
static void round_block(const struct rounding_job *job, int64_t row, int64_t n_rows, int64_t first, int64_t end) {
    const struct feedback *feedback = job->feedback;
    int64_t n = feedback->n;
    for (int64_t k = first; k < end; k++) {
        const float *factor = feedback->factor + k * n;
        int64_t input = feedback->order[k];
        for (int64_t r = row; r < row + n_rows; r++) {
            float *restrict v = job->v + r * n;
            float q = nearest_point(job, r, input, v[k]), error = job->w[r * n + input] - q;
            double miss = (double)v[k] - (double)q;
            job->q[r * n + input] = q;
            job->e[r * BLOCK + k - first] = error;
            job->errors[r] += feedback->pivots[k] * miss * miss - feedback->added * (double)error * (double)error;
#pragma omp simd
            for (int64_t c = k + 1; c < end; c++) v[c] += error * factor[c];
        }
    }
}

static void round_rows(const struct rounding_job *job, int64_t row, int64_t n_rows) {
    int64_t n = job->feedback->n;
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t end = n - first < BLOCK ? n : first + BLOCK;
        round_block(job, row, n_rows, first, end);
        if (end == n) break;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n_rows, (int)(n - end), (int)(end - first), 1,
                    job->e + row * BLOCK, BLOCK, job->feedback->factor + first * n + end, (int)n, 1,
                    job->v + row * n + end, (int)n);
    }
}

enum status feedback_round(const struct feedback *feedback, const struct grid *grid, const float *w, const float *scale,
                           int64_t rows, float *q, double *error) {
    enum status status = STATUS_OK;
    int64_t n = feedback->n, part = part_rows(rows);
    struct rounding_job job = {.feedback = feedback,
                               .grid = grid,
                               .w = w,
                               .scale = scale,
                               .scale_cols = grid_scale_cols(grid, n),
                               .groups = grid_groups(grid, n),
                               .group_cols = grid_group_cols(grid, n),
                               .q = q};
    void *v = NULL, *e = NULL;
    job.errors = mem_new((size_t)rows, sizeof *job.errors);
    TRY(mem_buffer_new(rows * n * 4, "weights with feedback", &v));
    TRY(mem_buffer_new(rows * BLOCK * 4, "rounding errors", &e));
    job.v = v, job.e = e;
#pragma omp parallel for schedule(dynamic)
    for (int64_t row = 0; row < rows; row += part) {
        int64_t n_rows = rows - row < part ? rows - row : part;
        for (int64_t r = row; r < row + n_rows; r++)
            for (int64_t k = 0; k < n; k++) job.v[r * n + k] = w[r * n + feedback->order[k]];
        round_rows(&job, row, n_rows);
    }
    *error = 0;
    for (int64_t r = 0; r < rows; r++) *error += job.errors[r];
    *error = fmax(*error, 0); // rounding of a difference
done:
    mem_buffer_free(v);
    mem_buffer_free(e);
    free(job.errors);
    return status;
}
