#include "spectra/taylor.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "spectra/taylor_run.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_LETTERS = 32, SECONDS_BETWEEN_STATES = 60 };

// Two models that were trained apart have a cosine near 0, roundings to two bits one above 0.7.
static const double cosine_least = 0.5;

static struct taylor_settings given = {
    .group_size = -1, .samples = 256, .seq_len = 2048, .order_samples = 32, .halvings = 14};

// ---- the plan ----

static enum status numbers(int64_t n, const char *what, double **out) {
    void *buffer = NULL;
    enum status status = mem_buffer_new(n * (int64_t)sizeof(double), what, &buffer);
    if (status == STATUS_OK) *out = buffer;
    return status;
}

static enum status add_pass(struct taylor_run *run, int64_t direction, double t, int64_t windows, bool tangents) {
    enum status status = STATUS_OK;
    struct taylor_numbers *pass = &run->plan[run->n_plan++];
    *pass = (struct taylor_numbers){.direction = direction, .t = t, .windows = windows};
    TRY(numbers(windows * run->size, "losses of tokens", &pass->losses));
    if (tangents) TRY(numbers(windows * run->size, "derivatives of tokens", &pass->tangents));
done:
    return status;
}

static enum status make_plan(struct taylor_run *run) {
    enum status status = STATUS_OK;
    const struct taylor_settings *s = run->settings;
    run->order_windows = s->order_samples < s->samples ? s->order_samples : s->samples;
    run->per_direction = 2 + 2 * taylor_run_t(s);
    run->plan = mem_new((size_t)(run->directions->n * run->per_direction), sizeof *run->plan);
    for (int64_t d = 0; d < run->directions->n; d++) {
        TRY(add_pass(run, d, 0, s->samples, true));
        TRY(add_pass(run, d, 1, s->samples, false));
        for (int k = 0; k < taylor_run_t(s); k++) {
            TRY(add_pass(run, d, ldexp(1, -k), run->order_windows, false));
            TRY(add_pass(run, d, -ldexp(1, -k), run->order_windows, false));
        }
    }
done:
    return status;
}

// ---- passes, kept for --resume ----

static enum status save(struct taylor_run *run, int64_t pass, int64_t window) {
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "pass", pass);
    checkpoint_add_integer(state, "window", window);
    for (int64_t k = 0; k <= pass && k < run->n_plan; k++) {
        const struct taylor_numbers *p = &run->plan[k];
        int64_t n = (k < pass ? p->windows : window) * run->size;
        char *losses = mem_format("losses_%lld", (long long)k), *tangents = mem_format("tangents_%lld", (long long)k);
        checkpoint_add_doubles(state, losses, p->losses, n);
        if (p->tangents) checkpoint_add_doubles(state, tangents, p->tangents, n);
        free(losses);
        free(tangents);
    }
    enum status status = run_folder_checkpoint_save(run->folder, state);
    checkpoint_free(state);
    run->saved_at = run_folder_seconds(run->folder);
    return status;
}

static enum status restore(struct taylor_run *run, int64_t *pass, int64_t *window) {
    enum status status = STATUS_OK;
    struct checkpoint *state = NULL;
    *pass = *window = 0;
    TRY(run_folder_checkpoint_load(run->folder, &state));
    if (!state) goto done;
    TRY(checkpoint_integer(state, "pass", 0, run->n_plan - 1, pass));
    TRY(checkpoint_integer(state, "window", 0, run->plan[*pass].windows, window));
    for (int64_t k = 0; k <= *pass && status == STATUS_OK; k++) {
        const struct taylor_numbers *p = &run->plan[k];
        int64_t n = (k < *pass ? p->windows : *window) * run->size;
        char *losses = mem_format("losses_%lld", (long long)k), *tangents = mem_format("tangents_%lld", (long long)k);
        status = checkpoint_doubles(state, losses, p->losses, n);
        if (status == STATUS_OK && p->tangents) status = checkpoint_doubles(state, tangents, p->tangents, n);
        free(losses);
        free(tangents);
    }
done:
    checkpoint_free(state);
    return status;
}

static bool time_to_save(const struct taylor_run *run, int64_t batches) {
    int64_t every = run->settings->checkpoint_every;
    if (!run->common->out) return false;
    return every ? batches % every == 0 : run_folder_seconds(run->folder) - run->saved_at > SECONDS_BETWEEN_STATES;
}

