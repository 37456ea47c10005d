// Points of a rounding in files: what is read is what was written, and what does not belong to the model and grid is refused.
#include "tests/check.h"
#include "tests/files.h"
#include "tests/small_networks.h"

#include "core/nn/random_source.h"
#include "data/point.h"
#include "data/safetensors.h"
#include "data/safetensors_writer.h"

struct setting {
    char *folder;
    struct backend *backend;
    struct transformer *model;
    struct rounding *rounding;
    double *x; // [weights]
};

static const struct grid_options three = {.kind = GRID_BLOCK, .bits = 3, .group_size = 7};

static void setting_open(struct setting *s, uint64_t seed, const struct grid_options *options) {
    struct random_source random = {.seed = seed, .gain = 1, .norm_spread = 0.3};
    struct grid grid;
    *s = (struct setting){.folder = files_folder()};
    check_ok(backend_open("cpu", &s->backend));
    check_ok(transformer_new(s->backend, &phi3_tied, DTYPE_F32, random_source(&random), &s->model));
    check_ok(grid_new(options, &grid));
    check_ok(rounding_new(s->model, &grid, DTYPE_F32, &s->rounding));
    check_ok(rounding_random(s->rounding, 3));
    s->x = calloc((size_t)s->rounding->weights, sizeof *s->x);
}

static void setting_close(struct setting *s) {
    free(s->x);
    rounding_free(s->rounding);
    transformer_free(s->model);
    backend_close(s->backend);
    files_remove(s->folder);
}

static void check_read(const struct grid_options *options) {
    struct setting s;
    struct point *point = NULL;
    struct grid grid;
    int64_t at = 0;
    setting_open(&s, 5, options);
    const char *path = files_path(s.folder, "x.safetensors");
    check_ok(point_save(s.rounding, path));
    check_ok(point_open(path, &point));
    check_ok(point_grid(point, &grid));
    const struct grid *want = &s.rounding->grid;
    assert_true(grid.kind == want->kind && grid.bits == want->bits && grid.group_size == want->group_size);
    assert_true(grid.search == want->search && grid.n_levels == want->n_levels);
    check_ok(point_read(point, s.rounding, s.x));
    for (int64_t i = 0; i < s.model->n_weights; i++) {
        const struct weight *w = &s.model->weights[i];
        for (int64_t k = 0; w->grid && k < view_count(w->x); k++, at++)
            assert_true(s.x[at] == (double)view_f32(w->x, 0)[k]);
    }
    assert_int_equal(at, s.rounding->weights);
    point_free(point);
    setting_close(&s);
}

static void what_is_read_is_what_was_written(void **state) {
    (void)state;
    const struct grid_options grids[] = {
        three,
        {.kind = GRID_BLOCK, .bits = 4, .group_size = -1},
        {.kind = GRID_ASYMMETRIC, .bits = 2, .group_size = 5, .search = SCALE_SEARCH_MSE},
        {.kind = GRID_NF4},
    };
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) check_read(&grids[i]);
}

// Every tensor by name, as another program reads the file.
static void the_file_is_as_documented(void **state) {
    (void)state;
    struct setting s;
    struct safetensors *file = NULL;
    int64_t matrices = 0;
    setting_open(&s, 5, &(struct grid_options){.kind = GRID_BLOCK, .bits = 4, .group_size = 9});
    const char *path = files_path(s.folder, "x.safetensors");
    check_ok(point_save(s.rounding, path));
    check_ok(safetensors_open(path, &file));
    for (int64_t i = 0; i < s.model->n_weights; i++) {
        const struct weight *w = &s.model->weights[i];
        if (!w->grid) continue;
        char *name = mem_format("%s.scale", w->name);
        const struct safetensors_tensor *x = safetensors_find(file, w->name), *scale = safetensors_find(file, name);
        assert_true(x && x->dtype == SAFETENSORS_F32 && x->shape[0] == w->rows && x->shape[1] == w->cols);
        assert_true(scale && scale->shape[0] == w->rows && scale->shape[1] == (w->cols + 8) / 9);
        assert_memory_equal(x->data, view_f32(w->x, 0), (size_t)x->n_bytes);
        assert_memory_equal(scale->data, view_f32(w->scale, 0), (size_t)scale->n_bytes);
        free(name);
        matrices++;
    }
    assert_true(matrices > 0);
    assert_int_equal(safetensors_n_tensors(file), 2 * matrices);
    safetensors_free(file);
    setting_close(&s);
}

