#include "walk/round.h"

#include "core/base/mem.h"
#include "core/base/progress.h"
#include "core/nn/evaluate.h"
#include "data/corpus.h"
#include "data/model.h"
#include "data/point.h"
#include "theory/error_law.h"
#include "walk/bootstrap.h"
#include "walk/network.h"
#include "walk/shift.h"
#include "walk/synthetic.h"
#include "walk/vertex.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FRESH_MOST = 256, CHUNK = 8, SLICE = 1 << 20 };

struct run {
    const struct program_common *common;
    const struct round_settings *settings;
    struct run_folder *folder;
    struct model *model;
    struct corpus *calibration, *validation;
    struct grid grid;
    struct point *point; // settings->start's
    struct network *network;
    struct network_matrix *matrix;
    struct frame *frame;
    int64_t m, fresh, validation_windows;
    int32_t *tokens, *fresh_tokens;                    // [m, seq_len], [fresh, seq_len]
    double *offsets, *fresh_offsets;                   // [m], [fresh] of clipped weights
    double *fresh_losses;                              // [fresh] of the original network
    double *products, *losses;                         // [fresh] scratch
    double *start, *x, *before;                        // [n]; before: the walk's point before its final phase
    double *weights_y;                                 // [n] y of the weights where network->y is another start
    int64_t free;                                      // coordinates of network->y that are neither 0 nor 1
    double clip_rms, clip_left, clip_residual, shift2; // of the start
    double energy, energy_total;                       // mean |P g|^2, |g|^2 over the fresh windows
    double perplexity_original;
    struct walk_result walk;
    int64_t planned_bytes;
};

static enum status buffer(int64_t n, int64_t size, const char *what, void *out) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(n, size, &bytes))
        return status_set(STATUS_NO_MEMORY, "%s: %lld numbers fit nowhere", what, (long long)n);
    void *pointer = NULL;
    enum status status = mem_buffer_new(bytes, what, &pointer);
    if (status == STATUS_OK) memcpy(out, &pointer, sizeof pointer);
    return status;
}

// ---- input ----

static enum status open_texts(struct run *run) {
    enum status status = STATUS_OK;
    const struct round_settings *s = run->settings;
    int64_t vocab = model_folder_config(run->model->folder)->vocab, windows = 0;
    TRY(transformer_prepare(run->model->transformer, s->seq_len));
    TRY(corpus_read(run->model->tokenizer, s->calibration, s->n_calibration, vocab, &run->calibration));
    TRY(corpus_windows(run->calibration, s->seq_len, &windows));
    run->m = s->samples;
    run->fresh = s->fresh_samples;
    if (!run->fresh) run->fresh = windows - run->m < FRESH_MOST ? windows - run->m : FRESH_MOST;
    if (run->fresh < 1 || run->m > windows - run->fresh)
        return status_set(
            STATUS_INVALID,
            "%s holds %lld windows of %lld tokens, %lld samples and as many fresh windows as asked for need "
            "more: take fewer --samples or --fresh-samples, or a shorter --seq-len",
            run->calibration->name, (long long)windows, (long long)s->seq_len, (long long)run->m);
    TRY(corpus_read(run->model->tokenizer, &s->validation, 1, vocab, &run->validation));
    TRY(corpus_windows(run->validation, s->seq_len, &run->validation_windows));
    if (s->validation_samples && s->validation_samples < run->validation_windows)
        run->validation_windows = s->validation_samples;
done:
    return status;
}

static enum status draw(struct run *run) {
    enum status status = STATUS_OK;
    const struct round_settings *s = run->settings;
    TRY(buffer(run->m * s->seq_len, 4, "tokens", &run->tokens));
    TRY(buffer(run->fresh * s->seq_len, 4, "tokens", &run->fresh_tokens));
    TRY(buffer(run->m, 8, "offsets", &run->offsets));
    TRY(buffer(run->fresh, 8, "offsets", &run->fresh_offsets));
    TRY(buffer(run->fresh, 8, "losses", &run->fresh_losses));
    TRY(buffer(run->fresh, 8, "products", &run->products));
    TRY(buffer(run->fresh, 8, "losses", &run->losses));
    TRY(buffer(run->network->n, 8, "a point", &run->start));
    TRY(buffer(run->network->n, 8, "a point", &run->x));
    TRY(buffer(run->network->n, 8, "a point", &run->before));
    TRY(buffer(run->network->n, 8, "a point", &run->weights_y));
    TRY(network_draw(run->calibration, s->seq_len, run->common->seed, 0, run->m, run->tokens));
    TRY(network_draw(run->calibration, s->seq_len, run->common->seed, run->m, run->fresh, run->fresh_tokens));
done:
    return status;
}

