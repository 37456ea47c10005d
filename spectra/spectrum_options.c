#include "spectra/spectrum.h"

#include "core/base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    KEY_CORPUS = 0x100,
    KEY_SAMPLES,
    KEY_FIRST,
    KEY_SEQ_LEN,
    KEY_BATCH,
    KEY_RECOMPUTE,
    KEY_PARAMETERS,
    KEY_LAYERS,
    KEY_PER_LAYER,
    KEY_SKETCH,
    KEY_DIM,
    KEY_SKETCHES,
    KEY_BITS,
    KEY_GROUP_SIZE,
    KEY_QUANTIZED,
    KEY_STORE,
    KEY_SAMPLES_ONLY,
    KEY_EXACT,
    KEY_CHECKPOINT,
};

static const int64_t many = INT64_C(1) << 40;

static struct spectrum_settings settings = {
    .sampling = {.samples = 4096,
                 .seq_len = 2048,
                 .sketch = SKETCH_ROTATION,
                 .dim = 2048,
                 .sketches = 4,
                 .bits = 4,
                 .group_size = -1},
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Samples:", 1},
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 1},
    {"corpus", KEY_CORPUS, "FILE", 0, "text, cut into windows that do not overlap; may be given more than once", 1},
    {"samples", KEY_SAMPLES, "N", 0, "windows, each a sample (default: 4096)", 1},
    {"first-sample", KEY_FIRST, "I", 0,
     "place of the first one in the order that --seed decides (default: 0); for runs that are merged", 1},
    {"seq-len", KEY_SEQ_LEN, "T", 0,
     "tokens per window (default: 2048); a sample's loss is the mean of its T - 1 predictions", 1},
    {"parameters", KEY_PARAMETERS, "SET", 0,
     "weights that count: linear (matrices inside layers, default), all (embedding, norms and head too)", 1},
    {"layers", KEY_LAYERS, "LIST", 0,
     "only weights inside these layers count, numbers and ranges from 0 such as 0,6,12-15 (default: all, and what is "
     "in no layer)",
     1},
    {"per-layer", KEY_PER_LAYER, 0, 0, "figures of every layer too", 1},
    {0, 0, 0, 0, "Sketches:", 2},
    {"sketch", KEY_SKETCH, "NAME", 0,
     "random map of gradients to K numbers: rotation (default), gaussian, rademacher, none", 2},
    {"dim", KEY_DIM, "K", 0, "numbers per sketch (default: 2048)", 2},
    {"sketches", KEY_SKETCHES, "J", 0, "independent sketches (default: 4); their spread is part of the errors", 2},
    {0, 0, 0, 0, "Roundings, whose directions are measured:", 3},
    {"bits", KEY_BITS, "B", 0, "of rounding to nearest, 2 to 8; 0 = leave it out (default: 4)", 3},
    {"group-size", KEY_GROUP_SIZE, "G", 0, "inputs that share one 16-bit scale; -1 = the whole row (default)", 3},
    {"quantized", KEY_QUANTIZED, "NAME=DIR", 0, "a rounding of the model; may be given more than once", 3},
    {0, 0, 0, 0, "What is done:", 4},
    {"store", KEY_STORE, "RUN", 0, "use the samples of this run folder; no model is needed", 4},
    {"samples-only", KEY_SAMPLES_ONLY, 0, 0, "stop when the samples are there: for runs that are merged", 4},
    {"exact", KEY_EXACT, 0, 0,
     "the eigenvalues of the gradients themselves too; takes 4 bytes per sample and weight that counts", 4},
    {0, 0, 0, 0, "Memory:", 5},
    {"batch-size", KEY_BATCH, "B", 0, "windows per pass (default: as many as make 2048 tokens, at least 8)", 5},
    {"recompute", KEY_RECOMPUTE, 0, 0, "recompute layers on the way back instead of keeping their activations", 5},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "samples between states for --resume; 0 = every 5 seconds (default)",
     5},
    {0},
};

static void add_quantized(struct sampling_settings *s, char *arg) {
    char *path = strchr(arg, '=');
    if (!path || path == arg || !path[1]) args_fail("--quantized %s: want NAME=DIR", arg);
    if (s->n_quantized == SAMPLING_QUANTIZED_MAX) args_fail("--quantized: at most %d folders", SAMPLING_QUANTIZED_MAX);
    char *name = mem_string_n(arg, (size_t)(path - arg));
    bool taken = strcmp(name, "rtn") == 0;
    for (int i = 0; i < s->n_quantized; i++) taken = taken || strcmp(name, s->quantized_names[i]) == 0;
    if (taken) args_fail("--quantized %s: the name is taken", arg);
    s->quantized_names[s->n_quantized] = name;
    s->quantized[s->n_quantized++] = path + 1;
}

