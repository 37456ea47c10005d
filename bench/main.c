// discquant-bench: how good and how fast.
#include "bench/choice.h"
#include "bench/device_speed.h"
#include "bench/exact_match.h"
#include "bench/perplexity.h"
#include "bench/speed.h"

#include "core/base/mem.h"
#include "core/nn/generate.h"
#include "data/model.h"

#include <stdio.h>
#include <stdlib.h>

// ---- eval ----

enum { EVAL_PERPLEXITY, EVAL_CHOICE, EVAL_EXACT_MATCH };

enum { KEY_ITEMS = 0x100, KEY_TOKENS };

static struct eval_settings {
    int task;
    struct perplexity_settings perplexity;
    struct task_settings items;
    const char *only_perplexity, *only_items, *only_exact_match; // an option given that only such a task has
} eval;

static const struct argp_option eval_options[] = {
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 0},
    {"task", 't', "NAME", 0, "perplexity (default), multiple-choice or exact-match", 0},
    {"data", 'd', "FILE", 0, "text to measure on; for the other tasks their items, one JSON object per line", 0},
    {0, 0, 0, 0, "Perplexity:", 1},
    {"reference", 'r', "DIR", 0,
     "second model: KL(reference || model) and share of positions with the same most likely token", 1},
    {"seq-len", 'T', "T", 0, "tokens per window (default: the model's positions)", 1},
    {"windows", 'n', "N", 0, "windows to use, from the start of the file; 0 = all (default)", 1},
    {"batch-size", 'b', "B", 0, "windows per pass; changes the result by rounding only", 1},
    {0, 0, 0, 0, "Multiple choice and exact match:", 2},
    {"items", KEY_ITEMS, "N", 0, "items to use, from the start of the file; 0 = all (default)", 2},
    {"tokens", KEY_TOKENS, "N", 0, "exact match: most tokens of an answer (default: 32)", 2},
    {0},
};

static void eval_end(struct eval_settings *s) {
    if (!s->perplexity.model) args_fail("--model is missing");
    if (!s->perplexity.data) args_fail("--data is missing");
    if (s->task != EVAL_PERPLEXITY && s->only_perplexity)
        args_fail("%s: only --task perplexity has it", s->only_perplexity);
    if (s->task == EVAL_PERPLEXITY && s->only_items) args_fail("%s: --task perplexity has none", s->only_items);
    if (s->task != EVAL_EXACT_MATCH && s->only_exact_match)
        args_fail("%s: only --task exact-match has it", s->only_exact_match);
    s->items.model = s->perplexity.model;
    s->items.data = s->perplexity.data;
    if (!s->items.tokens) s->items.tokens = 32;
}