// ---- the instance ----

static double rms(const double *values, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += values[i] * values[i];
    return sqrt(sum / (double)n);
}

static bool is_free(const struct run *run, int64_t i) {
    return run->network->y[i] > 0 && run->network->y[i] < 1 && run->network->s[i] > 0;
}

static void clear_rounded(const struct run *run, int64_t stride, double *rows) {
    for (int64_t i = 0; i < run->network->n; i++)
        if (!is_free(run, i)) memset(rows + i * stride, 0, (size_t)stride * sizeof *rows);
}

// Where rounding departs from, and how much of it is left to round.
static enum status find_start(struct run *run) {
    enum status status = STATUS_OK;
    struct network *network = run->network;
    memcpy(run->weights_y, network->y, (size_t)network->n * sizeof *network->y);
    if (run->point) {
        TRY(point_read(run->point, network->rounding, run->x));
        network_start(network, run->x);
    }
    for (int64_t i = 0; i < network->n; i++) run->free += is_free(run, i);
done:
    return status;
}

// M, its frame, and the start of the walk.
static enum status make_instance(struct run *run) {
    enum status status = STATUS_OK;
    struct network *network = run->network;
    void *work = NULL;
    int64_t stride = frame_stride(run->m), n = network->n;
    // The frame, the walk's state, its saved copy and eight fresh gradients: about 40 numbers per coordinate.
    struct network_matrix_options options = {.stride = stride, .path = run->settings->matrix, .scratch = true};
    run->planned_bytes = mem_resident_peak() + 10 * run->m * run->m * 8 + 40 * n * 8;
    if (!options.path) run->planned_bytes += n * stride * 8;
    progress_say("%lld coordinates, %lld samples: M takes %.1f MB%s%s", (long long)n, (long long)run->m,
                 (double)(n * stride * 8) / 1e6, options.path ? " of the disk at " : "",
                 options.path ? options.path : "");
    TRY(network_matrix_new(network, run->tokens, run->m, &options, &run->matrix));
    clear_rounded(run, stride, run->matrix->values);
    TRY(network_clip_offsets(network, run->tokens, run->m, run->offsets));
    TRY(network_clip_offsets(network, run->fresh_tokens, run->fresh, run->fresh_offsets));
    memcpy(run->start, network->y, (size_t)n * sizeof *run->start);
    run->clip_rms = rms(run->fresh_offsets, run->fresh);
    bool shifted = !run->point && !run->settings->leave_clipping && walk_engine_keeps(run->settings->walker.engine);
    if (shifted) TRY(shift_new(run->matrix->values, n, run->m, stride, run->offsets, run->start, &run->clip_left));
    struct backend *backend = run->model->backend;
    struct frame_options there = {.backend = backend->fns->host_memory ? NULL : backend};
    TRY(frame_new(run->matrix->values, n, run->m, &there, &run->frame));
    if (!shifted) goto done;
    TRY(buffer(2 * n, 8, "a point", &work));
    TRY(shift_into_box(run->frame, run->start, work, &run->clip_residual));
    for (int64_t i = 0; i < n; i++) run->shift2 += (run->start[i] - network->y[i]) * (run->start[i] - network->y[i]);
done:
    mem_buffer_free(work);
    return status;
}

// Mean |g|^2 and |P g|^2 = |g|^2 - |Q g|^2 over the fresh windows.
static enum status measure_energy(struct run *run) {
    enum status status = STATUS_OK;
    const struct frame *frame = run->frame;
    int64_t n = frame->n, seq_len = run->settings->seq_len;
    void *rows = NULL, *inside = NULL;
    double total = 0, kept = 0;
    TRY(buffer(n * CHUNK, 8, "gradients", &rows));
    TRY(buffer(frame->stride * CHUNK, 8, "gradients", &inside));
    for (int64_t first = 0; first < run->fresh; first += CHUNK) {
        int64_t count = run->fresh - first < CHUNK ? run->fresh - first : CHUNK;
        const double *g = rows, *q = inside;
        TRY(network_rows(run->network, run->fresh_tokens + first * seq_len, count, CHUNK, rows));
        clear_rounded(run, CHUNK, rows);
        for (int64_t i = 0; i < n; i += SLICE)
            cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)frame->width, (int)count,
                        (int)(n - i < SLICE ? n - i : SLICE), 1, frame->q + i * frame->stride, (int)frame->stride,
                        g + i * CHUNK, CHUNK, i ? 1 : 0, inside, CHUNK);
        for (int64_t i = 0; i < n; i++)
            for (int64_t k = 0; k < count; k++) total += g[i * CHUNK + k] * g[i * CHUNK + k];
        for (int64_t i = 0; i < frame->width; i++)
            for (int64_t k = 0; k < count; k++) kept += q[i * CHUNK + k] * q[i * CHUNK + k];
    }
    run->energy_total = total / (double)run->fresh;
    run->energy = (total - kept) / (double)run->fresh;
