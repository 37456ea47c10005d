// Grids: neighbours and codes against all values of a group, scales against the formats' formulas written out again.
#include "tests/check.h"

#include "core/base/rng.h"
#include "core/quant/grid_fit.h"
#include "core/tensor/dtype.h"

enum { KINDS = 9, COLS = 512, ROWS = 6 };

static struct grid grid_of(int kind, int bits, enum scale_search search) {
    struct grid grid;
    check_ok(grid_new(&(struct grid_options){.kind = (enum grid_kind)kind, .bits = bits, .search = search}, &grid));
    return grid;
}

static struct rng rng = {.seed = 7, .stream = RNG_TEST};

static void draw(uint64_t first, float size, float *w) {
    for (uint64_t i = 0; i < (uint64_t)ROWS * COLS; i++) w[i] = size * (float)rng_normal(rng, first + i);
}

// ---- neighbours ----

struct around {
    double down, up, closest; // closest: distance from a value
};

static struct around around_of(const struct grid *grid, double w, float scale, float offset) {
    double least = INFINITY, most = -INFINITY;
    struct around a = {-INFINITY, INFINITY, INFINITY};
    for (int k = 0; k < grid->n_levels; k++) {
        double value = (double)(float)((double)scale * (double)grid->levels[k] + (double)offset);
        least = fmin(least, value), most = fmax(most, value), a.closest = fmin(a.closest, fabs(value - w));
        if (value <= w) a.down = fmax(a.down, value);
        if (value >= w) a.up = fmin(a.up, value);
    }
    a.down = fmax(a.down, least), a.up = fmin(a.up, most);
    return a;
}

// Closer to a value than rounding of w - offset and of the quotient can tell, w may count as that value.
static void neighbours_enclose_the_weight(void **state) {
    (void)state;
    static const float scales[] = {0.0123291015625f, -0.0123291015625f, 3.5f, -6.103515625e-5f};
    static const float offsets[] = {0, -0.05f, 0.7f, 1e-3f};
    uint64_t at = 0;
    int judged = 0;
    for (int kind = 0; kind < KINDS; kind++)
        for (int bits = 2; bits <= (kind <= GRID_ASYMMETRIC ? 8 : 2); bits++)
            for (int k = 0; k < 4; k++) {
                struct grid grid = grid_of(kind, kind <= GRID_ASYMMETRIC ? bits : 0, SCALE_SEARCH_NONE);
                float offset = grid.has_offset ? scales[k] * rintf(offsets[k] / scales[k]) : 0;
                float width = scales[k] * (grid.levels[grid.n_levels - 1] - grid.levels[0]);
                float middle = scales[k] * (grid.levels[grid.n_levels - 1] + grid.levels[0]) / 2 + offset;
                for (int i = 0; i < 400; i++) {
                    float w = middle + 0.7f * width * (float)(2 * rng_uniform(rng, at++) - 1);
                    struct neighbours near = grid_neighbours(&grid, w, scales[k], offset);
                    struct around want = around_of(&grid, (double)w, scales[k], offset);
                    if (want.closest < 1e-6 * (fabs((double)width) + fabs((double)offset))) continue;
                    assert_true((double)near.down == want.down && (double)near.up == want.up);
                    judged++;
                }
            }
    assert_true(judged > 30000);
}

static void weights_on_the_grid_and_of_constant_groups_have_no_freedom(void **state) {
    (void)state;
    for (int kind = 0; kind < KINDS; kind++) {
        struct grid grid = grid_of(kind, 0, SCALE_SEARCH_NONE);
        for (int code = 0; code < grid.n_levels; code++) {
            float value = grid_value(&grid, code, 0.25f, 0);
            struct neighbours on = grid_neighbours(&grid, value, 0.25f, 0);
            assert_true(on.down == value && on.up == value);
        }
        struct neighbours constant = grid_neighbours(&grid, 3, 0, 0.5f);
        assert_true(constant.down == 0.5f && constant.up == 0.5f);
        struct neighbours nan = grid_neighbours(&grid, NAN, 0.25f, 0);
        assert_true(nan.down == grid_value(&grid, 0, 0.25f, 0) && nan.up == nan.down);
    }
}

