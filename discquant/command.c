#include "discquant/command.h"

#include "discquant/method.h"

#include <math.h>
#include <string.h>

static struct run_settings settings = {
    .method = &method_discquant,
    .optimizer = {.steps = 1024,
                  .warmup = -1,
                  .batch = 8,
                  .seq_len = 2048,
                  .lambda = 200,
                  .clamp = 1,
                  .rate = -1,
                  .strength = 1,
                  .finish = {.strength = -1, .concave = -1}},
    .lora = {.steps = 512, .rate = 3e-3},
    .second_share = -1,
    .validation_samples = 64,
    .report_every = 64,
    .checkpoint_every = 64,
    .checkpoint_layers = 4,
    .feedback = {.damping = 0.01, .ordered = true},
    .block = {.steps = 200},
    .soft = {.steps = 1000, .rate = 0.01, .strength = 30},
};

static double finish_share = -1;

// What depends on the device where it is not given: indices into "fp32|bf16".
enum { NOT_GIVEN = -1 };
static int precision = NOT_GIVEN, state_precision = NOT_GIVEN;
static enum { ACTIVATIONS_BY_DEVICE, ACTIVATIONS_RECOMPUTED, ACTIVATIONS_KEPT } activations;

enum {
    KEY_CALIBRATION = 0x100,
    KEY_VALIDATION,
    KEY_METHOD,
    KEY_BITS,
    KEY_GRID,
    KEY_SCALE_SEARCH,
    KEY_GROUP_SIZE,
    KEY_INCOHERENCE,
    KEY_INIT,
    KEY_STEPS,
    KEY_WARMUP,
    KEY_BATCH,
    KEY_MICRO_BATCH,
    KEY_SEQ_LEN,
    KEY_LAMBDA,
    KEY_CLAMP,
    KEY_RATE,
    KEY_OBJECTIVE,
    KEY_DIRECTION,
    KEY_SECOND,
    KEY_SECOND_SHARE,
    KEY_DECAY,
    KEY_RECOMPUTE,
    KEY_SAMPLES,
    KEY_VALIDATION_SAMPLES,
    KEY_REPORT,
    KEY_FINISH,
    KEY_FINISH_FROM,
    KEY_FINISH_STRENGTH,
    KEY_FINISH_CONCAVE,
    KEY_KEEP_X,
    KEY_CHECKPOINT,
    KEY_PRECISION,
    KEY_STATE_PRECISION,
    KEY_KEEP,
    KEY_PLAN,
    KEY_EXPORT,
    KEY_LORA_RANK,
    KEY_LORA_ALPHA,
    KEY_LORA_STEPS,
    KEY_LORA_RATE,
    KEY_LORA_TARGETS,
    KEY_LORA_MERGE,
};

