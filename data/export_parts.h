// What the files of the export share among themselves; users include data/export.h.
//
//   export.c            the formats, one run of them, comparing
//   export_check.c      which grids and shapes a format holds
//   export_folder.c     Hugging Face folders with packed matrices: copying, config.json, shards, index
//   export_gptq.c       GPTQ's tensors and configuration
//   export_packed.c     compressed-tensors' pack-quantized
//   export_gguf.c       GGUF of a model: names, types, permutation, metadata
//   export_vocab.c      the tokenizer in GGUF's metadata
//   export_read.c       reading folders back
//   export_read_gguf.c  reading GGUF back
#ifndef DQ_DATA_EXPORT_PARTS_H
#define DQ_DATA_EXPORT_PARTS_H

#include "data/export.h"
#include "data/model_folder.h"

#include <jansson.h>

struct export_job {
    const struct model_folder *folder; // the dequantized model
    const struct codes *codes;         // of its matrices
    const char *out;
    bool overwrite;
};

// ---- what a format holds

// STATUS_UNSUPPORTED with format and reason. `name` stands for the matrix in the message.
enum status gptq_fits(const struct codebook *book, const char *name, int64_t rows, int64_t cols);
enum status packed_fits(const struct codebook *book, const char *name, int64_t rows, int64_t cols);
enum status gguf_fits(const struct codebook *book, const struct transformer_config *config, const char *model);

// How a grid's affine maps are known to look before there are any, by the grid's name.
struct grid_facts {
    bool fp16_scales; // scales are fp16 numbers
    bool zero_points; // offsets are -scale times a whole number
    bool fp16_offsets;
};
struct grid_facts grid_facts_of(const struct codebook *book);

// ---- folders

enum { PACKED_PARTS_MAX = 5 };

struct packed_part {
    const char *suffix; // what follows the module's name: ".qweight"
    enum safetensors_dtype dtype;
    int64_t rank, shape[2];
    bool of_codes; // made of codes, not of scales alone
};

// A format that stores a matrix NAME.weight as several tensors NAME.suffix.
struct packed_format {
    int (*parts)(const struct codebook *book, int64_t rows, int64_t cols, struct packed_part *parts); // how many
    // bytes [of the part]; matrix->codes only where the part is of_codes.
    enum status (*fill)(const struct packed_format *format, const struct codebook *book,
                        const struct coded_matrix *matrix, int part, void *bytes);
    json_t *quantization;    // for config.json
    const char *config_name; // a file that holds it alone; NULL: none
    const char *torch_dtype; // for config.json; NULL: as it is
    bool zeros_minus_one;    // GPTQ's first version
};

enum status packed_folder_write(const struct export_job *job, const struct packed_format *format);

// Sets dtype or torch_dtype, whichever is there, and quantization_config (NULL: none) in out/config.json.
enum status config_rewrite(const char *folder, const char *torch_dtype, json_t *quantization);

// Whole-number zero points [rows, groups] of a grid with offsets: value = scale (code - zero).
// STATUS_UNSUPPORTED where an offset is no such number in 0 .. 2^bits - 1.
enum status zero_points(const struct codebook *book, const struct coded_matrix *matrix, uint8_t *zeros);

// Scales as fp16, exactly; transposed: [groups, rows].
enum status scales_to_fp16(const struct coded_matrix *matrix, bool transposed, uint16_t *out);

// What is added to a code of a grid without offsets so that level 0 is 2^(bits - 1).
int code_shift(const struct codebook *book);

enum status hf_write(const struct export_job *job);
enum status gptq_write(const struct export_job *job);
enum status packed_write(const struct export_job *job);
enum status gguf_write(const struct export_job *job);

// ---- GGUF

struct gguf_writer;

// The tokenizer of a model folder as keys of GGUF. STATUS_UNSUPPORTED: one that llama.cpp has no name for. `writer` NULL:
// only the check.
enum status vocab_put(const char *model, const struct transformer_config *config, struct gguf_writer *writer);

// How a tensor of the Hugging Face folder is called and ordered in GGUF.
struct gguf_place {
    char name[96]; // empty: llama.cpp has no such tensor
    int64_t
        paired_heads; // rows of each of so many heads are ordered (j, half) there instead of (half, j); 0: as they are
};
struct gguf_place gguf_place_of(const struct transformer_config *config, const char *name);
// The row of the folder's matrix that is row `row` of GGUF's.
int64_t gguf_row(const struct gguf_place *place, int64_t rows, int64_t row);

// ---- reading

struct export_reader {
    struct tensor_source source;
    const char *format;
    int64_t coded; // matrices read so far that are stored as integers
    // Whether a tensor has no place in the format; NULL: all have one.
    bool (*lacks)(void *self, const char *name);
    struct folder_reader *folder;
    struct gguf_model *gguf;
};
enum status folder_reader_open(struct export_reader *reader, const char *path);
void folder_reader_free(struct folder_reader *folder);
enum status gguf_model_open(struct export_reader *reader, const char *path);
void gguf_model_free(struct gguf_model *gguf);

#endif
