// The eigenvalues of sum y y^T [dim, dim] are those of the products <y_i, y_j> [samples, samples]; the smaller one is made.
// Around the mean: sum y y^T - N mean mean^T, or products less the means of their rows and columns plus that of all.
#include "spectra/covariance.h"

#include "core/base/mem.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 128, CHUNK = 512 };

struct covariance {
    struct sketch_rows rows;
    int64_t sketch, size;
    bool by_dim;  // gram is [dim, dim], otherwise [samples, samples]
    double *gram; // [size, size], both triangles
    double *sum;  // [dim] of all samples
};

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

// Sum of y y^T over samples first … first + n - 1 (by_dim), or their products: both triangles of gram.
struct product {
    const struct sketch_rows *rows;
    int64_t sketch, first, n;
    bool by_dim;
    int64_t size;
    double *gram; // row stride = size
};

// to [CHUNK or less, width]: the operand's slice, so that gram = sum over chunks of slice^T slice (by_dim) or slice slice^T.
static void slice(const struct product *p, int64_t at, int64_t width, int64_t chunk, int64_t depth, double *to) {
    if (p->by_dim) { // [depth, width]
        for (int64_t i = 0; i < depth; i++) {
            const float *y = sketch_row(p->rows, p->first + chunk + i, p->sketch) + at;
            for (int64_t j = 0; j < width; j++) to[i * width + j] = (double)y[j];
        }
        return;
    }
    for (int64_t i = 0; i < width; i++) { // [width, depth]
        const float *y = sketch_row(p->rows, p->first + at + i, p->sketch) + chunk;
        for (int64_t j = 0; j < depth; j++) to[i * depth + j] = (double)y[j];
    }
}

static void tile(const struct product *p, int64_t i, int64_t j, double *a, double *b) {
    int64_t wide_i = min_i64(TILE, p->size - i), wide_j = min_i64(TILE, p->size - j);
    int64_t length = p->by_dim ? p->n : p->rows->dim;
    double *to = p->gram + i * p->size + j;
    for (int64_t at = 0; at < length; at += CHUNK) {
        int64_t depth = min_i64(CHUNK, length - at);
        slice(p, i, wide_i, at, depth, a);
        if (i != j) slice(p, j, wide_j, at, depth, b);
        const double *other = i == j ? a : b;
        cblas_dgemm(CblasRowMajor, p->by_dim ? CblasTrans : CblasNoTrans, p->by_dim ? CblasNoTrans : CblasTrans,
                    (int)wide_i, (int)wide_j, (int)depth, 1, a, (int)(p->by_dim ? wide_i : depth), other,
                    (int)(p->by_dim ? wide_j : depth), at ? 1 : 0, to, (int)p->size);
    }
    if (length == 0)
        for (int64_t r = 0; r < wide_i; r++) memset(to + r * p->size, 0, (size_t)wide_j * sizeof *to);
    for (int64_t r = 0; i != j && r < wide_i; r++)
        for (int64_t c = 0; c < wide_j; c++) p->gram[(j + c) * p->size + i + r] = to[r * p->size + c];
}

static void product_run(const struct product *p) {
    int64_t tiles = (p->size + TILE - 1) / TILE;
#pragma omp parallel
    {
        double *a = mem_new(2 * TILE * CHUNK, sizeof *a);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tiles * tiles; task++)
            if (task / tiles >= task % tiles) tile(p, task / tiles * TILE, task % tiles * TILE, a, a + TILE * CHUNK);
        free(a);
    }
}

static void sum_add(const struct covariance *c, int64_t first, int64_t n, double sign, double *sum) {
#pragma omp parallel for schedule(static) if (c->rows.dim > 4096)
    for (int64_t block = 0; block < c->rows.dim; block += 512) {
        int64_t width = min_i64(512, c->rows.dim - block);
        for (int64_t i = first; i < first + n; i++) {
            const float *y = sketch_row(&c->rows, i, c->sketch) + block;
            for (int64_t j = 0; j < width; j++) sum[block + j] += sign * (double)y[j];
        }
    }
}

static enum status check_finite(const struct sketch_rows *rows, int64_t sketch) {
    int64_t bad = INT64_MAX;
#pragma omp parallel for schedule(static) reduction(min : bad)
    for (int64_t i = 0; i < rows->samples; i++) {
        const float *y = sketch_row(rows, i, sketch);
        float zero = 0; // y - y is NaN unless y is finite
        for (int64_t j = 0; j < rows->dim; j++) zero += y[j] - y[j];
        if (zero != 0 && i < bad) bad = i;
    }
    if (bad == INT64_MAX) return STATUS_OK;
    return status_set(STATUS_INVALID, "sample %lld of %lld: sketch %lld has a number that is not finite",
                      (long long)bad, (long long)rows->samples, (long long)sketch);
}