// Of methods that go layer by layer.
enum {
    KEY_DAMPING = 0x200,
    KEY_CHECKPOINT_LAYERS,
    KEY_COLUMN_ORDER,
    KEY_SOFT_STEPS,
    KEY_SOFT_RATE,
    KEY_SOFT_STRENGTH,
    KEY_BLOCK_STEPS,
    KEY_BLOCK_RATE
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "What is rounded and how:", 1},
    {"model", 'm', "DIR", 0, "Hugging Face model folder", 1},
    {"method", KEY_METHOD, "NAME", 0,
     "rtn (round to nearest), discquant (default), gptq, adaround, signround or qat (latent weights trained straight "
     "through the "
     "rounding)",
     1},
    {"grid", KEY_GRID, "NAME", 0,
     "block (default), asymmetric, nf4, mxfp4, nvfp4, or the blocks of llama.cpp: q4_0, q4_1, q8_0, q3_k", 1},
    {"bits", KEY_BITS, "B", 0, "bits per weight, 2 to 8 for block and asymmetric (default: 4), else the grid's own", 1},
    {"group-size", KEY_GROUP_SIZE, "G", 0,
     "inputs that share one scale; -1 = the whole row (default for block and asymmetric; nf4: 64), else the grid's own",
     1},
    {"scale-search", KEY_SCALE_SEARCH, "NAME", 0,
     "none: the grid's rule for its scales (default); mse: of scales around it the one of least squared error", 1},
    {"incoherence", KEY_INCOHERENCE, "NAME", 0,
     "none (default), hadamard: weights are rounded after both sides are rotated by randomized Hadamard matrices, "
     "which "
     "the forward pass undoes; hadamard-blocks: in blocks along widths that have no such matrix; hadamard-in: the "
     "inputs' side only, so that each row keeps its scale",
     1},
    {"export", KEY_EXPORT, "LIST", 0,
     "write the rounded model in other formats too: hf, gptq, compressed-tensors, gguf, with commas; later: "
     "discquant-data export OUT",
     1},
    {0, 0, 0, 0, "Text:", 2},
    {"calibration", KEY_CALIBRATION, "FILE", 0, "text to optimize on; may be given more than once", 2},
    {"validation", KEY_VALIDATION, "FILE", 0, "text to measure on", 2},
    {"second-calibration", KEY_SECOND, "FILE", 0,
     "a second text, from which --second-share of the calibration windows come; may be given more than once", 2},
    {"second-share", KEY_SECOND_SHARE, "S", 0, "that share, 0 to 1 (default: 0.5)", 2},
    {"seq-len", KEY_SEQ_LEN, "T", 0, "tokens per window (default: 2048)", 2},
    {"samples", KEY_SAMPLES, "N", 0, "calibration windows to use (default: all that the files hold)", 2},
    {"validation-samples", KEY_VALIDATION_SAMPLES, "N", 0, "validation windows to use, 0 = all (default: 64)", 2},
    {0, 0, 0, 0, "Optimizer of the methods discquant and, but for what x alone has, qat:", 3},
    {"steps", KEY_STEPS, "N", 0, "optimizer steps (default: 1024)", 3},
    {"batch-size", KEY_BATCH, "B", 0, "windows per step (default: 8)", 3},
    {"micro-batch", KEY_MICRO_BATCH, "B", 0, "windows per pass, to save memory (default: the batch size)", 3},
    {"lambda", KEY_LAMBDA, "L", 0, "weight of the KL divergence, in units of 1/grid step squared (default: 200)", 3},
    {"clamp", KEY_CLAMP, "C", 0, "limit of each entry of the KL gradient, 0 = none (default: 1)", 3},
    {"lr", KEY_RATE, "R", 0,
     "learning rate after warmup; cosine to 0 (default: 0.1; qat: 0.001). search: by short runs on held-out "
     "calibration "
     "windows",
     3},
    {"objective", KEY_OBJECTIVE, "LIST", 0,
     "what is made small: kl (default), ground-truth, layer, linear, or a weighted sum such as kl:0.5,layer:0.5", 3},
    {"direction", KEY_DIRECTION, "NAME", 0,
     "linear term: closest (towards the original weights, default) or random (uniform in [-1, 1])", 3},
    {"warmup", KEY_WARMUP, "W", 0, "steps of linear warmup (default: an eighth of the steps)", 3},
    {"weight-decay", KEY_DECAY, "D", 0, "of AdamW on x (default: 0)", 3},
    {"finish", KEY_FINISH, "NAME", 0,
     "how x comes to be integral: straight-through (from some step on the rounded network itself is optimized, "
     "default), nearest (x is rounded at the end, as in the paper), freeze (what is nearest to 0 and 1 is set there, "
     "bit by bit, while the rest goes on), anneal (a concave term that grows)",
     3},
    {"finish-from", KEY_FINISH_FROM, "F", 0,
     "share of the steps after which that begins; 1 = never (default: 0.3; anneal 0.5)", 3},
    {"finish-strength", KEY_FINISH_STRENGTH, "S", 0,
     "strength of the linear term from then on, with anneal at the end; before it is 1 (default: 0.2)", 3},
    {"finish-concave", KEY_FINISH_CONCAVE, "MU", 0, "anneal: MU x (1 - x) is added at the end (default: 4)", 3},
    {"keep-x", KEY_KEEP_X, 0, 0,
     "write x as it was when the finish began to OUT/x.safetensors, for discquant-walk round --start", 3},
    {"init", KEY_INIT, "NAME", 0, "x starts random (default) or original (at the original weights)", 3},
    {"recompute", KEY_RECOMPUTE, 0, 0,
     "recompute layers on the way back instead of keeping their activations (default on cuda)", 3},
    {"keep-activations", KEY_KEEP, 0, 0, "keep them (default on cpu)", 3},
    {0, 0, 0, 0, "LoRA adapters on the rounded model, trained on the same batches to its KL divergence:", 6},
    {"lora-rank", KEY_LORA_RANK, "R", 0, "rank; saved as OUT/adapter in PEFT's layout (default: no adapters)", 6},
    {"lora-alpha", KEY_LORA_ALPHA, "A", 0, "adapters count A / R times (default: twice the rank)", 6},
    {"lora-steps", KEY_LORA_STEPS, "N", 0, "steps of AdamW (default: 512)", 6},
    {"lora-lr", KEY_LORA_RATE, "R", 0,
     "learning rate after a warmup of an eighth of the steps; cosine to 0 (default: 0.003)", 6},
    {"lora-targets", KEY_LORA_TARGETS, "LIST", 0,
     "matrices that get one, by the ends of their names: \"q_proj,v_proj\" (default: all that are rounded)", 6},
    {"lora-merge", KEY_LORA_MERGE, 0, 0,
     "write OUT/merged too: the rounded model plus adapters, whose matrices are no longer on the grid", 6},
    {0, 0, 0, 0, "Methods gptq, adaround and signround, which go layer by layer:", 4},
    {"damping", KEY_DAMPING, "D", 0,
     "gptq: share of the mean of the Hessian's diagonal that is added to it; raised tenfold where that does not do "
     "(default: 0.01)",
     4},
    {"column-order", KEY_COLUMN_ORDER, "NAME", 0,
     "gptq: inputs in the order in which they are rounded: activation (the strongest first, default) or natural", 4},
    {"adaround-steps", KEY_SOFT_STEPS, "N", 0, "steps of Adam for each matrix (default: 1000)", 4},
    {"adaround-lr", KEY_SOFT_RATE, "R", 0, "its learning rate (default: 0.01)", 4},
    {"adaround-strength", KEY_SOFT_STRENGTH, "S", 0,
     "of the term that drives weights to their neighbours, relative to the error of round-to-nearest (default: 30)", 4},
    {"signround-steps", KEY_BLOCK_STEPS, "N", 0, "steps for each layer, of --batch-size windows (default: 200)", 4},
    {"signround-lr", KEY_BLOCK_RATE, "R", 0,
     "size of the first step, in steps of the grid; falls linearly to 0 (default: 1 / steps)", 4},
    {0, 0, 0, 0, "Memory:", 5},
    {"precision", KEY_PRECISION, "fp32|bf16", 0, "of weights and activations (default: fp32 on cpu, bf16 on cuda)", 5},
    {"state-precision", KEY_STATE_PRECISION, "fp32|bf16", 0,
     "of x and the moments of AdamW; bf16 is rounded stochastically (default: as --precision)", 5},
    {"plan", KEY_PLAN, 0, 0,
     "print how much memory the run takes, and exit; needs no device, no text, and of the model only config.json", 5},
    {0, 0, 0, 0, "Reports:", 7},
    {"report-every", KEY_REPORT, "N", 0,
     "steps between measurements on the validation windows, 0 = only at the end (default: 64)", 7},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "steps between states that --resume can go on from (default: 64)", 7},
    {"checkpoint-layers", KEY_CHECKPOINT_LAYERS, "N", 0,
     "layers between such states of methods that go layer by layer (default: 4)", 7},
    {0},
};