static error_t eval_parse(int key, char *arg, struct argp_state *state) {
    struct eval_settings *s = state->input;
    struct perplexity_settings *p = &s->perplexity;
    switch (key) {
    case 'm': p->model = arg; return 0;
    case 't': s->task = args_choice("--task", arg, "perplexity|multiple-choice|exact-match"); return 0;
    case 'd': p->data = arg; return 0;
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
    case ARGP_KEY_END: eval_end(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status eval_run(const struct program_common *common, void *input) {
    const struct eval_settings *s = input;
    switch (s->task) {
    case EVAL_CHOICE: return choice_run(common, &s->items);
    case EVAL_EXACT_MATCH: return exact_match_run(common, &s->items);
    default: return perplexity_run(common, &s->perplexity);
    }
}

// ---- generate ----

struct generate_settings {
    const char *model, *prompt;
    int64_t tokens;
};

static struct generate_settings generate_settings = {.prompt = "", .tokens = 100};

static const struct argp_option generate_options[] = {
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 0},
    {"prompt", 'p', "TEXT", 0, "text to continue (default: empty)", 0},
    {"tokens", 'n', "N", 0, "most tokens to add (default: 100)", 0},
    {0},
};

static error_t generate_parse(int key, char *arg, struct argp_state *state) {
    struct generate_settings *s = state->input;
    switch (key) {
    case 'm': s->model = arg; return 0;
    case 'p': s->prompt = arg; return 0;
    case 'n': s->tokens = args_integer("--tokens", arg, 1, 1 << 24); return 0;
    case ARGP_KEY_END:
        if (!s->model) args_fail("--model is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status print_text(const struct tokenizer *tokenizer, const int32_t *tokens, int64_t n) {
    char *text = NULL;
    int64_t n_bytes = 0;
    enum status status = tokenizer_decode(tokenizer, tokens, n, true, &text, &n_bytes);
    if (status != STATUS_OK) return status;
    fwrite(text, 1, (size_t)n_bytes, stdout);
    putchar('\n');
    mem_buffer_free(text);
    return STATUS_OK;
}

// Prompt and continuation, decoded together so that the space between them is right.
static enum status generate_run(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    const struct generate_settings *s = input;
    struct model *model = NULL;
    struct token_list prompt = {0};
    int32_t *all = NULL;
    int64_t made = 0;
    TRY(model_open(s->model, common->device, DTYPE_F32, NULL, &model));
    TRY(tokenizer_encode(model->tokenizer, s->prompt, (int64_t)strlen(s->prompt), true, &prompt));
    if (prompt.n_tokens == 0) {
        status = status_set(STATUS_INVALID, "the prompt has no tokens and the tokenizer adds none: give --prompt");
        goto done;
    }
    int64_t positions = model->transformer->config.max_positions;
    if (prompt.n_tokens + s->tokens > positions) {
        status =
            status_set(STATUS_INVALID, "the prompt's %lld tokens and --tokens %lld exceed the model's %lld positions",
                       (long long)prompt.n_tokens, (long long)s->tokens, (long long)positions);
        goto done;
    }
    all = mem_new((size_t)(prompt.n_tokens + s->tokens), sizeof *all);
    memcpy(all, prompt.tokens, (size_t)prompt.n_tokens * sizeof *all);
    TRY(generate(model->transformer, model->step, prompt.tokens, prompt.n_tokens, s->tokens, all + prompt.n_tokens,
                 &made));
    TRY(print_text(model->tokenizer, all, prompt.n_tokens + made));
done:
    free(all);
    token_list_free(&prompt);
    model_free(model);
    return status;
}

// ---- speed ----

static struct speed_settings speed = {.seconds = -1};

enum { KEY_SHAPE = 0x100 };

static const struct argp_option speed_options[] = {
    {"seconds", 's', "S", 0, "time per case (default: 10, and 0.2 for each product and op)", 0},
    {"shape", KEY_SHAPE, "NAME", 0,
     "of products, ops and step: phi3-mini (default), or tiny, for trying the program out", 0},
    {0},
};

static error_t speed_parse(int key, char *arg, struct argp_state *state) {
    struct speed_settings *s = state->input;
    switch (key) {
    case 's': s->seconds = args_integer("--seconds", arg, 0, 3600); return 0;
    case KEY_SHAPE:
        s->shape = device_shape_find(arg);
        if (!s->shape) args_fail("--shape %s: must be phi3-mini or tiny", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!speed_has_case(arg)) args_fail("'%s': must be step-stories260K, step-medium, products, ops or step", arg);
        if (s->n_cases == sizeof s->cases / sizeof *s->cases) args_fail("'%s': too many cases", arg);
        s->cases[s->n_cases++] = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status run_speed(const struct program_common *common, void *input) { return speed_run(common, input); }

int main(int argc, char **argv) {
    static const struct command commands[] = {
        {.name = "eval",
         .doc =
             "Perplexity of a model on a text, its distance to a second model, and its answers to questions.\v"
             "The text is tokenized once (BOS at its start only) and cut into consecutive windows, the tail "
             "dropped. Each "
             "window's loss is the mean of its T - 1 predictions; perplexity is exp of the mean over windows.\n"
             "Multiple choice: {\"query\", \"choices\", \"gold\", \"kind\"}; the choice with the largest sum of "
             "log-probabilities of its tokens after the query (accuracy), the same per character (accuracy_norm).\n"
             "Exact match: {\"prompt\", \"answer\", \"kind\"}; the most likely continuation up to a newline, without "
             "white "
             "space around it, is the answer. With \"kind\" also accuracy_KIND. `discquant-data corpus --task` writes "
             "such items.",
         .options = eval_options,
         .parse = eval_parse,
         .common = COMMON_THREADS | COMMON_DEVICE | COMMON_OUT,
         .run = eval_run,
         .settings = &eval},
        {.name = "generate",
         .doc = "Continues a prompt, always with the most likely token.",
         .options = generate_options,
         .parse = generate_parse,
         .common = COMMON_THREADS | COMMON_DEVICE,
         .run = generate_run,
         .settings = &generate_settings},
        {.name = "speed",
         .doc =
             "Times a DiscQuant step on random weights, as a share of what the machine can do.\v"
             "Prints JSON lines. On the CPU: step-stories260K, step-medium, as a share of cblas_sgemm. On any device "
             "(on others than the CPU by default), at the shape of a transformer: products, the matrix rates and the "
             "bandwidth of a copy; ops, every op as a share of them; step, one step with recomputation.",
         .args_doc = "[CASE...]",
         .options = speed_options,
         .parse = speed_parse,
         .common = COMMON_THREADS | COMMON_DEVICE,
         .run = run_speed,
         .settings = &speed},
        {0},
    };
    return program_main_commands("discquant-bench", "Measures models and kernels.", commands, argc, argv);
}
