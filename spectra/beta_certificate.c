#include "spectra/beta_certificate.h"

#include "core/base/mem.h"
#include "core/base/rng.h"

#include <cblas.h>
#include <float.h>
#include <lapacke.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 32, LANCZOS_STEPS = 48, LANCZOS_RESTARTS = 6, EVALUATIONS = 16, PROOFS = 8, BLOCK = 512, CHUNK = 256 };

// Residuals of Lanczos vectors fall to this share of their values, whose errors are of second order; t is looked for until the bound
// is this close to the best one; what is to be proven lies that far above what Lanczos found.
static const double lanczos_tolerance = 1e-3, search_tolerance = 1e-3, proof_margin = 1e-3;

struct problem {
    const double *h; // [n, r]
    int64_t n, r;
    double *scaled;  // [n, r]
    double *partial; // [PARTS, r, r]
    double *basis;   // [LANCZOS_STEPS + 1, r, r]
    double *top;     // [r, r] eigenvector of the largest eigenvalue that was found last
};

static double dot(const double *a, const double *b, int64_t n) { return cblas_ddot((int)n, a, 1, b, 1); }

static double trace(const struct problem *p, const double *v) {
    double sum = 0;
    for (int64_t a = 0; a < p->r; a++) sum += v[a * p->r + a];
    return sum;
}

// ---- the operator ----

// partial[part] = sum of (h_i^T V h_i) h_i h_i^T over the samples of a part.
static void apply_part(const struct problem *p, const double *v, int64_t part) {
    int64_t n = p->n, r = p->r, first = n * part / PARTS, count = n * (part + 1) / PARTS - first;
    double *sum = p->partial + part * r * r;
    const double *h = p->h + first * r;
    double *z = p->scaled + first * r;
    if (!count) {
        memset(sum, 0, (size_t)(r * r) * sizeof *sum);
        return;
    }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)count, (int)r, (int)r, 1, h, (int)r, v, (int)r, 0, z,
                (int)r);
    for (int64_t i = 0; i < count; i++) {
        double q = dot(h + i * r, z + i * r, r);
        for (int64_t a = 0; a < r; a++) z[i * r + a] = q * h[i * r + a];
    }
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)r, (int)r, (int)count, 1, h, (int)r, z, (int)r, 0, sum,
                (int)r);
}

// out = L_t(v), v symmetric.
static void apply(const struct problem *p, double t, const double *v, double *out) {
    int64_t r = p->r;
#pragma omp parallel for schedule(dynamic)
    for (int64_t part = 0; part < PARTS; part++) apply_part(p, v, part);
    double tr = trace(p, v);
#pragma omp parallel for
    for (int64_t a = 0; a < r; a++)
        for (int64_t b = 0; b < r; b++) {
            double sum = 0;
            for (int64_t part = 0; part < PARTS; part++) sum += p->partial[(part * r + a) * r + b];
            out[a * r + b] = sum / (double)p->n + t * (v[a * r + b] - (a == b ? tr : 0));
        }
}

// ---- Lanczos ----

// Largest eigenvalue of the tridiagonal matrix and its unit eigenvector [m].
static double tridiagonal_top(const double *diagonal, const double *beside, int64_t m, double *vector) {
    double d[LANCZOS_STEPS], e[LANCZOS_STEPS], z[LANCZOS_STEPS * LANCZOS_STEPS];
    memcpy(d, diagonal, (size_t)m * sizeof *d);
    memcpy(e, beside, (size_t)m * sizeof *e);
    lapack_int info = LAPACKE_dstev(LAPACK_COL_MAJOR, 'V', (lapack_int)m, d, e, z, (lapack_int)m);
    REQUIRE(info == 0, "finite numbers, for which dstev converges");
    memcpy(vector, z + (m - 1) * m, (size_t)m * sizeof *vector);
    return d[m - 1];
}

