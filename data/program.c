#include "data/program.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/backend/backend.h"
#include "core/base/threads.h"
#include "data/version.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEY_SEED = 0x1000, KEY_THREADS, KEY_DEVICE, KEY_OUT, KEY_FORCE, KEY_RESUME, KEY_QUIET, KEY_USAGE, KEY_VERSION };

static const struct {
    unsigned common; // shown when one of these bits is set; 0: always
    struct argp_option option;
} common_options[] = {
    {0, {NULL, 0, NULL, 0, "Common:", 90}},
    {COMMON_OUT, {"out", KEY_OUT, "DIR", 0, "run folder to write (run.json, result.json, metrics.jsonl, *.npy)", 90}},
    {COMMON_OUT, {"force", KEY_FORCE, NULL, 0, "start anew in a folder that holds an earlier run", 90}},
    {COMMON_RESUME, {"resume", KEY_RESUME, NULL, 0, "go on with the interrupted run in --out, to the same bits", 90}},
    {COMMON_SEED, {"seed", KEY_SEED, "N", 0, "seed of all random numbers (default: 0)", 90}},
    {COMMON_THREADS,
     {"threads", KEY_THREADS, "N", 0, "CPU threads; results do not depend on it (default: 0 = all processors)", 90}},
    {COMMON_DEVICE, {"device", KEY_DEVICE, "cpu|cuda", 0, "where to compute (default: cpu)", 90}},
    {0, {"quiet", KEY_QUIET, NULL, 0, "no progress on stderr, only errors", 90}},
    {0, {"help", '?', NULL, 0, "print this list and exit", -1}},
    {0, {"usage", KEY_USAGE, NULL, 0, "print the short form and exit", -1}},
    {0, {"version", KEY_VERSION, NULL, 0, "print the version and exit", -1}},
};

enum { N_COMMON = sizeof common_options / sizeof *common_options };

// What argp hands to the parser of this file.
struct parse {
    const struct command *command;
    struct program_common *common;
    const struct argp_option *options; // the common ones of this command
    const char *argument;              // the last one that was no option
};

static void stdout_finish(void) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return;
    fprintf(stderr, "discquant: error: stdout: cannot write it: %s\n", strerror(errno));
    _exit(1);
}

// Option `text` ("--bits=4", "--bi", "-b") among `options`: the number of matches; *match is the last one.
static int find_option(const struct argp_option *options, const char *text, const struct argp_option **match) {
    int n = 0;
    size_t length = strcspn(text, "=") - 2;
    for (; options && (options->name || options->key || options->doc); options++) {
        bool fits = text[1] != '-' ? options->key == text[1]
                                   : options->name && length > 0 && strncmp(options->name, text + 2, length) == 0;
        if (!fits) continue;
        *match = options;
        n++;
        if (text[1] == '-' && strlen(options->name) == length) return 1;
    }
    return n;
}

// argp runs with ARGP_NO_ERRS, for its own messages have two lines; this says what was wrong with the argument at
// which it stopped.
static _Noreturn void explain(const struct parse *parse, const struct argp_state *state) {
    int at = state->next > 1 ? state->next - 1 : 1;
    const char *text = at < state->argc ? state->argv[at] : "";
    if (text[0] != '-' || !text[1]) args_fail("'%s': one argument too many", parse->argument ? parse->argument : text);
    const struct argp_option *match = NULL;
    int n = find_option(parse->command->options, text, &match) + find_option(parse->options, text, &match);
    if (n == 0) args_fail("%s: there is no such option", text);
    if (n > 1) args_fail("%s: several options begin like this", text);
    if (text[1] == '-' && !match->arg) args_fail("%s: takes no value", text);
    args_fail("%s: needs a value (%s)", text, match->arg ? match->arg : "none");
}

static void help(struct argp_state *state, unsigned flags) {
    state->flags &= ~(unsigned)ARGP_NO_ERRS;
    argp_state_help(state, stdout, flags | ARGP_HELP_EXIT_OK);
}