static void codes_invert_values(void **state) {
    (void)state;
    static const float scales[] = {0.0123291015625f, -0.75f, 5.9604644775390625e-8f};
    for (int kind = 0; kind < KINDS; kind++)
        for (int k = 0; k < 3; k++) {
            struct grid grid = grid_of(kind, 0, SCALE_SEARCH_NONE);
            float offset = grid.has_offset ? -3 * scales[k] : 0;
            for (int code = 0; code < grid.n_levels; code++)
                assert_int_equal(grid_code(&grid, grid_value(&grid, code, scales[k], offset), scales[k], offset), code);
            for (int code = 0; code + 1 < grid.n_levels && grid.uniform; code++) { // a tie
                float a = grid_value(&grid, code, scales[k], offset),
                      b = grid_value(&grid, code + 1, scales[k], offset);
                int got = grid_code(&grid, (a + b) / 2, scales[k], offset);
                assert_true(grid_value(&grid, got, scales[k], offset) == fminf(a, b));
            }
            assert_true(grid.levels[grid_code(&grid, 1, 0, 0)] == 0);
        }
}

// ---- codebooks ----

// x with Phi(x) = p.
static double normal_quantile(double p) {
    double low = -10, high = 10;
    for (int i = 0; i < 200; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / sqrt(2)) < p)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// QLoRA (Dettmers et al. 2023): 8 quantiles above zero and 7 below, of probabilities evenly spaced between 1/2 and 1 - (1/32 + 1/30) / 2,
// zero, all divided by the largest. The published numbers come from that probability rounded to 0.9677083.
static void nf4_levels_are_normal_quantiles(void **state) {
    (void)state;
    struct grid grid = grid_of(GRID_NF4, 0, SCALE_SEARCH_NONE);
    const double edge = 0.9677083, largest = normal_quantile(edge);
    assert_int_equal(grid.n_levels, 16);
    for (int k = 0; k < 7; k++)
        check_near((double)grid.levels[k], -normal_quantile(edge + (0.5 - edge) * k / 7) / largest, 0, 1e-6);
    assert_true(grid.levels[7] == 0);
    for (int k = 0; k < 8; k++)
        check_near((double)grid.levels[15 - k], normal_quantile(edge + (0.5 - edge) * k / 8) / largest, 0, 1e-6);
}

// OCP MX 5.3.3: sign, two bits of exponent with bias 1, one of mantissa, subnormals.
static void fp4_levels_are_the_numbers_of_e2m1(void **state) {
    (void)state;
    struct grid grid = grid_of(GRID_MXFP4, 0, SCALE_SEARCH_NONE);
    assert_int_equal(grid.n_levels, 15);
    for (int code = 0; code < 16; code++) {
        int exponent = code >> 1 & 3, mantissa = code & 1, found = 0;
        double magnitude = exponent ? ldexp(1 + mantissa / 2.0, exponent - 1) : mantissa / 2.0;
        for (int k = 0; k < 15; k++) found += (double)grid.levels[k] == (code & 8 ? -magnitude : magnitude);
        assert_int_equal(found, 1);
    }
    for (int k = 1; k < 15; k++) assert_true(grid.levels[k - 1] < grid.levels[k]);
}

// ---- scales ----

static float half(double value) { return fp16_to_float(fp16_from_float((float)value)); }

static float e4m3(int code) { // 0 .. 126
    return (float)(code >> 3 ? ldexp(8 + (code & 7), (code >> 3) - 10) : ldexp(code & 7, -9));
}

struct range {
    double low, high, largest; // largest: of greatest magnitude, with its sign
};

static struct range range_of(const float *w, int64_t n) {
    struct range r = {(double)w[0], (double)w[0], 0};
    for (int64_t i = 0; i < n; i++) {
        r.low = fmin(r.low, (double)w[i]), r.high = fmax(r.high, (double)w[i]);
        if (fabs((double)w[i]) > fabs(r.largest)) r.largest = (double)w[i];
    }
    return r;
}

