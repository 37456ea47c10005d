// discquant-data: looks at and prepares what the other programs read.
#include "data/export_command.h"
#include "data/info.h"
#include "data/pretrain.h"
#include "data/program.h"
#include "data/story_corpus_command.h"
#include "data/tokenize.h"

#include <stdbool.h>
#include <stdio.h>

static struct info_settings { const char *path; } info_settings;

static error_t info_parse(int key, char *arg, struct argp_state *state) {
    struct info_settings *settings = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (settings->path) args_fail("'%s': one PATH at a time", arg);
        settings->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->path) args_fail("PATH is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status info_run(const struct program_common *common, void *input) {
    (void)common;
    const struct info_settings *settings = input;
    return info_print(settings->path, stdout);
}

static struct tokenize_options tokenize_settings;

static const struct argp_option tokenize_flags[] = {
    {"decode", 'd', NULL, 0, "turn token ids, separated by white space, into text", 0},
    {"no-special", 'n', NULL, 0, "do not put BOS and the like around the text; with --decode: leave special tokens out",
     0},
    {"count", 'c', NULL, 0, "print only how many tokens and bytes there are, and the seconds it took", 0},
    {0},
};

static error_t tokenize_parse(int key, char *arg, struct argp_state *state) {
    struct tokenize_options *settings = state->input;
    switch (key) {
    case 'd': settings->decode = true; return 0;
    case 'n': settings->no_special = true; return 0;
    case 'c': settings->count = true; return 0;
    case ARGP_KEY_ARG:
        if (settings->input) args_fail("'%s': one FILE at a time", arg);
        if (settings->tokenizer)
            settings->input = arg;
        else
            settings->tokenizer = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->tokenizer) args_fail("TOKENIZER is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status tokenize_run(const struct program_common *common, void *input) {
    (void)common;
    return tokenize_print(input, stdout);
}

int main(int argc, char **argv) {
    const struct command commands[] = {
        {.name = "info",
         .doc = "Lists the tensors of a safetensors file or of a model folder, or says why it is not one.",
         .args_doc = "PATH",
         .parse = info_parse,
         .run = info_run,
         .settings = &info_settings},
        {.name = "pretrain",
         .doc =
             "Trains a small model of the Llama family, and its tokenizer, from text.\vThe model is saved as a Hugging "
             "Face folder in OUT/model, the summary in OUT/result.json.",
         .options = pretrain_options,
         .parse = pretrain_parse,
         .common = COMMON_ALL,
         .run = pretrain_run,
         .settings = &pretrain_settings},
        {.name = "tokenize",
         .doc = "Prints the token ids of a text, on one line.\vTOKENIZER is a model folder or a tokenizer.json; "
                "without FILE, or with -, the text comes from stdin.",
         .args_doc = "TOKENIZER [FILE]",
         .options = tokenize_flags,
         .parse = tokenize_parse,
         .run = tokenize_run,
         .settings = &tokenize_settings},
        story_corpus_command,
        export_command,
        verify_command,
        {0},
    };
    return program_main_commands("discquant-data", "Looks at and prepares models, tokenizers and corpora.", commands,
                                 argc, argv);
}
