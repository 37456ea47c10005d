// Comma-separated values (RFC 4180): quoted fields may hold commas, newlines and doubled quotes.
#ifndef DQ_BENCH_CSV_ROWS_H
#define DQ_BENCH_CSV_ROWS_H

#include "core/base/status.h"

#include <stdint.h>

struct csv_rows {
    char **fields;  // of all rows, one behind another
    int64_t *first; // [n_rows + 1] index of a row's first field
    int64_t n_rows;
    char *bytes; // what fields point into
};

// STATUS_FORMAT: a quote that is not closed, or something between a closing quote and the comma.
enum status csv_rows_read(const char *path, struct csv_rows **out);
void csv_rows_free(struct csv_rows *rows); // accepts NULL

#endif