done:
    mem_buffer_free(rows);
    mem_buffer_free(inside);
    return status;
}

// Of the network that gradients are taken at.
static enum status original_losses(struct run *run) {
    if (run->point)
        return network_losses(run->network, run->fresh_tokens, run->fresh, run->network->y, run->fresh_losses);
    struct evaluation *e = NULL;
    struct evaluate_options options = {.form = WEIGHT_STORED, .batch = run->settings->batch};
    enum status status = evaluate(run->model->transformer, run->model->step, run->fresh_tokens, run->fresh,
                                  run->settings->seq_len, &options, &e);
    if (status == STATUS_OK) memcpy(run->fresh_losses, e->loss, (size_t)run->fresh * sizeof *e->loss);
    evaluation_free(e);
    return status;
}

// ---- the walk ----

static enum status save_walk(void *context, const void *bytes, int64_t n_bytes) {
    struct run *run = context;
    struct checkpoint *state = checkpoint_new();
    checkpoint_add_integer(state, "bytes", n_bytes);
    checkpoint_add_bytes(state, "walk", bytes, n_bytes);
    enum status status = run_folder_checkpoint_save(run->folder, state);
    checkpoint_free(state);
    return status;
}

static enum status walk(struct run *run) {
    enum status status = STATUS_OK;
    const struct walker *walker = &run->settings->walker;
    struct checkpoint *state = NULL;
    void *bytes = NULL;
    struct walk_options options = {
        .engine = walker->engine,
        .finish = walker->finish,
        .step_size = walker->step_size,
        .seed = run->common->seed,
        .checkpoint = {.every = run->settings->checkpoint_every, .save = save_walk, .context = run}};
    TRY(run_folder_checkpoint_load(run->folder, &state));
    if (state) {
        int64_t n_bytes = 0;
        TRY(checkpoint_integer(state, "bytes", 0, INT64_MAX, &n_bytes));
        TRY(buffer(n_bytes, 1, "the walk", &bytes));
        TRY(checkpoint_bytes(state, "walk", bytes, n_bytes));
        options.checkpoint.resume = bytes;
        options.checkpoint.resume_bytes = n_bytes;
    }
    TRY(walk_round(run->frame, run->start, &options, run->x, run->before, &run->walk));
done:
    checkpoint_free(state);
    mem_buffer_free(bytes);
    return status;
}

// ---- measuring ----

static void put(struct record *line, struct record *result, const char *name, const char *suffix, double value) {
    char *key = mem_format("%s%s", name, suffix);
    record_number(line, name, value);
    record_number(result, key, value);
    free(key);
}

struct figures {
    double qe, kl, perplexity;
};

