// A Hugging Face model folder: config.json and the weights in model.safetensors, or in the shards that
// model.safetensors.index.json lists. Files are mapped; a tensor is converted when it is read. In a folder with rotated weights
// (data/rotation.h) both names begin with "rotated" instead.
//
//     struct model_folder *folder = NULL;
//     TRY(model_folder_open("models/stories260K", &folder));
//     struct tensor_source source = model_folder_source(folder);   // for the transformer
//     TRY(model_folder_save(folder, "out/model", &edit, false));
//   done:
//     model_folder_free(folder);                                    // accepts NULL
#ifndef DQ_DATA_MODEL_FOLDER_H
#define DQ_DATA_MODEL_FOLDER_H

#include "core/base/status.h"
#include "core/nn/config.h"
#include "core/nn/tensor_source.h"
#include "data/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

struct model_folder;

// Where there is an index, its shards must hold exactly the tensors it assigns to them, and its file names must be plain
// names in the folder. STATUS_FORMAT also for a folder with an index and a model.safetensors that is none of its shards.
enum status model_folder_open(const char *path, struct model_folder **out);
void model_folder_free(struct model_folder *folder);

// The same without a look at config.json, whose settings the transformer may lack: model_folder_config is all zeros.
enum status model_folder_open_tensors(const char *path, struct model_folder **out);

// The configuration of a folder that may hold nothing else.
enum status model_folder_read_config(const char *path, struct transformer_config *out);

char *model_folder_index_name(const struct model_folder *folder); // free with free()
const char *model_folder_path(const struct model_folder *folder);
const struct transformer_config *model_folder_config(const struct model_folder *folder);
bool model_folder_is_sharded(const struct model_folder *folder);
int64_t model_folder_n_files(const struct model_folder *folder);
const char *model_folder_file_name(const struct model_folder *folder, int64_t i); // without the folder
const struct safetensors *model_folder_file(const struct model_folder *folder, int64_t i);
// NULL when there is none; `file` (may be NULL) receives where it is.
const struct safetensors_tensor *model_folder_find(const struct model_folder *folder, const char *name,
                                                   const struct safetensors **file);

// Reads from `folder`, which must outlive it. Messages name tensor and file.
struct tensor_source model_folder_source(const struct model_folder *folder);

// What a saved copy holds instead of the folder's own tensors.
struct model_folder_edit {
    void *self;
    bool (*selects)(void *self, const char *name); // whether `name` is replaced; asked once for each tensor
    // Called once for each selected tensor, one after another. data [rows, cols] (a vector: rows = 1) holds the folder's
    // values and receives the new ones.
    enum status (*replace)(void *self, const char *name, int64_t rows, int64_t cols, float *data);
    // Called when all else is in the new folder `path`, which nobody sees yet: changes files or adds some. NULL: nothing.
    enum status (*finish)(void *self, const char *path);
};

// Writes the folder `out_path`: the same files with the same shards. Tensors that are not selected keep their bits.
// A replaced one keeps its dtype where that holds every new value exactly; else it is stored as F32. Everything else in
// the folder is copied byte for byte (config.json keeps the dtype it names: read an F32 result with dtype=float32),
// except other copies of the weights (*.safetensors that are not read, pytorch_model*.bin, *.pth, *.gguf, …) and names
// that begin with a dot. The index is rewritten only where a dtype changed its total_size.
//
// The folder appears complete or not at all. An existing one is STATUS_INVALID unless it is empty, or holds a config.json
// and `overwrite` is given; neither may lie inside the other. Needs room for the folder and, meanwhile, once more for
// the replaced tensors of one file; memory for the largest replaced tensor as floats.
enum status model_folder_save(const struct model_folder *folder, const char *out_path,
                              const struct model_folder_edit *edit, bool overwrite); // edit NULL: a plain copy

// What a saved copy takes over byte for byte: into the existing folder `to` everything but the weights and their index; the
// index.
enum status model_folder_copy_others(const struct model_folder *folder, const char *to);
enum status model_folder_copy_index(const struct model_folder *folder, const char *to);

#endif
