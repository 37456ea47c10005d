#include "core/base/threads.h"

#include <cblas.h>
#include <omp.h>

void threads_set(int n) {
    omp_set_num_threads(n > 0 ? n : omp_get_num_procs());
    omp_set_dynamic(0);
    openblas_set_num_threads(1);
}

int threads_count(void) { return omp_get_max_threads(); }
