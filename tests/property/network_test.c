// A network as rows of M: against backward passes of single windows, neighbours taken by hand, networks whose weights are
// set by hand, and differences of losses.
#include "tests/check.h"
#include "tests/files.h"
#include "tests/small_networks.h"

#include "core/base/mem.h"
#include "core/base/rng.h"
#include "core/base/threads.h"
#include "core/nn/evaluate.h"
#include "core/nn/random_source.h"
#include "core/quant/grid_fit.h"
#include "data/model.h"
#include "data/whole_file.h"
#include "walk/network.h"

enum { WINDOWS = 11, SEQ_LEN = 8, WEIGHTS = 40 };

static const struct network_matrix_options in_memory = {0};

struct setting {
    struct backend *backend;
    struct step *step;
    struct transformer *model, *other; // the same weights twice
    struct network *network;           // of `model`
    struct grid grid;
    int32_t tokens[WINDOWS * SEQ_LEN];
    double *rows; // [n, WINDOWS]
    double *x;    // [n] random, in [0, 1]
    double *down, *up, *w;
};

// Neighbours and weights of all coordinates, from grid.h and the stored weights alone.
static void neighbours_by_hand(struct setting *s) {
    int64_t at = 0;
    for (int64_t k = 0; k < s->other->n_weights; k++) {
        const struct weight *weight = &s->other->weights[k];
        if (!weight->is_linear) continue;
        for (int64_t r = 0; r < weight->rows; r++)
            for (int64_t c = 0; c < weight->cols; c++, at++) {
                const float *row = view_f32(weight->stored, r);
                int64_t first = c / s->grid.group_size * s->grid.group_size, n = weight->cols - first;
                float scale;
                check_ok(
                    grid_fit(&s->grid, "w", row + first, 1, n < s->grid.group_size ? n : s->grid.group_size, &scale));
                struct neighbours near = grid_neighbours(&s->grid, row[c], scale, 0);
                s->down[at] = (double)near.down, s->up[at] = (double)near.up, s->w[at] = (double)row[c];
            }
    }
    assert_int_equal(at, s->network->n);
}

static void setting_open(struct setting *s, const struct transformer_config *config) {
    *s = (struct setting){0};
    threads_set(2);
    check_ok(backend_open("cpu", &s->backend));
    check_ok(step_new(s->backend, &s->step));
    struct random_source random = {.seed = 5, .gain = 1, .norm_spread = 0.3};
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->model));
    check_ok(transformer_new(s->backend, config, DTYPE_F32, random_source(&random), &s->other));
    struct rng rng = {.seed = 1, .stream = RNG_TEST};
    for (int i = 0; i < WINDOWS * SEQ_LEN; i++) s->tokens[i] = (int32_t)(rng_bits(rng, (uint64_t)i) % VOCAB);
    check_ok(grid_block(3, 7, &s->grid));
    check_ok(network_new(s->model, s->step, &s->grid, &(struct network_options){.seq_len = SEQ_LEN, .batch = 4},
                         &s->network));
    size_t n = (size_t)s->network->n;
    s->rows = calloc(n * WINDOWS, sizeof(double));
    s->x = calloc(n, sizeof(double));
    s->down = calloc(n, sizeof(double)), s->up = calloc(n, sizeof(double)), s->w = calloc(n, sizeof(double));
    for (size_t i = 0; i < n; i++) s->x[i] = (double)rng_uniform((struct rng){.seed = 2, .stream = RNG_TEST}, i);
    neighbours_by_hand(s);
}

static void setting_close(struct setting *s) {
    free(s->rows);
    free(s->x);
    free(s->down);
    free(s->up);
    free(s->w);
    network_free(s->network);
    transformer_free(s->other);
    transformer_free(s->model);
    step_free(s->step);
    backend_close(s->backend);
}

