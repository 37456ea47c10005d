#include "data/story_corpus_command.h"

#include "data/story_corpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { CORPUS_DOCUMENTS = 10000 };

static struct story_corpus_options corpus_settings;

static const struct argp_option corpus_flags[] = {
    {"out", 'o', "FILE", 0, "file to write, NAME.txt or NAME.jsonl (default: only the summary is printed)", 0},
    {"split", 's', "NAME", 0, "train, validation, test or calibration; they share no random numbers (default: train)",
     0},
    {"start", 'b', "N", 0, "number of the first document (default: 0)", 0},
    {"documents", 'n', "N", 0, "documents to write (default: 10000)", 0},
    {"bytes", 'c', "N", 0, "instead: whole documents until there are N bytes of text", 0},
    {"task", 't', "NAME", 0,
     "multiple-choice or generate: items instead of texts, one of each document; story: texts without questions", 0},
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
        settings->task = (enum story_task)(STORY_TASK_MULTIPLE_CHOICE +
                                           args_choice("--task", arg, "multiple-choice|generate|story"));
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

const struct command story_corpus_command = {
    .name = "corpus",
    .doc = "Writes documents of a small synthetic language: stories in plain English with questions.\v"
           "A document is a function of seed, split and number, so that --start gives fresh ones for ever. "
           "NAME.txt has an empty line behind each, NAME.jsonl a document or item per line. Prints JSON; "
           "its entropy_nats is exact: the loss on these documents of the best possible model.",
    .options = corpus_flags,
    .parse = corpus_parse,
    .common = COMMON_SEED,
    .run = corpus_run,
    .settings = &corpus_settings,
};
