#include "walk/command.h"

#include "walk/round.h"
#include "walk/synthetic.h"
#include "walk/validate.h"

#include "core/base/mem.h"
#include "core/base/walsh.h"

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
    KEY_CALIBRATION,
    KEY_VALIDATION,
    KEY_BITS,
    KEY_GRID,
    KEY_SCALE_SEARCH,
    KEY_GROUP_SIZE,
    KEY_SAMPLES,
    KEY_FRESH,
    KEY_SEQ_LEN,
    KEY_BATCH,
    KEY_VALIDATION_SAMPLES,
    KEY_RECOMPUTE,
    KEY_LEAVE_CLIPPING,
    KEY_COMPARE,
    KEY_START,
    KEY_MATRIX,
    KEY_QUICK,
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
    if (p->basis == BASIS_HADAMARD && !walsh_has_size(p->n))
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

// ---- round ----

static struct round_settings round_settings = {
    .samples = 64,
    .seq_len = 2048,
    .validation_samples = 64,
    .walker = {.engine = "zone", .finish = WALK_LANDING},
    .checkpoint_every = 10,
};

static const struct argp_option round_options[] = {
    {0, 0, 0, 0, "What is rounded:", 1},
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 1},
    {"grid", KEY_GRID, "NAME", 0,
     "block (default), asymmetric, nf4, mxfp4, nvfp4, or the blocks of llama.cpp: q4_0, q4_1, q8_0, q3_k", 1},
    {"bits", KEY_BITS, "B", 0, "bits per weight, 2 to 8 for block and asymmetric (default: 4), else the grid's own", 1},
    {"group-size", KEY_GROUP_SIZE, "G", 0,
     "inputs that share one scale; -1 = the whole row (default for block and asymmetric; nf4: 64), else the grid's own",
     1},
    {"scale-search", KEY_SCALE_SEARCH, "NAME", 0,
     "none: the grid's rule for its scales (default); mse: of scales around it the one of least squared error", 1},
    {"start", KEY_START, "RUN", 0,
     "depart from the x that this run of the program discquant kept (--keep-x), on its grid, instead of the weights",
     1},
    {0, 0, 0, 0, "Text:", 2},
    {"calibration", KEY_CALIBRATION, "FILE", 0,
     "text from which windows for M and fresh windows are drawn; may be given more than once", 2},
    {"validation", KEY_VALIDATION, "FILE", 0, "text for KL divergence and perplexity", 2},
    {"seq-len", KEY_SEQ_LEN, "T", 0, "tokens per window (default: 2048)", 2},
    {"samples", KEY_SAMPLES, "M", 0,
     "windows whose gradients become rows of M (default: 64); M takes 8 bytes per sample and rounded weight", 2},
    {"fresh-samples", KEY_FRESH, "N", 0,
     "other windows, on which errors are measured; 0 = those that are left, at most 256 (default)", 2},
    {"validation-samples", KEY_VALIDATION_SAMPLES, "N", 0, "validation windows to use, 0 = all (default: 64)", 2},
    {0, 0, 0, 0, "Walk:", 3},
    {"engine", KEY_ENGINE, "NAME", 0, "zone (default), leap, gsw, clamp, slack, independent, nearest", 3},
    {"step-size", KEY_STEP_SIZE, "D", 0,
     "of zone, clamp and slack, in grid steps, at most 0.5; 0 = the engine's (default)", 3},
    {"final", KEY_FINAL, "NAME", 0,
     "how the last 16 M weights are rounded: landing (constraints are given up one by one, default), nearest, "
     "vertex-nearest (a vertex first)",
     3},
    {"leave-clipping", KEY_LEAVE_CLIPPING, 0, 0,
     "do not cancel, in the sampled losses, what weights outside the grid's range change", 3},
    {"compare", KEY_COMPARE, "NAME=DIR", 0,
     "measure this rounding of the model too, as the program discquant saves it with the same grid; may be given more "
     "than once",
     3},
    {0, 0, 0, 0, "Memory:", 4},
    {"matrix", KEY_MATRIX, "FILE", 0,
     "keep M on the disk, beside FILE, instead of in memory; the room is free again when the program ends, however it "
     "does",
     4},
    {"batch-size", KEY_BATCH, "B", 0, "windows per pass (default: as many as make 2048 tokens, at least 8)", 4},
    {"recompute", KEY_RECOMPUTE, 0, 0, "recompute layers on the way back instead of keeping their activations", 4},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "steps of the walk between states for --resume (default: 10)", 4},
    {0},
};