// One run from p->top, which becomes the Ritz vector. Returns the Ritz value; *residual bounds |L v - value v|.
static double lanczos_run(const struct problem *p, double t, double *residual) {
    int64_t size = p->r * p->r, m = 0;
    double diagonal[LANCZOS_STEPS], beside[LANCZOS_STEPS], weights[LANCZOS_STEPS], value = 0;
    memcpy(p->basis, p->top, (size_t)size * sizeof *p->basis);
    for (;;) {
        double *v = p->basis + m * size, *next = v + size;
        apply(p, t, v, next);
        diagonal[m] = dot(v, next, size);
        for (int round = 0; round < 2; round++) // twice is enough (Kahan and Parlett)
            for (int64_t j = 0; j <= m; j++)
                cblas_daxpy((int)size, -dot(p->basis + j * size, next, size), p->basis + j * size, 1, next, 1);
        beside[m] = sqrt(dot(next, next, size));
        m++;
        value = tridiagonal_top(diagonal, beside, m, weights);
        *residual = beside[m - 1] * fabs(weights[m - 1]);
        if (m == LANCZOS_STEPS || *residual <= lanczos_tolerance * fabs(value) || beside[m - 1] < 1e-12 * fabs(value))
            break;
        cblas_dscal((int)size, 1 / beside[m - 1], next, 1);
    }
    memset(p->top, 0, (size_t)size * sizeof *p->top);
    for (int64_t j = 0; j < m; j++) cblas_daxpy((int)size, weights[j], p->basis + j * size, 1, p->top, 1);
    cblas_dscal((int)size, 1 / sqrt(dot(p->top, p->top, size)), p->top, 1);
    return value;
}

// lambda_max(L_t) to lanczos_tolerance, from below; *slope = d lambda / d t = |V|^2 - tr(V)^2.
static double largest(const struct problem *p, double t, double *slope) {
    double value = 0, residual;
    // A little of everything, in case the last eigenvector is orthogonal to this one.
    int64_t r = p->r;
    for (int64_t a = 0; a < r; a++)
        for (int64_t b = 0; b <= a; b++) {
            double noise = rng_normal((struct rng){.seed = 1, .stream = RNG_INIT}, (uint64_t)(a * r + b));
            p->top[a * r + b] += 0.05 / (double)r * noise;
            p->top[b * r + a] = p->top[a * r + b];
        }
    cblas_dscal((int)(r * r), 1 / sqrt(dot(p->top, p->top, r * r)), p->top, 1);
    for (int run = 0; run < LANCZOS_RESTARTS; run++) {
        value = lanczos_run(p, t, &residual);
        if (residual <= lanczos_tolerance * fabs(value)) break;
    }
    double tr = trace(p, p->top);
    *slope = 1 - tr * tr;
    return value;
}

// ---- the best t ----

// A line below the convex function t -> lambda_max(L_t).
struct line {
    double t, value, slope;
};

static struct line line_at(const struct problem *p, double t) {
    struct line line = {.t = t};
    line.value = largest(p, t, &line.slope);
    return line;
}

static double crossing(struct line a, struct line b) {
    return ((b.value - b.slope * b.t) - (a.value - a.slope * a.t)) / (a.slope - b.slope);
}

// Cutting planes: the two tangents around the minimum bound it from below where they cross, and t goes there.
static struct line search(const struct problem *p, double lower, double *least) {
    struct line left = line_at(p, 0), best = left;
    // L_t >= t on matrices without trace, since its first part is not negative: the line through 0 with slope 1.
    struct line right = {.t = left.value, .value = left.value, .slope = 1};
    *least = left.value;
    double t = lower / 3;
    for (int k = 0; k < EVALUATIONS && left.slope < 0; k++) {
        double cross = crossing(left, right);
        *least = left.value + left.slope * (cross - left.t);
        if (best.value - *least <= search_tolerance * best.value) break;
        if (k > 0) t = cross;
        double width = right.t - left.t;
        if (!(t > left.t + 0.02 * width)) t = left.t + 0.02 * width;
        if (!(t < right.t - 0.02 * width)) t = right.t - 0.02 * width;
        struct line line = line_at(p, t);
        if (line.value < best.value) best = line;
        if (line.slope < 0)
            left = line;
        else
            right = line;
    }
    if (*least > best.value) *least = best.value;
    return best;
}

