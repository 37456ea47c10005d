// What distinguishes one transformer of the Llama family from another: sizes and switches, no code.
// data/config.h fills it from a Hugging Face config.json.
#ifndef DQ_CORE_NN_CONFIG_H
#define DQ_CORE_NN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

enum architecture {
    ARCHITECTURE_LLAMA, // separate q, k, v and gate, up projections
    ARCHITECTURE_PHI3,  // one qkv_proj and one gate_up_proj
};

enum rope_kind {
    ROPE_DEFAULT,
    ROPE_LINEAR,   // frequencies divided by `factor`
    ROPE_LLAMA3,   // low frequencies divided by `factor`, smooth in between
    ROPE_LONGROPE, // one factor per frequency; two sets, chosen by the length of the sequence
};

// Whether the matrices inside the layers are stored rotated (core/graph/rotation.h), and by what.
// ROTATION_HADAMARD: both sides; _BLOCKS: in blocks along widths that have no such matrix; _IN: the inputs' side only.
enum rotation_kind { ROTATION_NONE, ROTATION_HADAMARD, ROTATION_HADAMARD_BLOCKS, ROTATION_HADAMARD_IN };

enum { ROPE_FACTORS_MAX = 256, EOS_MAX = 16 };

struct rope_config {
    enum rope_kind kind;
    double theta;                   // base of the frequencies theta^(-2i/head_dim)
    double factor;                  // linear, llama3
    double low_freq_factor;         // llama3
    double high_freq_factor;        // llama3
    int64_t original_max_positions; // llama3, longrope
    double attention_factor;        // longrope: multiplies cos and sin; 0 = sqrt(1 + ln(max/original)/ln(original))
    int n_factors;                  // longrope: head_dim / 2
    double long_factor[ROPE_FACTORS_MAX], short_factor[ROPE_FACTORS_MAX];
};

struct transformer_config {
    enum architecture architecture;
    int64_t hidden;       // width of the residual stream
    int64_t intermediate; // width inside the MLP
    int64_t layers;
    int64_t heads;    // query heads
    int64_t kv_heads; // key/value heads; divides heads
    int64_t head_dim; // even
    int64_t vocab;
    int64_t max_positions;
    int64_t window; // sliding attention window: each position sees this many keys, itself included; 0 = all
    double rms_eps;
    bool tied; // the head is the embedding
    struct rope_config rope;
    enum rotation_kind
        rotation; // of the checkpoint; transformer_new takes weights as they are, core/nn/incoherence.h adds the rotations
    int64_t bos; // -1 = none
    int n_eos;
    int64_t eos[EOS_MAX];
};

#endif