static void finish_settle(struct optimizer_options *o) {
    const struct finish_defaults *defaults = &finish_defaults[o->finish.kind];
    if (o->finish.kind == FINISH_NEAREST && finish_share >= 0)
        args_fail("--finish-from %g: with --finish nearest there are no such steps", finish_share);
    if (o->finish.kind == FINISH_FREEZE && o->decay > 0)
        args_fail("--weight-decay %g: would move what --finish freeze has frozen", o->decay);
    if (finish_share < 0) finish_share = defaults->share;
    if (o->finish.strength < 0) o->finish.strength = defaults->strength;
    if (o->finish.concave < 0) o->finish.concave = defaults->concave;
    o->finish.from = (int64_t)ceil(finish_share * (double)o->steps);
}

static const char *x_option; // one that is for x alone, given

static void finish_method(struct run_settings *s) {
    struct optimizer_options *o = &s->optimizer;
    o->latent = s->method->latent;
    if (o->latent && x_option) args_fail("%s: the method %s has no x", x_option, s->method->name);
    if (o->latent) o->finish = (struct finish){.kind = FINISH_NEAREST, .from = -1}; // no step is the first of one
    if (o->rate < 0) o->rate = s->method->rate;
    if (s->n_second && s->second_share < 0) s->second_share = 0.5;
    if (!s->n_second && s->second_share >= 0) args_fail("--second-share: give --second-calibration too");
}

static const char *lora_option; // one that says how, given

static void finish_lora(struct lora_settings *lora) {
    if (lora_option && !lora->rank) args_fail("%s: give --lora-rank too", lora_option);
    if (lora->alpha == 0) lora->alpha = 2 * (double)lora->rank;
}

