#include "bench/eval.h"

#include "bench/choice.h"
#include "bench/exact_match.h"
#include "bench/harness_run.h"
#include "bench/perplexity.h"

// Behind them: tasks of bench/harness.h, in its order.
enum { EVAL_PERPLEXITY, EVAL_CHOICE, EVAL_EXACT_MATCH, EVAL_HARNESS };
static const char task_names[] =
    "perplexity|multiple-choice|exact-match|arc_challenge|piqa|hellaswag|winogrande|mmlu|gsm8k_cot|wikitext";

enum { KEY_ITEMS = 0x100, KEY_TOKENS, KEY_ADAPTER, KEY_SHOTS, KEY_PROMPT, KEY_BOS };

static struct eval_settings {
    int task;
    struct perplexity_settings perplexity;
    struct task_settings items;
    struct harness_settings harness;
    const char *only_perplexity, *only_items, *only_exact_match; // an option given that only such a task has
    const char *only_mmlu, *only_gsm8k, *only_harness;
} eval = {.harness.shots = 5};

static const struct argp_option eval_options[] = {
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 0},
    {"adapter", KEY_ADAPTER, "DIR", 0, "LoRA adapters on the model, in PEFT's layout", 0},
    {"task", 't', "NAME", 0,
     "perplexity (default), multiple-choice, exact-match; as lm-evaluation-harness 0.4.2 has them: arc_challenge, "
     "piqa, "
     "hellaswag, winogrande, mmlu, gsm8k_cot, wikitext",
     0},
    {"data", 'd', "FILE", 0,
     "text to measure on; for the other tasks their items, one JSON object per line; mmlu: the folder with dev and "
     "test",
     0},
    {0, 0, 0, 0, "Perplexity:", 1},
    {"reference", 'r', "DIR", 0,
     "second model: KL(reference || model) and share of positions with the same most likely token", 1},
    {"seq-len", 'T', "T", 0, "tokens per window (default: the model's positions)", 1},
    {"windows", 'n', "N", 0, "windows to use, from the start of the file; 0 = all (default)", 1},
    {"batch-size", 'b', "B", 0, "windows per pass; changes the result by rounding only", 1},
    {0, 0, 0, 0, "Other tasks:", 2},
    {"items", KEY_ITEMS, "N", 0, "items to use, from the start of the file (mmlu: of each subject); 0 = all (default)",
     2},
    {"tokens", KEY_TOKENS, "N", 0, "most tokens of an answer (default: 32; gsm8k_cot: 256)", 2},
    {"shots", KEY_SHOTS, "K", 0, "mmlu: examples before a question (default: 5)", 2},
    {"prompt", KEY_PROMPT, "FILE", 0, "gsm8k_cot: text before every question, the solved examples", 2},
    {"bos", KEY_BOS, 0, 0,
     "tasks of the harness: begin texts with the tokenizer's BOS, as its versions from 0.4.9.2 on do (default: not)",
     2},
    {0},
};

static void eval_end(struct eval_settings *s) {
    if (!s->perplexity.model) args_fail("--model is missing");
    if (!s->perplexity.data) args_fail("--data is missing");
    if (s->task != EVAL_PERPLEXITY && s->only_perplexity)
        args_fail("%s: only --task perplexity has it", s->only_perplexity);
    if (s->task == EVAL_PERPLEXITY && s->only_items) args_fail("%s: --task perplexity has none", s->only_items);
    bool is_gsm8k = s->task == EVAL_HARNESS + HARNESS_GSM8K, is_mmlu = s->task == EVAL_HARNESS + HARNESS_MMLU;
    if (s->task != EVAL_EXACT_MATCH && !is_gsm8k && s->only_exact_match)
        args_fail("%s: only --task exact-match and gsm8k_cot have it", s->only_exact_match);
    if (!is_mmlu && s->only_mmlu) args_fail("%s: only --task mmlu has it", s->only_mmlu);
    if (!is_gsm8k && s->only_gsm8k) args_fail("%s: only --task gsm8k_cot has it", s->only_gsm8k);
    if (s->task < EVAL_HARNESS && s->only_harness)
        args_fail("%s: only the tasks of lm-evaluation-harness have it", s->only_harness);
    s->harness.model = s->perplexity.model;
    s->harness.data = s->perplexity.data;
    s->harness.adapter = s->perplexity.adapter;
    s->harness.items = s->items.items;
    s->harness.tokens = s->items.tokens ? s->items.tokens : 256;
    if (s->task >= EVAL_HARNESS) s->harness.task = (enum harness_task)(s->task - EVAL_HARNESS);
    s->items.model = s->perplexity.model;
    s->items.adapter = s->perplexity.adapter;
    s->items.data = s->perplexity.data;
    if (!s->items.tokens) s->items.tokens = 32;
}