enum status covariance_new(const struct sketch_rows *rows, int64_t sketch, struct covariance **out) {
    enum status status = STATUS_OK;
    REQUIRE(rows->dim >= 1 && sketch >= 0 && sketch < rows->sketches, "sketch out of range");
    struct covariance *c = mem_new(1, sizeof *c);
    void *p = NULL;
    *c = (struct covariance){.rows = *rows, .sketch = sketch, .by_dim = rows->dim <= rows->samples};
    c->size = min_i64(rows->dim, rows->samples);
    if (rows->samples < 2)
        TRY(status_set(STATUS_INVALID, "%lld samples: a covariance needs at least 2", (long long)rows->samples));
    TRY(check_finite(rows, sketch));
    TRY(mem_buffer_new(c->size * c->size * 8, "Gram matrix of sketches", &p));
    c->gram = p;
    TRY(mem_buffer_new(rows->dim * 8, "sum of sketches", &p));
    c->sum = p;
    memset(c->sum, 0, (size_t)rows->dim * sizeof *c->sum);
    sum_add(c, 0, rows->samples, 1, c->sum);
    product_run(&(struct product){&c->rows, sketch, 0, rows->samples, c->by_dim, c->size, c->gram});
    *out = c;
    c = NULL;
done:
    covariance_free(c);
    return status;
}

void covariance_free(struct covariance *c) {
    if (!c) return;
    mem_buffer_free(c->gram);
    mem_buffer_free(c->sum);
    free(c);
}

const double *covariance_moments(const struct covariance *c) { return c->by_dim ? c->gram : NULL; }

int64_t covariance_size(const struct covariance *c, const struct covariance_part *part) {
    return min_i64(c->rows.samples - part->skip, c->rows.dim);
}

// ---- part of the samples

// matrix [size, size] = covariance [dim, dim]; mean [dim] of the samples left.
static enum status part_by_dim(const struct covariance *c, const struct covariance_part *part, double *matrix,
                               double *mean) {
    enum status status = STATUS_OK;
    int64_t size = c->size, left = c->rows.samples - part->skip;
    double scale = 1 / (double)(part->centred ? left - 1 : left);
    void *p = NULL;
    if (part->skip) {
        TRY(mem_buffer_new(size * size * 8, "Gram matrix of samples left out", &p));
        product_run(&(struct product){&c->rows, c->sketch, part->skip_first, part->skip, true, size, p});
    }
    memcpy(mean, c->sum, (size_t)size * sizeof *mean);
    sum_add(c, part->skip_first, part->skip, -1, mean);
    for (int64_t j = 0; j < size; j++) mean[j] /= (double)left;
    const double *skipped = p;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < size; i++) {
        double shift = part->centred ? (double)left * mean[i] : 0;
        for (int64_t j = 0; j < size; j++)
            matrix[i * size + j] =
                scale * (c->gram[i * size + j] - (skipped ? skipped[i * size + j] : 0) - shift * mean[j]);
    }
done:
    mem_buffer_free(p);
    return status;
}

static int64_t kept(const struct covariance_part *part, int64_t i) { return i < part->skip_first ? i : i + part->skip; }

// matrix [left, left] = products of the samples left.
static void part_by_samples(const struct covariance *c, const struct covariance_part *part, double *matrix) {
    int64_t left = c->rows.samples - part->skip;
    double scale = 1 / (double)(part->centred ? left - 1 : left), all = 0, *row = mem_new((size_t)left, sizeof *row);
    for (int64_t i = 0; i < left && part->centred; i++) {
        for (int64_t j = 0; j < left; j++) row[i] += c->gram[kept(part, i) * c->size + kept(part, j)];
        row[i] /= (double)left;
        all += row[i] / (double)left;
    }
    for (int64_t i = 0; i < left; i++)
        for (int64_t j = 0; j < left; j++)
            matrix[i * left + j] = scale * (c->gram[kept(part, i) * c->size + kept(part, j)] - row[i] - row[j] + all);
    free(row);
}

// Row r of vectors: sum over samples of u_i (y_i - mean), u the r-th eigenvector of the products, made unit.
static void vectors_from_products(const struct covariance *c, const struct covariance_part *part, int64_t n,
                                  const double *u, const double *values, double *vectors) {
    int64_t left = c->rows.samples - part->skip, dim = c->rows.dim;
#pragma omp parallel for schedule(dynamic)
    for (int64_t r = 0; r < n; r++) {
        const double *weight = u + (left - 1 - r) * left;
        double *to = vectors + r * dim, total = 0;
        memset(to, 0, (size_t)dim * sizeof *to);
        if (!(values[r] > 1e-13 * values[0])) continue;
        for (int64_t i = 0; i < left; i++) total += weight[i];
        for (int64_t i = 0; i < left; i++) {
            double w = weight[i] - (part->centred ? total / (double)left : 0);
            const float *y = sketch_row(&c->rows, kept(part, i), c->sketch);
            for (int64_t j = 0; j < dim; j++) to[j] += w * (double)y[j];
        }
        cblas_dscal((int)dim, 1 / cblas_dnrm2((int)dim, to, 1), to, 1);
    }
}

