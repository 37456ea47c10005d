#include "data/export_command.h"

#include "data/export.h"

#include <stdio.h>

static struct export_settings { const char *run, *formats; } export_settings;

static const struct argp_option export_flags[] = {
    {"to", 't', "LIST", 0, "hf, gptq, compressed-tensors, gguf: one or several with commas", 0},
    {"force", 'f', NULL, 0, "replace exports that are there", 0},
    {0},
};

static bool force;

static error_t export_parse(int key, char *arg, struct argp_state *state) {
    struct export_settings *settings = state->input;
    struct export_set set;
    switch (key) {
    case 't': settings->formats = arg; return 0;
    case 'f': force = true; return 0;
    case ARGP_KEY_ARG:
        if (settings->run) args_fail("'%s': one RUN at a time", arg);
        settings->run = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->run) args_fail("RUN is missing");
        if (!settings->formats) args_fail("--to is missing");
        if (export_set_parse(settings->formats, &set) != STATUS_OK) args_fail("%s", status_message());
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status export_start(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    (void)common;
    const struct export_settings *settings = input;
    struct export_set set;
    TRY(export_set_parse(settings->formats, &set));
    TRY(run_export(&set, settings->run, force));
done:
    return status;
}

const struct command export_command = {
    .name = "export",
    .doc = "Writes a rounded model in formats that other programs run.\vRUN is the folder of a run of discquant; its "
           "model/ and codes.safetensors are read, RUN/export-NAME/ and RUN/export.gguf written. Every export is read "
           "back and compared with the model, weight by weight.",
    .args_doc = "RUN",
    .options = export_flags,
    .parse = export_parse,
    .common = COMMON_THREADS,
    .run = export_start,
    .settings = &export_settings,
};

static struct verify_settings { const char *path, *against; } verify_settings;

static const struct argp_option verify_flags[] = {
    {"against", 'a', "DIR", 0, "model folder with the same weights as floats", 0},
    {0},
};

static error_t verify_parse(int key, char *arg, struct argp_state *state) {
    struct verify_settings *settings = state->input;
    switch (key) {
    case 'a': settings->against = arg; return 0;
    case ARGP_KEY_ARG:
        if (settings->path) args_fail("'%s': one PATH at a time", arg);
        settings->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->path) args_fail("PATH is missing");
        if (!settings->against) args_fail("--against is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status verify_run(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    (void)common;
    const struct verify_settings *settings = input;
    struct export_difference same;
    TRY(export_compare(settings->path, settings->against, &same));
    printf("%s: equal to %s in %lld tensors (%lld stored as integers), %lld values\n", settings->path,
           settings->against, (long long)same.tensors, (long long)same.coded, (long long)same.values);
    if (same.skipped) printf("%lld tensors have no place in the format\n", (long long)same.skipped);
done:
    return status;
}

const struct command verify_command = {
    .name = "verify",
    .doc = "Says whether an exported model has the weights of a model folder, value by value.\vPATH is a folder in the "
           "format of GPTQ or compressed-tensors, a plain model folder, or a .gguf file. Exit status 1 and the first "
           "difference if not.",
    .args_doc = "PATH",
    .options = verify_flags,
    .parse = verify_parse,
    .common = COMMON_THREADS,
    .run = verify_run,
    .settings = &verify_settings,
};
