// What adamw needs of the grids: where in its interval each weight lies.
#ifndef DQ_CORE_CPU_GRIDS_H
#define DQ_CORE_CPU_GRIDS_H

#include "core/cpu/parts.h"
#include "core/quant/grid.h"

// y[i] = (w - down) / (up - down), 1/2 where up = down, for the n weights from `first` on, counted row by row.
void grid_middle_offsets(const struct grid *grid, struct view w, struct view scale, int64_t first, int64_t n, float *y);

#endif
