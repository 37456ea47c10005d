#include "spectra/figures.h"

#include "core/base/mem.h"

#include <stdlib.h>

static void put(struct record *record, const char *name, const char *suffix, double value) {
    char *key = mem_format("%s%s", name, suffix);
    record_number(record, key, value);
    free(key);
}

static void put_estimate(struct record *record, const char *name, const char *suffix, struct estimate estimate) {
    char *error = mem_format("%s_se", name);
    put(record, name, suffix, estimate.value);
    put(record, error, suffix, estimate.error);
    free(error);
}

enum status figures_norms(const struct figures_input *in, struct record *record) {
    enum status status = STATUS_OK;
    struct norms norms;
    struct estimate sketched;
    bool has_rows = in->rows.at != NULL;
    void *inner = NULL;
    TRY(mem_buffer_new(in->rows.samples * (int64_t)sizeof(double), "inner products", &inner));
    if (has_rows) TRY(norms_inner(&in->rows, in->norms, in->norms_stride, inner));
    struct norms_input input = {.samples = in->rows.samples,
                                .norms = in->norms,
                                .stride = in->norms_stride,
                                .sum2 = in->sum2,
                                .inner = has_rows ? inner : NULL};
    TRY(norms_estimate(&input, &norms));
    put_estimate(record, "mean_norm2", "", norms.mean2);
    put(record, "mean_norm2_naive", "", norms.mean2_naive);
    put_estimate(record, "norm2_mean", "", norms.second);
    put_estimate(record, "norm2_ratio", "", norms.ratio);
    put_estimate(record, "kappa", "", norms.kappa);
    if (has_rows && !in->exact) {
        TRY(norms_mean2_sketched(&in->rows, in->norms, in->norms_stride, &sketched));
        put_estimate(record, "mean_norm2_sketched", "", sketched);
    }
done:
    mem_buffer_free(inner);
    return status;
}