static void round_finish(struct round_settings *s) {
    if (s->start && (s->grid.kind || s->grid.bits || s->grid.group_size || s->grid.search))
        args_fail("--start brings its grid: leave out --grid, --bits, --group-size and --scale-search");
    if (!s->start && grid_options_complete(&s->grid) != STATUS_OK) args_fail("%s", status_message());
    if (!s->model) args_fail("--model is missing");
    if (!s->n_calibration) args_fail("--calibration is missing");
    if (!s->validation) args_fail("--validation is missing");
}

static void add_compared(struct round_settings *s, const char *arg) {
    const char *path = strchr(arg, '=');
    if (!path || path == arg || !path[1]) args_fail("--compare %s: want NAME=DIR", arg);
    if (s->n_compared == ROUND_COMPARED_MAX) args_fail("--compare: at most %d folders", ROUND_COMPARED_MAX);
    char *name = mem_format("%.*s", (int)(path - arg), arg);
    static const char *const taken[] = {"before", "walk", "start", "nearest", "rtn", "random", "closest"};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (strcmp(name, taken[i]) == 0) args_fail("--compare %s: the name is taken", arg);
    for (int i = 0; i < s->n_compared; i++)
        if (strcmp(name, s->compared[i].name) == 0) args_fail("--compare %s: the name is taken", arg);
    s->compared[s->n_compared++] = (struct compared){.name = name, .path = path + 1};
}