// ---- the proof ----

// lower triangle of m -= rows^T rows for rows [count, d], in blocks.
static void subtract_products(double *m, int64_t d, const double *rows, int64_t count, double factor) {
    int64_t blocks = (d + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < blocks * blocks; k++) {
        int64_t i = k / blocks * BLOCK, j = k % blocks * BLOCK;
        if (j > i) continue;
        int64_t height = d - i < BLOCK ? d - i : BLOCK, width = d - j < BLOCK ? d - j : BLOCK;
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)height, (int)width, (int)count, -factor, rows + i,
                    (int)d, rows + j, (int)d, 1, m + i * d + j, (int)d);
    }
}

// m = c - L_t on symmetric matrices, in their orthonormal basis: entries (a, a), and (a, b) times sqrt(2).
static enum status shifted_operator(const double *h, int64_t n, int64_t r, double t, double c, double *m) {
    int64_t d = r * (r + 1) / 2;
    void *buffer = NULL;
    enum status status = mem_buffer_new(CHUNK * d * 8, "products of samples", &buffer);
    if (status != STATUS_OK) return status;
    double *rows = buffer;
    memset(m, 0, (size_t)(d * d) * sizeof *m);
    for (int64_t k = 0; k < d; k++) m[k * d + k] = c - t;
    for (int64_t a = 0; a < r; a++) // entry (a, a) stands at a (a + 3) / 2
        for (int64_t b = 0; b <= a; b++) m[a * (a + 3) / 2 * d + b * (b + 3) / 2] += t;
    for (int64_t first = 0; first < n; first += CHUNK) {
        int64_t count = n - first < CHUNK ? n - first : CHUNK;
#pragma omp parallel for
        for (int64_t i = 0; i < count; i++) {
            const double *x = h + (first + i) * r;
            double *row = rows + i * d;
            for (int64_t a = 0; a < r; a++, row++) {
                for (int64_t b = 0; b < a; b++) *row++ = M_SQRT2 * x[a] * x[b];
                *row = x[a] * x[a];
            }
        }
        subtract_products(m, d, rows, count, 1 / (double)n);
    }
    mem_buffer_free(buffer);
    return STATUS_OK;
}

// With X [d, n] the columns of L_0 = X X^T / n and D = (c - t) + t i i^T, i = vec(I), c - L_t = D - X X^T / n is not negative
// if and only if m = 1 - X^T D^-1 X / n is not. By Sherman and Morrison, with k_ij = <h_i, h_j>,
//     (X^T D^-1 X)_ij = k_ij^2 / (c - t) - t k_ii k_jj / ((c - t) (c - t + t r)).
static void schur_complement(const double *h, int64_t n, int64_t r, double t, double c, double *m) {
    int64_t blocks = (n + BLOCK - 1) / BLOCK;
    double square = 1 / ((double)n * (c - t)), rank_one = square * t / (c - t + t * (double)r);
#pragma omp parallel for schedule(dynamic)
    for (int64_t k = 0; k < blocks * blocks; k++) {
        int64_t i = k / blocks * BLOCK, j = k % blocks * BLOCK;
        if (j > i) continue;
        int64_t height = n - i < BLOCK ? n - i : BLOCK, width = n - j < BLOCK ? n - j : BLOCK;
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)height, (int)width, (int)r, 1, h + i * r, (int)r,
                    h + j * r, (int)r, 0, m + i * n + j, (int)n);
    }
    double *norms = mem_new((size_t)n, sizeof *norms);
    for (int64_t i = 0; i < n; i++) norms[i] = m[i * n + i];
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j <= i; j++) {
            double product = m[i * n + j];
            m[i * n + j] = (i == j) - square * product * product + rank_one * norms[i] * norms[j];
        }
    free(norms);
}

