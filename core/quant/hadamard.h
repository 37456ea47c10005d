// Hadamard matrices of the widths that models have: H [n, n] with entries +-1 and H H^T = n I.
//
//     TRY(hadamard_new(14336, false, &h));            // 28 (x) 512
//     hadamard_apply(h, false, signs, x);             // x <- H diag(signs) x / sqrt(order)
//     hadamard_apply(h, true, signs, x);              // and back
//
// H = I_blocks (x) F_1 (x) ... (x) F_k (x) S_p, with F_i of order 4 m for an odd multiple of something that is no power of two
// and S_p Sylvester's matrix of the power of two p, S_2p = [S_p, S_p; S_p, -S_p]. A factor F of order m is
//   Paley I          m = q + 1,     q = 3 mod 4 a prime power: H = I + [0, 1; -1, Q], Q_ab = chi(a - b) over GF(q)
//   Paley II         m = 2 (q + 1), q = 1 mod 4 a prime power: H = C (x) [1, 1; 1, -1] + I (x) [1, -1; -1, -1], C = [0, 1; 1, Q]
//   Goethals-Seidel  m = 4 t, t an odd prime: four circulants whose autocorrelations add up to 0, constant on the classes of a
//                    subgroup of GF(t)^*, found by a search
// (Paley, J. Math. Phys. 12, 1933; Goethals and Seidel, Canad. J. Math. 19, 1967.) The search goes through its candidates in a fixed
// order, so an order has one matrix. Of all products for a width the one with the least work is taken.
//
// An order above 2 that is no multiple of 4 has no Hadamard matrix. With blocks, `order` is the largest divisor of n that has one
// and the n / order parts of a vector are transformed each by itself.
#ifndef DQ_CORE_QUANT_HADAMARD_H
#define DQ_CORE_QUANT_HADAMARD_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HADAMARD_FACTORS = 4, HADAMARD_FACTOR_MOST = 512 };

struct hadamard {
    int64_t n, order, blocks; // n = blocks order
    int n_factors;
    int64_t factors[HADAMARD_FACTORS]; // orders of F_1, ..., F_k
    int64_t sylvester;                 // p
    // The factors as bits, for kernels: for each the m rows of F, then the m rows of F^T. Bit j mod 32 of word j / 32 of row i is set
    // where the entry (i, j) is -1.
    int32_t *tables; // [table_rows, words]; NULL without factors
    int64_t table_rows, words;
};

// STATUS_UNSUPPORTED, with what can be done, for a width that no product covers; never with blocks, where order = 1 (signs only)
// is the last resort. n >= 1.
enum status hadamard_new(int64_t n, bool blocks, struct hadamard **out);
// n blocks of order 1: a transform that applies the signs and nothing else.
struct hadamard *hadamard_identity(int64_t n);
void hadamard_free(struct hadamard *h); // accepts NULL

// Entry (i, j), 1 or -1; 0 outside the blocks. By the definition, for checks and files.
int hadamard_entry(const struct hadamard *h, int64_t i, int64_t j);

// x [n], in place: H S x / sqrt(order), or (transposed) S H^T x / sqrt(order), the inverse. signs [n] of 1 and -1; NULL = all 1.
void hadamard_apply(const struct hadamard *h, bool transposed, const float *signs, double *x);

// "28 x 512", "2 blocks of 12 x 8": how n is made. Free with free().
char *hadamard_describe(const struct hadamard *h);

// A factor: entries [m, m] of 1 and -1, row-major; false where none of the constructions has order m, 4 <= m <= HADAMARD_FACTOR_MOST.
// hadamard_factor.c.
bool hadamard_factor(int64_t m, int8_t *entries);

#ifdef __cplusplus
}
#endif
#endif
