// A flat list of named values: one line of metrics.jsonl, a result.json, the settings of a run.
//
//     struct record *line = record_new();
//     record_integer(line, "step", step);
//     record_number(line, "kl", kl);            // NaN and infinity are written as null
//     TRY(run_folder_log(run, line));
//     record_free(line);
//
// Values keep the order in which they were first set; setting a key again replaces its value.
#ifndef DQ_DATA_RECORD_H
#define DQ_DATA_RECORD_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct grid_options;
struct record;

struct record *record_new(void);
void record_free(struct record *record); // accepts NULL
void record_clear(struct record *record);

void record_number(struct record *record, const char *key, double value);
void record_integer(struct record *record, const char *key, int64_t value);
void record_bool(struct record *record, const char *key, bool value);
// Bytes that are not UTF-8 are written as '?'; NULL as null.
void record_string(struct record *record, const char *key, const char *value);

// Sets every value of a flat JSON object.
void record_update(struct record *record, json_t *object);

// "bits", "group_size", "grid" and "scale_search" of complete options.
void record_grid(struct record *record, const struct grid_options *options);

// What stands behind a path, as a string "crc32:9ae0daaf bytes:1048576": of a file its bytes, of a folder the names and
// bytes of its *.json, *.safetensors and *.model files. For settings, so that a run is not resumed with other input.
// STATUS_IO when something there cannot be read.
enum status record_digest(struct record *record, const char *key, const char *path);
// The same for n paths, under KEY_0, KEY_1, …
enum status record_digests(struct record *record, const char *key, const char *const *paths, int n);

// JSON text. Numbers have the fewest digits (at most 17) that read back as the same double. `indent` 0 gives one line
// without newline, otherwise one line per key and a newline at the end. Free with free().
char *record_text(const struct record *record, int indent);

// The values as a JSON object, borrowed.
const json_t *record_json(const struct record *record);

// Any JSON value as text, with numbers as above. Free with free().
char *record_json_text(const json_t *value, int indent);

// A JSON string of any bytes: what is not UTF-8 becomes '?'.
json_t *record_json_string(const char *value);

#endif