static void finish(const struct spectrum_settings *given) {
    const struct sampling_settings *s = &given->sampling;
    if (given->store && (s->model || s->n_corpus))
        args_fail("--store: the samples are there, --model and --corpus are not used");
    if (given->store && (given->samples_only || given->exact))
        args_fail("--store: %s needs the model", given->exact ? "--exact" : "--samples-only");
    if (given->store) return;
    if (!s->model) args_fail("--model is missing");
    if (!s->n_corpus) args_fail("--corpus is missing");
}

static void add_layers(struct sampling_settings *s, const char *arg) {
    const char *at = arg;
    s->layers = (struct layer_set){0};
    s->layers_text = arg;
    for (;;) {
        long long first = 0, last = 0;
        int read = 0;
        if (s->layers.n == LAYER_RANGES_MOST) args_fail("--layers: at most %d ranges", LAYER_RANGES_MOST);
        if (*at < '0' || *at > '9' || sscanf(at, "%9lld%n", &first, &read) != 1) break;
        at += read, last = first;
        if (*at == '-' && at[1] >= '0' && at[1] <= '9' && sscanf(at, "-%9lld%n", &last, &read) == 1) at += read;
        if (last < first) break;
        s->layers.ranges[s->layers.n].first = first;
        s->layers.ranges[s->layers.n++].last = last;
        if (*at == 0) return;
        if (*at++ != ',') break;
    }
    args_fail("--layers %s: want numbers and ranges from 0, such as 0,6,12-15", arg);
}

static error_t parse_sampling(int key, char *arg, struct sampling_settings *s) {
    switch (key) {
    case 'm': s->model = arg; return 0;
    case KEY_CORPUS:
        if (s->n_corpus == SAMPLING_FILES_MAX) args_fail("--corpus: at most %d files", SAMPLING_FILES_MAX);
        s->corpus[s->n_corpus++] = arg;
        return 0;
    case KEY_SAMPLES: s->samples = args_integer("--samples", arg, 1, INT64_C(1) << 32); return 0;
    case KEY_FIRST: s->first = args_integer("--first-sample", arg, 0, many); return 0;
    case KEY_SEQ_LEN: s->seq_len = args_integer("--seq-len", arg, 2, 1 << 24); return 0;
    case KEY_BATCH: s->batch = args_integer("--batch-size", arg, 0, 1 << 20); return 0;
    case KEY_RECOMPUTE: s->recompute = true; return 0;
    case KEY_PARAMETERS:
        s->parameters = args_choice("--parameters", arg, "linear|all") ? PARAMETERS_ALL : PARAMETERS_LINEAR;
        return 0;
    case KEY_LAYERS: add_layers(s, arg); return 0;
    case KEY_PER_LAYER: s->per_layer = true; return 0;
    case KEY_SKETCH:
        s->sketch = (enum sketch_kind)args_choice("--sketch", arg, "none|rotation|gaussian|rademacher");
        return 0;
    case KEY_DIM: s->dim = args_integer("--dim", arg, 1, 1 << 20); return 0;
    case KEY_SKETCHES: s->sketches = args_integer("--sketches", arg, 1, SKETCHES_MOST); return 0;
    case KEY_BITS:
        s->bits = (int)args_integer("--bits", arg, 0, 8);
        if (s->bits == 1) args_fail("--bits 1: 2 to 8, or 0 for none");
        return 0;
    case KEY_GROUP_SIZE:
        s->group_size = args_integer("--group-size", arg, -1, many);
        if (s->group_size == 0) args_fail("--group-size 0: give a positive number, or -1 for whole rows");
        return 0;
    case KEY_QUANTIZED: add_quantized(s, arg); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 0, many); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct spectrum_settings *given = state->input;
    switch (key) {
    case KEY_STORE: given->store = arg; return 0;
    case KEY_SAMPLES_ONLY: given->samples_only = true; return 0;
    case KEY_EXACT: given->exact = true; return 0;
    case ARGP_KEY_END: finish(given); return 0;
    default: return parse_sampling(key, arg, &given->sampling);
    }
}

static enum status start(const struct program_common *common, void *input) { return spectrum_run(common, input); }

const struct command spectrum_command = {
    .name = "spectrum",
    .doc = "Measures the gradients of windows of text: norms, eigenvalues of their covariance, their decay, tails.\v"
           "result.json holds |E g|^2 and E |g|^2 (Table 1), alpha and C of lambda_k = C k^-alpha with errors, freed "
           "from the bias "
           "of finite samples and sketches (the naive slope beside it is biased), and bounds of beta. Eigenvalues and "
           "their "
           "roots are in .npy files.",
    .options = options,
    .parse = parse,
    .common = COMMON_ALL,
    .run = start,
    .settings = &settings,
};
