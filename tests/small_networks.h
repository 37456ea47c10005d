// Small random networks that tests of derivatives share: grouped-query Llama, and Phi-3 whose qkv and gate | up are one matrix each
// and whose embedding and head are one weight.
#ifndef DQ_TESTS_SMALL_NETWORKS_H
#define DQ_TESTS_SMALL_NETWORKS_H

#include "core/nn/config.h"

enum { VOCAB = 37 };

static const struct transformer_config llama = {.architecture = ARCHITECTURE_LLAMA,
                                                .hidden = 24,
                                                .intermediate = 40,
                                                .layers = 3,
                                                .heads = 6,
                                                .kv_heads = 2,
                                                .head_dim = 6,
                                                .vocab = VOCAB,
                                                .max_positions = 64,
                                                .rms_eps = 1e-5,
                                                .rope = {.theta = 100},
                                                .bos = -1};

static const struct transformer_config phi3_tied = {.architecture = ARCHITECTURE_PHI3,
                                                    .hidden = 16,
                                                    .intermediate = 24,
                                                    .layers = 2,
                                                    .heads = 2,
                                                    .kv_heads = 2,
                                                    .head_dim = 8,
                                                    .vocab = VOCAB,
                                                    .max_positions = 64,
                                                    .window = 5,
                                                    .rms_eps = 1e-5,
                                                    .rope = {.theta = 100},
                                                    .bos = -1,
                                                    .tied = true};

static const struct transformer_config *const configs[] = {&llama, &phi3_tied};

#endif
