// A rounded model in formats that other programs run, made from its integer codes (data/codes.h) without rounding again.
//
//   hf                   RUN/export-hf/                  dequantized Hugging Face folder
//   gptq                 RUN/export-gptq/                qweight, qzeros, scales, g_idx (2, 3, 4, 8 bits)
//   compressed-tensors   RUN/export-compressed-tensors/  pack-quantized
//   gguf                 RUN/export.gguf                 one file: Q4_0, Q4_1, Q8_0, Q3_K, MXFP4
//
// Every weight keeps its value bit for bit in float; a format that cannot hold the grid is refused with the reason.
//
//     TRY(export_set_parse("gptq,gguf", &set));
//     TRY(export_check(&set, &book, "models/stories260K"));     // before the long work: reads config.json and tokenizer
//     …                                                         // RUN/model and RUN/codes.safetensors come about
//     TRY(run_export(&set, "RUN", false));                      // writes, reads back, compares
#ifndef DQ_DATA_EXPORT_H
#define DQ_DATA_EXPORT_H

#include "core/base/status.h"
#include "core/nn/tensor_source.h"
#include "data/codes.h"

#include <stdbool.h>
#include <stdint.h>

enum export_format { EXPORT_HF, EXPORT_GPTQ, EXPORT_COMPRESSED_TENSORS, EXPORT_GGUF, EXPORT_FORMATS };

extern const char *const export_names[EXPORT_FORMATS];

struct export_set {
    bool wanted[EXPORT_FORMATS];
};

// "hf,gptq,…". STATUS_INVALID: a name that is none.
enum status export_set_parse(const char *list, struct export_set *out);

// Whether the model in the folder `model` can be exported from this grid: STATUS_UNSUPPORTED with format, matrix and reason.
enum status export_check(const struct export_set *set, const struct codebook *book, const char *model);

// Writes what `set` names into the folder `run`, which holds model/ and codes.safetensors; each appears complete or not at
// all. What is there already is replaced with `overwrite`, else STATUS_INVALID. Afterwards each is read back and compared
// with run/model (export_compare). Memory for a few copies of the largest matrix.
enum status run_export(const struct export_set *set, const char *run, bool overwrite);

// Place of a format's export in the folder `run`; free with free().
char *export_place(const char *run, enum export_format format);

// Reading back: an exported folder or .gguf file as named float tensors in the names and order of Hugging Face. A plain
// model folder too.
struct export_reader;
enum status export_open(const char *path, struct export_reader **out);
void export_free(struct export_reader *reader); // accepts NULL
const char *export_format_name(const struct export_reader *reader);
struct tensor_source export_source(struct export_reader *reader);

struct export_difference {
    int64_t tensors, values, coded; // compared; of the tensors, stored as integers
    int64_t skipped;                // tensors that the format has no place for (tables of positions, say)
};

// Every tensor of the model folder `against` is in the export with the same values, ==, element by element; STATUS_FORMAT
// names the first that is not. Both zeros are one value.
enum status export_compare(const char *path, const char *against, struct export_difference *out);

#endif
