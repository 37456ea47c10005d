// discquant-bench: how good and how fast.
#include "bench/ablate.h"
#include "bench/compare.h"
#include "bench/device_speed.h"
#include "bench/eval.h"
#include "bench/speed.h"

#include "core/base/mem.h"
#include "core/nn/generate.h"
#include "data/model.h"

#include <stdio.h>
#include <stdlib.h>

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
    const struct command commands[] = {
        eval_command,
        compare_command,
        ablate_command,
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
