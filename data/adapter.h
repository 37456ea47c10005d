// Low-rank adapters (core/nn/lora.h) in the folder layout of PEFT: adapter_config.json and adapter_model.safetensors with tensors
// base_model.model.MODULE.lora_A.weight [r, in] and base_model.model.MODULE.lora_B.weight [out, r].
//
//     TRY(adapter_save(lora, "run/model", "run/adapter"));
//     TRY(adapter_open("run/adapter", transformer, &lora));
#ifndef DQ_DATA_ADAPTER_H
#define DQ_DATA_ADAPTER_H

#include "core/nn/lora.h"

// `base`: the model folder that the adapters belong to, as the configuration names it. The folder appears complete or not at all; one
// that holds an adapter_config.json is replaced.
enum status adapter_save(const struct lora *lora, const char *base, const char *path);

// Gives the matrices of `model` the adapters of the folder. STATUS_FORMAT names file and tensor or key where they do not fit; STATUS_UNSUPPORTED
// what is no plain LoRA on the matrices inside the layers: other methods, biases, ranks by pattern, saved modules.
enum status adapter_open(const char *path, struct transformer *model, struct lora **out);

#endif
