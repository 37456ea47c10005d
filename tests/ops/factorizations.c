// Factorizations are judged by what defines them, since signs and bases of equal values are free: the product of the factors is the
// matrix, vectors are orthonormal, values are in order. Backward stable methods leave some eps sqrt(n) |A|; allowed
// are 1e-14 sqrt(n) |A|, and 1e-14 n for n orthonormal vectors.
#include "tests/ops/ops.h"

#include "core/base/rng.h"

#include <math.h>
#include <stdio.h>

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define AT(m, i, j) matrix_row(m, i)[j]

bool op_is_factorization(enum op op) { return op == OP_eigh || op == OP_cholesky || op == OP_svd; }

// ---- cases ----

static struct matrix normal(struct rng *rng, int64_t rows, int64_t cols) {
    struct matrix m = matrix_new(rows, cols);
    rng->stream++;
    EACH(i, rows * cols) m.x[i] = rng_normal(*rng, (uint64_t)i);
    return m;
}

// a b^T
static struct matrix product(struct matrix a, struct matrix b) {
    struct matrix y = matrix_new(a.rows, b.rows);
    EACH(i, y.rows) EACH(j, y.cols) EACH(k, a.cols) AT(y, i, j) += AT(a, i, k) * AT(b, j, k);
    return y;
}

// Symmetric: random, positive definite, or (option) with eigenvalues 0, 1, 1, 1, 2, 2, 2, 3 … by two reflections. What lies above
// the diagonal must not matter: NaN.
static struct matrix symmetric(const struct op_case *t, struct rng *rng) {
    int64_t n = t->n;
    struct matrix b = normal(rng, n, n), a = matrix_new(n, n);
    if (t->op == OP_cholesky) {
        matrix_free(&a);
        a = product(b, b);
        EACH(i, n) AT(a, i, i) += 1;
    } else if (t->option) {
        EACH(i, n) AT(a, i, i) = (double)((i + 2) / 3);
        EACH(r, n > 1 ? 2 : 0) {
            const double *v = matrix_row(b, r);
            double norm2 = 0;
            EACH(i, n) norm2 += v[i] * v[i];
            EACH(side, 2) EACH(i, n) {
                double dot = 0; // of v and row i, then column i
                EACH(j, n) dot += v[j] * (side ? AT(a, j, i) : AT(a, i, j));
                EACH(j, n) * (side ? &AT(a, j, i) : &AT(a, i, j)) -= 2 / norm2 * dot * v[j];
            }
        }
    } else {
        EACH(i, n) EACH(j, n) AT(a, i, j) = AT(b, i, j) + AT(b, j, i);
    }
    EACH(i, n) for (int64_t j = i + 1; j < n; j++) AT(a, i, j) = NAN;
    matrix_free(&b);
    return a;
}

void factorization_build(const struct op_case *t, struct rng *rng, struct operands *o) {
    if (t->op != OP_svd) {
        o->in[0] = symmetric(t, rng);
        if (t->op == OP_eigh) o->out[0] = matrix_new(t->n, 1);
        return;
    }
    int64_t k = t->n < t->c ? t->n : t->c;
    o->in[0] = normal(rng, t->n, t->c);
    if (t->option) { // rank 2: all other values are 0
        struct matrix left = normal(rng, t->n, 2), right = normal(rng, t->c, 2);
        matrix_free(&o->in[0]);
        o->in[0] = product(left, right);
        matrix_free(&left);
        matrix_free(&right);
    }
    o->out[0] = matrix_new(k, 1), o->out[1] = matrix_new(t->n, k), o->out[2] = matrix_new(k, t->c);
}

// ---- judgement ----

static char message[256];

static double norm(struct matrix a) {
    double sum = 0;
    EACH(i, a.rows * a.cols) sum += a.x[i] * a.x[i];
    return sqrt(sum);
}

