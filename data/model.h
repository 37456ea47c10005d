// A checkpoint ready to run: folder, weights on a device, tokenizer, memory of a step.
//
//     TRY(model_open("models/stories260K", "cpu", DTYPE_F32, NULL, &model));
//     TRY(evaluate(model->transformer, model->step, …));
#ifndef DQ_DATA_MODEL_H
#define DQ_DATA_MODEL_H

#include "core/nn/lora.h"
#include "core/nn/rounding.h"
#include "data/model_folder.h"
#include "data/rotation.h"
#include "data/tokenizer.h"

struct model {
    struct model_folder *folder;
    struct tokenizer *tokenizer;
    struct backend *backend;
    struct transformer *transformer;
    struct incoherence *incoherence; // rotations of its matrices; NULL = none
    struct step *step;
    struct lora *lora; // NULL without adapters
};

// Matrices are held as `dtype` (core/nn/transformer.h). `share` (may be NULL) lends its backend, so that two models can be compared; it must outlive the new one.
enum status model_open(const char *path, const char *device, enum dtype dtype, const struct model *share,
                       struct model **out);
void model_free(struct model *model); // accepts NULL

// Adds the adapters of a folder in PEFT's layout (data/adapter.h); NULL: none.
enum status model_adapt(struct model *model, const char *path);

// Rotates the matrices of a model whose folder is a plain one: STATUS_INVALID for another. The model computes what it did.
enum status model_rotate(struct model *model, enum rotation_kind kind, uint64_t seed);

// Writes the model's folder once more to `path`, with the rounded values of every weight that has a grid. Overwrites a
// model folder; as model_folder_save otherwise. With rotations it is a folder of rotated weights (data/rotation.h).
enum status model_save_rounded(const struct model *model, const struct rounding *rounding, const char *path);

// The same with the adapters of `lora`, which are on the rounded matrices, added in: these leave the grid. With
// rotations a plain folder, its weights rotated back; STATUS_UNSUPPORTED where the model's own folder is rotated.
enum status model_save_merged(const struct model *model, const struct rounding *rounding, const struct lora *lora,
                              const char *path);

// Writes the codes of the same weights (data/codes.h): what exports are made from.
enum status model_save_codes(const struct rounding *rounding, const char *path);

// The same as a plain folder: rounded weights rotated back, for software that knows nothing of rotations. They lie on no grid. Of a
// model that model_rotate has rotated.
enum status model_save_unrotated(const struct model *model, const struct rounding *rounding, const char *path);

#endif
