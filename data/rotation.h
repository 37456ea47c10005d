// Folders whose matrices are stored rotated (core/nn/incoherence.h). They differ from plain ones in what no software should overlook:
//
//   config.json             "model_type": "rotated_llama" (or "rotated_phi3"), "architectures" with "Rotated" before each name, and
//                           "rotation": {"transform": "hadamard", "hadamard-blocks" or "hadamard-in", "file": "rotation.safetensors",
//                                        "matrices": {"172": "172", "3072": "12 x 256", …}}    // hadamard_describe of each width
//   rotated.safetensors     instead of model.safetensors (or rotated.safetensors.index.json and its shards): W~
//   rotation.safetensors    I8, entries 1 and -1: "NAME.signs_in" [in], "NAME.signs_out" [out] for each rotated matrix NAME, and
//                           "hadamard.M" [M, M], each factor of order M that is no power of two
//
// The layer of NAME is y = S_out H_out^T (W~ H_in S_in x) with S the signs, H the Kronecker product of the factors and Sylvester's matrix over
// sqrt of its order; with hadamard-in H_out is the identity. Who unrotates, W = S_out H_out^T W~ H_in S_in, has a plain model, whose weights lie on no grid.
#ifndef DQ_DATA_ROTATION_H
#define DQ_DATA_ROTATION_H

#include "core/nn/incoherence.h"
#include "data/model_folder.h"

// Rotations of a model that was read from `folder`, whose config names them. STATUS_FORMAT where rotation.safetensors is missing,
// lacks signs or holds others, or where a factor is not the one that is built here.
enum status rotation_open(const struct model_folder *folder, struct transformer *model, struct incoherence **out);

// Makes a folder that holds rotated weights under plain names such a folder, or renews what is there. `path`: nobody sees it yet.
enum status rotation_save(const struct incoherence *incoherence, const char *path);

// STATUS_INVALID unless both folders are plain or both rotated by the same signs, so that their weights can be compared one by one.
enum status rotation_same(const struct model_folder *a, const struct model_folder *b);

#endif
