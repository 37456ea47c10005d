#include "spectra/merge.h"

#include "core/base/mem.h"
#include "spectra/store.h"
#include "spectra/sums.h"

#include <stdlib.h>

enum { PATHS_MAX = 512 };

struct part {
    const char *path;
    struct store *store;
};

static int by_first(const void *a, const void *b) {
    int64_t first = ((const struct part *)a)->store->first, other = ((const struct part *)b)->store->first;
    return (first > other) - (first < other);
}

static enum status open_parts(const char *const *paths, int64_t n, struct part *parts) {
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < n; i++) {
        char *path = mem_format("%s/records", paths[i]);
        parts[i].path = paths[i];
        status = store_open(path, &parts[i].store);
        free(path);
        TRY(status);
        TRY(settings_same(parts[0].store->settings, paths[0], parts[i].store->settings, paths[i]));
    }
    qsort(parts, (size_t)n, sizeof *parts, by_first);
    for (int64_t i = 1; i < n; i++) {
        const struct store *before = parts[i - 1].store, *store = parts[i].store;
        int64_t end = before->first + before->samples;
        if (store->first < end)
            return status_set(STATUS_INVALID, "sample %lld is in %s and in %s", (long long)store->first,
                              parts[i - 1].path, parts[i].path);
        if (store->first > end)
            return status_set(STATUS_INVALID, "samples %lld to %lld are missing between %s and %s", (long long)end,
                              (long long)store->first - 1, parts[i - 1].path, parts[i].path);
    }
done:
    return status;
}

static enum status copy_records(struct store *from, struct store *to) {
    enum status status = STATUS_OK;
    struct store_record record;
    for (int64_t i = 0; i < from->samples; i++) {
        TRY(store_read(from, i, &record));
        TRY(store_append(to, &record));
    }
done:
    return status;
}

static enum status add_sums(const struct part *part, struct sums *total) {
    enum status status = STATUS_OK;
    struct sums *sums = NULL;
    char *path = mem_format("%s/sums", part->path);
    TRY(sums_read(path, part->store->settings, part->store->first, &sums));
    if (sums->samples != part->store->samples)
        TRY(status_set(STATUS_FORMAT, "%s: holds sums over %lld of %lld samples: finish that run with --resume", path,
                       (long long)sums->samples, (long long)part->store->samples));
    TRY(sums_add(total, sums));
done:
    sums_free(sums);
    free(path);
    return status;
}

enum status merge(const char *const *paths, int64_t n, const char *folder, int64_t *first, int64_t *samples) {
    REQUIRE(n > 0, "there is something to merge");
    enum status status = STATUS_OK;
    struct part *parts = mem_new((size_t)n, sizeof *parts);
    struct store *store = NULL;
    struct sums *sums = NULL;
    char *records = mem_format("%s/records", folder), *sums_path = mem_format("%s/sums", folder);
    TRY(open_parts(paths, n, parts));
    const struct store *last = parts[n - 1].store;
    int64_t begin = parts[0].store->first, count = last->first + last->samples - begin;
    TRY(store_create(records, last->settings, begin, count, &store));
    TRY(sums_new(last->settings, &sums));
    for (int64_t i = 0; i < n; i++) {
        TRY(copy_records(parts[i].store, store));
        TRY(add_sums(&parts[i], sums));
    }
    TRY(store_sync(store));
    TRY(sums_write(sums, sums_path, begin));
    *first = begin;
    *samples = count;
done:
    sums_free(sums); // borrows a store's settings
    for (int64_t i = 0; i < n; i++) store_free(parts[i].store);
    free(parts);
    store_free(store);
    free(records);
    free(sums_path);
    return status;
}

// ---- the command ----

static struct merge_settings {
    const char *paths[PATHS_MAX];
    int n;
} given;

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct merge_settings *settings = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (settings->n == PATHS_MAX) args_fail("%s: at most %d runs are merged", arg, PATHS_MAX);
        settings->paths[settings->n++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->n) args_fail("which runs?");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status run_merge(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    const struct merge_settings *settings = input;
    struct record *about = record_new();
    struct run_folder *run = NULL;
    int64_t first = 0, samples = 0;
    record_integer(about, "runs", settings->n);
    TRY(program_run_folder(common, about, &run));
    status = merge(settings->paths, settings->n, common->out, &first, &samples);
    if (status == STATUS_OK) {
        record_integer(run_folder_result(run), "first_sample", first);
        record_integer(run_folder_result(run), "samples", samples);
        record_number(run_folder_result(run), "seconds", run_folder_seconds(run));
    }
    status = run_folder_finish(run, status);
done:
    run_folder_free(run);
    record_free(about);
    return status;
}

const struct command merge_command = {
    .name = "merge",
    .doc = "Puts the samples of several runs of `spectrum --samples-only` into one.\v"
           "The runs have the same settings and ranges of samples (--first-sample, --samples) that follow one another. "
           "Use the "
           "result with `spectrum --store`.",
    .args_doc = "RUN…",
    .parse = parse,
    .common = COMMON_OUT_NEEDED,
    .run = run_merge,
    .settings = &given,
};