static error_t eval_parse(int key, char *arg, struct argp_state *state) {
    struct eval_settings *s = state->input;
    struct perplexity_settings *p = &s->perplexity;
    switch (key) {
    case 'm': p->model = arg; return 0;
    case 't': s->task = args_choice("--task", arg, task_names); return 0;
    case 'd': p->data = arg; return 0;
    case KEY_ADAPTER: p->adapter = arg; return 0;
    case 'r':
        p->reference = arg;
        s->only_perplexity = "--reference";
        return 0;
    case 'T':
        p->seq_len = args_integer("--seq-len", arg, 2, 1 << 24);
        s->only_perplexity = "--seq-len";
        return 0;
    case 'n':
        p->windows = args_integer("--windows", arg, 0, INT64_C(1) << 40);
        s->only_perplexity = "--windows";
        return 0;
    case 'b':
        p->batch = args_integer("--batch-size", arg, 1, 1 << 20);
        s->only_perplexity = "--batch-size";
        return 0;
    case KEY_ITEMS:
        s->items.items = args_integer("--items", arg, 0, INT64_C(1) << 40);
        s->only_items = "--items";
        return 0;
    case KEY_TOKENS:
        s->items.tokens = args_integer("--tokens", arg, 1, 1 << 24);
        s->only_exact_match = "--tokens";
        return 0;
    case KEY_SHOTS:
        s->harness.shots = args_integer("--shots", arg, 0, 1000);
        s->only_mmlu = "--shots";
        return 0;
    case KEY_PROMPT:
        s->harness.prompt = arg;
        s->only_gsm8k = "--prompt";
        return 0;
    case KEY_BOS:
        s->harness.bos = true;
        s->only_harness = "--bos";
        return 0;
    case ARGP_KEY_END: eval_end(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status eval_run(const struct program_common *common, void *input) {
    const struct eval_settings *s = input;
    if (s->task >= EVAL_HARNESS) return harness_run(common, &s->harness);
    switch (s->task) {
    case EVAL_CHOICE: return choice_run(common, &s->items);
    case EVAL_EXACT_MATCH: return exact_match_run(common, &s->items);
    default: return perplexity_run(common, &s->perplexity);
    }
}

const struct command eval_command = {
    .name = "eval",
    .doc = "Perplexity of a model on a text, its distance to a second model, and its answers to questions.\v"
           "The text is tokenized once (BOS at its start only) and cut into consecutive windows, the tail "
           "dropped. Each "
           "window's loss is the mean of its T - 1 predictions; perplexity is exp of the mean over windows.\n"
           "Multiple choice: {\"query\", \"choices\", \"gold\", \"kind\"}; the choice with the largest sum of "
           "log-probabilities of its tokens after the query (accuracy), the same per character (accuracy_norm).\n"
           "Exact match: {\"prompt\", \"answer\", \"kind\"}; the most likely continuation up to a newline, without "
           "white "
           "space around it, is the answer. With \"kind\" also accuracy_KIND. `discquant-data corpus --task` writes "
           "such items.\n"
           "The other tasks ask, score and report as lm-evaluation-harness 0.4.2 does (bench/README.md); --data are "
           "the benchmarks' own files.",
    .options = eval_options,
    .parse = eval_parse,
    .common = COMMON_THREADS | COMMON_DEVICE | COMMON_OUT,
    .run = eval_run,
    .settings = &eval,
};
