// A program with every kind of option, for tests/unit/program_test.c.
#include "core/base/progress.h"
#include "core/base/threads.h"
#include "data/program.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

static struct settings {
    int64_t bits;
    double rate;
    int method, n_files;
    const char *model;
} settings = {.bits = 4, .rate = 0.1};

static const struct argp_option options[] = {
    {"bits", 'b', "B", 0, "bits per weight, 2 to 8 (default: 4)", 0},
    {"rate", 'r', "R", 0, "learning rate, above 0 (default: 0.1)", 0},
    {"method", 0x100, "rtn|discquant", 0, "how to round (default: rtn)", 0},
    {"model", 0x101, "DIR", 0, "model folder", 0},
    {"model-name", 0x102, "NAME", 0, "not used", 0},
    {"fail", 0x103, NULL, 0, "fail", 0},
    {0},
};

static int fail;

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct settings *s = state->input;
    switch (key) {
    case 'b': s->bits = args_integer("--bits", arg, 2, 8); return 0;
    case 'r': s->rate = args_number("--rate", arg, 0, HUGE_VAL); return 0;
    case 0x100: s->method = args_choice("--method", arg, "rtn|discquant"); return 0;
    case 0x101: s->model = arg; return 0;
    case 0x102: return 0;
    case 0x103: fail = 1; return 0;
    case ARGP_KEY_ARG: s->n_files++; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status run(const struct program_common *common, void *input) {
    const struct settings *s = input;
    enum status status = STATUS_OK;
    struct run_folder *folder = NULL;
    struct progress *progress = progress_new("example", "step", 3, 0);
    TRY(program_run_folder(common, NULL, &folder));
    if (run_folder_is_done(folder)) goto done;
    for (int64_t step = 1; step <= 3; step++) progress_update(progress, step, "loss %.2f", 1.0 / (double)step);
    progress_say("nearly done");
    printf("bits %" PRId64 " rate %g method %d model %s files %d seed %" PRIu64 " threads %d\n", s->bits, s->rate,
           s->method, s->model ? s->model : "-", s->n_files, common->seed, threads_count());
    if (fail) TRY(status_set(STATUS_FORMAT, "model\n.safetensors: is broken"));
done:
    progress_free(progress);
    status = run_folder_finish(folder, status);
    run_folder_free(folder);
    return status;
}

static enum status idle(const struct program_common *common, void *input) {
    (void)common, (void)input;
    return STATUS_OK;
}

int main(int argc, char **argv) {
    static const struct command commands[] = {
        {.name = "run",
         .doc = "Runs.\vAfter the options.",
         .args_doc = "[FILE…]",
         .options = options,
         .parse = parse,
         .common = COMMON_SEED | COMMON_THREADS | COMMON_DEVICE | COMMON_OUT | COMMON_RESUME,
         .run = run,
         .settings = &settings},
        {.name = "idle", .doc = "Does nothing.", .common = COMMON_OUT_NEEDED, .run = idle},
        {0},
    };
    return program_main_commands("example", "An example.", commands, argc, argv);
}
