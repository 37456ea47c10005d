// With N samples, S = sum g_i, n_i = |g_i|^2 and p_i = <g_i, S>:
//
//     |E g|^2 = sum over i != j of <g_i, g_j> / (N (N - 1)) = (|S|^2 - sum n_i) / (N (N - 1)),
//
// without bias, where |S / N|^2 is too large by (E |g|^2 - |E g|^2) / N. Without sample i: |S - g_i|^2 = |S|^2 - 2 p_i + n_i. With these the delete-one
// jackknife has a closed form: error^2 = (N - 1) / N sum (value without i - their mean)^2.
#include "spectra/norms.h"

#include "core/base/mem.h"

#include <math.h>
#include <stdlib.h>

// What is left when sums lose sample i; all of Table 1 are functions of them.
struct sums {
    double n, norm, norm2, square; // samples, sum n_i, sum n_i^2, |S|^2
};

enum figure { MEAN2, SECOND, RATIO, KAPPA, FIGURES };

static void figures_of(const struct sums *s, double figures[FIGURES]) {
    figures[MEAN2] = (s->square - s->norm) / (s->n * (s->n - 1));
    figures[SECOND] = s->norm / s->n;
    figures[RATIO] = figures[MEAN2] / figures[SECOND];
    figures[KAPPA] = s->norm2 * s->n / (s->norm * s->norm);
}

static enum status check_norms(int64_t samples, const double *norms, int64_t stride) {
    double most = 0;
    if (samples < 3)
        return status_set(STATUS_INVALID, "%lld samples: norms and their errors need at least 3", (long long)samples);
    for (int64_t i = 0; i < samples; i++) {
        double norm = norms[i * stride];
        if (!(norm >= 0 && isfinite(norm)))
            return status_set(STATUS_INVALID,
                              "sample %lld of %lld: squared norm %g of its gradient, must be finite and >= 0",
                              (long long)i, (long long)samples, norm);
        most = fmax(most, norm);
    }
    if (most == 0) return status_set(STATUS_INVALID, "all %lld gradients are 0", (long long)samples);
    return STATUS_OK;
}

enum status norms_estimate(const struct norms_input *in, struct norms *out) {
    enum status status = check_norms(in->samples, in->norms, in->stride);
    if (status != STATUS_OK) return status;
    if (!(in->sum2 >= 0 && isfinite(in->sum2)))
        return status_set(STATUS_INVALID, "squared norm %g of the sum of gradients, must be finite and >= 0", in->sum2);
    struct sums all = {.n = (double)in->samples, .square = in->sum2};
    for (int64_t i = 0; i < in->samples; i++) {
        double norm = in->norms[i * in->stride];
        all.norm += norm, all.norm2 += norm * norm;
    }
    double whole[FIGURES], mean[FIGURES] = {0}, spread[FIGURES] = {0};
    figures_of(&all, whole);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < in->samples; i++) {
            double norm = in->norms[i * in->stride], figures[FIGURES], inner = in->inner ? in->inner[i] : NAN;
            struct sums left = {all.n - 1, all.norm - norm, all.norm2 - norm * norm, all.square - 2 * inner + norm};
            if (!(left.norm > 0))
                return status_set(STATUS_INVALID, "only sample %lld of %lld has a gradient that is not 0", (long long)i,
                                  (long long)in->samples);
            figures_of(&left, figures);
            for (int f = 0; f < FIGURES; f++) {
                double off = figures[f] - mean[f];
                if (pass == 0)
                    mean[f] += figures[f] / all.n;
                else
                    spread[f] += off * off;
            }
        }
    struct estimate e[FIGURES];
    for (int f = 0; f < FIGURES; f++) e[f] = (struct estimate){whole[f], sqrt((all.n - 1) / all.n * spread[f])};
    *out = (struct norms){.mean2 = e[MEAN2],
                          .mean2_naive = in->sum2 / (all.n * all.n),
                          .second = e[SECOND],
                          .ratio = e[RATIO],
                          .kappa = e[KAPPA]};
    return STATUS_OK;
}

