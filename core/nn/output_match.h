// How far a form of a network is from its original inside: the normalized squared error of the outputs of its layers, or of its linear
// matrices (Kurtic et al., "Sparse fine-tuning for inference acceleration of large language models", 2023; the paper's Table 8),
//
//     D = mean over windows b and outputs l of  |y_lb - t_lb|^2 / |t_lb|^2,
//
// t of the teacher, y of the student, both [seq_len, width of l]; 0 where t is. Norms are those of one window, so that D and its gradient do not
// depend on how many windows share a pass.
//
//     TRY(output_match_new(model, MATCH_LAYERS, windows, seq_len, &match));  // taps set
//     match->teaches = true;   …                                            // the teacher's pass keeps its outputs
//     match->teaches = false, match->weight = 1;   …                        // the student's pass and its way back
//     TRY(output_match_sum(match, windows, &sum));                          // of D over the windows, after step_backward
//     output_match_free(match);                                             // taps gone
#ifndef DQ_CORE_NN_OUTPUT_MATCH_H
#define DQ_CORE_NN_OUTPUT_MATCH_H

#include "core/nn/transformer.h"

enum match_kind { MATCH_LAYERS, MATCH_MATRICES };

struct output_match {
    struct transformer *model; // borrowed
    enum match_kind kind;
    int64_t n, windows, seq_len; // outputs; windows of a pass, at most
    struct match_tap *taps;      // [n]
    double *host;                // errors of one output
    bool teaches;
    double weight; // of the sum of D over the windows in the loss that is differentiated
};

// Memory for the teacher's outputs of `windows` windows, in the model's dtype. The model has no other taps of that kind.
enum status output_match_new(struct transformer *model, enum match_kind kind, int64_t windows, int64_t seq_len,
                             struct output_match **out);
void output_match_free(struct output_match *match); // accepts NULL

// Sum of D over the first `windows` windows of the last pass. Waits for the device.
enum status output_match_sum(struct output_match *match, int64_t windows, double *sum);

#endif