static void coordinates_are_neighbours_and_offsets(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        int64_t frozen = 0, outside = 0;
        setting_open(&s, configs[c]);
        for (int64_t i = 0; i < s.network->n; i++) {
            double gap = s.up[i] - s.down[i], y = s.network->y[i];
            assert_true(s.network->s[i] == gap && gap >= 0 && y >= 0 && y <= 1);
            if (gap > 0)
                check_near(s.down[i] * (1 - y) + s.up[i] * y, s.w[i], 1e-15, 1e-16);
            else
                assert_true(y == 0);
            frozen += gap == 0;
            outside += gap == 0 && s.w[i] != s.down[i];
        }
        assert_int_equal(s.network->frozen, frozen);
        assert_true(outside > 0); // so that clipped weights are in these tests
        setting_close(&s);
    }
}

// out [n, WINDOWS]: gradients of each window alone by the training sink, not scaled.
static void gradients_of_single_windows(struct setting *s, double *out) {
    struct transformer *model = s->other;
    for (int64_t k = 0; k < model->n_weights; k++) {
        struct weight *w = &model->weights[k];
        if (!w->is_linear) continue;
        w->sink = &accumulate_sink;
        if (!w->grad.rows) check_ok(backend_matrix_new(s->backend, DTYPE_F32, w->rows, w->cols, "gradient", &w->grad));
    }
    for (int64_t b = 0; b < WINDOWS; b++) {
        int32_t targets[SEQ_LEN];
        double losses[SEQ_LEN];
        struct value *hidden = NULL;
        for (int i = 0; i < SEQ_LEN; i++) targets[i] = i + 1 < SEQ_LEN ? s->tokens[b * SEQ_LEN + i + 1] : -1;
        for (int64_t k = 0; k < model->n_weights; k++)
            if (model->weights[k].sink)
                memset(model->weights[k].grad.data, 0, (size_t)view_count(model->weights[k].grad) * 4);
        step_begin(s->step, (struct step_options){.gradient = true, .seq_len = SEQ_LEN});
        check_ok(
            transformer_forward(model, s->step, view_new(s->tokens + b * SEQ_LEN, DTYPE_I32, SEQ_LEN, 1), &hidden));
        struct transformer_loss loss = {.targets = view_new(targets, DTYPE_I32, SEQ_LEN, 1),
                                        .cross_entropy = view_new(losses, DTYPE_F64, SEQ_LEN, 1),
                                        .gradient_weight = 1.0 / (SEQ_LEN - 1)};
        check_ok(transformer_loss(model, s->step, hidden, &loss));
        check_ok(step_backward(s->step));
        int64_t at = 0;
        for (int64_t k = 0; k < model->n_weights; k++)
            for (int64_t i = 0; model->weights[k].sink && i < view_count(model->weights[k].grad); i++)
                out[at++ * WINDOWS + b] = (double)view_f32(model->weights[k].grad, 0)[i];
        assert_int_equal(at, s->network->n);
    }
}

// Column by column, relative to the column's norm.
static void check_rows(const struct setting *s, const double *got, int64_t stride, const double *want, double allowed) {
    for (int64_t k = 0; k < WINDOWS; k++) {
        double squares = 0, error = 0;
        for (int64_t i = 0; i < s->network->n; i++) {
            double value = want[i * WINDOWS + k];
            squares += value * value;
            error = fmax(error, fabs(got[i * stride + k] - value));
        }
        check_near(error, 0, 0, allowed * sqrt(squares));
    }
}

static void columns_of_m_are_scaled_gradients_of_windows(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        struct network_matrix *matrix = NULL;
        setting_open(&s, configs[c]);
        gradients_of_single_windows(&s, s.rows);
        for (int64_t i = 0; i < s.network->n * WINDOWS; i++) s.rows[i] *= s.up[i / WINDOWS] - s.down[i / WINDOWS];
        check_ok(network_matrix_new(s.network, s.tokens, WINDOWS, &in_memory, &matrix));
        assert_true(matrix->m == WINDOWS && matrix->stride == 16 && matrix->n == s.network->n);
        check_rows(&s, matrix->values, matrix->stride, s.rows, 1e-6);
        for (int64_t i = 0; i < matrix->n; i++)
            for (int64_t k = 0; k < matrix->stride; k++)
                if (k >= WINDOWS || s.network->s[i] == 0) assert_true(matrix->values[i * matrix->stride + k] == 0);
        for (int64_t k = 0; k < s.model->n_weights; k++)
            assert_true(!s.model->weights[k].sink && s.model->weights[k].form == WEIGHT_STORED);
        network_matrix_free(matrix);
        setting_close(&s);
    }
}

