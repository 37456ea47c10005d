// discquant-data: looks at and prepares what the other programs read.
#include "data/info.h"
#include "data/program.h"

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

int main(int argc, char **argv) {
    static const struct command commands[] = {
        {.name = "info",
         .doc = "Lists the tensors of a safetensors file or of a model folder, or says why it is not one.",
         .args_doc = "PATH",
         .parse = info_parse,
         .run = info_run,
         .settings = &info_settings},
        {0},
    };
    return program_main_commands("discquant-data", "Looks at and prepares models, tokenizers and corpora.", commands,
                                 argc, argv);
}
