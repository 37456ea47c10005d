#include "spectra/sums.h"

#include "core/base/mem.h"
#include "data/checkpoint.h"
#include "data/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { BLOCK = 1 << 12 };

enum status sums_new(const struct settings *settings, struct sums **out) {
    enum status status = STATUS_OK;
    struct sums *sums = mem_new(1, sizeof *sums);
    sums->settings = settings;
    sums->values = mem_new((size_t)settings->n_weights + 1, sizeof *sums->values);
    for (int64_t i = 0; i < settings->n_weights; i++) {
        const struct settings_weight *weight = &settings->weights[i];
        void *values = NULL;
        TRY(mem_buffer_new(weight->elements * (int64_t)sizeof(double), weight->name, &values));
        memset(values, 0, (size_t)weight->elements * sizeof(double));
        sums->values[i] = values;
    }
    *out = sums;
    sums = NULL;
done:
    sums_free(sums);
    return status;
}

void sums_free(struct sums *sums) {
    if (!sums) return;
    for (int64_t i = 0; i < sums->settings->n_weights; i++) mem_buffer_free(sums->values[i]);
    free(sums->values);
    free(sums);
}

static int64_t crc_of(const struct settings *settings) {
    json_t *json = settings_json(settings);
    char *text = record_json_text(json, 0);
    int64_t crc = (int64_t)crc32_z(0, (const Bytef *)text, strlen(text));
    free(text);
    json_decref(json);
    return crc;
}

enum status sums_write(const struct sums *sums, const char *path, int64_t first) {
    struct checkpoint *file = checkpoint_new();
    checkpoint_add_integer(file, "settings", crc_of(sums->settings));
    checkpoint_add_integer(file, "first_sample", first);
    checkpoint_add_integer(file, "samples", sums->samples);
    for (int64_t i = 0; i < sums->settings->n_weights; i++) {
        char *name = mem_format("sum.%lld", (long long)i);
        checkpoint_add_doubles(file, name, sums->values[i], sums->settings->weights[i].elements);
        free(name);
    }
    enum status status = checkpoint_write(file, path);
    checkpoint_free(file);
    return status;
}

enum status sums_read(const char *path, const struct settings *settings, int64_t first, struct sums **out) {
    enum status status = STATUS_OK;
    struct checkpoint *file = NULL;
    struct sums *sums = NULL;
    int64_t crc = 0, begin = 0;
    TRY(checkpoint_read(path, &file));
    TRY(checkpoint_integer(file, "settings", 0, UINT32_MAX, &crc));
    TRY(checkpoint_integer(file, "first_sample", 0, INT64_MAX, &begin));
    if (crc != crc_of(settings) || begin != first)
        TRY(status_set(STATUS_FORMAT, "%s: holds sums over other samples than the records beside it", path));
    TRY(sums_new(settings, &sums));
    TRY(checkpoint_integer(file, "samples", 0, INT64_MAX, &sums->samples));
    for (int64_t i = 0; i < settings->n_weights && status == STATUS_OK; i++) {
        char *name = mem_format("sum.%lld", (long long)i);
        status = checkpoint_doubles(file, name, sums->values[i], settings->weights[i].elements);
        free(name);
    }
    TRY(status);
    *out = sums;
    sums = NULL;
done:
    checkpoint_free(file);
    sums_free(sums);
    return status;
}

enum status sums_add(struct sums *sums, const struct sums *more) {
    static const double most = 4096;
    for (int64_t i = 0; i < sums->settings->n_weights; i++) {
        const struct settings_weight *weight = &sums->settings->weights[i];
        REQUIRE(weight->elements == more->settings->weights[i].elements, "sums of the same weights");
        double *to = sums->values[i], largest = 0;
        const double *from = more->values[i];
        for (int64_t e = 0; e < weight->elements; e++) {
            to[e] += from[e];
            largest = fmax(largest, fabs(to[e]));
        }
        if (!(largest < most))
            return status_set(STATUS_INVALID, "%s: a sum of gradients is %g, at most %g can be kept exactly",
                              weight->name, largest, most);
    }
    sums->samples += more->samples;
    return STATUS_OK;
}

// In blocks, so that rounding grows with the number of blocks and not of entries.
static double square(const double *values, int64_t n) {
    double total = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        double sum = 0;
        int64_t end = n - first < BLOCK ? n : first + BLOCK;
        for (int64_t i = first; i < end; i++) sum += values[i] * values[i];
        total += sum;
    }
    return total;
}

void sums_squares(const struct sums *sums, double *squares) {
    for (int64_t g = 0; g < sums->settings->n_groups; g++) squares[g] = 0;
    for (int64_t i = 0; i < sums->settings->n_weights; i++) {
        const struct settings_weight *weight = &sums->settings->weights[i];
        squares[weight->group] += square(sums->values[i], weight->elements);
    }
}
