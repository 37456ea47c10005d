// To first order an eigenvalue lambda with unit vector v changes by v^T (change of the covariance) v. Without the m samples of
// group g of N, y around the mean where centred:
//
//     uncentred  lambda' = (N lambda - sum over g of (v . y)^2) / (N - m)
//     centred    lambda' = ((N - 1) lambda - sum over g of (v . y)^2 - (sum over g of v . y)^2 / (N - m)) / (N - m - 1)
//
// Without the m coordinates of group g of k, with E |S x|^2 = |x|^2 kept: lambda' = lambda (1 - sum over g of v_c^2) k / (k - m).
#include "spectra/replicates.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct work {
    const struct sketch_rows *rows;
    const struct replicates_options *options;
    int64_t sketch;
    double *mean;     // [dim], 0 unless centred
    double *vectors;  // [last, dim]; NULL without replicates that miss coordinates
    double *loadings; // [last, samples]
    double *values;   // [count, last] of this sketch
    double *fourth;   // [count]
};

static double at_least(double value, double of) { return fmax(value, 1e-3 * of); }

// Sum of |y|^4 over samples first … first + n - 1.
static double fourth_of(const struct work *w, int64_t first, int64_t n) {
    double sum = 0;
    for (int64_t i = first; i < first + n; i++) {
        const float *row = sketch_row(w->rows, i, w->sketch);
        double norm = 0;
        for (int64_t j = 0; j < w->rows->dim; j++)
            norm += ((double)row[j] - w->mean[j]) * ((double)row[j] - w->mean[j]);
        sum += norm * norm;
    }
    return sum;
}

static void without_samples(const struct work *w, int64_t g) {
    int64_t last = w->options->last, samples = w->rows->samples;
    int64_t first = replicate_first(samples, w->options->groups, g);
    int64_t m = replicate_first(samples, w->options->groups, g + 1) - first;
    double *to = w->values + (g + 1) * last;
    double all = (double)(w->options->centred ? samples - 1 : samples), left = (double)(samples - m);
    w->fourth[g + 1] = fourth_of(w, first, m);
    for (int64_t r = 0; r < last; r++) {
        double square = 0, sum = 0;
        for (int64_t i = first; i < first + m; i++) {
            double loading = w->loadings[r * samples + i];
            square += loading * loading, sum += loading;
        }
        double lost = square + (w->options->centred ? sum * sum / left : 0);
        to[r] = at_least(all * w->values[r] - lost, all * w->values[r]) / (w->options->centred ? left - 1 : left);
    }
}

