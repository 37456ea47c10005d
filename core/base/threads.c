#include "core/base/threads.h"

#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

void threads_set(int n) {
    omp_set_num_threads(n > 0 ? n : omp_get_num_procs());
    omp_set_dynamic(0);
    openblas_set_num_threads(1);
}

int threads_count(void) { return omp_get_max_threads(); }

void threads_wait_briefly(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0) execv("/proc/self/exe", argv); // on failure: as it was
}