static enum status run_plan(struct taylor_run *run) {
    enum status status = STATUS_OK;
    int64_t at, window, total = 0, done_before = 0, batches = 0;
    TRY(restore(run, &at, &window));
    for (int64_t k = 0; k < run->n_plan; k++) total += run->plan[k].windows;
    for (int64_t k = 0; k < at; k++) done_before += run->plan[k].windows;
    int64_t finished = done_before + window;
    struct progress *progress = progress_new("taylor", "window", total, finished);
    for (; at < run->n_plan; at++, window = 0) {
        struct taylor_numbers *pass = &run->plan[at];
        status = taylor_passes_move(run->passes, pass->direction, pass->t);
        taylor_passes_aim(run->passes, pass->tangents ? pass->direction : -1);
        while (status == STATUS_OK && window < pass->windows) {
            int64_t n = pass->windows - window < run->passes->batch ? pass->windows - window : run->passes->batch;
            status = taylor_passes_run(run->passes, window, n, pass->losses + window * run->size,
                                       pass->tangents ? pass->tangents + window * run->size : NULL);
            window += n;
            finished += n;
            progress_update(progress, finished, NULL);
            if (status == STATUS_OK && time_to_save(run, ++batches)) status = save(run, at, window);
        }
        // The next direction starts from the weights themselves.
        if (status == STATUS_OK) status = taylor_passes_move(run->passes, pass->direction, 0);
        if (status != STATUS_OK) break;
    }
    progress_free(progress);
done:
    return status;
}

// ---- input ----

// How far a rounding lies from the weights it moves, and whether it can be one of theirs.
static enum status measure_distance(struct taylor_run *run, int64_t d) {
    enum status status = STATUS_OK;
    struct transformer *model = run->model->transformer;
    double ww = 0, wd = 0, dd = 0;
    void *w = NULL, *along = NULL;
    for (int64_t i = 0; i < model->n_weights; i++) {
        const struct weight *weight = &model->weights[i];
        int64_t n = weight->rows * weight->cols;
        if (!run->passes->moves[d * model->n_weights + i]) continue;
        TRY(mem_buffer_new(n * 4, weight->name, &w));
        TRY(mem_buffer_new(n * 4, weight->name, &along));
        TRY(backend_floats_read(model->backend, weight->stored, w));
        TRY(backend_floats_read(model->backend, view_rows(run->directions->views[i], d, 1), along));
        for (int64_t e = 0; e < n; e++) {
            double a = (double)((const float *)w)[e], b = (double)((const float *)along)[e];
            ww += a * a;
            wd += a * b;
            dd += b * b;
        }
        mem_buffer_free(w);
        mem_buffer_free(along);
        w = along = NULL;
    }
    double cosine = (ww + wd) / sqrt(ww * (ww + 2 * wd + dd));
    if (!(cosine >= cosine_least))
        TRY(status_set(STATUS_INVALID,
                       "%s: is no rounding of %s: their weights have a cosine of %.3f, are they different models?",
                       run->directions->names[d], run->settings->model, cosine));
    taylor_put(run, "distance", run->directions->names[d], sqrt(dd));
    taylor_put(run, "distance_share", run->directions->names[d], sqrt(dd / ww));
    taylor_put(run, "cosine", run->directions->names[d], cosine);
done:
    mem_buffer_free(w);
    mem_buffer_free(along);
    return status;
}

static enum status open_input(struct taylor_run *run) {
    enum status status = STATUS_OK;
    const struct taylor_settings *s = run->settings;
    void *tokens = NULL;
    TRY(model_open(s->model, run->common->device, DTYPE_F32, NULL, &run->model));
    TRY(transformer_prepare(run->model->transformer, s->seq_len));
    TRY(corpus_read(run->model->tokenizer, s->corpus, s->n_corpus, model_folder_config(run->model->folder)->vocab,
                    &run->corpus));
    TRY(mem_buffer_new(s->samples * s->seq_len * (int64_t)sizeof *run->tokens, "tokens", &tokens));
    run->tokens = tokens;
    TRY(corpus_draw(run->corpus, s->seq_len, run->common->seed, 0, s->samples, run->tokens));
    run->groups = groups_new(run->model->transformer, PARAMETERS_ALL, NULL, false);
    TRY(directions_new(run->model, run->groups, &run->directions));
    if (s->bits || !s->n_quantized) TRY(directions_add_nearest(run->directions, s->bits ? s->bits : 4, s->group_size));
    for (int i = 0; i < s->n_quantized; i++)
        TRY(directions_add_folder(run->directions, s->quantized[i].name, s->quantized[i].path));
    TRY(taylor_passes_new(run->model, run->directions, run->tokens, s->samples, s->seq_len, s->batch, &run->passes));
    for (int64_t d = 0; d < run->directions->n; d++) TRY(measure_distance(run, d));
done:
    return status;
}