static void check_simple(const struct grid *grid, const float *w, int64_t n, float scale, float offset) {
    struct range r = range_of(w, n);
    double top = (1 << grid->bits) - 1, low = fmin(r.low, 0), high = fmax(r.high, 0);
    switch (grid->kind) {
    case GRID_BLOCK: assert_true(scale == half(fabs(r.largest) / (top / 2))); break;
    case GRID_NF4: assert_true(scale == half(fabs(r.largest))); break;
    case GRID_Q8_0: assert_true(scale == half(fabs(r.largest) / 127)); break;
    case GRID_Q4_0: assert_true(scale == half(r.largest / -8)); break;
    case GRID_ASYMMETRIC:
        assert_true(scale == half((high - low) / top));
        assert_true(-offset / scale == fmin(fmax(rint(-low / (double)scale), 0), top));
        break;
    case GRID_Q4_1: assert_true(scale == half((r.high - r.low) / 15) && offset == half(r.low)); break;
    case GRID_MXFP4: {
        double ratio = fabs(r.largest) / (double)scale;
        int exponent;
        assert_true(frexp((double)scale, &exponent) == 0.5 && ratio >= 4 && ratio < 8);
        break;
    }
    default: break;
    }
}

static void scales_follow_the_rules_of_the_formats(void **state) {
    (void)state;
    static float w[ROWS * COLS], scale[ROWS * COLS];
    for (int kind = 0; kind < KINDS; kind++)
        for (int bits = 2; bits <= (kind <= GRID_ASYMMETRIC ? 8 : 2); bits++) {
            struct grid grid = grid_of(kind, kind <= GRID_ASYMMETRIC ? bits : 0, SCALE_SEARCH_NONE);
            draw((uint64_t)(kind * 10 + bits) << 20, 0.1f, w);
            for (int i = 0; i < COLS; i++) w[COLS + i] = fabsf(w[COLS + i]); // a row of one sign
            int64_t group = grid_group_cols(&grid, COLS), groups = COLS / group, cols = grid_scale_cols(&grid, COLS);
            assert_int_equal(cols, grid.has_offset ? 2 * groups : groups);
            check_ok(grid_fit(&grid, "w", w, ROWS, COLS, scale));
            for (int64_t i = 0; i < ROWS; i++)
                for (int64_t k = 0; k < groups; k++)
                    check_simple(&grid, w + i * COLS + k * group, group, scale[i * cols + k],
                                 grid.has_offset ? scale[i * cols + groups + k] : 0);
        }
}

// One number of the tensor, with which the largest weight becomes 6 times 448; every scale the nearest number of E4M3 to what makes the
// largest of its group a 6.
static void nvfp4_scales_have_two_levels(void **state) {
    (void)state;
    static float w[ROWS * COLS], scale[ROWS * COLS / 16];
    struct grid grid = grid_of(GRID_NVFP4, 0, SCALE_SEARCH_NONE);
    draw(1u << 30, 0.1f, w);
    for (int i = 0; i < 16; i++) w[32 + i] *= 1e-4f, w[64 + i] *= 1e-6f; // a subnormal scale, one that vanishes
    check_ok(grid_fit(&grid, "w", w, ROWS, COLS, scale));
    double tensor = 0;
    for (int k = 0; k < ROWS * COLS / 16; k++) tensor = fmax(tensor, (double)scale[k] / 448);
    check_near(tensor, fabs(range_of(w, ROWS * COLS).largest) / (6 * 448), 1e-6, 0);
    for (int k = 0; k < ROWS * COLS / 16; k++) {
        double want = fabs(range_of(w + 16 * k, 16).largest) / 6 / tensor, part = (double)scale[k] / tensor;
        double best = INFINITY;
        bool is_e4m3 = false;
        for (int code = 0; code <= 126; code++) {
            best = fmin(best, fabs((double)e4m3(code) - want));
            is_e4m3 = is_e4m3 || (double)e4m3(code) == part;
        }
        assert_true(is_e4m3);
        check_near(fabs(part - want), best, 1e-9, 1e-12);
    }
    assert_true(scale[2] > 0 && scale[4] == 0);
}