static error_t parse_common(int key, char *arg, struct argp_state *state) {
    struct parse *parse = state->input;
    struct program_common *common = parse->common;
    static const char *const devices[] = {"cpu", "cuda"};
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = parse->command->settings; return 0;
    case ARGP_KEY_ARG:
        if (!parse->command->args_doc) args_fail("'%s': takes no arguments but options", arg);
        parse->argument = arg;
        return ARGP_ERR_UNKNOWN; // it is for the command's own parser
    case KEY_SEED: common->seed = args_seed("--seed", arg); return 0;
    case KEY_THREADS: common->threads = (int)args_integer("--threads", arg, 0, 4096); return 0;
    case KEY_DEVICE: common->device = devices[args_choice("--device", arg, "cpu|cuda")]; return 0;
    case KEY_OUT:
        if (!*arg) args_fail("--out '': is no folder");
        common->out = arg;
        return 0;
    case KEY_FORCE: common->force = true; return 0;
    case KEY_RESUME: common->resume = true; return 0;
    case KEY_QUIET: common->quiet = true; return 0;
    case '?': help(state, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK); return 0;
    case KEY_USAGE: help(state, ARGP_HELP_USAGE); return 0;
    case KEY_VERSION: printf("%s %s\n", common->name, version_text()); exit(0);
    case ARGP_KEY_END:
        if (common->force && common->resume) args_fail("--force and --resume exclude each other");
        if ((common->force || common->resume) && !common->out) args_fail("--force and --resume need --out");
        if ((parse->command->common & COMMON_OUT_NEEDED) == COMMON_OUT_NEEDED && !common->out)
            args_fail("--out is missing");
        return 0;
    case ARGP_KEY_ERROR: explain(parse, state);
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_nothing(int key, char *arg, struct argp_state *state) {
    (void)key, (void)arg, (void)state;
    return ARGP_ERR_UNKNOWN;
}

char *program_command_line(int argc, char *const *argv) {
    char *line = mem_string("");
    for (int i = 0; i < argc; i++) {
        size_t n = strlen(line);
        line = mem_resize(line, n + 4 * strlen(argv[i]) + 4, 1);
        char *at = line + n;
        if (i > 0) *at++ = ' ';
        bool plain = *argv[i] && !argv[i][strspn(argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                          "0123456789_-+=./:,@%")];
        if (!plain) *at++ = '\'';
        for (const char *c = argv[i]; *c; c++) at = *c == '\'' ? stpcpy(at, "'\\''") : (*at = *c, at + 1);
        if (!plain) *at++ = '\'';
        *at = 0;
    }
    return line;
}

static void parse_command(const struct command *command, struct program_common *common, int argc, char **argv) {
    struct argp_option options[N_COMMON + 1] = {0};
    for (int i = 0, n = 0; i < N_COMMON; i++)
        if (common_options[i].common == 0 || (common_options[i].common & command->common))
            options[n++] = common_options[i].option;
    struct parse parse = {.command = command, .common = common, .options = options};
    struct argp own = {.options = command->options, .parser = command->parse ? command->parse : parse_nothing};
    struct argp_child children[] = {{&own, 0, NULL, 0}, {0}};
    struct argp argp = {.options = options,
                        .parser = parse_common,
                        .args_doc = command->args_doc,
                        .doc = command->doc,
                        .children = children};
    char *name = argv[0];
    argv[0] = (char *)common->name;
    argp_parse(&argp, argc, argv, ARGP_NO_HELP | ARGP_NO_ERRS, NULL, &parse);
    argv[0] = name;
}

static int command_run(const struct command *command, struct program_common *common, int argc, char **argv) {
    enum status status = STATUS_OK;
    atexit(stdout_finish);
    common->device = "cpu";
    parse_command(command, common, argc, argv);
    progress_set_quiet(common->quiet);
    threads_set(common->threads);
    if (!command->without_device || !*command->without_device) TRY(backend_check(common->device));
    TRY(command->run(common, command->settings));
    if (fflush(stdout) != 0 || ferror(stdout))
        status = status_set(STATUS_IO, "stdout: cannot write it: %s", strerror(errno));
done:
    progress_clear();
    if (status == STATUS_OK) return 0;
    fprintf(stderr, "discquant: error: %s\n", status_message());
    clearerr(stdout);
    return 1;
}

int program_main(const struct command *command, int argc, char **argv) {
    threads_wait_briefly(argv);
    char *line = program_command_line(argc, argv);
    struct program_common common = {.name = command->name, .command_line = line};
    int code = command_run(command, &common, argc, argv);
    free(line);
    return code;
}

static void print_commands(const char *name, const char *doc, const struct command *commands) {
    printf("Usage: %s COMMAND [OPTION...]\n%s\n\n", name, doc);
    for (; commands->name; commands++)
        printf("  %-12s %.*s\n", commands->name, (int)strcspn(commands->doc, "\v"), commands->doc);
    printf("\n`%s COMMAND --help' lists the options of a command; `%s --version' prints the version.\n", name, name);
}

int program_main_commands(const char *name, const char *doc, const struct command *commands, int argc, char **argv) {
    threads_wait_briefly(argv);
    const char *word = argc > 1 ? argv[1] : NULL;
    for (const struct command *command = commands; word && command->name; command++) {
        if (strcmp(command->name, word) != 0) continue;
        char *line = program_command_line(argc, argv), *full = mem_format("%s %s", name, word);
        struct program_common common = {.name = full, .command_line = line};
        int code = command_run(command, &common, argc - 1, argv + 1);
        free(line);
        free(full);
        return code;
    }
    bool version = word && strcmp(word, "--version") == 0;
    if (!version && !(word && (strcmp(word, "--help") == 0 || strcmp(word, "-?") == 0 || strcmp(word, "help") == 0))) {
        if (word) args_fail("'%s': is no command of %s", word, name);
        args_fail("%s needs a command", name);
    }
    atexit(stdout_finish);
    if (version)
        printf("%s %s\n", name, version_text());
    else
        print_commands(name, doc, commands);
    return 0;
}

enum status program_run_folder(const struct program_common *common, const struct record *settings,
                               struct run_folder **out) {
    struct run_folder *run = NULL;
    enum status status = run_folder_open(&(struct run_folder_options){.path = common->out,
                                                                      .program = common->name,
                                                                      .command_line = common->command_line,
                                                                      .device = common->device,
                                                                      .seed = common->seed,
                                                                      .force = common->force,
                                                                      .resume = common->resume,
                                                                      .settings = settings},
                                         &run);
    if (status != STATUS_OK) return status;
    if (run_folder_is_done(run)) progress_say("%s: this run is done already", common->out);
    *out = run;
    return STATUS_OK;
}
