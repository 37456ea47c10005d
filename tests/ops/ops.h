// What the op tests share: matrices of doubles, the definitions of all ops in double, and the table of cases.
#ifndef DQ_TESTS_OPS_OPS_H
#define DQ_TESTS_OPS_OPS_H

#include "core/ops/op.h"
#include "core/quant/grid.h"

// Contiguous, row-major; integers (tokens, targets) are stored as doubles.
struct matrix {
    double *x;
    int64_t rows, cols;
};

struct matrix matrix_new(int64_t rows, int64_t cols); // zeros
void matrix_free(struct matrix *m);
struct matrix matrix_copy(struct matrix m);
static inline double *matrix_row(struct matrix m, int64_t row) { return m.x + row * m.cols; }

// Operands of a call in double. Ops that work in place change `in` instead of `out`.
struct operands {
    struct matrix in[OP_INPUTS], out[OP_OUTPUTS];
};
void operands_free(struct operands *o);

// The definition: core/ops/op.h written down in double, one plain loop per formula. Reads op, accumulate and params of
// the call, never its views.
void op_reference(const struct op_call *call, struct operands *o);

// One row of the case table; what a number means for an op is said in ops_cases.c.
struct op_case {
    enum op op;
    int64_t n, c, k;
    int64_t seq, heads, kv, d, window, past;
    enum grid_kind kind;
    int bits;
    int64_t group;
    bool ta, tb, inverse, gradient, option;
};

extern const struct op_case op_cases[];
extern const int op_case_count;

// Operands filled with the case's inputs, and the parameters; views stay empty. The grid of grid ops lives in *grid.
void op_case_build(const struct op_case *which, bool accumulate, uint64_t seed, struct op_call *call,
                   struct operands *operands, struct grid *grid);

// How the op treats its operands: types, which inputs it changes, and what rounding allows.
enum dtype op_in_dtype(enum op op, int i);
enum dtype op_out_dtype(enum op op, int i);
bool op_changes_input(const struct op_call *call, int i); // in place, or the gradient written over the logits
bool op_accumulates(enum op op);                          // has a += form
bool op_output_is_input(enum op op);                      // out[0] is in[0]

// The ops on matrices in double: everything F64 but lists of rows. rows.c of this folder has their cases and definitions.
struct rng;
bool op_is_double(enum op op);
void rows_case_build(const struct op_case *which, struct rng *rng, struct op_call *call, struct operands *operands);
void rows_reference(const struct op_call *call, struct operands *operands);

// Factorizations (factorizations.c) have no single right answer: the operands after the call are judged by those before
// it. NULL, or what is wrong, until the next call.
bool op_is_factorization(enum op op);
void factorization_build(const struct op_case *which, struct rng *rng, struct operands *operands);
const char *factorization_wrong(enum op op, const struct operands *before, const struct operands *after);

// Ops on gradients of single samples (samples.c).
bool op_is_of_samples(enum op op);
void sample_build(const struct op_case *which, struct rng *rng, struct op_call *call, struct operands *operands);
void sample_reference(const struct op_call *call, struct operands *o);

#endif
