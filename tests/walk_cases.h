// Matrices of constraints for the tests of walk/: a deterministic function of their kind and seed.
#ifndef DQ_TESTS_WALK_CASES_H
#define DQ_TESTS_WALK_CASES_H

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "tests/check.h"
#include "walk/walk.h"

enum walk_case {
    CASE_DECAYING,  // Gaussian, rows falling as 1 / j
    CASE_KAPPA,     // singular values from 1 to 1e-10, evenly in their logarithm
    CASE_COPIES,    // half of the rows are copies or zero
    CASE_LOCALISED, // Gaussian, coordinate i falling as 1 / i: constraints rest on few coordinates
    N_CASES,
};

static inline double *walk_case_numbers(int64_t n) { return mem_new((size_t)n + 1, 8); }

// a [n, frame_stride(m)]; for CASE_KAPPA left and right factors are made orthonormal by Gram-Schmidt, twice.
static inline void walk_orthonormal(double *a, int64_t n, int64_t m, int64_t stride) {
    for (int64_t j = 0; j < m; j++)
        for (int round = 0; round < 3; round++) {
            for (int64_t k = 0; k < (round < 2 ? j : 0); k++) {
                double dot = 0;
                for (int64_t i = 0; i < n; i++) dot += a[i * stride + j] * a[i * stride + k];
                for (int64_t i = 0; i < n; i++) a[i * stride + j] -= dot * a[i * stride + k];
            }
            double norm = 0;
            for (int64_t i = 0; i < n; i++) norm += a[i * stride + j] * a[i * stride + j];
            for (int64_t i = 0; i < n; i++) a[i * stride + j] /= sqrt(norm);
        }
}

static inline double *walk_case_matrix(enum walk_case kind, int64_t n, int64_t m, uint64_t seed) {
    double *a;
    int64_t stride = frame_stride(m);
    check_ok(frame_matrix_new(n, m, &a));
    struct rng rng = {.seed = seed, .stream = RNG_TEST};
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) a[i * stride + j] = rng_normal(rng, (uint64_t)(i * m + j));
    double *right = walk_case_numbers(m * m), *row = walk_case_numbers(m);
    if (kind == CASE_KAPPA) {
        for (int64_t k = 0; k < m * m; k++) right[k] = rng_normal(rng, (uint64_t)(n * m + k));
        walk_orthonormal(a, n, m, stride);
        walk_orthonormal(right, m, m, m);
    }
    for (int64_t i = 0; i < n; i++) {
        double *to = a + i * stride;
        for (int64_t j = 0; j < m; j++) {
            if (kind == CASE_DECAYING) to[j] /= (double)(j + 1);
            if (kind == CASE_LOCALISED) to[j] /= (double)(i + 1);
            if (kind == CASE_COPIES && j >= m / 2) to[j] = j % 3 ? to[j - m / 2] : 0;
        }
        if (kind != CASE_KAPPA) continue;
        memcpy(row, to, (size_t)m * 8);
        for (int64_t j = 0; j < m; j++) {
            to[j] = 0;
            for (int64_t k = 0; k < m; k++)
                to[j] += row[k] * pow(10, -10.0 * (double)k / (double)(m - 1)) * right[j * m + k];
        }
    }
    free(right);
    free(row);
    return a;
}

// Uniform in [0,1], every `whole`-th coordinate 0 or 1 (0: none).
static inline double *walk_case_start(int64_t n, int64_t whole, uint64_t seed) {
    double *y = walk_case_numbers(n);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (double)rng_uniform((struct rng){.seed = seed, .stream = RNG_TEST + 1}, (uint64_t)i);
        if (whole && i % whole == 0) y[i] = y[i] < 0.5 ? 0 : 1;
    }
    return y;
}

#endif
