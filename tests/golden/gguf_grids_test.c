// Grids of llama.cpp's blocks against the `gguf` package (tests/golden/make_gguf_grids.py).
#include "tests/check.h"

#include "core/quant/grid_fit.h"
#include "core/tensor/dtype.h"
#include "data/json.h"

enum { MOST = 6 * 64 };

static void floats_of(const json_t *entry, const char *key, float *out) {
    const json_t *list = json_object_get(entry, key);
    assert_int_equal(json_array_size(list), MOST);
    for (size_t i = 0; i < MOST; i++) out[i] = float_from_bits((uint32_t)json_integer_value(json_array_get(list, i)));
}

// What the package rounds to are values of the grid, to the bit; no value of the grid is nearer to the weight than the nearest
// neighbour, the package's own choice included.
static void what_the_gguf_package_rounds_to_lies_on_the_grid(void **state) {
    (void)state;
    char path[4096];
    json_t *root = NULL, *entry;
    size_t k;
    check_ok(json_read_file(check_source("tests/golden/gguf_grids.json", path, sizeof path), &root));
    assert_int_equal(json_array_size(root), 4);
    json_array_foreach(root, k, entry) {
        float w[MOST], rounded[MOST], scale[MOST];
        struct grid_options options = {0};
        struct grid grid;
        floats_of(entry, "weights", w);
        floats_of(entry, "rounded", rounded);
        assert_true(grid_kind_named(json_string_value(json_object_get(entry, "grid")), &options.kind));
        check_ok(grid_new(&options, &grid));
        check_ok(grid_fit(&grid, "w", w, 6, 64, scale));
        int64_t cols = grid_scale_cols(&grid, 64), groups = grid_groups(&grid, 64);
        int equal = 0;
        for (int i = 0; i < MOST; i++) {
            const float *at = scale + i / 64 * cols + i % 64 / 32;
            float offset = grid.has_offset ? at[groups] : 0;
            float value = grid_value(&grid, grid_code(&grid, rounded[i], *at, offset), *at, offset);
            assert_true(value == rounded[i]);
            struct neighbours near = grid_neighbours(&grid, w[i], *at, offset);
            float distance = fminf(fabsf(near.down - w[i]), fabsf(near.up - w[i]));
            assert_true(distance <= fabsf(rounded[i] - w[i]));
            equal += rounded[i] == near.down || rounded[i] == near.up;
        }
        assert_int_equal(equal, MOST);
    }
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_the_gguf_package_rounds_to_lies_on_the_grid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
