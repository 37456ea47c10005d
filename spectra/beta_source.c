#include "spectra/beta.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES_LEAST = 8, WHOLE = 2, PIECE = 256 };

// Who proposes: the second half (judged by the first), the first half (judged by the second), all.
struct beta_source {
    int64_t samples, half, directions; // half: samples of the first half
    double *rows[3]; // [samples, directions] coordinates of all samples along the proposer's eigenvectors
};

void beta_source_free(struct beta_source *source) {
    if (!source) return;
    for (int k = 0; k < 3; k++) mem_buffer_free(source->rows[k]);
    free(source);
}

int64_t beta_source_directions(const struct beta_source *source) { return source->directions; }

// Coordinates along the rows of vectors [n, dim]; the sums of fp32 numbers are fp64.
static void project(const struct sketch_rows *rows, int64_t sketch, const double *vectors, int64_t n, double *out) {
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < rows->samples; i++) {
        const float *y = sketch_row(rows, i, sketch);
        for (int64_t a = 0; a < n; a++) {
            const double *v = vectors + a * rows->dim;
            double sum = 0;
            for (int64_t first = 0; first < rows->dim; first += PIECE) {
                int64_t end = rows->dim - first < PIECE ? rows->dim : first + PIECE;
                double piece = 0;
                for (int64_t d = first; d < end; d++) piece += (double)y[d] * v[d];
                sum += piece;
            }
            out[i * n + a] = sum;
        }
    }
}

static int64_t count_of(const double *values, int64_t n) {
    int64_t count = 0;
    while (count < n && values[count] > 1e-10 * values[0]) count++;
    return count;
}

// rows[k] has `most` columns for now; *directions shrinks to what has an eigenvalue.
static enum status make_rows(struct beta_source *source, int k, const struct sketch_rows *rows, int64_t sketch,
                             const struct covariance *covariance, struct backend *backend, int64_t most,
                             int64_t *directions) {
    enum status status = STATUS_OK;
    int64_t half = source->half;
    struct covariance_part parts[] = {
        {.skip_first = 0, .skip = half}, {.skip_first = half, .skip = source->samples - half}, {0}};
    int64_t size = covariance_size(covariance, &parts[k]);
    void *values = NULL, *vectors = NULL, *out = NULL;
    TRY(mem_buffer_new(size * 8, "eigenvalues", &values));
    TRY(mem_buffer_new(most * rows->dim * 8, "eigenvectors", &vectors));
    TRY(mem_buffer_new(source->samples * most * 8, "coordinates", &out));
    TRY(covariance_vectors(covariance, backend, &parts[k], most, values, vectors));
    int64_t count = count_of(values, most);
    if (count < *directions) *directions = count;
    project(rows, sketch, vectors, most, out);
    source->rows[k] = out;
    out = NULL;
done:
    mem_buffer_free(values);
    mem_buffer_free(vectors);
    mem_buffer_free(out);
    return status;
}

enum status beta_source_new(const struct sketch_rows *rows, int64_t sketch, const struct covariance *covariance,
                            struct backend *backend, int64_t directions_most, struct beta_source **out) {
    enum status status = STATUS_OK;
    if (rows->samples < SAMPLES_LEAST)
        return status_set(STATUS_INVALID, "beta: %lld samples are too few, it needs %d at least",
                          (long long)rows->samples, SAMPLES_LEAST);
    struct beta_source *source = mem_new(1, sizeof *source);
    *source = (struct beta_source){.samples = rows->samples, .half = rows->samples / 2};
    int64_t most = directions_most < rows->dim ? directions_most : rows->dim, directions;
    if (most > source->half - 1) most = source->half - 1;
    directions = most;
    for (int k = 0; k < 3; k++) TRY(make_rows(source, k, rows, sketch, covariance, backend, most, &directions));
    if (directions < 1)
        TRY(status_set(STATUS_INVALID, "beta: the samples are zero, so there are no directions to measure"));
    source->directions = directions;
    // Fewer columns, so that rows stay `directions` apart.
    for (int k = 0; k < 3 && directions < most; k++)
        for (int64_t i = 0; i < source->samples; i++)
            for (int64_t a = 0; a < directions; a++)
                source->rows[k][i * directions + a] = source->rows[k][i * most + a];
    *out = source;
    source = NULL;
done:
    beta_source_free(source);
    return status;
}

// Half k judges what the other half proposes.
static enum status judge(const struct beta_source *source, int k, int64_t r, uint64_t seed, double *products,
                         struct beta_ratio *out) {
    int64_t half = source->half, n = source->samples, stride = source->directions;
    int64_t first = k ? half : 0, count = k ? n - half : half, proposes = k ? 0 : half, proposed = n - count;
    double *best = mem_new((size_t)r, sizeof *best);
    enum status status = beta_propose(source->rows[k] + proposes * stride, proposed, r, stride, seed, best);
    for (int64_t i = 0; status == STATUS_OK && i < count; i++) {
        const double *row = source->rows[k] + (first + i) * stride;
        products[i] = 0;
        for (int64_t a = 0; a < r; a++) products[i] += row[a] * best[a];
    }
    if (status == STATUS_OK) *out = beta_ratio(products, count);
    free(best);
    return status;
}

static struct beta_ratio mean_of(const struct beta_ratio half[2]) {
    struct beta_ratio mean = {.value = sqrt(half[0].value * half[1].value),
                              .log_se = hypot(half[0].log_se, half[1].log_se) / 2,
                              .without_largest = sqrt(half[0].without_largest * half[1].without_largest),
                              .largest_share = fmax(half[0].largest_share, half[1].largest_share)};
    mean.low = mean.value * exp(-1.96 * mean.log_se);
    mean.high = mean.value * exp(1.96 * mean.log_se);
    return mean;
}

enum status beta_measure(const struct beta_source *source, int64_t r, uint64_t seed, struct beta_measure *out) {
    REQUIRE(r >= 1 && r <= source->directions, "as many directions as there are");
    enum status status = STATUS_OK;
    struct beta_measure result = {.known = r <= beta_directions_known(source->samples)};
    void *buffer = NULL;
    TRY(mem_buffer_new(source->samples * 8, "products", &buffer));
    double *products = buffer;
    for (int k = 0; k < 2; k++) TRY(judge(source, k, r, seed, products, &result.half[k]));
    result.held_out = mean_of(result.half);
    for (int64_t i = 0; i < source->samples; i++) products[i] = source->rows[WHOLE][i * source->directions];
    result.leading = beta_ratio(products, source->samples);
    TRY(beta_of_sample(source->rows[WHOLE], source->samples, r, source->directions, seed, &result.sample, NULL));
    *out = result;
done:
    mem_buffer_free(buffer);
    return status;
}