static void close_run(struct taylor_run *run) {
    for (int64_t k = 0; k < run->n_plan; k++) {
        mem_buffer_free(run->plan[k].losses);
        mem_buffer_free(run->plan[k].tangents);
    }
    free(run->plan);
    taylor_passes_free(run->passes);
    directions_free(run->directions);
    groups_free(run->groups);
    corpus_free(run->corpus);
    mem_buffer_free(run->tokens);
    model_free(run->model);
    run_folder_free(run->folder);
}

static enum status work(struct taylor_run *run) {
    enum status status = STATUS_OK;
    TRY(open_input(run));
    run->size = run->settings->seq_len - 1;
    TRY(make_plan(run));
    TRY(run_plan(run));
    TRY(taylor_judge(run));
done:
    return status;
}

// All that decides the result, so that --resume refuses anything else.
static enum status describe(const struct program_common *common, const struct taylor_settings *s,
                            struct record *record) {
    enum status status = STATUS_OK;
    record_integer(record, "bits", s->bits);
    record_integer(record, "group_size", s->group_size);
    record_integer(record, "samples", s->samples);
    record_integer(record, "seq_len", s->seq_len);
    record_integer(record, "batch", s->batch);
    record_integer(record, "order_samples", s->order_samples);
    record_integer(record, "halvings", s->halvings);
    record_integer(record, "seed", (int64_t)common->seed);
    TRY(record_digests(record, "corpus", s->corpus, s->n_corpus));
    for (int i = 0; i < s->n_quantized && status == STATUS_OK; i++) {
        char *key = mem_format("quantized_%s", s->quantized[i].name);
        status = record_digest(record, key, s->quantized[i].path);
        free(key);
    }
    TRY(status);
    TRY(record_digest(record, "model", s->model));
done:
    return status;
}

static enum status run_taylor(const struct program_common *common, void *input) {
    enum status status = STATUS_OK;
    struct taylor_run run = {.common = common, .settings = input};
    struct record *about = record_new();
    TRY(describe(common, input, about));
    TRY(program_run_folder(common, about, &run.folder));
    if (run_folder_is_done(run.folder)) goto done;
    status = run_folder_finish(run.folder, work(&run));
done:
    close_run(&run);
    record_free(about);
    return status;
}

// ---- the command ----

enum {
    KEY_CORPUS = 0x100,
    KEY_QUANTIZED,
    KEY_BITS,
    KEY_GROUP_SIZE,
    KEY_SAMPLES,
    KEY_SEQ_LEN,
    KEY_BATCH,
    KEY_ORDER_SAMPLES,
    KEY_HALVINGS,
    KEY_CHECKPOINT,
};

