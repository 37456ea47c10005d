// What all main() functions share: command lines (argp), exit status, error line, --version, subcommands.
//
// Exit status 0: done. 1: the world failed (a function returned a status). 2: the command line is wrong. Errors are one
// line on stderr, "discquant: error: what, where, what to do".
//
//     static struct settings { const char *model; int64_t bits; } settings = {.bits = 4};
//
//     static const struct argp_option options[] = {
//         {"model", 'm', "DIR", 0, "Hugging Face model folder", 0},
//         {"bits", 'b', "B", 0, "bits per weight, 2 to 8 (default: 4)", 0},
//         {0},
//     };
//
//     static error_t parse(int key, char *arg, struct argp_state *state) {
//         struct settings *s = state->input;
//         switch (key) {
//         case 'm': s->model = arg; return 0;
//         case 'b': s->bits = args_integer("--bits", arg, 2, 8); return 0;
//         case ARGP_KEY_END: if (!s->model) args_fail("--model is missing"); return 0;
//         default: return ARGP_ERR_UNKNOWN;
//         }
//     }
//
//     static enum status run(const struct program_common *common, void *input) { … }
//
//     int main(int argc, char **argv) {
//         static const struct command command = {
//             .name = "discquant", .doc = "Rounds …", .options = options, .parse = parse,
//             .common = COMMON_SEED | COMMON_OUT, .run = run, .settings = &settings};
//         return program_main(&command, argc, argv);
//     }
//
// Keys of own options: letters, or numbers from 0x100 to 0xFFF. Arguments that are no options come to `parse` as
// ARGP_KEY_ARG when args_doc is given; without it they are refused before.
#ifndef DQ_DATA_PROGRAM_H
#define DQ_DATA_PROGRAM_H

#include "core/base/status.h"
#include "data/args.h"
#include "data/run_folder.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

// The options all programs write alike. --quiet, --help, --usage and --version are always there.
enum {
    COMMON_SEED = 1,                     // --seed
    COMMON_THREADS = 2,                  // --threads
    COMMON_DEVICE = 4,                   // --device
    COMMON_OUT = 8,                      // --out, --force; a run without --out writes no run folder
    COMMON_RESUME = 16,                  // --resume
    COMMON_OUT_NEEDED = 32 | COMMON_OUT, // --out must be given
    COMMON_ALL = COMMON_SEED | COMMON_THREADS | COMMON_DEVICE | COMMON_OUT_NEEDED | COMMON_RESUME,
};

struct program_common {
    const char *name;         // "discquant", "discquant-bench eval"
    const char *command_line; // quoted for a shell
    uint64_t seed;            // default 0
    int threads;              // 0: all processors; already set when run() is called
    const char *device;       // "cpu"
    const char *out;          // NULL: not given
    bool quiet, force, resume;
};

struct command {
    const char *name;
    const char *doc;                   // first line: one sentence; after \v: what follows the options in --help
    const char *args_doc;              // "PATH", "[CASE…]"; NULL: takes no arguments
    const struct argp_option *options; // own options; NULL: none
    argp_parser_t parse;               // gets `settings` as state->input; NULL: none
    unsigned common;                   // COMMON_…
    const bool *without_device;        // true after parsing: --device need not be there; NULL: it must
    enum status (*run)(const struct program_common *common, void *settings);
    void *settings;
};

// Parses, runs, reports; the value for main to return.
int program_main(const struct command *command, int argc, char **argv);

// The same for "PROGRAM COMMAND …"; `commands` end with a command without name.
int program_main_commands(const char *name, const char *doc, const struct command *commands, int argc, char **argv);

// A command line as it can be pasted into a shell; a new string.
char *program_command_line(int argc, char *const *argv);

// run_folder_open with what the common options say.
enum status program_run_folder(const struct program_common *common, const struct record *settings,
                               struct run_folder **out);

#endif
