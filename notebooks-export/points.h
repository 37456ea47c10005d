// points.csv of `discquant-walk validate`: figure,series,x,value,low,high, one line per point of a plot.
#ifndef DQ_NOTEBOOKS_EXPORT_POINTS_H
#define DQ_NOTEBOOKS_EXPORT_POINTS_H

#include "core/base/status.h"

#include <stdint.h>

struct point {
    char *figure, *series;
    double x, value, low, high; // low, high NaN: no interval
};

struct points {
    struct point *points;
    int64_t n;
};

// STATUS_FORMAT names the line that is none.
enum status points_read(const char *path, struct points **out);
void points_free(struct points *points); // accepts NULL

#endif
