#include "notebooks-export/points.h"

#include "core/base/mem.h"
#include "data/file.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS_MAX_BYTES = 1 << 26, N_FIELDS = 6 };

static bool take_number(const char *text, double *out) {
    char *end = NULL;
    *out = NAN;
    if (!*text) return true;
    *out = strtod(text, &end);
    return *end == 0;
}

// Cuts the line at its commas; no field of these files is quoted.
static bool take_point(char *line, struct point *point) {
    char *fields[N_FIELDS];
    int n = 0;
    for (char *at = line; at && n < N_FIELDS; n++) {
        fields[n] = at;
        at = strchr(at, ',');
        if (at) *at++ = 0;
        if (n == N_FIELDS - 1 && at) return false;
    }
    struct point p = {0};
    if (n != N_FIELDS || !take_number(fields[2], &p.x) || !take_number(fields[3], &p.value) ||
        !take_number(fields[4], &p.low) || !take_number(fields[5], &p.high) || isnan(p.x))
        return false;
    p.figure = mem_string(fields[0]);
    p.series = mem_string(fields[1]);
    *point = p;
    return true;
}

enum status points_read(const char *path, struct points **out) {
    enum status status = STATUS_OK;
    char *bytes = NULL, *save = NULL;
    int64_t n_bytes = 0, line_number = 1;
    struct points *points = mem_new(1, sizeof *points);
    TRY(file_read(path, POINTS_MAX_BYTES, &bytes, &n_bytes));
    char *line = strtok_r(bytes, "\n", &save);
    if (!line || strcmp(line, "figure,series,x,value,low,high") != 0)
        TRY(status_set(STATUS_FORMAT, "%s: must begin with the line figure,series,x,value,low,high", path));
    while ((line = strtok_r(NULL, "\n", &save))) {
        line_number++;
        points->points = mem_resize(points->points, (size_t)points->n + 1, sizeof *points->points);
        if (!take_point(line, &points->points[points->n]))
            TRY(status_set(STATUS_FORMAT, "%s: line %lld is no point", path, (long long)line_number));
        points->n++;
    }
    *out = points;
    points = NULL;
done:
    points_free(points);
    mem_buffer_free(bytes);
    return status;
}

void points_free(struct points *points) {
    if (!points) return;
    for (int64_t i = 0; i < points->n; i++) {
        free(points->points[i].figure);
        free(points->points[i].series);
    }
    free(points->points);
    free(points);
}
