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
    char path[4096]; // the program under its own name, which ps and pkill show
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0 || n == sizeof path) return;
    path[n] = '\0';
    if (setenv("GOMP_SPINCOUNT", "1000", 1) == 0) execv(path, argv); // on failure: as it was
}
