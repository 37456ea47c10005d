#include "spectra/samples.h"

#include "core/base/mem.h"
#include "spectra/sums.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum status numbers(int64_t n, int64_t m, int64_t size, const char *what, void *out) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(n, m, &bytes) || __builtin_mul_overflow(bytes, size, &bytes))
        return status_set(STATUS_NO_MEMORY, "%s of %lld samples fit nowhere", what, (long long)n);
    void *buffer = NULL;
    enum status status = mem_buffer_new(bytes, what, &buffer);
    if (status == STATUS_OK) memcpy(out, &buffer, sizeof buffer);
    return status;
}

static enum status read_sums(struct samples *samples, const char *folder) {
    enum status status = STATUS_OK;
    struct sums *sums = NULL;
    const struct store *store = samples->store;
    char *path = mem_format("%s/sums", folder);
    int64_t groups = samples->settings->n_groups;
    TRY(sums_read(path, samples->settings, store->first, &sums));
    if (sums->samples != samples->n)
        TRY(status_set(STATUS_INVALID, "%s: holds sums over %lld of %lld samples: finish that run with --resume", path,
                       (long long)sums->samples, (long long)samples->n));
    sums_squares(sums, samples->squares);
    samples->squares[groups] = 0;
    for (int64_t g = 0; g < groups; g++) samples->squares[groups] += samples->squares[g];
done:
    sums_free(sums);
    free(path);
    return status;
}

static enum status read_numbers(struct samples *samples) {
    enum status status = STATUS_OK;
    const struct settings *s = samples->settings;
    struct store_record record;
    for (int64_t i = 0; i < samples->n; i++) {
        double sum = 0;
        TRY(store_read(samples->store, i, &record));
        samples->losses[i] = record.loss;
        for (int64_t g = 0; g < s->n_groups; g++) sum += samples->norms[i * s->n_groups + g] = record.norms[g];
        samples->whole[i] = sum;
        bool good = isfinite(record.loss) && isfinite(sum);
        for (int64_t d = 0; d < s->n_directions; d++) {
            samples->inner[d * samples->n + i] = record.inner[d];
            good = good && isfinite(record.inner[d]);
        }
        if (!good)
            return status_set(STATUS_FORMAT, "%s: sample %lld has numbers that are not finite", samples->store->path,
                              (long long)record.sample);
    }
done:
    return status;
}

enum status samples_open(const char *folder, struct samples **out) {
    enum status status = STATUS_OK;
    struct samples *samples = mem_new(1, sizeof *samples);
    char *path = mem_format("%s/records", folder);
    TRY(store_open(path, &samples->store));
    const struct settings *s = samples->settings = samples->store->settings;
    samples->n = samples->store->samples;
    TRY(numbers(samples->n, 1, 8, "losses", &samples->losses));
    TRY(numbers(samples->n, s->n_groups, 8, "norms", &samples->norms));
    TRY(numbers(samples->n, 1, 8, "norms", &samples->whole));
    TRY(numbers(samples->n, s->n_directions, 8, "inner products", &samples->inner));
    samples->squares = mem_new((size_t)s->n_groups + 1, sizeof *samples->squares);
    TRY(read_numbers(samples));
    TRY(read_sums(samples, folder));
    *out = samples;
    samples = NULL;
done:
    free(path);
    samples_free(samples);
    return status;
}

void samples_free(struct samples *samples) {
    if (!samples) return;
    store_free(samples->store);
    mem_buffer_free(samples->losses);
    mem_buffer_free(samples->norms);
    mem_buffer_free(samples->whole);
    mem_buffer_free(samples->inner);
    mem_buffer_free(samples->sketches);
    free(samples->squares);
    free(samples);
}

enum status samples_load(struct samples *samples, int64_t group) {
    enum status status = STATUS_OK;
    const struct settings *s = samples->settings;
    int64_t size = s->sketches * s->dim;
    int64_t first = group == SAMPLES_WHOLE ? 0 : group, last = group == SAMPLES_WHOLE ? s->n_groups - 1 : group;
    struct store_record record;
    if (!samples->sketches) TRY(numbers(samples->n, size, 4, "sketches", &samples->sketches));
    for (int64_t i = 0; i < samples->n; i++) {
        float *to = samples->sketches + i * size;
        TRY(store_read(samples->store, i, &record));
        memcpy(to, record.sketches + first * size, (size_t)size * sizeof *to);
        for (int64_t g = first + 1; g <= last; g++)
            for (int64_t e = 0; e < size; e++) to[e] += record.sketches[g * size + e];
    }
done:
    return status;
}

struct sketch_rows samples_rows(const struct samples *samples) {
    const struct settings *s = samples->settings;
    return (struct sketch_rows){.at = samples->sketches,
                                .samples = samples->n,
                                .sketches = s->sketches,
                                .dim = s->dim,
                                .sample_stride = s->sketches * s->dim,
                                .sketch_stride = s->dim};
}

const double *samples_norms(const struct samples *samples, int64_t group, int64_t *stride) {
    *stride = group == SAMPLES_WHOLE ? 1 : samples->settings->n_groups;
    return group == SAMPLES_WHOLE ? samples->whole : samples->norms + group;
}

double samples_sum2(const struct samples *samples, int64_t group) {
    return samples->squares[group == SAMPLES_WHOLE ? samples->settings->n_groups : group];
}

int64_t samples_weights(const struct samples *samples, int64_t group) {
    int64_t weights = 0;
    for (int64_t i = 0; i < samples->settings->n_weights; i++) {
        const struct settings_weight *weight = &samples->settings->weights[i];
        if (group == SAMPLES_WHOLE || weight->group == group) weights += weight->elements;
    }
    return weights;
}