static double mean_norm4(const double *h, int64_t n, int64_t r) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double square = dot(h + i * r, h + i * r, r);
        sum += square * square;
    }
    return sum / (double)n;
}

// A factorisation of a matrix of size d that succeeds leaves lambda_min >= -(d + 1) eps trace; entries are sums with errors of (terms)
// eps times their absolute sums.
enum status beta_certificate_prove(const double *h, int64_t n, int64_t r, double t, double c, double *upper) {
    enum status status = STATUS_OK;
    int64_t d = r * (r + 1) / 2;
    bool schur = n < d;
    double above = c - t, mean4 = mean_norm4(h, n, r), slack, result = INFINITY;
    void *buffer = NULL;
    if (schur) d = n;
    if (!(above > 0) || t < 0) goto done;
    TRY(mem_buffer_new(d * d * 8, "proof of the upper bound of beta", &buffer));
    double *m = buffer;
    if (schur) {
        schur_complement(h, n, r, t, c, m);
        double share = 2 * DBL_EPSILON * ((double)(d + 8) * (double)d + 4 * (double)(r + 8) * mean4 / above);
        slack = share * (above + t * (double)r);
    } else {
        TRY(shifted_operator(h, n, r, t, c, m));
        slack = 2 * DBL_EPSILON * ((double)(n + d + 8) * mean4 + (double)(d + 8) * ((double)d * above + t * (double)r));
    }
    // The lower triangle of rows is the upper one of LAPACK's columns.
    if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (lapack_int)d, m, (lapack_int)d) == 0) result = c + slack;
done:
    mem_buffer_free(buffer);
    if (status == STATUS_OK) *upper = result;
    return status;
}

static enum status prove_bound(const struct problem *p, struct line best, double *upper) {
    enum status status = STATUS_OK;
    double margin = proof_margin, largest_norm2 = 0, proven = INFINITY; // no fourth moment exceeds the largest |h|^2
    for (int64_t i = 0; i < p->n; i++) largest_norm2 = fmax(largest_norm2, dot(p->h + i * p->r, p->h + i * p->r, p->r));
    for (int k = 0; k < PROOFS && isinf(proven); k++, margin *= 4) {
        double c = best.value * (1 + margin);
        if (c >= largest_norm2) break;
        TRY(beta_certificate_prove(p->h, p->n, p->r, best.t, c, &proven));
    }
    *upper = fmin(proven, largest_norm2);
done:
    return status;
}

enum status beta_certificate(const double *h, int64_t n, int64_t r, double lower, struct beta_certificate *out) {
    REQUIRE(n >= 1 && r >= 1, "at least one sample and one direction");
    enum status status = STATUS_OK;
    struct problem p = {.h = h, .n = n, .r = r};
    void *scaled = NULL, *partial = NULL, *basis = NULL, *top = NULL;
    struct beta_certificate result = {0};
    TRY(mem_buffer_new(n * r * 8, "scaled samples", &scaled));
    TRY(mem_buffer_new(PARTS * r * r * 8, "sums of parts", &partial));
    TRY(mem_buffer_new((LANCZOS_STEPS + 1) * r * r * 8, "Lanczos vectors", &basis));
    TRY(mem_buffer_new(r * r * 8, "an eigenvector", &top));
    p.scaled = scaled, p.partial = partial, p.basis = basis, p.top = top;
    for (int64_t k = 0; k < r * r; k++) p.top[k] = k % (r + 1) == 0;
    struct line best = search(&p, lower, &result.least);
    result.t = best.t;
    TRY(prove_bound(&p, best, &result.upper));
    *out = result;
done:
    mem_buffer_free(scaled);
    mem_buffer_free(partial);
    mem_buffer_free(basis);
    mem_buffer_free(top);
    return status;
}