static error_t round_parse(int key, char *arg, struct argp_state *state) {
    struct round_settings *s = state->input;
    static const enum walk_finish finishes[] = {WALK_LANDING, WALK_NEAREST, WALK_VERTEX_NEAREST};
    switch (key) {
    case 'm': s->model = arg; return 0;
    case KEY_GRID: s->grid.kind = (enum grid_kind)args_choice("--grid", arg, GRID_NAMES); return 0;
    case KEY_SCALE_SEARCH:
        s->grid.search = (enum scale_search)args_choice("--scale-search", arg, SCALE_SEARCH_NAMES);
        return 0;
    case KEY_BITS: s->grid.bits = (int)args_integer("--bits", arg, 2, 8); return 0;
    case KEY_GROUP_SIZE:
        s->grid.group_size = args_integer("--group-size", arg, -1, many);
        if (s->grid.group_size == 0) args_fail("--group-size 0: give a positive number, or -1 for whole rows");
        return 0;
    case KEY_START: s->start = arg; return 0;
    case KEY_CALIBRATION:
        if (s->n_calibration == ROUND_FILES_MAX) args_fail("--calibration: at most %d files", ROUND_FILES_MAX);
        s->calibration[s->n_calibration++] = arg;
        return 0;
    case KEY_VALIDATION: s->validation = arg; return 0;
    case KEY_SEQ_LEN: s->seq_len = args_integer("--seq-len", arg, 2, 1 << 24); return 0;
    case KEY_SAMPLES: s->samples = args_integer("--samples", arg, 1, 1 << 20); return 0;
    case KEY_FRESH: s->fresh_samples = args_integer("--fresh-samples", arg, 0, 1 << 24); return 0;
    case KEY_VALIDATION_SAMPLES: s->validation_samples = args_integer("--validation-samples", arg, 0, many); return 0;
    case KEY_ENGINE: s->walker.engine = engine_of(arg); return 0;
    case KEY_STEP_SIZE: s->walker.step_size = args_number("--step-size", arg, 0, 0.5); return 0;
    case KEY_FINAL:
        s->walker.finish = finishes[args_choice("--final", arg, "landing|nearest|vertex-nearest")];
        return 0;
    case KEY_LEAVE_CLIPPING: s->leave_clipping = true; return 0;
    case KEY_COMPARE: add_compared(s, arg); return 0;
    case KEY_MATRIX: s->matrix = arg; return 0;
    case KEY_BATCH: s->batch = args_integer("--batch-size", arg, 0, 1 << 20); return 0;
    case KEY_RECOMPUTE: s->recompute = true; return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 1, many); return 0;
    case ARGP_KEY_END: round_finish(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status round_start(const struct program_common *common, void *input) { return round_run(common, input); }

// ---- validate ----

static struct validate_settings validate = {.engine = "zone"};
static bool has_study;

static const struct argp_option validate_options[] = {
    {"quick", KEY_QUICK, 0, 0, "small sizes and few draws: about half a minute instead of minutes", 0},
    {"engine", KEY_ENGINE, "NAME", 0, "walk that is judged: zone (default), leap, gsw, clamp", 0},
    {"distribution", KEY_DISTRIBUTION, "NAME", 0,
     "of the gradients, in the eigenbasis: gaussian (default), rademacher, heavy (Student, 5 degrees of freedom)", 0},
    {"n", KEY_N, "N", 0,
     "coordinates of theorem2, proposition4 and adversarial, a power of two from 1024 on; 0 = the study's own "
     "(default)",
     0},
    {"replicates", KEY_REPLICATES, "R", 0, "draws of M per point; 0 = the study's own number (default)", 0},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "draws between states for --resume; 0 = every 5 seconds (default)", 0},
    {0},
};

static void validate_finish(const struct validate_settings *s) {
    if (!has_study) args_fail("which study? theorem2, theorem3, proposition4 or adversarial");
    if (!walk_engine_keeps(s->engine)) args_fail("--engine %s: does not keep M x = M y", s->engine);
    if (s->n && (s->n < 1024 || !walsh_has_size(s->n)))
        args_fail("--n %lld: must be a power of two from 1024 on", (long long)s->n);
    if (s->n && s->study == STUDY_THEOREM3) args_fail("--n %lld: theorem3 has sizes of its own", (long long)s->n);
}

static error_t validate_parse(int key, char *arg, struct argp_state *state) {
    struct validate_settings *s = state->input;
    switch (key) {
    case KEY_QUICK: s->quick = true; return 0;
    case KEY_ENGINE: s->engine = engine_of(arg); return 0;
    case KEY_DISTRIBUTION:
        s->distribution = (enum distribution)choice("--distribution", arg, distribution_names);
        return 0;
    case KEY_N: s->n = args_integer("--n", arg, 0, 1 << 24); return 0;
    case KEY_REPLICATES: s->replicates = args_integer("--replicates", arg, 0, 1 << 16); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 0, many); return 0;
    case ARGP_KEY_ARG:
        if (has_study) args_fail("'%s': one study at a time", arg);
        s->study = (enum study_kind)choice("STUDY", arg, study_names);
        has_study = true;
        return 0;
    case ARGP_KEY_END: validate_finish(s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static enum status validate_start(const struct program_common *common, void *input) {
    return validate_run(common, input);
}

const struct command walk_commands[] = {
    {.name = "synthetic",
     .doc = "Rounds instances with synthetic gradients, whose error on fresh gradients is known exactly.\v"
            "Every replicate draws M, y and the noise anew. result.json holds the quantization error QE with a 95 % "
            "interval, what theory predicts for it, and the errors of rounding to nearest and at random.",
     .options = synthetic_options,
     .parse = synthetic_parse,
     .common = COMMON_ALL,
     .run = synthetic_start,
     .settings = &synthetic},
    {.name = "round",
     .doc = "Rounds a network so that the sampled windows' losses stay where they are, to first order.\v"
            "The rounded model is saved in OUT/model. result.json holds the errors on windows that the walk has not "
            "seen, KL divergence and perplexity, and the same for rounding to nearest, at random, and to the closest "
            "vertex.",
     .options = round_options,
     .parse = round_parse,
     .common = COMMON_ALL,
     .run = round_start,
     .settings = &round_settings},
    {.name = "validate",
     .doc = "Checks what the paper states on instances whose answer is known, and ends in a verdict per hypothesis.\v"
            "theorem2: errors over m and the decay alpha; theorem3: covariance of x - y over many walks; "
            "proposition4: "
            "error of the empirical covariance; adversarial: starts and objectives made from eigenvectors.",
     .args_doc = "theorem2|theorem3|proposition4|adversarial",
     .options = validate_options,
     .parse = validate_parse,
     .common = COMMON_SEED | COMMON_THREADS | COMMON_OUT_NEEDED | COMMON_RESUME,
     .run = validate_start,
     .settings = &validate},
    {0},
};
