// discquant-data: looks at and prepares what the other programs read.
#include "data/info.h"
#include "data/pretrain.h"
#include "data/program.h"
#include "data/story_corpus.h"
#include "data/tokenize.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

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

enum { CORPUS_DOCUMENTS = 10000 };

static struct story_corpus_options corpus_settings;

static const struct argp_option corpus_flags[] = {
    {"out", 'o', "FILE", 0, "file to write, NAME.txt or NAME.jsonl (default: only the summary is printed)", 0},
    {"split", 's', "NAME", 0, "train, validation, test or calibration; they share no random numbers (default: train)",
     0},
    {"start", 'b', "N", 0, "number of the first document (default: 0)", 0},
    {"documents", 'n', "N", 0, "documents to write (default: 10000)", 0},
    {"bytes", 'c', "N", 0, "instead: whole documents until there are N bytes of text", 0},
    {"task", 't', "NAME", 0, "multiple-choice or generate: items instead of texts, one of each document", 0},
    {0},
};

static void corpus_check_out(const struct story_corpus_options *settings) {
    size_t n = settings->out ? strlen(settings->out) : 0;
    bool jsonl = n > 6 && strcmp(settings->out + n - 6, ".jsonl") == 0;
    bool text = n > 4 && strcmp(settings->out + n - 4, ".txt") == 0;
    if (settings->task && !settings->out) args_fail("--task needs --out NAME.jsonl");
    if (settings->task && !jsonl)
        args_fail("--out '%s': items of a task need a name that ends in .jsonl", settings->out);
    if (settings->out && !jsonl && !text) args_fail("--out '%s': the name must end in .txt or .jsonl", settings->out);
}

static error_t corpus_parse(int key, char *arg, struct argp_state *state) {
    struct story_corpus_options *settings = state->input;
    switch (key) {
    case 'o': settings->out = arg; return 0;
    case 's': settings->split = (enum story_split)args_choice("--split", arg, STORY_SPLITS); return 0;
    case 'b': settings->start = args_integer("--start", arg, 0, STORY_DOCUMENTS_MAX - 1); return 0;
    case 'n': settings->documents = args_integer("--documents", arg, 1, STORY_DOCUMENTS_MAX); return 0;
    case 'c': settings->bytes = args_integer("--bytes", arg, 1, INT64_MAX); return 0;
    case 't':
        settings->task =
            (enum story_task)(STORY_TASK_MULTIPLE_CHOICE + args_choice("--task", arg, "multiple-choice|generate"));
        return 0;
    case ARGP_KEY_END:
        if (settings->documents && settings->bytes) args_fail("--documents and --bytes exclude each other");
        if (!settings->documents && !settings->bytes) settings->documents = CORPUS_DOCUMENTS;
        if (settings->documents > STORY_DOCUMENTS_MAX - settings->start)
            args_fail("--start and --documents: the documents end at number %lld", (long long)STORY_DOCUMENTS_MAX);
        corpus_check_out(settings);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status corpus_run(const struct program_common *common, void *input) {
    struct story_corpus_options *settings = input;
    settings->seed = common->seed;
    return story_corpus_write(settings, stdout);
}

int main(int argc, char **argv) {
    static const struct command commands[] = {
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
        {.name = "corpus",
         .doc = "Writes documents of a small synthetic language: stories in plain English with questions.\v"
                "A document is a function of seed, split and number, so that --start gives fresh ones for ever. "
                "NAME.txt has an empty line behind each, NAME.jsonl a document or item per line. Prints JSON; "
                "its entropy_nats is exact: the loss on these documents of the best possible model.",
         .options = corpus_flags,
         .parse = corpus_parse,
         .common = COMMON_SEED,
         .run = corpus_run,
         .settings = &corpus_settings},
        {0},
    };
    return program_main_commands("discquant-data", "Looks at and prepares models, tokenizers and corpora.", commands,
                                 argc, argv);
}