static void finish(struct run_settings *s) {
    if (!s->model) args_fail("--model is missing");
    if (grid_options_complete(&s->grid) != STATUS_OK) args_fail("%s", status_message());
    finish_settle(&s->optimizer);
    finish_method(s);
    if (s->optimizer.warmup < 0) s->optimizer.warmup = s->optimizer.steps / 8;
    finish_lora(&s->lora);
    if (s->plan) return;
    if (!s->validation) args_fail("--validation is missing");
    if (run_calibrates(s) && !s->n_calibration) args_fail("--calibration is missing");
}

static error_t parse_lora(int key, char *arg, struct lora_settings *lora) {
    const int64_t many = INT64_C(1) << 40;
    switch (key) {
    case KEY_LORA_RANK: lora->rank = args_integer("--lora-rank", arg, 1, 1 << 16); return 0;
    case KEY_LORA_ALPHA: lora->alpha = args_number(lora_option = "--lora-alpha", arg, 1e-6, 1e9); return 0;
    case KEY_LORA_STEPS: lora->steps = args_integer(lora_option = "--lora-steps", arg, 1, many); return 0;
    case KEY_LORA_RATE: lora->rate = args_number(lora_option = "--lora-lr", arg, 0, 1e6); return 0;
    case KEY_LORA_TARGETS:
        lora->targets = arg;
        lora_option = "--lora-targets";
        return 0;
    case KEY_LORA_MERGE:
        lora->merge = true;
        lora_option = "--lora-merge";
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_layerwise(struct run_settings *s, int key, const char *arg) {
    switch (key) {
    case KEY_CHECKPOINT_LAYERS: s->checkpoint_layers = args_integer("--checkpoint-layers", arg, 1, 1 << 30); return 0;
    case KEY_DAMPING: s->feedback.damping = args_number("--damping", arg, 0, 1e3); return 0;
    case KEY_COLUMN_ORDER:
        s->feedback.ordered = args_choice("--column-order", arg, "activation|natural") == 0;
        return 0;
    case KEY_BLOCK_STEPS: s->block.steps = args_integer("--signround-steps", arg, 1, INT64_C(1) << 40); return 0;
    case KEY_BLOCK_RATE: s->block.rate = args_number("--signround-lr", arg, 1e-12, 1); return 0;
    case KEY_SOFT_STEPS: s->soft.steps = args_integer("--adaround-steps", arg, 1, INT64_C(1) << 40); return 0;
    case KEY_SOFT_RATE: s->soft.rate = args_number("--adaround-lr", arg, 0, 1e6); return 0;
    case KEY_SOFT_STRENGTH: s->soft.strength = args_number("--adaround-strength", arg, 0, 1e6); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct run_settings *s = state->input;
    struct optimizer_options *o = &s->optimizer;
    const int64_t many = INT64_C(1) << 40;
    switch (key) {
    case 'm': s->model = arg; return 0;
    case KEY_METHOD: s->method = methods[args_choice("--method", arg, method_names)]; return 0;
    case KEY_GRID: s->grid.kind = (enum grid_kind)args_choice("--grid", arg, GRID_NAMES); return 0;
    case KEY_SCALE_SEARCH:
        s->grid.search = (enum scale_search)args_choice("--scale-search", arg, SCALE_SEARCH_NAMES);
        return 0;
    case KEY_BITS: s->grid.bits = (int)args_integer("--bits", arg, 2, 8); return 0;
    case KEY_GROUP_SIZE:
        s->grid.group_size = args_integer("--group-size", arg, -1, many);
        if (s->grid.group_size == 0) args_fail("--group-size 0: give a positive number, or -1 for whole rows");
        return 0;
    case KEY_INCOHERENCE:
        s->incoherence =
            (enum rotation_kind)args_choice("--incoherence", arg, "none|hadamard|hadamard-blocks|hadamard-in");
        return 0;
    case KEY_CALIBRATION:
        if (s->n_calibration == CALIBRATION_FILES_MAX)
            args_fail("--calibration: at most %d files", CALIBRATION_FILES_MAX);
        s->calibration[s->n_calibration++] = arg;
        return 0;
    case KEY_EXPORT:
        if (export_set_parse(arg, &s->exports) != STATUS_OK) args_fail("%s", status_message());
        return 0;
    case KEY_VALIDATION: s->validation = arg; return 0;
    case KEY_SEQ_LEN: o->seq_len = args_integer("--seq-len", arg, 2, 1 << 24); return 0;
    case KEY_SAMPLES: s->samples = args_integer("--samples", arg, 1, many); return 0;
    case KEY_VALIDATION_SAMPLES: s->validation_samples = args_integer("--validation-samples", arg, 0, many); return 0;
    case KEY_STEPS: o->steps = args_integer("--steps", arg, 1, many); return 0;
    case KEY_BATCH: o->batch = args_integer("--batch-size", arg, 1, 1 << 20); return 0;
    case KEY_MICRO_BATCH: o->micro_batch = args_integer("--micro-batch", arg, 1, 1 << 20); return 0;
    case KEY_LAMBDA: o->lambda = args_number(x_option = "--lambda", arg, 0, 1e12); return 0;
    case KEY_CLAMP: o->clamp = args_number(x_option = "--clamp", arg, 0, 1e12); return 0;
    case KEY_RATE:
        s->search = strcmp(arg, "search") == 0;
        if (!s->search) o->rate = args_number("--lr", arg, 0, 1e6);
        return 0;
    case KEY_OBJECTIVE:
        if (objective_parse(arg, &o->objective) != STATUS_OK) args_fail("%s", status_message());
        return 0;
    case KEY_DIRECTION: o->random = args_choice(x_option = "--direction", arg, "closest|random") == 1; return 0;
    case KEY_SECOND:
        if (s->n_second == CALIBRATION_FILES_MAX)
            args_fail("--second-calibration: at most %d files", CALIBRATION_FILES_MAX);
        s->second[s->n_second++] = arg;
        return 0;
    case KEY_SECOND_SHARE: s->second_share = args_number("--second-share", arg, 0, 1); return 0;
    case KEY_WARMUP: o->warmup = args_integer("--warmup", arg, 0, many); return 0;
    case KEY_DECAY: o->decay = args_number("--weight-decay", arg, 0, 1e6); return 0;
    case KEY_FINISH:
        o->finish.kind = (enum finish_kind)args_choice(x_option = "--finish", arg, finish_choice);
        return 0;
    case KEY_FINISH_FROM: finish_share = args_number(x_option = "--finish-from", arg, 0, 1); return 0;
    case KEY_FINISH_STRENGTH: o->finish.strength = args_number(x_option = "--finish-strength", arg, 0, 1e6); return 0;
    case KEY_FINISH_CONCAVE: o->finish.concave = args_number(x_option = "--finish-concave", arg, 0, 1e6); return 0;
    case KEY_KEEP_X:
        s->keep_x = true;
        x_option = "--keep-x";
        return 0;
    case KEY_INIT: s->init = (enum init)args_choice(x_option = "--init", arg, "random|original"); return 0;
    case KEY_RECOMPUTE: activations = ACTIVATIONS_RECOMPUTED; return 0;
    case KEY_KEEP: activations = ACTIVATIONS_KEPT; return 0;
    case KEY_PRECISION: precision = args_choice("--precision", arg, "fp32|bf16"); return 0;
    case KEY_STATE_PRECISION: state_precision = args_choice("--state-precision", arg, "fp32|bf16"); return 0;
    case KEY_PLAN: s->plan = true; return 0;
    case KEY_REPORT: s->report_every = args_integer("--report-every", arg, 0, many); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 1, many); return 0;
    case ARGP_KEY_END: finish(s); return 0;
    default: {
        error_t lora = parse_lora(key, arg, &s->lora);
        return lora == ARGP_ERR_UNKNOWN ? parse_layerwise(s, key, arg) : lora;
    }
    }
}

static enum status run(const struct program_common *common, void *input) {
    struct run_settings *s = input;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    bool on_cpu = strcmp(common->device, "cpu") == 0;
    if (!s->plan && !common->out) args_fail("--out is missing");
    s->precision = dtypes[precision == NOT_GIVEN ? !on_cpu : precision];
    s->state = state_precision == NOT_GIVEN ? s->precision : dtypes[state_precision];
    s->optimizer.recompute = activations == ACTIVATIONS_BY_DEVICE ? !on_cpu : activations == ACTIVATIONS_RECOMPUTED;
    return discquant_run(common, s);
}

const struct command discquant_command = {
    .name = "discquant",
    .doc = "Rounds the weights of a transformer to a quantization grid so that its outputs stay put.\v"
           "The rounded model is saved as a Hugging Face folder in OUT/model, the summary in OUT/result.json.",
    .options = options,
    .parse = parse,
    .common = COMMON_SEED | COMMON_THREADS | COMMON_DEVICE | COMMON_OUT | COMMON_RESUME,
    .without_device = &settings.plan,
    .run = run,
    .settings = &settings,
};