// Scales of a block are whole multiples in -32 .. 31 of one number of fp16, the nearest to w of largest magnitude / -4.
static void q3_k_scales_have_two_levels(void **state) {
    (void)state;
    static float w[ROWS * COLS], scale[ROWS * COLS / 16];
    struct grid grid = grid_of(GRID_Q3_K, 0, SCALE_SEARCH_NONE);
    draw(2u << 30, 0.1f, w);
    check_ok(grid_fit(&grid, "w", w, ROWS, COLS, scale));
    for (int block = 0; block < ROWS * COLS / 256; block++) {
        double sub[16], largest = 0;
        for (int k = 0; k < 16; k++) {
            sub[k] = range_of(w + 256 * block + 16 * k, 16).largest / -4;
            if (fabs(sub[k]) > fabs(largest)) largest = sub[k];
        }
        double d = (double)half(largest / -32);
        for (int k = 0; k < 16; k++) {
            double part = (double)scale[16 * block + k] / d;
            assert_true(part == rint(part) && part >= -32 && part <= 31);
            assert_true(fabs(part * d - sub[k]) <=
                        fabs(d) * 1.01); // 32 times d has no place, so a whole d, and fp16 of d
        }
    }
}

// ---- search ----

static double squared_error(const struct grid *grid, const float *w, int64_t n, double scale, double offset) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double best = INFINITY;
        for (int k = 0; k < grid->n_levels; k++)
            best = fmin(best, fabs((double)w[i] - scale * (double)grid->levels[k] - offset));
        sum += best * best;
    }
    return sum;
}

// No scale of the documented candidates is better than the one that is chosen, and it beats the rule's in some groups.
static void the_search_finds_the_best_candidate(void **state) {
    (void)state;
    static float w[ROWS * COLS], rule[ROWS * COLS], found[ROWS * COLS];
    for (int kind = 0; kind < KINDS; kind++) {
        struct grid none = grid_of(kind, 0, SCALE_SEARCH_NONE), mse = grid_of(kind, 0, SCALE_SEARCH_MSE);
        int64_t group = grid_group_cols(&none, COLS), groups = COLS / group, cols = grid_scale_cols(&none, COLS);
        int better = 0;
        draw((uint64_t)(kind + 100) << 20, 0.1f, w);
        check_ok(grid_fit(&none, "w", w, ROWS, COLS, rule));
        check_ok(grid_fit(&mse, "w", w, ROWS, COLS, found));
        for (int64_t i = 0; i < ROWS * groups; i++) {
            const float *at = w + i * group, *by_rule = rule + i / groups * cols + i % groups;
            const float *chosen = found + i / groups * cols + i % groups;
            double offset = none.has_offset ? (double)by_rule[groups] : 0;
            double before = squared_error(&none, at, group, (double)*by_rule, offset), other = INFINITY;
            double after =
                squared_error(&none, at, group, (double)*chosen, none.has_offset ? (double)chosen[groups] : 0);
            struct range r = range_of(at, group);
            for (int k = 40; k <= 120 && kind != GRID_NVFP4 && kind != GRID_MXFP4 && kind != GRID_Q3_K; k++) {
                double scale = (double)half(fabs(r.largest) / fabs(none.scale_divisor) * k / 100);
                if (kind == GRID_Q4_1) {
                    double middle = (r.low + r.high) / 2, half_width = (r.high - r.low) / 2 * k / 100;
                    scale = (double)half(2 * half_width / 15);
                    other = fmin(other, squared_error(&none, at, group, scale, (double)half(middle - half_width)));
                } else if (kind == GRID_ASYMMETRIC) {
                    scale = (double)half((r.high - r.low) * k / 100 / none.scale_divisor);
                    other =
                        fmin(other, squared_error(&none, at, group, scale, -scale * rint(-r.low * k / 100 / scale)));
                } else {
                    other = fmin(other, squared_error(&none, at, group, scale, 0));
                    if (kind == GRID_Q4_0) other = fmin(other, squared_error(&none, at, group, -scale, 0));
                }
            }
            for (int k = -2; k <= 1 && kind == GRID_MXFP4; k++)
                other = fmin(other, squared_error(&none, at, group, ldexp((double)*by_rule, k), 0));
            assert_true(after <= before * (1 + 1e-6) && after <= other * (1 + 1e-5));
            better += after < 0.999 * before;
        }
        assert_true(better > ROWS * groups / 20);
    }
}