static enum status measure_gradients(struct run *run, const char *suffix, bool constrained, struct record *line,
                                     struct figures *out) {
    enum status status = STATUS_OK;
    struct record *result = run_folder_result(run->folder);
    struct network *network = run->network;
    void *d_buffer = NULL, *sample_products = NULL;
    double distance2 = 0, change = 0, change2 = 0, sampled2 = 0;
    TRY(buffer(network->n, 8, "a direction", &d_buffer));
    TRY(buffer(run->m, 8, "products", &sample_products));
    double *d = d_buffer, *sampled = sample_products;
    for (int64_t i = 0; i < network->n; i++) {
        d[i] = network->s[i] > 0 ? run->x[i] - network->y[i] : 0;
        distance2 += d[i] * d[i];
    }
    TRY(network_inner(network, run->tokens, run->m, d, sampled));
    TRY(network_inner(network, run->fresh_tokens, run->fresh, d, run->products));
    TRY(network_losses(network, run->fresh_tokens, run->fresh, run->x, run->losses));
    for (int64_t k = 0; k < run->m; k++) sampled2 += pow(sampled[k] + run->offsets[k], 2) / (double)run->m;
    for (int64_t k = 0; k < run->fresh; k++) {
        double difference = run->losses[k] - run->fresh_losses[k];
        run->products[k] = pow(run->products[k] + run->fresh_offsets[k], 2);
        change += difference / (double)run->fresh;
        change2 += difference * difference / (double)run->fresh;
    }
    struct nest nest = {.levels = 1, .counts = {run->fresh}, .values = run->products, .stride = 1};
    struct interval qe = bootstrap_mean(&nest, run->common->seed);
    int64_t rank = constrained ? run->frame->rank : 0;
    put(line, result, "distance2", suffix, distance2);
    put(line, result, "qe_calibration", suffix, sampled2);
    put(line, result, "qe", suffix, qe.mean);
    put(line, result, "qe_ci_low", suffix, qe.low);
    put(line, result, "qe_ci_high", suffix, qe.high);
    put(line, result, "rms_product", suffix, sqrt(qe.mean));
    if (rank < run->free)
        put(line, result, "qe_predicted", suffix,
            error_law_predict(distance2, run->free, rank, rank ? run->energy : run->energy_total));
    put(line, result, "loss_change", suffix, change);
    put(line, result, "loss_change_rms", suffix, sqrt(change2));
    out->qe = qe.mean;
done:
    mem_buffer_free(d_buffer);
    mem_buffer_free(sample_products);
    return status;
}

static enum status measure_network(struct run *run, enum weight_form form, const char *suffix, struct record *line,
                                   struct figures *out) {
    enum status status = STATUS_OK;
    struct record *result = run_folder_result(run->folder);
    struct transformer *model = run->model->transformer;
    struct evaluation *e = NULL;
    struct evaluate_options options = {
        .form = form, .reference = model, .reference_form = WEIGHT_STORED, .batch = run->settings->batch};
    int64_t seq_len = run->settings->seq_len;
    double se = 0;
    TRY(network_set(run->network, run->x));
    TRY(evaluate(model, run->model->step, corpus_window(run->validation, seq_len, 0), run->validation_windows, seq_len,
                 &options, &e));
    out->kl = evaluation_mean(e, e->kl, &se);
    out->perplexity = exp(evaluation_mean(e, e->loss, NULL));
    run->perplexity_original = exp(evaluation_mean(e, e->reference_loss, NULL));
    put(line, result, "kl", suffix, out->kl);
    put(line, result, "kl_se", suffix, se);
    put(line, result, "perplexity", suffix, out->perplexity);
    put(line, result, "top1_agreement", suffix, evaluation_mean(e, e->agreement, NULL));
done:
    evaluation_free(e);
    return status;
}

// The figures of run->x. `before` and `walk` are the walk's, which may keep M x.
static enum status measure(struct run *run, const char *name, const char *suffix) {
    enum status status = STATUS_OK;
    struct record *line = record_new();
    struct figures figures;
    record_string(line, "rounding", name);
    bool walked = strcmp(name, "before") == 0 || strcmp(name, "walk") == 0;
    bool constrained = strcmp(name, "closest") == 0 || (walked && walker_is_constrained(&run->settings->walker));
    TRY(measure_gradients(run, suffix, constrained, line, &figures));
    bool fractional = strcmp(name, "before") == 0 || strcmp(name, "start") == 0;
    TRY(measure_network(run, fractional ? WEIGHT_INTERPOLATED : run->network->rounding->form, suffix, line, &figures));
    TRY(run_folder_log(run->folder, line));
    progress_say("%-9s  rms product on fresh windows %.4g, KL %.4g, perplexity %.4g (original %.4g)", name,
                 sqrt(figures.qe), figures.kl, figures.perplexity, run->perplexity_original);
done:
    record_free(line);
    return status;
}

static enum status compare(struct run *run, const char *engine, const char *name, const char *suffix) {
    enum status status = STATUS_OK;
    struct walk_result ignored;
    struct walk_options options = {.engine = engine, .seed = run->common->seed, .walk = 1};
    TRY(walk_round(run->frame, run->network->y, &options, run->x, NULL, &ignored));
    TRY(measure(run, name, suffix));
done:
    return status;
}

