// What the tests share on top of cmocka: numerical comparison, files of the working folder, real input where it is had.
// A test name is a claim: loader_rejects_overlapping_tensors.
#ifndef DQ_TESTS_CHECK_H
#define DQ_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/status.h"

// |got - want| <= abs + rel * |want|; NaN never passes.
#define check_near(got, want, rel, abs) check_near_at((got), (want), (rel), (abs), #got, __FILE__, __LINE__)

static inline void check_near_at(double got, double want, double rel, double abs, const char *what, const char *file,
                                 int line) {
    if (fabs(got - want) <= abs + rel * fabs(want)) return;
    print_error("%s = %.10g, want %.10g (difference %.3g, allowed %.3g)\n", what, got, want, got - want,
                abs + rel * fabs(want));
    _fail(file, line);
}

// Every entry of two float arrays; the worst one is printed.
#define check_all_near(got, want, n, rel, abs)                                                                         \
    check_all_near_at((got), (want), (n), (rel), (abs), #got, __FILE__, __LINE__)

static inline void check_all_near_at(const float *got, const float *want, int64_t n, double rel, double abs,
                                     const char *what, const char *file, int line) {
    int64_t worst = -1;
    double worst_ratio = 1;
    for (int64_t i = 0; i < n; i++) {
        double ratio = fabs((double)got[i] - (double)want[i]) / (abs + rel * fabs((double)want[i]) + 1e-300);
        if (!(ratio <= worst_ratio)) worst = i, worst_ratio = isnan(ratio) ? INFINITY : ratio;
    }
    if (worst < 0) return;
    print_error("%s[%lld of %lld] = %.9g, want %.9g (%.3g times the allowed difference)\n", what, (long long)worst,
                (long long)n, (double)got[worst], (double)want[worst], worst_ratio);
    _fail(file, line);
}

// The call succeeds; its message is printed when it does not.
#define check_ok(call) check_ok_at((call), #call, __FILE__, __LINE__)

static inline void check_ok_at(enum status status, const char *what, const char *file, int line) {
    if (status == STATUS_OK) return;
    print_error("%s failed: %s\n", what, status_message());
    _fail(file, line);
}

// The call fails with this status and leaves a one-line message.
#define check_fails(call, code) check_fails_at((call), (code), #call, __FILE__, __LINE__)

static inline void check_fails_at(enum status status, enum status code, const char *what, const char *file, int line) {
    if (status == code && status_message()[0] && !strchr(status_message(), '\n')) return;
    print_error("%s gave status %d, want %d; message: %s\n", what, (int)status, (int)code, status_message());
    _fail(file, line);
}

// Root of the source tree, for golden files: check_source("tests/golden/x.json", path, sizeof path).
static inline const char *check_source(const char *name, char *path, size_t size) {
    const char *root = getenv("DISCQUANT_SOURCE");
    snprintf(path, size, "%s/%s", root ? root : ".", name);
    return path;
}

// Real input that is not in the repository: $DISCQUANT_SHARED, else ../shared beside the source tree. A test that needs
// a file which is not there is skipped and says which.
static inline const char *check_shared(const char *name, char *path, size_t size) {
    const char *shared = getenv("DISCQUANT_SHARED"), *root = getenv("DISCQUANT_SOURCE");
    if (shared)
        snprintf(path, size, "%s/%s", shared, name);
    else
        snprintf(path, size, "%s/../shared/%s", root ? root : ".", name);
    if (access(path, R_OK) != 0) {
        print_message("skipped: no %s (set DISCQUANT_SHARED to the folder that holds it)\n", path);
        skip();
    }
    return path;
}

#endif
