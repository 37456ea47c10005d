// What the optimizer makes small: a weighted sum of distances between the original and the rounded network (the paper's Table 8),
//
//     kl            mean over positions of KL(original || rounded)
//     ground-truth  mean over the positions that have a next token of the cross entropy of that token
//     layer         normalized squared error of the outputs of decoder layers (core/nn/output_match.h)
//     linear        the same of every linear matrix inside them
//
//     TRY(objective_parse("kl:0.5,layer:0.5", &objective));      // "layer" alone is layer:1
//
// Outputs of layers or matrices need the original's of a whole pass to be kept, which --plan counts under tables; --micro-batch makes them fewer.
//
// The sum as a whole is multiplied by lambda / delta^2 (discquant/optimizer.h). The reference code does not divide the cross entropy by delta^2;
// ground-truth:W with W = delta^2 (`delta2` of result.json) is what it does.
#ifndef DQ_DISCQUANT_OBJECTIVE_H
#define DQ_DISCQUANT_OBJECTIVE_H

#include "core/base/status.h"

#include <stdbool.h>

// Weights >= 0; all 0 stands for kl alone.
struct objective {
    double kl, truth, layer, linear;
};

// STATUS_INVALID, naming --objective, for what is not a list of these names with weights >= 0, not all 0.
enum status objective_parse(const char *text, struct objective *out);

bool objective_is_kl(const struct objective *objective);

// As it was given, shortest numbers: "kl:0.5,layer:0.5". Returns `text`.
enum { OBJECTIVE_TEXT = 160 };
const char *objective_text(const struct objective *objective, char text[OBJECTIVE_TEXT]);

#endif