// The start itself, its rounding and that of the weights.
static enum status compare_nearest(struct run *run) {
    enum status status = STATUS_OK;
    int64_t n = run->network->n;
    if (run->point) {
        memcpy(run->x, run->network->y, (size_t)n * sizeof *run->x);
        TRY(measure(run, "start", "_start"));
        TRY(compare(run, "nearest", "nearest", "_nearest"));
    }
    for (int64_t i = 0; i < n; i++) run->x[i] = run->weights_y[i] > 0.5 ? 1 : 0;
    TRY(measure(run, "rtn", "_rtn"));
done:
    return status;
}

// The vertex of {x: M x = M start} closest to the weights, DiscQuant's objective 1 - 2y; its last coordinates to nearest.
static enum status compare_closest(struct run *run) {
    enum status status = STATUS_OK;
    int64_t n = run->network->n;
    struct vertex_result vertex;
    double *c = NULL;
    TRY(buffer(n, 8, "an objective", &c));
    vertex_closest_cost(run->network->y, n, c);
    TRY(vertex_minimise(run->frame, run->start, c, run->x, &vertex));
    for (int64_t i = 0; i < n; i++) run->x[i] = run->x[i] > 0.5 ? 1 : 0;
    TRY(measure(run, "closest", "_closest"));
done:
    mem_buffer_free(c);
    return status;
}

// The walk's point before its final phase; run->x stays.
static enum status measure_before(struct run *run) {
    double *x = run->x;
    run->x = run->before;
    enum status status = measure(run, "before", "_before");
    run->x = x;
    return status;
}

static enum status compare_folder(struct run *run, const struct compared *compared) {
    enum status status = STATUS_OK;
    struct model_folder *folder = NULL;
    char *suffix = mem_format("_%s", compared->name);
    TRY(model_folder_open(compared->path, &folder));
    TRY(rotation_same(run->model->folder, folder));
    TRY(network_get(run->network, model_folder_source(folder), run->x));
    TRY(measure(run, compared->name, suffix));
done:
    model_folder_free(folder);
    free(suffix);
    return status;
}

// ---- the run ----

static void summarize(struct run *run) {
    const struct round_settings *s = run->settings;
    const struct walk_result *w = &run->walk;
    const struct frame *frame = run->frame;
    struct record *result = run_folder_result(run->folder);
    record_string(result, "engine", w->engine);
    record_string(result, "final", finish_names[s->walker.finish]);
    record_grid(result, &(struct grid_options){run->grid.kind, run->grid.bits, run->grid.group_size, run->grid.search});
    record_number(result, "bits_per_weight", run->network->rounding->bits_per_weight);
    record_integer(result, "n", run->network->n);
    record_integer(result, "weights_fixed", run->network->frozen);
    record_integer(result, "weights_free", run->free);
    record_integer(result, "m", run->m);
    record_integer(result, "rank", frame->rank);
    record_number(result, "singular_first", frame->singular[0]);
    record_number(result, "singular_last", frame->rank ? frame->singular[frame->rank - 1] : 0);
    record_integer(result, "fresh_windows", run->fresh);
    record_integer(result, "validation_windows", run->validation_windows);
    record_integer(result, "steps", w->steps);
    record_number(result, "matrix_reads", w->reads);
    record_integer(result, "fractional_walk", w->fractional_walk);
    record_integer(result, "fractional", w->fractional);
    record_number(result, "residual_max", w->residual_walk);
    record_number(result, "residual_end", w->residual);
    record_integer(result, "repairs", w->repairs);
    record_number(result, "clip_rms", run->clip_rms);
    record_bool(result, "clip_cancelled", !run->point && !s->leave_clipping && walk_engine_keeps(w->engine));
    record_number(result, "clip_left", run->clip_left);
    record_number(result, "clip_residual", run->clip_residual);
    record_number(result, "shift2", run->shift2);
    record_number(result, "energy", run->energy);
    record_number(result, "energy_total", run->energy_total);
    record_number(result, "perplexity_original", run->perplexity_original);
    record_number(result, "seconds_walk", w->seconds_walk + w->seconds_finish);
    record_number(result, "seconds", run_folder_seconds(run->folder));
    record_integer(result, "planned_bytes", run->planned_bytes);
    record_integer(result, "peak_memory_bytes", mem_resident_peak());
}

static enum status check_size(const struct run *run) {
    struct problem problem = {.n = run->free, .m = run->m};
    const char *refusal = synthetic_refusal(&problem, &run->settings->walker);
    if (!refusal) return STATUS_OK;
    return status_set(STATUS_INVALID, "%lld samples for %lld weights that are free: %s", (long long)run->m,
                      (long long)problem.n, refusal);
}