// products [samples] = <y_i, sum of y> - |y_i|^2 of one sketch; returns their sum.
static double products_of(const struct sketch_rows *rows, int64_t sketch, double *sum, double *products) {
    double total = 0;
    for (int64_t j = 0; j < rows->dim; j++) sum[j] = 0;
    for (int64_t i = 0; i < rows->samples; i++) {
        const float *y = sketch_row(rows, i, sketch);
        for (int64_t j = 0; j < rows->dim; j++) sum[j] += (double)y[j];
    }
    for (int64_t i = 0; i < rows->samples; i++) {
        const float *y = sketch_row(rows, i, sketch);
        double dot = 0;
        for (int64_t j = 0; j < rows->dim; j++) dot += (double)y[j] * (sum[j] - (double)y[j]);
        products[i] = dot;
        total += dot;
    }
    return total;
}

static enum status check_sketches(const struct sketch_rows *rows) {
    for (int64_t i = 0; i < rows->samples; i++)
        for (int64_t s = 0; s < rows->sketches; s++) {
            const float *y = sketch_row(rows, i, s);
            float zero = 0; // y - y is NaN unless y is finite
            for (int64_t j = 0; j < rows->dim; j++) zero += y[j] - y[j];
            if (zero != 0)
                return status_set(STATUS_INVALID, "sample %lld of %lld: sketch %lld has a number that is not finite",
                                  (long long)i, (long long)rows->samples, (long long)s);
        }
    return STATUS_OK;
}

enum status norms_inner(const struct sketch_rows *rows, const double *norms, int64_t stride, double *inner) {
    enum status status = check_norms(rows->samples, norms, stride);
    if (status == STATUS_OK) status = check_sketches(rows);
    if (status != STATUS_OK) return status;
    REQUIRE(rows->sketches >= 1 && rows->dim >= 1, "there are no sketches");
    double *sum = mem_new((size_t)rows->dim, sizeof *sum), *products = mem_new((size_t)rows->samples, sizeof *products);
    for (int64_t i = 0; i < rows->samples; i++) inner[i] = norms[i * stride];
    for (int64_t s = 0; s < rows->sketches; s++) {
        products_of(rows, s, sum, products);
        for (int64_t i = 0; i < rows->samples; i++) inner[i] += products[i] / (double)rows->sketches;
    }
    free(sum);
    free(products);
    return status;
}

enum status norms_mean2_sketched(const struct sketch_rows *rows, const double *norms, int64_t stride,
                                 struct estimate *mean2) {
    enum status status = STATUS_OK;
    double n = (double)rows->samples, sketches = (double)rows->sketches, mean = 0, spread = 0, sum2 = 0;
    double *inner = mem_new((size_t)rows->samples, sizeof *inner);
    struct norms sampled;
    TRY(norms_inner(rows, norms, stride, inner));
    for (int64_t i = 0; i < rows->samples; i++) sum2 += inner[i];
    TRY(norms_estimate(&(struct norms_input){rows->samples, norms, stride, fmax(sum2, 0), inner}, &sampled));
    double *sum = mem_new((size_t)rows->dim, sizeof *sum), *products = mem_new((size_t)rows->samples, sizeof *products);
    double *each = mem_new((size_t)rows->sketches, sizeof *each);
    for (int64_t s = 0; s < rows->sketches; s++) {
        each[s] = products_of(rows, s, sum, products) / (n * (n - 1));
        mean += each[s] / sketches;
    }
    for (int64_t s = 0; s < rows->sketches; s++) spread += (each[s] - mean) * (each[s] - mean);
    free(sum), free(products), free(each);
    double sketching = rows->sketches > 1 ? spread / (sketches - 1) / sketches : NAN;
    *mean2 = (struct estimate){mean, sqrt(sampled.mean2.error * sampled.mean2.error + sketching)};
done:
    free(inner);
    return status;
}
