// A point x in [0, 1]^n of a model on a grid, in a file: where one program's optimizer stands, for another to round.
//
//     TRY(point_save(rounding, "run/x.safetensors"));
//     …
//     TRY(point_open("run/x.safetensors", &point));
//     TRY(point_grid(point, &grid));                                  // the grid of that run
//     TRY(rounding_new(model, &grid, DTYPE_F32, &rounding));
//     TRY(point_read(point, rounding, x));                            // x [rounding->weights]
//   done:
//     point_free(point);
//
// The file is safetensors. For each matrix NAME of the model that is rounded it has
//     NAME         F32 [rows, cols]   x: the weight is down (1 - x) + up x between its neighbours on the grid
//     NAME.scale   F32 [rows, groups] scales of the grid, or [rows, 2 groups] scales | offsets (core/quant/grid.h)
// and in __metadata__, as strings: "kind": "discquant x", "grid" and "scale_search" as the options spell them,
// "bits", "group_size" (-1: whole rows).
#ifndef DQ_DATA_POINT_H
#define DQ_DATA_POINT_H

#include "core/nn/rounding.h"

#define POINT_FILE "x.safetensors" // in a run folder

struct point;

// x as it is in the model's weights, in F32 whatever dtype it has there.
enum status point_save(const struct rounding *rounding, const char *path);

// STATUS_FORMAT: the file holds no point.
enum status point_open(const char *path, struct point **out);
void point_free(struct point *point); // accepts NULL

enum status point_grid(const struct point *point, struct grid *out);

// x of all rounded matrices in the order of the network (rounding_set). STATUS_INVALID: the point is of another model or grid, that
// is, a matrix is missing or a scale differs in a bit. STATUS_FORMAT: an x outside [0, 1].
enum status point_read(const struct point *point, const struct rounding *rounding, double *x);

#endif