static enum status open_point(struct run *run) {
    enum status status = STATUS_OK;
    char *path = mem_format("%s/%s", run->settings->start, POINT_FILE);
    TRY(point_open(path, &run->point));
    TRY(point_grid(run->point, &run->grid));
done:
    free(path);
    return status;
}

static enum status save_model(struct run *run) {
    enum status status = STATUS_OK;
    char *path = run_folder_file(run->folder, "model"), *codes = run_folder_file(run->folder, "codes.safetensors");
    TRY(model_save_rounded(run->model, run->network->rounding, path));
    TRY(model_save_codes(run->network->rounding, codes));
done:
    free(path);
    free(codes);
    return status;
}

static enum status work(struct run *run) {
    enum status status = STATUS_OK;
    const struct round_settings *s = run->settings;
    struct network_options options = {.seq_len = s->seq_len, .batch = s->batch, .recompute = s->recompute};
    TRY(model_open(s->model, run->common->device, DTYPE_F32, NULL, &run->model));
    TRY(open_texts(run));
    TRY(s->start ? open_point(run) : grid_new(&s->grid, &run->grid));
    TRY(network_new(run->model->transformer, run->model->step, &run->grid, &options, &run->network));
    TRY(draw(run));
    TRY(find_start(run));
    TRY(check_size(run));
    TRY(make_instance(run));
    TRY(walk(run));
    TRY(measure_energy(run));
    TRY(original_losses(run));
    TRY(measure_before(run));
    TRY(measure(run, "walk", ""));
    TRY(save_model(run));
    TRY(compare_nearest(run));
    TRY(compare(run, "independent", "random", "_random"));
    TRY(compare_closest(run));
    for (int i = 0; i < s->n_compared; i++) TRY(compare_folder(run, &s->compared[i]));
    summarize(run);
done:
    return status;
}

// All that decides the result, so that --resume refuses anything else.
static enum status describe(const struct program_common *common, const struct round_settings *s,
                            struct record *record) {
    enum status status = STATUS_OK;
    record_string(record, "engine", s->walker.engine);
    record_string(record, "final", finish_names[s->walker.finish]);
    record_number(record, "step_size", s->walker.step_size);
    if (s->start) {
        char *path = mem_format("%s/%s", s->start, POINT_FILE);
        status = record_digest(record, "start", path);
        free(path);
        TRY(status);
    } else {
        record_grid(record, &s->grid);
    }
    record_integer(record, "seed", (int64_t)common->seed);
    record_integer(record, "seq_len", s->seq_len);
    record_integer(record, "batch", s->batch);
    record_integer(record, "samples", s->samples);
    record_integer(record, "fresh_samples", s->fresh_samples);
    record_integer(record, "validation_samples", s->validation_samples);
    record_bool(record, "leave_clipping", s->leave_clipping);
    TRY(record_digests(record, "calibration", s->calibration, s->n_calibration));
    for (int i = 0; i < s->n_compared && status == STATUS_OK; i++) {
        char *key = mem_format("compare_%s", s->compared[i].name);
        status = record_digest(record, key, s->compared[i].path);
        free(key);
    }
    TRY(status);
    TRY(record_digest(record, "model", s->model));
    TRY(record_digest(record, "validation", s->validation));
done:
    return status;
}

enum status round_run(const struct program_common *common, const struct round_settings *settings) {
    enum status status = STATUS_OK;
    struct run run = {.common = common, .settings = settings};
    struct record *about = record_new();
    TRY(describe(common, settings, about));
    TRY(program_run_folder(common, about, &run.folder));
    if (run_folder_is_done(run.folder)) goto done;
    status = run_folder_finish(run.folder, work(&run));
done:
    frame_free(run.frame);
    network_matrix_free(run.matrix);
    network_free(run.network);
    corpus_free(run.calibration);
    corpus_free(run.validation);
    point_free(run.point);
    run_folder_free(run.folder);
    model_free(run.model);
    mem_buffer_free(run.tokens);
    mem_buffer_free(run.fresh_tokens);
    double *const points[] = {run.offsets, run.fresh_offsets, run.fresh_losses, run.products, run.losses, run.start,
                              run.x,       run.before,        run.weights_y};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) mem_buffer_free(points[i]);
    record_free(about);
    return status;
}
