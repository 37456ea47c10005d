// discquant-export: run folders to tables, figures, a page and a notebook.
#include "notebooks-export/export.h"

#include "core/base/mem.h"
#include "data/program.h"

#include <stdlib.h>
#include <string.h>

static struct export_settings settings;

static const struct argp_option options[] = {
    {"format", 'F', "LIST", 0, "of ipynb,html,csv,svg,pdf (default: all but pdf)", 0},
    {0},
};

static void parse_formats(const char *list) {
    char *copy = mem_string(list), *save = NULL;
    for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save))
        settings.formats |= 1 << args_choice("--format", name, "ipynb|html|csv|svg|pdf");
    free(copy);
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct export_settings *s = state->input;
    switch (key) {
    case 'F': parse_formats(arg); return 0;
    case ARGP_KEY_ARG:
        s->runs = mem_resize(s->runs, (size_t)s->n_runs + 1, sizeof *s->runs);
        s->runs[s->n_runs++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (!s->n_runs) args_fail("no run is given");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status run(const struct program_common *common, void *input) {
    return export_run(input, common->out, common->force);
}

int main(int argc, char **argv) {
    static const struct command command = {
        .name = "discquant-export",
        .doc = "Makes tables, figures, a page and a notebook of run folders.\v"
               "A RUN is a run folder, the folder of a plan (discquant-bench ablate), or a folder that holds some. The "
               "tables and figures are those of the paper and of its theorems; what the given runs do not suffice for "
               "is named. Figures are drawn by gnuplot; the notebook draws with matplotlib.",
        .args_doc = "RUN...",
        .options = options,
        .parse = parse,
        .common = COMMON_OUT_NEEDED,
        .run = run,
        .settings = &settings,
    };
    return program_main(&command, argc, argv);
}