static void batches_round_and_threads_do_not(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &llama);
    size_t bytes = (size_t)s.network->n * WINDOWS * sizeof(double);
    check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, s.rows));
    double *again = malloc(bytes);
    for (int threads = 1; threads <= 3; threads += 2) {
        threads_set(threads);
        check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, again));
        assert_memory_equal(again, s.rows, bytes);
    }
    s.network->options.recompute = true;
    check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, again));
    assert_memory_equal(again, s.rows, bytes);
    for (int64_t batch = 0; batch <= WINDOWS; batch += 3) {
        s.network->options.batch = batch;
        check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, again));
        check_rows(&s, again, WINDOWS, s.rows, 1e-6);
    }
    free(again);
    setting_close(&s);
}

// The rows' own numbers, summed in another order.
static void inner_products_are_those_of_m(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        double products[WINDOWS];
        setting_open(&s, configs[c]);
        check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, s.rows));
        for (int64_t i = 0; i < s.network->n; i++) s.x[i] -= s.network->y[i];
        check_ok(network_inner(s.network, s.tokens, WINDOWS, s.x, products));
        for (int64_t k = 0; k < WINDOWS; k++) {
            double want = 0, size = 0;
            for (int64_t i = 0; i < s.network->n; i++) {
                want += s.rows[i * WINDOWS + k] * s.x[i];
                size += fabs(s.rows[i * WINDOWS + k] * s.x[i]);
            }
            check_near(products[k], want, 0, 1e-14 * size);
        }
        setting_close(&s);
    }
}

static void clip_offsets_are_gradients_times_what_is_clipped(void **state) {
    (void)state;
    struct setting s;
    double offsets[WINDOWS];
    setting_open(&s, &llama);
    gradients_of_single_windows(&s, s.rows);
    check_ok(network_clip_offsets(s.network, s.tokens, WINDOWS, offsets));
    for (int64_t k = 0; k < WINDOWS; k++) {
        double want = 0, size = 0;
        for (int64_t i = 0; i < s.network->n; i++)
            if (s.up[i] == s.down[i]) {
                want += s.rows[i * WINDOWS + k] * (s.down[i] - s.w[i]);
                size += fabs(s.rows[i * WINDOWS + k] * (s.down[i] - s.w[i]));
            }
        assert_true(size > 0);
        check_near(offsets[k], want, 0, 1e-5 * size);
    }
    setting_close(&s);
}

// The other network's stored weights become down (1 - x) + up x.
static void set_by_hand(struct setting *s, const double *x) {
    int64_t at = 0;
    for (int64_t k = 0; k < s->other->n_weights; k++) {
        struct weight *w = &s->other->weights[k];
        for (int64_t i = 0; w->is_linear && i < view_count(w->stored); i++, at++)
            view_f32(w->stored, 0)[i] = (float)(s->down[at] * (1 - x[at]) + s->up[at] * x[at]);
    }
}

// After network_start: gradients of single windows of the network whose weights were set by hand to that point, whatever was set
// in between; products with them, and nothing that is clipped.
static void gradients_at_a_start_are_those_of_weights_set_by_hand(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        double products[WINDOWS], offsets[WINDOWS];
        setting_open(&s, configs[c]);
        size_t n = (size_t)s.network->n;
        double *got = malloc(n * WINDOWS * sizeof *got), *zeros = calloc(n, sizeof *zeros);
        for (size_t i = 0; i < n; i++) s.x[i] = s.up[i] > s.down[i] ? (double)(float)s.x[i] : 0;
        network_start(s.network, s.x);
        assert_memory_equal(s.network->y, s.x, n * sizeof *s.x);
        set_by_hand(&s, s.x);
        gradients_of_single_windows(&s, s.rows);
        for (size_t i = 0; i < n * WINDOWS; i++) s.rows[i] *= s.up[i / WINDOWS] - s.down[i / WINDOWS];
        check_ok(network_set(s.network, zeros));
        check_ok(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, got));
        check_rows(&s, got, WINDOWS, s.rows, 3e-6);
        check_ok(network_inner(s.network, s.tokens, WINDOWS, s.x, products));
        check_ok(network_clip_offsets(s.network, s.tokens, WINDOWS, offsets));
        for (int64_t k = 0; k < WINDOWS; k++) {
            double want = 0, size = 0;
            for (size_t i = 0; i < n; i++) {
                want += got[i * WINDOWS + (size_t)k] * s.x[i];
                size += fabs(got[i * WINDOWS + (size_t)k] * s.x[i]);
            }
            check_near(products[k], want, 0, 1e-14 * size);
            assert_true(offsets[k] == 0);
        }
        for (int64_t k = 0; k < s.model->n_weights; k++) assert_true(s.model->weights[k].form == WEIGHT_STORED);
        free(got);
        free(zeros);
        setting_close(&s);
    }
}