// Rows of a (or columns, as rows of the transpose) are orthonormal.
static const char *not_orthonormal(struct matrix a, const char *name) {
    struct matrix gram = product(a, a);
    EACH(i, gram.rows) AT(gram, i, i) -= 1;
    double error = norm(gram), allowed = 1e-14 * (double)a.rows;
    matrix_free(&gram);
    if (error <= allowed) return NULL;
    snprintf(message, sizeof message, "%s misses orthonormality by %.3g, allowed %.3g", name, error, allowed);
    return message;
}

static struct matrix transposed(struct matrix a) {
    struct matrix t = matrix_new(a.cols, a.rows);
    EACH(i, a.rows) EACH(j, a.cols) AT(t, j, i) = AT(a, i, j);
    return t;
}

// left diag(d) right^T against a, whose lower triangle counts when `lower`; d NULL = ones.
static const char *not_product(struct matrix left, const double *d, struct matrix right, struct matrix a, bool lower) {
    struct matrix scaled = matrix_copy(left), want = matrix_copy(a);
    EACH(i, left.rows) EACH(k, left.cols) if (d) AT(scaled, i, k) *= d[k];
    EACH(i, a.rows) for (int64_t j = i + 1; lower && j < a.cols; j++) AT(want, i, j) = AT(want, j, i);
    struct matrix got = product(scaled, right);
    double allowed = 1e-14 * sqrt((double)(a.rows + a.cols)) * norm(want);
    EACH(i, a.rows * a.cols) got.x[i] -= want.x[i];
    double error = norm(got);
    struct matrix *all[] = {&scaled, &want, &got};
    EACH(i, 3) matrix_free(all[i]);
    if (error <= allowed) return NULL;
    snprintf(message, sizeof message, "the product of the factors misses the matrix by %.3g, allowed %.3g", error,
             allowed);
    return message;
}

static const char *not_ordered(struct matrix values, bool ascending) {
    for (int64_t i = 1; i < values.rows; i++) {
        double up = values.x[i] - values.x[i - 1];
        if (!(ascending ? up >= 0 : up <= 0)) return "values are not in order";
    }
    return NULL;
}

static const char *wrong_eigh(const struct operands *before, const struct operands *after) {
    struct matrix columns = transposed(after->in[0]);
    const char *wrong = not_ordered(after->out[0], true);
    if (!wrong) wrong = not_orthonormal(after->in[0], "the set of eigenvectors");
    if (!wrong) wrong = not_product(columns, after->out[0].x, columns, before->in[0], true);
    matrix_free(&columns);
    return wrong;
}

static const char *wrong_cholesky(const struct operands *before, const struct operands *after) {
    struct matrix l = after->in[0];
    EACH(i, l.rows) {
        if (!(AT(l, i, i) > 0)) return "the diagonal is not positive";
        for (int64_t j = i + 1; j < l.cols; j++)
            if (AT(l, i, j) != 0) return "not zero above the diagonal";
    }
    return not_product(l, NULL, l, before->in[0], true);
}

static const char *wrong_svd(const struct operands *before, const struct operands *after) {
    struct matrix s = after->out[0], u = after->out[1], vt = after->out[2];
    struct matrix ut = transposed(u), v = transposed(vt);
    const char *wrong = not_ordered(s, false);
    if (!wrong && !(s.x[s.rows - 1] >= 0)) wrong = "a singular value is negative";
    if (!wrong) wrong = not_orthonormal(ut, "u");
    if (!wrong) wrong = not_orthonormal(vt, "vt");
    if (!wrong) wrong = not_product(u, s.x, v, before->in[0], false);
    matrix_free(&ut);
    matrix_free(&v);
    return wrong;
}

const char *factorization_wrong(enum op op, const struct operands *before, const struct operands *after) {
    if (op == OP_eigh) return wrong_eigh(before, after);
    if (op == OP_cholesky) return wrong_cholesky(before, after);
    return wrong_svd(before, after);
}
