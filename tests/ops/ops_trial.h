// One case of the table, run on a backend and compared with the definition.
//
//     struct trial t;
//     trial_new(&t, &op_cases[i], accumulate, pad, bf16);
//     check_ok(trial_run(&t, backend));
//     trial_check(&t);
//     trial_free(&t);
#ifndef DQ_TESTS_OPS_OPS_TRIAL_H
#define DQ_TESTS_OPS_OPS_TRIAL_H

#include "tests/ops/ops.h"

#include "core/backend/backend.h"

// An operand in host memory between guard zones: every byte that is not an element is 0xFF, so that a read outside gives NaN
// and a write outside is seen.
struct operand {
    unsigned char *block, *before; // before: copy taken when the inputs were ready
    size_t bytes;
    int64_t pad;
    struct view view; // into block
};

// A built case with its buffers; `exact` holds the operands in double, rounded to what the buffers hold.
struct trial {
    struct op_call call;
    struct operands exact;
    struct operand in[OP_INPUTS], out[OP_OUTPUTS];
    struct grid grid;
    unsigned bf16;
    bool device; // it ran on a backend whose memory is not the host's: with other formulas and orders of sums
};

// The rows lie `pad` elements further apart than their width; with a multiple of 8 the first element is aligned to 256 bytes. Bit i of `bf16`: operand i is BF16, inputs first, then outputs.
void trial_new(struct trial *t, const struct op_case *which, bool accumulate, int64_t pad, unsigned bf16);
void trial_reset(struct trial *t); // operands as they were before trial_run
void trial_free(struct trial *t);

// All choices of operands that may be BF16 together, 0 first; how many.
enum { CHOICES = 64 };
int op_case_bf16(const struct op_case *which, unsigned choices[CHOICES]);

// Runs the call on buffers of the backend. Where `pad` is 0 they hold the elements alone, without guard zones, so that a
// backend that watches its memory sees the slightest step outside.
enum status trial_run(struct trial *t, struct backend *backend);

// Fails the test where results differ from the definition by more than rounding explains, or where an input or a byte
// outside the views has changed. Writes the definition's results to `exact`: once per trial.
void trial_check(struct trial *t);

#endif
