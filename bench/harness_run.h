// `discquant-bench eval` for the tasks of bench/harness.h.
//
// Prints the summary to stdout as one JSON line and writes it to the run folder, if there is one:
//   choices    task, harness, items, acc, acc_stderr; but for winogrande and mmlu acc_norm, acc_norm_stderr; mmlu: acc_SUBJECT,
//              acc_CATEGORY with errors
//   gsm8k_cot  exact_match_strict, exact_match_flexible, with _stderr
//   wikitext   word_perplexity, byte_perplexity, bits_per_byte, words, bytes
// metrics.jsonl has a line per item: item, group, gold, loglikelihood_0 …, best, best_norm, correct, correct_norm; the generated text
// and the answers taken from it; loglikelihood, words, bytes.
#ifndef DQ_BENCH_HARNESS_RUN_H
#define DQ_BENCH_HARNESS_RUN_H

#include "bench/harness.h"
#include "data/program.h"

struct harness_settings {
    enum harness_task task;
    const char *model, *data;
    const char *adapter; // adapters on the model, or NULL
    const char *prompt;  // file of text before every question of gsm8k_cot, or NULL
    int64_t items;       // 0 = all; of mmlu per subject
    int64_t shots;       // mmlu
    int64_t tokens;      // most that gsm8k_cot generates
    bool bos; // the tokenizer's own tokens stand around texts (the harness's default from 0.4.9.2 on); not with 0.4.2
};

enum status harness_run(const struct program_common *common, const struct harness_settings *settings);

#endif