static const struct argp_option options[] = {
    {0, 0, 0, 0, "Input:", 1},
    {"model", 'm', "DIR", 0, "Hugging Face model folder: w", 1},
    {"quantized", KEY_QUANTIZED, "NAME=DIR", 0,
     "a rounding w_hat of it, any change of its weights; NAME of letters, digits and _ goes into file names and keys; "
     "up "
     "to 8 times",
     1},
    {"corpus", KEY_CORPUS, "FILE", 0, "text, or JSON lines with \"text\"; several times: one after another", 1},
    {0, 0, 0, 0, "Rounding to nearest, called rtn; without --quantized or where --bits is given:", 2},
    {"bits", KEY_BITS, "B", 0, "bits per weight, 2 to 8 (default: 4)", 2},
    {"group-size", KEY_GROUP_SIZE, "G", 0, "inputs that share one 16-bit scale; -1 = the whole row (default)", 2},
    {0, 0, 0, 0, "Measurement:", 3},
    {"samples", KEY_SAMPLES, "N", 0, "windows of text (default: 256)", 3},
    {"seq-len", KEY_SEQ_LEN, "T", 0, "tokens per window (default: 2048)", 3},
    {"batch-size", KEY_BATCH, "B", 0, "windows per pass; 0 = as many as make 2048 tokens, on a GPU 16384 (default)", 3},
    {"order-samples", KEY_ORDER_SAMPLES, "N", 0,
     "windows for the order of the remainder; 0 = do not measure it (default: 32)", 3},
    {"halvings", KEY_HALVINGS, "K", 0, "steps t = 1, 1/2, 1/4 … 2^-K of the way to w_hat, 2 to 31 (default: 14)", 3},
    {"checkpoint-every", KEY_CHECKPOINT, "N", 0, "passes between states for --resume; 0 = every minute (default)", 3},
    {0},
};

static void add_quantized(struct taylor_settings *s, const char *arg) {
    const char *path = strchr(arg, '=');
    if (!path || path == arg || !path[1]) args_fail("--quantized %s: want NAME=DIR", arg);
    if (s->n_quantized == TAYLOR_QUANTIZED_MAX) args_fail("--quantized: at most %d folders", TAYLOR_QUANTIZED_MAX);
    if (path - arg > NAME_LETTERS) args_fail("--quantized %s: a name has at most %d letters", arg, NAME_LETTERS);
    char *name = mem_format("%.*s", (int)(path - arg), arg);
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            args_fail("--quantized %s: a name has letters, digits and _ only", arg);
    if (strcmp(name, "rtn") == 0) args_fail("--quantized %s: rtn is made by --bits", arg);
    for (int i = 0; i < s->n_quantized; i++)
        if (strcmp(name, s->quantized[i].name) == 0) args_fail("--quantized %s: the name is taken", arg);
    s->quantized[s->n_quantized++] = (struct quantized){.name = name, .path = path + 1};
}

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct taylor_settings *s = state->input;
    switch (key) {
    case 'm': s->model = arg; return 0;
    case KEY_QUANTIZED: add_quantized(s, arg); return 0;
    case KEY_CORPUS:
        if (s->n_corpus == TAYLOR_FILES_MAX) args_fail("--corpus: at most %d files", TAYLOR_FILES_MAX);
        s->corpus[s->n_corpus++] = arg;
        return 0;
    case KEY_BITS: s->bits = (int)args_integer("--bits", arg, 2, 8); return 0;
    case KEY_GROUP_SIZE:
        s->group_size = args_integer("--group-size", arg, -1, 1 << 24);
        if (!s->group_size) args_fail("--group-size 0: give a positive number, or -1 for whole rows");
        return 0;
    case KEY_SAMPLES: s->samples = args_integer("--samples", arg, 2, 1 << 24); return 0;
    case KEY_SEQ_LEN: s->seq_len = args_integer("--seq-len", arg, 2, 1 << 24); return 0;
    case KEY_BATCH: s->batch = args_integer("--batch-size", arg, 0, 1 << 20); return 0;
    case KEY_ORDER_SAMPLES: s->order_samples = args_integer("--order-samples", arg, 0, 1 << 24); return 0;
    case KEY_HALVINGS: s->halvings = (int)args_integer("--halvings", arg, 2, TAYLOR_MOST - 1); return 0;
    case KEY_CHECKPOINT: s->checkpoint_every = args_integer("--checkpoint-every", arg, 0, INT64_C(1) << 40); return 0;
    case ARGP_KEY_END:
        if (!s->model) args_fail("--model is missing");
        if (!s->n_corpus) args_fail("--corpus is missing");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

const struct command taylor_command = {
    .name = "taylor",
    .doc =
        "Compares what a rounding does to the loss of every token with its first order.\v"
        "The paper's Figure 2. Losses are cross entropies of the next token in nats; the first order, <gradient, "
        "w_hat - w>, comes for all tokens from one forward-mode pass. result.json holds correlation, slopes and sign "
        "agreement with intervals, and the order at which the remainder falls when only a part t of the way is gone.",
    .options = options,
    .parse = parse,
    .common = COMMON_ALL,
    .run = run_taylor,
    .settings = &given,
};