static void loss_change_is_that_of_weights_set_by_hand(void **state) {
    (void)state;
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct setting s;
        double change[WINDOWS], want[2][WINDOWS];
        setting_open(&s, configs[c]);
        check_ok(network_loss_change(s.network, s.tokens, WINDOWS, s.x, change));
        for (int at = 0; at < 2; at++) {
            struct evaluation *e = NULL;
            set_by_hand(&s, at ? s.x : s.network->y);
            check_ok(evaluate(s.other, s.step, s.tokens, WINDOWS, SEQ_LEN, &(struct evaluate_options){0}, &e));
            memcpy(want[at], e->loss, sizeof want[at]);
            evaluation_free(e);
        }
        for (int64_t k = 0; k < WINDOWS; k++) {
            check_near(change[k], want[1][k] - want[0][k], 0, 3e-6);
            assert_true(fabs(change[k]) > 1e-4);
        }
        setting_close(&s);
    }
}

// On a grid that clips nothing w^y = w. Differences of both signs at t = 2^-6: rounding of the losses gives 3e-5, the third
// order 1e-3.
static void inner_products_are_the_first_order_of_the_loss_change(void **state) {
    (void)state;
    struct setting s;
    double products[WINDOWS], change[2][WINDOWS], largest = 0;
    const double t = 0x1p-6;
    setting_open(&s, &llama);
    s.grid.scale_divisor = 2.9; // the range is wider than all weights; the paper's 3.5 clips the largest
    network_free(s.network);
    check_ok(network_new(s.model, s.step, &s.grid, &(struct network_options){.seq_len = SEQ_LEN}, &s.network));
    double *d = malloc((size_t)s.network->n * sizeof *d), *x = malloc((size_t)s.network->n * sizeof *x);
    for (int64_t i = 0; i < s.network->n; i++) d[i] = s.x[i] - s.network->y[i];
    check_ok(network_inner(s.network, s.tokens, WINDOWS, d, products));
    for (int sign = 0; sign < 2; sign++) {
        for (int64_t i = 0; i < s.network->n; i++) x[i] = s.network->y[i] + (sign ? -t : t) * d[i];
        check_ok(network_loss_change(s.network, s.tokens, WINDOWS, x, change[sign]));
    }
    for (int64_t k = 0; k < WINDOWS; k++) {
        check_near((change[0][k] - change[1][k]) / (2 * t), products[k], 0, 1e-3);
        largest = fmax(largest, fabs(products[k]));
    }
    assert_true(largest > 0.1);
    free(d);
    free(x);
    setting_close(&s);
}