// ---- refusals ----

static void wrong_options_are_refused(void **state) {
    (void)state;
    struct grid grid;
    const struct {
        struct grid_options options;
        const char *says;
    } wrong[] = {
        {{.kind = GRID_BLOCK, .bits = 1}, "--bits 1"},
        {{.kind = GRID_BLOCK, .bits = 9}, "2 to 8 bits"},
        {{.kind = GRID_ASYMMETRIC, .group_size = -2}, "--group-size -2"},
        {{.kind = GRID_NF4, .bits = 3}, "nf4 has 4 bits"},
        {{.kind = GRID_MXFP4, .group_size = 16}, "mxfp4 has groups of 32"},
        {{.kind = GRID_NVFP4, .group_size = 32}, "nvfp4 has groups of 16"},
        {{.kind = GRID_Q4_0, .group_size = -1}, "q4_0 has groups of 32"},
        {{.kind = GRID_Q8_0, .bits = 4}, "q8_0 has 8 bits"},
        {{.kind = GRID_Q3_K, .group_size = 256}, "q3_k has groups of 16"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_fails(grid_new(&wrong[i].options, &grid), STATUS_INVALID);
        assert_non_null(strstr(status_message(), wrong[i].says));
    }
    for (int kind = 0; kind < KINDS; kind++) {
        enum grid_kind back;
        assert_true(grid_kind_named(grid_kind_name((enum grid_kind)kind), &back) && (int)back == kind);
    }
    enum grid_kind none;
    assert_false(grid_kind_named("q5_0", &none));
    struct grid q4_0 = grid_of(GRID_Q4_0, 0, SCALE_SEARCH_NONE);
    check_fails(grid_check(&q4_0, "layers.0.down", 172), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "layers.0.down: 172 columns are no multiple of 32"));
}

// fp16 ends at 65504; infinite and NaN weights have no scale either.
static void weights_that_no_scale_reaches_are_refused_by_name(void **state) {
    (void)state;
    static float w[ROWS * COLS], scale[ROWS * COLS];
    static const float far[] = {1e9f, -INFINITY, NAN};
    for (int kind = 0; kind < KINDS; kind++)
        for (int k = 0; k < 3; k++) {
            struct grid grid = grid_of(kind, 0, SCALE_SEARCH_NONE);
            if (k == 0 && (kind == GRID_MXFP4 || kind == GRID_NVFP4)) continue; // their scales reach far
            draw(3u << 30, 0.1f, w);
            w[3 * COLS + 5] = far[k];
            check_fails(grid_fit(&grid, "layers.0.q", w, ROWS, COLS, scale), STATUS_FORMAT);
            assert_non_null(strstr(status_message(), "layers.0.q"));
        }
}

static void tiny_and_zero_groups_round_to_what_is_stored(void **state) {
    (void)state;
    static float w[ROWS * COLS], scale[ROWS * COLS];
    for (int kind = 0; kind < KINDS; kind++)
        for (int search = 0; search < 2; search++) {
            struct grid grid = grid_of(kind, 0, (enum scale_search)search);
            memset(w, 0, sizeof w);
            w[COLS] = 1e-30f;
            check_ok(grid_fit(&grid, "w", w, ROWS, COLS, scale));
            struct neighbours near = grid_neighbours(&grid, 0, scale[0], 0);
            assert_true(near.down == 0 && near.up == 0);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_enclose_the_weight),
        cmocka_unit_test(weights_on_the_grid_and_of_constant_groups_have_no_freedom),
        cmocka_unit_test(codes_invert_values),
        cmocka_unit_test(nf4_levels_are_normal_quantiles),
        cmocka_unit_test(fp4_levels_are_the_numbers_of_e2m1),
        cmocka_unit_test(scales_follow_the_rules_of_the_formats),
        cmocka_unit_test(nvfp4_scales_have_two_levels),
        cmocka_unit_test(q3_k_scales_have_two_levels),
        cmocka_unit_test(the_search_finds_the_best_candidate),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(weights_that_no_scale_reaches_are_refused_by_name),
        cmocka_unit_test(tiny_and_zero_groups_round_to_what_is_stored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