static void without_coordinates(const struct work *w, int64_t g) {
    int64_t last = w->options->last, dim = w->rows->dim;
    int64_t first = replicate_first(dim, w->options->groups, g), end = replicate_first(dim, w->options->groups, g + 1);
    double *to = w->values + (w->options->groups + 1 + g) * last;
    for (int64_t r = 0; r < last; r++) {
        double lost = 0;
        to[r] = w->values[r];
        if (!w->vectors) continue;
        for (int64_t c = first; c < end; c++) lost += w->vectors[r * dim + c] * w->vectors[r * dim + c];
        to[r] = at_least(w->values[r] * (1 - lost), w->values[r]) * (double)dim / (double)(dim - (end - first));
    }
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void mean_of(struct work *w) {
    int64_t dim = w->rows->dim;
    memset(w->mean, 0, (size_t)dim * sizeof *w->mean);
    for (int64_t i = 0; i < w->rows->samples && w->options->centred; i++) {
        const float *row = sketch_row(w->rows, i, w->sketch);
        for (int64_t j = 0; j < dim; j++) w->mean[j] += (double)row[j] / (double)w->rows->samples;
    }
}

// Sum of squares of all eigenvalues: of those kept as they are in the replicate, of the others as in the whole.
static void squares_of(const struct replicates *r, int64_t s) {
    const double *whole = r->whole + s * r->size;
    double rest = 0;
    for (int64_t i = r->size - 1; i >= r->last; i--) rest += whole[i] * whole[i];
    for (int64_t c = 0; c < r->count; c++) {
        const double *values = r->values + (s * r->count + c) * r->last;
        double sum = rest;
        for (int64_t i = r->last - 1; i >= 0; i--) sum += values[i] * values[i];
        r->squares[s * r->count + c] = sum;
    }
}

static enum status replicate_sketch(struct work *w, struct replicates *r, struct backend *backend) {
    enum status status = STATUS_OK;
    const struct replicates_options *o = w->options;
    struct covariance *covariance = NULL;
    struct covariance_part part = {.centred = o->centred};
    double *spare = mem_new((size_t)r->size, sizeof *spare), *whole = r->whole + w->sketch * r->size;
    w->values = r->values + w->sketch * r->count * r->last;
    w->fourth = r->fourth + w->sketch * r->count;
    TRY(covariance_new(w->rows, w->sketch, &covariance));
    TRY(covariance_factors(covariance, backend, &part, o->last, whole, w->vectors, w->loadings));
    memcpy(w->values, whole, (size_t)o->last * sizeof *whole);
    mean_of(w);
#pragma omp parallel for schedule(dynamic)
    for (int64_t g = 0; g < o->groups; g++) {
        without_samples(w, g);
        without_coordinates(w, g);
    }
    for (int64_t g = 1; g <= o->groups; g++) w->fourth[0] += w->fourth[g];
    for (int64_t g = 1; g <= o->groups; g++) w->fourth[g] = w->fourth[0] - w->fourth[g];
    for (int64_t g = 1; g <= o->groups; g++) w->fourth[o->groups + g] = w->fourth[0];
    for (int64_t g = 0; g < o->groups && o->exact; g++) {
        part.skip_first = replicate_first(w->rows->samples, o->groups, g);
        part.skip = replicate_first(w->rows->samples, o->groups, g + 1) - part.skip_first;
        TRY(covariance_eigenvalues(covariance, backend, &part, spare));
        memcpy(w->values + (g + 1) * o->last, spare, (size_t)o->last * sizeof *spare);
    }
    for (int64_t c = 1; c < r->count; c++) // to first order neighbours can change places
        qsort(w->values + c * o->last, (size_t)o->last, sizeof *w->values, descending);
    squares_of(r, w->sketch);
done:
    covariance_free(covariance);
    free(spare);
    return status;
}

enum status replicates_new(const struct sketch_rows *rows, const struct replicates_options *o, struct backend *backend,
                           struct replicates **out) {
    enum status status = STATUS_OK;
    struct replicates *r = mem_new(1, sizeof *r);
    void *p = NULL;
    *r = (struct replicates){.sketches = rows->sketches,
                             .groups = o->groups,
                             .count = 1 + 2 * o->groups,
                             .last = o->last,
                             .size = rows->samples < rows->dim ? rows->samples : rows->dim};
    struct work w = {.rows = rows, .options = o};
    REQUIRE(o->groups >= 2 && o->groups <= rows->samples / 2 && o->last >= 1 && o->last <= r->size, "groups and ranks");
    TRY(mem_buffer_new(r->sketches * (r->count * (o->last + 2) + r->size) * 8, "eigenvalues of replicates", &p));
    memset(p, 0, (size_t)(r->sketches * (r->count * (o->last + 2) + r->size)) * sizeof *r->values);
    r->values = p;
    r->squares = r->values + r->sketches * r->count * o->last;
    r->fourth = r->squares + r->sketches * r->count;
    r->whole = r->fourth + r->sketches * r->count;
    TRY(mem_buffer_new(rows->dim * 8, "mean of sketches", &p));
    w.mean = p;
    TRY(mem_buffer_new(o->last * rows->samples * 8, "samples along eigenvectors", &p));
    w.loadings = p;
    if (o->coordinates) TRY(mem_buffer_new(o->last * rows->dim * 8, "eigenvectors", &p));
    if (o->coordinates) w.vectors = p;
    for (w.sketch = 0; w.sketch < rows->sketches; w.sketch++) TRY(replicate_sketch(&w, r, backend));
    *out = r;
    r = NULL;
done:
    mem_buffer_free(w.mean);
    mem_buffer_free(w.loadings);
    mem_buffer_free(w.vectors);
    replicates_free(r);
    return status;
}

void replicates_free(struct replicates *r) {
    if (!r) return;
    mem_buffer_free(r->values);
    free(r);
}