static void m_in_a_file_is_m_in_memory(void **state) {
    (void)state;
    struct setting s;
    struct network_matrix *memory = NULL, *mapped = NULL;
    setting_open(&s, &llama);
    char *folder = files_folder();
    const char *path = files_path(folder, "m.npy");
    check_ok(network_matrix_new(s.network, s.tokens, WINDOWS, &in_memory, &memory));
    check_ok(network_matrix_new(s.network, s.tokens, WINDOWS, &(struct network_matrix_options){.path = path}, &mapped));
    size_t bytes = (size_t)(memory->n * memory->stride) * sizeof(double), n = 0;
    assert_memory_equal(memory->values, mapped->values, bytes);
    assert_true((uintptr_t)mapped->values % 64 == 0 && (uintptr_t)memory->values % 64 == 0);
    network_matrix_free(mapped);
    char *file = files_bytes(path, &n), shape[64];
    assert_true(n == bytes + 128);
    assert_memory_equal(file, "\x93NUMPY", 6);
    snprintf(shape, sizeof shape, "'shape': (%lld, 16)", (long long)memory->n);
    assert_non_null(strstr(file + 10, shape));
    assert_memory_equal(file + 128, memory->values, bytes);
    assert_false(files_has(folder, "m.npy.part"));
    free(file);
    // A scratch file leaves what stands at its path, and nothing of its own.
    check_ok(network_matrix_new(s.network, s.tokens, WINDOWS,
                                &(struct network_matrix_options){.path = path, .scratch = true}, &mapped));
    assert_memory_equal(memory->values, mapped->values, bytes);
    assert_false(files_has(folder, "m.npy.part"));
    mapped->values[0] += 1;
    network_matrix_free(mapped);
    file = files_bytes(path, &n);
    assert_memory_equal(file + 128, memory->values, bytes);
    free(file);
    network_matrix_free(memory);
    files_remove(folder);
    setting_close(&s);
}

// A disk or memory that is full at the k-th try leaves no file, no leak and a network that works.
static void a_failure_leaves_no_file(void **state) {
    (void)state;
    struct setting s;
    struct network_matrix *matrix = NULL;
    setting_open(&s, &llama);
    char *folder = files_folder();
    const char *path = files_path(folder, "m.npy");
    const struct network_matrix_options options = {.path = path};
    int failures = 0;
    for (int what = 0; what < 2; what++) {
        for (int64_t k = 0;; k++) {
            (what ? mem_fail_at : whole_file_fail_at)(k);
            enum status status = network_matrix_new(s.network, s.tokens, WINDOWS, &options, &matrix);
            mem_fail_at(-1);
            whole_file_fail_at(-1);
            if (status == STATUS_OK) break;
            assert_true(status == (what ? STATUS_NO_MEMORY : STATUS_IO) && status_message()[0]);
            assert_false(files_has(folder, "m.npy") || files_has(folder, "m.npy.part"));
            assert_null(matrix);
            for (int64_t w = 0; w < s.model->n_weights; w++) assert_null(s.model->weights[w].sink);
            failures++;
            assert_true(k < 1000);
        }
        network_matrix_free(matrix);
        matrix = NULL;
        assert_int_equal(unlink(path), 0);
    }
    assert_true(failures >= 6);
    struct network_matrix_options absent = {.path = files_path(folder, "absent/m.npy")},
                                  huge = {.stride = INT64_MAX / 64, .path = path};
    check_fails(network_matrix_new(s.network, s.tokens, WINDOWS, &absent, &matrix), STATUS_IO);
    check_fails(network_matrix_new(s.network, s.tokens, WINDOWS, &huge, &matrix), STATUS_NO_MEMORY);
    assert_false(files_has(folder, "m.npy"));
    files_remove(folder);
    setting_close(&s);
}

static void a_loss_that_is_not_finite_is_refused(void **state) {
    (void)state;
    struct setting s;
    setting_open(&s, &llama);
    view_f32(s.model->final_norm->stored, 0)[3] = NAN;
    check_fails(network_rows(s.network, s.tokens, WINDOWS, WINDOWS, s.rows), STATUS_INVALID);
    for (int64_t w = 0; w < s.model->n_weights; w++) assert_null(s.model->weights[w].sink);
    setting_close(&s);
}

static void windows_too_long_for_the_model_are_refused(void **state) {
    (void)state;
    struct setting s;
    struct network *network = NULL;
    setting_open(&s, &llama);
    network_free(s.network);
    s.network = NULL;
    check_fails(network_new(s.model, s.step, &s.grid, &(struct network_options){.seq_len = 65}, &network),
                STATUS_INVALID);
    setting_close(&s);
}

