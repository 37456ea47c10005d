// Low-rank adapters on the matrices of a transformer (Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022):
//
//     y = x W^T + alpha / r (x A^T) B^T,     A [r, in], B [out, r],     W stays as it is
//
//     TRY(lora_new(model, 8, 16, &lora));
//     TRY(lora_add_named(lora, "q_proj,v_proj"));       // NULL: every matrix inside the layers
//     TRY(lora_start(lora, seed));
//
// The factor alpha / r lives in the second matrix: adapter[1] of a weight is alpha / r B. Gradients with respect to B are
// alpha / r times those its sink gets. Adapters are F32 in a network of any dtype.
#ifndef DQ_CORE_NN_LORA_H
#define DQ_CORE_NN_LORA_H

#include "core/nn/transformer.h"

struct lora {
    struct transformer *model; // borrowed; its matrices carry the adapters until lora_free
    int64_t rank;
    double alpha, scaling;  // scaling = alpha / r
    struct weight *weights; // [n_weights] A and B of one matrix after another; named "… .lora_A.weight" as PEFT does
    int64_t n_weights;
    int64_t parameters; // in all of them
};

// No adapters yet. rank at least 1.
enum status lora_new(struct transformer *model, int64_t rank, double alpha, struct lora **out);
void lora_free(struct lora *lora); // accepts NULL

// Gives one matrix inside a layer, which has none, an adapter; its values are the caller's to set.
enum status lora_add(struct lora *lora, struct weight *weight);

// The same for the matrices that `names` lists with commas, by the end of their names: "q_proj", "layers.0.mlp.down_proj"; NULL or
// "all": every matrix inside the layers. STATUS_INVALID names what fits none and lists what there is.
enum status lora_add_named(struct lora *lora, const char *names);

// A uniform in [-1, 1] / sqrt(in) from Philox (seed, RNG_ADAPTER + index of its matrix), as PEFT draws it; B = 0: the network is as
// it was.
enum status lora_start(struct lora *lora, uint64_t seed);

// w += alpha / r B A where `weight` has an adapter; host [rows, cols]; sums in double.
enum status lora_merge(const struct lora *lora, const struct weight *weight, float *w);

#endif
