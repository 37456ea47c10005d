// Kernels that are right, and the same with one thing left out or added, for emulation_test.c. x and y are [PLANTED_BLOCKS,
// PLANTED_THREADS] on the emulated device, one block per row.
#ifndef DQ_TESTS_CUDA_HOST_PLANTED_BUGS_H
#define DQ_TESTS_CUDA_HOST_PLANTED_BUGS_H

#include "core/backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PLANTED_BLOCKS = 4, PLANTED_THREADS = 128 };

enum planted {
    MIRROR,                   // y = 2 (row of x turned around) + 1, through shared memory twice
    MIRROR_WITHOUT_BARRIER,   // … between writing and reading shared memory
    MIRROR_WITHOUT_SECOND,    // … between reading and writing it again
    MIRROR_WITH_HALF_BARRIER, // half of the block reaches it
    MIRROR_SHARED_TOO_SHORT,  // writes behind the end of shared memory
    WARP_MIRROR,              // y = each 32 of x turned around, through shared memory
    WARP_MIRROR_WITHOUT_SYNC, // … without __syncwarp
    WARP_SUM,                 // y = sum over each 32 of x, by shuffles
    WARP_SUM_IN_HALF,         // half of the warp reaches the shuffle of all
    WARP_SUM_WITHOUT_ONE,     // a lane of the mask has ended
    WARP_SUM_ONE_AHEAD,       // reads one element behind the last row
    COPIES,                   // y = row of x turned around, by copy_async
    COPIES_WITHOUT_WAIT,      // … without copy_async_wait
    COPIES_UNALIGNED,
    PRODUCT, // first 16 x 8 of y = a b by tensor cores, a [16, 16], b [16, 8] the first numbers of x
};

enum status planted_run(struct backend *backend, enum planted which, const float *x, float *y);

#ifdef __cplusplus
}
#endif
#endif