// Eigenvectors as rows of u, rising: the r-th loading of sample i is sqrt(value) times u_ri, in the scale of the products.
static void loadings_from_products(const struct covariance_part *part, int64_t n, int64_t left, const double *u,
                                   const double *values, double *loadings) {
    double scale = (double)(part->centred ? left - 1 : left);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < left; i++)
            loadings[r * left + i] = sqrt(fmax(0, values[r]) * scale) * u[(left - 1 - r) * left + i];
}

// vectors [n, dim]; mean [dim].
static void loadings_from_vectors(const struct covariance *c, const struct covariance_part *part, int64_t n,
                                  const double *vectors, const double *mean, double *loadings) {
    enum { BATCH = 64 };
    int64_t left = c->rows.samples - part->skip, dim = c->rows.dim, batches = (left + BATCH - 1) / BATCH;
#pragma omp parallel
    {
        double *y = mem_new((size_t)(BATCH * dim), sizeof *y);
#pragma omp for schedule(dynamic)
        for (int64_t batch = 0; batch < batches; batch++) {
            int64_t first = batch * BATCH, count = min_i64(BATCH, left - first);
            for (int64_t i = 0; i < count; i++) {
                const float *row = sketch_row(&c->rows, kept(part, first + i), c->sketch);
                for (int64_t j = 0; j < dim; j++) y[i * dim + j] = (double)row[j] - (part->centred ? mean[j] : 0);
            }
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)count, (int)dim, 1, vectors, (int)dim, y,
                        (int)dim, 0, loadings + first, (int)left);
        }
        free(y);
    }
}

// matrix [size, size] on the host: overwritten with eigenvectors as rows where `vectors`. values [size] rising.
static enum status eigen(struct backend *backend, double *matrix, int64_t size, double *values, bool vectors) {
    enum status status = STATUS_OK;
    struct view a = {0}, v = {0};
    TRY(backend_matrix_new(backend, DTYPE_F64, size, size, "covariance", &a));
    TRY(backend_matrix_new(backend, DTYPE_F64, size, 1, "eigenvalues", &v));
    TRY(backend_write(backend, a, matrix));
    TRY(backend_run(backend, &(struct op_call){.op = OP_eigh, .in = {a}, .out = {v}}));
    TRY(backend_read(backend, v, values));
    if (vectors) TRY(backend_read(backend, a, matrix));
done:
    backend_matrix_free(backend, &a);
    backend_matrix_free(backend, &v);
    return status;
}

enum status covariance_factors(const struct covariance *c, struct backend *backend, const struct covariance_part *part,
                               int64_t n, double *values, double *vectors, double *loadings) {
    enum status status = STATUS_OK;
    int64_t left = c->rows.samples - part->skip, size = c->by_dim ? c->size : left, most = covariance_size(c, part);
    void *matrix = NULL, *work = NULL;
    REQUIRE(part->skip >= 0 && part->skip_first >= 0 && part->skip_first + part->skip <= c->rows.samples,
            "samples out of range");
    REQUIRE(left >= 2 && n <= most, "nothing is left of the samples");
    TRY(mem_buffer_new(size * size * 8, "covariance", &matrix));
    TRY(mem_buffer_new(2 * size * 8, "eigenvalues", &work));
    double *all = work, *mean = all + size, *u = matrix;
    if (c->by_dim)
        TRY(part_by_dim(c, part, matrix, mean));
    else
        part_by_samples(c, part, matrix);
    TRY(eigen(backend, matrix, size, all, vectors || loadings));
    for (int64_t i = 0; i < most; i++) values[i] = fmax(0, all[size - 1 - i]);
    if (c->by_dim && (vectors || loadings)) { // rising to falling
        for (int64_t i = 0; i < size / 2; i++) cblas_dswap((int)size, u + i * size, 1, u + (size - 1 - i) * size, 1);
        if (vectors) memcpy(vectors, u, (size_t)(n * size) * sizeof *u);
        if (loadings) loadings_from_vectors(c, part, n, u, mean, loadings);
    } else {
        if (vectors) vectors_from_products(c, part, n, u, values, vectors);
        if (loadings) loadings_from_products(part, n, left, u, values, loadings);
    }
done:
    mem_buffer_free(matrix);
    mem_buffer_free(work);
    return status;
}

enum status covariance_eigenvalues(const struct covariance *c, struct backend *backend,
                                   const struct covariance_part *part, double *values) {
    return covariance_factors(c, backend, part, 0, values, NULL, NULL);
}

enum status covariance_vectors(const struct covariance *c, struct backend *backend, const struct covariance_part *part,
                               int64_t n, double *values, double *vectors) {
    return covariance_factors(c, backend, part, n, values, vectors, NULL);
}
