// One rounding of one model, from files to files: what the program `discquant` does.
//
//   OUT/model/         the rounded model as a Hugging Face folder; with --incoherence of rotated weights (data/rotation.h)
//   OUT/model-hf/      only then: the same model as a plain folder, its weights rotated back and on no grid
//   OUT/codes.safetensors   its codes and scales (data/codes.h), from which `discquant-data export OUT` makes other formats later
//   OUT/export-NAME/, OUT/export.gguf   with --export (data/export.h)
//   OUT/result.json    method, grid, scale_search, bits, group_size, bits_per_weight, weights_quantized, weights_fixed, kl, perplexity,
//                      perplexity_original, top1_agreement, kl_rtn, perplexity_rtn, …; for discquant also kl_x,
//                      kl_x_rounded and fraction_integral: of x as the optimization of (4) left it and of its rounding to
//                      nearest, before its finish; fraction_integral_end: of x after it
//   OUT/x.safetensors  with --keep-x: x when its finish began (data/point.h)
//   OUT/metrics.jsonl  a line per report: step, learning_rate, kl_calibration (mean since the last line), kl_x,
//                      kl_rounded and perplexity_rounded on the validation windows, fraction_integral, seconds
#ifndef DQ_DISCQUANT_RUN_H
#define DQ_DISCQUANT_RUN_H

#include "data/corpus.h"
#include "data/export.h"
#include "data/model.h"
#include "data/program.h"
#include "discquant/block_rounding.h"
#include "discquant/feedback.h"
#include "discquant/optimizer.h"
#include "discquant/soft_rounding.h"

struct method;

enum init { INIT_RANDOM, INIT_ORIGINAL };

enum { CALIBRATION_FILES_MAX = 64 };

// Low-rank adapters trained on the rounded model (discquant/adapters.h).
struct lora_settings {
    int64_t rank;  // 0 = none
    double alpha;  // 0 = twice the rank
    int64_t steps; // with batches of run_settings.optimizer
    double rate;
    const char *targets; // as lora_add_named
    bool merge;          // write the merged model too
};

struct run_settings {
    const char *model;
    const char *calibration[CALIBRATION_FILES_MAX];
    int n_calibration;
    const char *second[CALIBRATION_FILES_MAX]; // a second text, from which second_share of the calibration windows come
    int n_second;
    double second_share;
    const char *validation;
    const struct method *method;
    struct grid_options grid;       // complete: no defaults are left to take
    enum rotation_kind incoherence; // coordinates that weights are rounded in
    enum init init;
    bool search;                        // for the learning rate (discquant/rate_search.h)
    bool keep_x;                        // write x as it was when the finish began
    enum dtype precision;               // of weights and activations: F32 or BF16
    enum dtype state;                   // of x and the moments: F32 or BF16
    struct export_set exports;          // formats to write besides
    bool plan;                          // print the memory plan, do nothing else
    struct optimizer_options optimizer; // seq_len serves calibration and validation
    struct lora_settings lora;
    int64_t samples;                        // calibration windows used; 0 = all there are
    int64_t validation_samples;             // windows, from the start of the file; 0 = all
    int64_t report_every, checkpoint_every; // steps
    int64_t checkpoint_layers;              // layers between states, of methods that go layer by layer
    struct feedback_options feedback;       // of gptq
    struct soft_rounding_options soft;      // of adaround
    struct block_rounding_options block;    // of signround; its batch is the optimizer\'s
};

// A run as its method sees it.
struct run {
    const struct program_common *common;
    const struct run_settings *settings;
    struct model *model;
    struct rounding *rounding;
    struct corpus *calibration; // NULL where the run does not calibrate
    struct corpus *validation;
    int64_t calibration_windows, validation_windows; // of settings->optimizer.seq_len tokens
    struct run_folder *folder;
    int64_t activation_bytes; // planned
    double fraction_integral; // of x before the method made a rounding of it; 1 where there was none
};

// Whether such a run reads calibration text.
bool run_calibrates(const struct run_settings *settings);

// On the validation windows, against the original model: means over positions, kl_se the standard error of kl over windows.
struct quality {
    double kl, perplexity, perplexity_original, agreement, kl_se;
};
enum status run_measure(struct run *run, enum weight_form form, struct quality *out);

// Refuses with STATUS_NO_MEMORY, before it reads or writes anything, what cannot fit into the device's memory.
enum status discquant_run(const struct program_common *common, const struct run_settings *settings);

#endif
