// discquant-walk: rounds by random walks that keep M x = M y, and checks what the paper says of them.
#include "walk/synthetic.h"

#include "core/base/mem.h"
#include "theory/hadamard.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_N = 0x100,
    KEY_M,
    KEY_ALPHA,
    KEY_C,
    KEY_BASIS,
    KEY_DISTRIBUTION,
    KEY_ENGINE,
    KEY_STEP_SIZE,
    KEY_FINAL,
    KEY_REPLICATES,
    KEY_CHECKPOINT,
};

static const int64_t many = INT64_C(1) << 40;

// Index of `text` in a list of names that ends with NULL; leaves the program with the list otherwise.
static int choice(const char *option, const char *text, const char *const *names) {
    char *all = mem_string(names[0]);
    for (int i = 1; names[i]; i++) {
        char *longer = mem_format("%s|%s", all, names[i]);
        free(all);
        all = longer;
    }
    int index = args_choice(option, text, all);
    free(all);
    return index;
}

static const char *engine_of(const char *text) { return walk_engines[choice("--engine", text, walk_engines)]; }

// ---- synthetic ----

static struct synthetic_settings synthetic = {
    .problem = {.n = 4096, .m = 64, .alpha = 1.5, .scale = 1, .basis = BASIS_HADAMARD},
    .walker = {.engine = "zone", .finish = WALK_STOP},
    .replicates = 20,
};

static const struct argp_option synthetic_options[] = {
    {0, 0, 0, 0, "Gradients:", 1},
    {"n", KEY_N, "N", 0, "coordinates; a power of two for --basis hadamard (default: 4096)", 1},
    {"m", KEY_M, "M", 0,
     "samples, rows of M (default: 64); more than N/16 only with --engine gsw or --final vertex|landing", 1},
    {"alpha", KEY_ALPHA, "A", 0, "eigenvalues of the covariance are C k^-A (default: 1.5)", 1},
    {"c", KEY_C, "C", 0, "see --alpha (default: 1)", 1},
    {"basis", KEY_BASIS, "NAME", 0, "eigenvectors: hadamard (spread out, default) or identity (localised)", 1},
    {"distribution", KEY_DISTRIBUTION, "NAME", 0,
     "coordinates in the eigenbasis: gaussian (default), rademacher, heavy (Student, 5 degrees of freedom)", 1},
    {0, 0, 0, 0, "Walk:", 2},
    {"engine", KEY_ENGINE, "NAME", 0, "zone (default), leap, gsw, clamp, slack, independent, nearest", 2},
    {"step-size", KEY_STEP_SIZE, "D", 0,
     "of zone, clamp and slack, in grid steps, at most 0.5; 0 = the engine's (default)", 2},
    {"final", KEY_FINAL, "NAME", 0,
     "what becomes of the last 16 M fractional coordinates: stop (nothing, default), vertex (at most M stay), landing "
     "(constraints are given up one by one), nearest, vertex-nearest",
     2},
    {"replicates", KEY_REPLICATES, "R", 0, "draws of M, start and walk (default: 20)", 2},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0,
     "replicates between states for --resume; 0 = every 5 seconds (default)", 2},
    {0},
};

static void synthetic_finish(const struct synthetic_settings *s) {
    const struct problem *p = &s->problem;
    const char *refusal = synthetic_refusal(p, &s->walker);
    if (p->basis == BASIS_HADAMARD && !hadamard_has_size(p->n))
        args_fail("--n %lld: must be a power of two for --basis hadamard", (long long)p->n);
    if (p->m > p->n) args_fail("--m %lld: must be at most --n %lld", (long long)p->m, (long long)p->n);
    if (refusal) args_fail("--m %lld: %s", (long long)p->m, refusal);
}

static error_t synthetic_parse(int key, char *arg, struct argp_state *state) {
    struct synthetic_settings *s = state->input;
    switch (key) {
    case KEY_N: s->problem.n = args_integer("--n", arg, 1, INT64_C(1) << 31); return 0;
    case KEY_M: s->problem.m = args_integer("--m", arg, 1, INT64_C(1) << 20); return 0;
    case KEY_ALPHA: s->problem.alpha = args_number("--alpha", arg, 0, 100); return 0;
    case KEY_C: s->problem.scale = args_number("--c", arg, 1e-100, 1e100); return 0;
    case KEY_BASIS: s->problem.basis = (enum basis)choice("--basis", arg, basis_names); return 0;
    case KEY_DISTRIBUTION:
        s->problem.distribution = (enum distribution)choice("--distribution", arg, distribution_names);
        return 0;
    case KEY_ENGINE: s->walker.engine = engine_of(arg); return 0;
    case KEY_STEP_SIZE: s->walker.step_size = args_number("--step-size", arg, 0, 0.5); return 0;
    case KEY_FINAL: s->walker.finish = (enum walk_finish)choice("--final", arg, finish_names); return 0;
    case KEY_REPLICATES: s->replicates = args_integer("--replicates", arg, 1, 1 << 24); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 0, many); return 0;
    case ARGP_KEY_END: synthetic_finish(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status synthetic_start(const struct program_common *common, void *input) {
    return synthetic_run(common, input);
}

int main(int argc, char **argv) {
    static const struct command commands[] = {
        {.name = "synthetic",
         .doc =
             "Rounds instances with synthetic gradients, whose error on fresh gradients is known exactly.\v"
             "Every replicate draws M, y and the noise anew. result.json holds the quantization error QE with a 95 % "
             "interval, what theory predicts for it, and the errors of rounding to nearest and at random.",
         .options = synthetic_options,
         .parse = synthetic_parse,
         .common = COMMON_SEED | COMMON_THREADS | COMMON_OUT_NEEDED | COMMON_RESUME,
         .run = synthetic_start,
         .settings = &synthetic},
        {0},
    };
    return program_main_commands("discquant-walk", "Rounds by random walks that keep the sampled gradients' products.",
                                 commands, argc, argv);
}
