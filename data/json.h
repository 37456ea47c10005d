// JSON of other programs' files, read strictly: duplicate keys, invalid UTF-8, NaN, trailing data and numbers that do
// not fit are errors. Values are jansson's (json_t); the getters here add the type check and the message.
//
//     json_t *root = NULL;
//     TRY(json_read_file("model/config.json", &root));
//     TRY(json_get_integer(root, "model/config.json", "hidden_size", &hidden));
//   done:
//     json_decref(root);          // accepts NULL
//
// `where` names the file in messages. A getter gives STATUS_FORMAT, naming file and key, when the key is missing or has
// another type. The `_or` forms take `missing` when the key is absent or null. What is returned by pointer (strings,
// objects, arrays) is borrowed from `object`.
#ifndef DQ_DATA_JSON_H
#define DQ_DATA_JSON_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// The root is an object or an array. Files of more than 256 MB are refused. Free with json_decref.
enum status json_read_file(const char *path, json_t **out);
enum status json_read_buffer(const void *bytes, int64_t n_bytes, const char *where, json_t **out);

enum status json_get_string(const json_t *object, const char *where, const char *key, const char **out);
enum status json_get_integer(const json_t *object, const char *where, const char *key, int64_t *out);
enum status json_get_number(const json_t *object, const char *where, const char *key, double *out); // integers too
enum status json_get_bool(const json_t *object, const char *where, const char *key, bool *out);
enum status json_get_object(const json_t *object, const char *where, const char *key, json_t **out);
enum status json_get_array(const json_t *object, const char *where, const char *key, json_t **out);

enum status json_get_string_or(const json_t *object, const char *where, const char *key, const char *missing,
                               const char **out);
enum status json_get_integer_or(const json_t *object, const char *where, const char *key, int64_t missing,
                                int64_t *out);
enum status json_get_number_or(const json_t *object, const char *where, const char *key, double missing, double *out);
enum status json_get_bool_or(const json_t *object, const char *where, const char *key, bool missing, bool *out);
enum status json_get_object_or(const json_t *object, const char *where, const char *key, json_t *missing, json_t **out);
enum status json_get_array_or(const json_t *object, const char *where, const char *key, json_t *missing, json_t **out);

// "a string", "an object", … for messages.
const char *json_kind(const json_t *value);

#endif
