// How many CPU threads the toolkit uses. Results never depend on it: work is cut into parts of a size that does not
// know the number of threads, and sums are taken in the order of the parts.
#ifndef DQ_CORE_BASE_THREADS_H
#define DQ_CORE_BASE_THREADS_H

// 0 takes the machine's number of processors. BLAS is kept to one thread per call; the toolkit cuts products itself.
void threads_set(int n);
int threads_count(void);

// For the first line of main(). Threads that wait for one another spin for a moment only and then sleep: on a machine
// that is shared, libgomp's long spinning keeps the processor from the very thread that is waited for (measured: a step
// of 42 ms takes 1200 ms beside two busy processes, 60 ms with short spinning; core/cpu/NOTES.md). libgomp reads its
// setting before main(), so the program starts itself anew, once, with GOMP_SPINCOUNT in its environment; where the user
// has set that or OMP_WAIT_POLICY, nothing happens.
void threads_wait_briefly(char **argv);

#endif
