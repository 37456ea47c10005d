// Wall-clock time for progress lines and benchmarks.
#ifndef DQ_CORE_BASE_CLOCK_H
#define DQ_CORE_BASE_CLOCK_H

// Seconds since an arbitrary point; never goes back.
double clock_seconds(void);

#endif