static void another_model_or_grid_is_refused(void **state) {
    (void)state;
    struct setting s, other;
    const struct {
        uint64_t seed;
        struct grid_options grid;
    } cases[] = {{6, three},
                 {5, {.kind = GRID_BLOCK, .bits = 4, .group_size = 7}},
                 {5, {.kind = GRID_BLOCK, .bits = 3, .group_size = 8}},
                 {5, {.kind = GRID_ASYMMETRIC, .bits = 3, .group_size = 7}}};
    setting_open(&s, 5, &three);
    const char *path = mem_format("%s/x", s.folder);
    check_ok(point_save(s.rounding, path));
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct point *point = NULL;
        setting_open(&other, cases[k].seed, &cases[k].grid);
        check_ok(point_open(path, &point));
        check_fails(point_read(point, other.rounding, other.x), STATUS_INVALID);
        point_free(point);
        setting_close(&other);
    }
    free((char *)path);
    setting_close(&s);
}

// A byte of x is changed so that it leaves [0, 1]; a file of other kind or of no kind.
static void values_outside_the_cube_and_other_files_are_refused(void **state) {
    (void)state;
    struct setting s;
    struct point *point = NULL;
    struct safetensors *file = NULL;
    size_t n;
    setting_open(&s, 5, &three);
    char *path = mem_format("%s/x", s.folder);
    check_ok(point_save(s.rounding, path));
    char *bytes = files_bytes(path, &n), *x = NULL;
    check_ok(safetensors_from_buffer(bytes, (int64_t)n, "x", &file));
    for (int64_t i = 0; i < s.model->n_weights; i++)
        if (s.model->weights[i].grid) x = (char *)safetensors_find(file, s.model->weights[i].name)->data;
    const float values[] = {-0x1p-20f, 1.0000001f, NAN, INFINITY};
    for (int k = 0; k < 4; k++) {
        memcpy(x + 8, &values[k], sizeof values[k]);
        files_put(path, bytes, n);
        check_ok(point_open(path, &point));
        check_fails(point_read(point, s.rounding, s.x), STATUS_FORMAT);
        point_free(point);
    }
    safetensors_free(file);
    files_put(path, "short", 5);
    check_fails(point_open(path, &point), STATUS_FORMAT);
    struct safetensors_writer *writer = NULL;
    check_ok(safetensors_writer_new(path, NULL, 0, NULL, 0, &writer));
    check_ok(safetensors_writer_finish(writer));
    safetensors_writer_free(writer);
    check_fails(point_open(path, &point), STATUS_FORMAT);
    check_fails(point_open(files_path(s.folder, "none"), &point), STATUS_IO);
    const struct safetensors_pair about[] = {{"kind", "discquant x"}, {"grid", "bloc"},    {"scale_search", "none"},
                                             {"bits", "3"},           {"group_size", "0"}, {"grid", "block"}};
    for (size_t from = 0; from < 2; from++) { // a grid that there is not; groups of 0
        struct grid grid;
        const struct safetensors_pair pairs[] = {about[0], about[from ? 5 : 1], about[2], about[3], about[4]};
        check_ok(safetensors_writer_new(path, NULL, 0, pairs, 5, &writer));
        check_ok(safetensors_writer_finish(writer));
        safetensors_writer_free(writer);
        check_ok(point_open(path, &point));
        check_fails(point_grid(point, &grid), STATUS_FORMAT);
        point_free(point);
    }
    free(bytes);
    free(path);
    setting_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_read_is_what_was_written),
        cmocka_unit_test(the_file_is_as_documented),
        cmocka_unit_test(another_model_or_grid_is_refused),
        cmocka_unit_test(values_outside_the_cube_and_other_files_are_refused),
    };
    return cmocka_run_group_tests_name("point", tests, NULL, NULL);
}
