// What decides the numbers of a sample's record: model, text, window, sketch, and which weights count in which group.
// Two stores whose settings are the same hold records of one population, wherever and in how many parts they were made.
#ifndef DQ_SPECTRA_SETTINGS_H
#define DQ_SPECTRA_SETTINGS_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdint.h>

struct settings_weight {
    char *name;       // of the tensor
    int64_t elements; // rows * cols
    int64_t group;
};

struct settings {
    char *model, *corpus; // digests of their files (record_digest in data/record.h)
    char *dtype;          // of values and gradients: "F32", "BF16"
    int64_t seq_len;      // tokens of a window; a sample's loss is the mean of its seq_len - 1 predictions, nats
    int64_t batch;        // windows per pass: changes numbers by fp32 rounding
    uint64_t seed;        // of the order of windows and of the sketches
    char *parameters;     // "linear", "all"
    char *sketch;         // "none", "rotation", "gaussian", "rademacher"; scaled so that E |S g|^2 = |g|^2
    int64_t dim;          // k, 0 for "none"
    int64_t sketches;     // J, 0 for "none"
    int64_t n_groups;     // at least 1
    char **groups;        // names
    int64_t n_weights;
    struct settings_weight *weights; // those that count, in the order of the network
    int64_t n_directions;
    char **directions; // "NAME=digest": inner products with these are kept
};

void settings_free(struct settings *settings); // accepts NULL

// One JSON object; the caller's to json_decref.
json_t *settings_json(const struct settings *settings);

// STATUS_FORMAT where a value is missing, has another type or cannot be; `where` names the file.
enum status settings_read(const json_t *json, const char *where, struct settings **out);

struct settings *settings_copy(const struct settings *settings);

// STATUS_INVALID, naming the first setting that differs, unless both are the same. `where` and `other` name them.
enum status settings_same(const struct settings *settings, const char *where, const struct settings *others,
                          const char *other);

#endif
