// Files with one JSON object per line.
#ifndef DQ_BENCH_JSON_LINES_H
#define DQ_BENCH_JSON_LINES_H

#include "core/base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

// One object; `where` is "PATH:LINE", for messages and until the call returns. *stop ends the reading.
typedef enum status json_lines_take(void *context, const json_t *object, const char *where, int64_t line, bool *stop);

// Calls `take` for every line that is not blank. STATUS_FORMAT for a line that is no JSON object, and for a file without one.
enum status json_lines_read(const char *path, json_lines_take *take, void *context);

#endif