static void draws_share_no_window(void **state) {
    (void)state;
    enum { TOKENS = 103, LENGTH = 4, ALL = 25 };
    int32_t text[TOKENS], drawn[ALL * LENGTH], other[ALL * LENGTH];
    int seen[ALL] = {0}, moved = 0, differ = 0;
    for (int i = 0; i < TOKENS; i++) text[i] = i;
    int64_t end = TOKENS;
    struct corpus corpus = {.name = (char *)"text", .tokens = text, .n_tokens = TOKENS, .ends = &end, .n_files = 1};
    check_ok(network_draw(&corpus, LENGTH, 7, 0, 10, drawn));
    check_ok(network_draw(&corpus, LENGTH, 7, 10, 15, drawn + (ptrdiff_t)10 * LENGTH));
    check_ok(network_draw(&corpus, LENGTH, 8, 0, ALL, other));
    for (int k = 0; k < ALL; k++) {
        for (int i = 0; i < LENGTH; i++) assert_int_equal(drawn[k * LENGTH + i], drawn[k * LENGTH] + i);
        assert_int_equal(drawn[k * LENGTH] % LENGTH, 0);
        seen[drawn[k * LENGTH] / LENGTH]++;
        moved += drawn[k * LENGTH] != k * LENGTH;
        differ += drawn[k * LENGTH] != other[k * LENGTH];
    }
    for (int k = 0; k < ALL; k++) assert_int_equal(seen[k], 1);
    assert_true(moved > 0 && differ > 0);
    check_fails(network_draw(&corpus, LENGTH, 7, 20, 6, drawn), STATUS_INVALID);
    check_fails(network_draw(&corpus, 200, 7, 0, 1, drawn), STATUS_INVALID);
}

// The folder of a rounded vertex, opened anew, has the losses of w^x.
static void the_saved_folder_has_the_losses_of_x(void **state) {
    (void)state;
    enum { N = 16, LENGTH = 64 };
    char path[4096];
    struct model *model = NULL, *saved = NULL;
    struct network *network = NULL;
    struct evaluation *e = NULL;
    struct grid grid;
    int32_t tokens[N * LENGTH];
    double losses[N];
    check_ok(model_open(check_shared("models/stories260K", path, sizeof path), "cpu", DTYPE_F32, NULL, &model));
    check_ok(grid_block(4, -1, &grid));
    check_ok(
        network_new(model->transformer, model->step, &grid, &(struct network_options){.seq_len = LENGTH}, &network));
    assert_int_equal(network->n, 226560);
    double *x = malloc((size_t)network->n * sizeof *x);
    for (int64_t i = 0; i < network->n; i++)
        x[i] = network->s[i] > 0 && rng_bits((struct rng){.seed = 4, .stream = RNG_TEST}, (uint64_t)i) % 2;
    for (int i = 0; i < N * LENGTH; i++)
        tokens[i] = (int32_t)(rng_bits((struct rng){.seed = 5, .stream = RNG_TEST}, (uint64_t)i) % 512);
    check_ok(network_losses(network, tokens, N, x, losses));
    char *folder = files_folder();
    const char *to = files_path(folder, "model");
    check_ok(model_save_rounded(model, network->rounding, to));
    check_ok(model_open(to, "cpu", DTYPE_F32, NULL, &saved));
    check_ok(evaluate(saved->transformer, saved->step, tokens, N, LENGTH, &(struct evaluate_options){0}, &e));
    for (int k = 0; k < N; k++) check_near(losses[k], e->loss[k], 1e-7, 0);
    evaluation_free(e);
    free(x);
    network_free(network);
    model_free(saved);
    model_free(model);
    files_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coordinates_are_neighbours_and_offsets),
        cmocka_unit_test(columns_of_m_are_scaled_gradients_of_windows),
        cmocka_unit_test(batches_round_and_threads_do_not),
        cmocka_unit_test(inner_products_are_those_of_m),
        cmocka_unit_test(clip_offsets_are_gradients_times_what_is_clipped),
        cmocka_unit_test(gradients_at_a_start_are_those_of_weights_set_by_hand),
        cmocka_unit_test(loss_change_is_that_of_weights_set_by_hand),
        cmocka_unit_test(inner_products_are_the_first_order_of_the_loss_change),
        cmocka_unit_test(m_in_a_file_is_m_in_memory),
        cmocka_unit_test(a_failure_leaves_no_file),
        cmocka_unit_test(a_loss_that_is_not_finite_is_refused),
        cmocka_unit_test(windows_too_long_for_the_model_are_refused),
        cmocka_unit_test(draws_share_no_window),
        cmocka_unit_test(the_saved_folder_has_the_losses_of_x),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
