// How many CPU threads the toolkit uses. Results never depend on it: work is cut into parts of a size that does not
// know the number of threads, and sums are taken in the order of the parts.
#ifndef DQ_CORE_BASE_THREADS_H
#define DQ_CORE_BASE_THREADS_H

// 0 takes the machine's number of processors. BLAS is kept to one thread per call; the toolkit cuts products itself.
void threads_set(int n);
int threads_count(void);

#endif
