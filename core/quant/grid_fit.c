// Rules and searches for scales: formulas in core/quant/grid.h and core/quant/grid_fit.h.
//
// A fit goes through the groups of a row one by one; `unit` is what a scale is a multiple of: d of a block (q3_k), the number
// of the tensor (nvfp4), else 1. Rows are independent, so that threads change no bit.
#include "core/quant/grid_fit.h"

#include "core/tensor/dtype.h"

#include <math.h>

enum { RATIO_LEAST = 40, RATIO_MOST = 120 }; // hundredths
enum { Q3_K_GROUPS = 16, Q3_K_LEAST = -32, Q3_K_MOST = 31, E8M0_LEAST = -126, E8M0_MOST = 127 };

static const float E4M3_MOST = 448;

struct affine {
    float scale, offset;
};

static float to_fp16(double value) { return fp16_to_float(fp16_from_float((float)value)); }

// Nearest number of E4M3 (4 significant bits, least step 2^-9, at most 448), ties to even; value >= 0.
static float to_e4m3(double value) {
    int exponent = 0;
    if (!(value > 0)) return 0;
    (void)frexp(value, &exponent); // value in [2^(exponent - 1), 2^exponent)
    double step = ldexp(1, exponent - 4 > -9 ? exponent - 4 : -9), rounded = step * nearbyint(value / step);
    return rounded < (double)E4M3_MOST ? (float)rounded : E4M3_MOST;
}

static float power_of_two(int exponent) {
    if (exponent < E8M0_LEAST) exponent = E8M0_LEAST;
    return (float)ldexp(1, exponent > E8M0_MOST ? E8M0_MOST : exponent);
}

// ---- what the weights of a group say ----

static float largest_magnitude(const float *w, int64_t n) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(w[i]));
    return largest;
}

// The weight of largest magnitude with its sign, the first of equal ones.
static float largest_signed(const float *w, int64_t n) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (fabsf(w[i]) > fabsf(largest)) largest = w[i];
    return largest;
}

static void range_of(const float *w, int64_t n, double *low, double *high) {
    float least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        least = fminf(least, w[i]);
        most = fmaxf(most, w[i]);
    }
    *low = (double)least, *high = (double)most;
}

static bool is_signed(const struct grid *grid) { return grid->scale_divisor < 0; }

static double rule_scale(const struct grid *grid, const float *w, int64_t n) {
    return (double)(is_signed(grid) ? largest_signed(w, n) : largest_magnitude(w, n)) / grid->scale_divisor;
}

// ---- what the format can store ----

static float stored_scale(const struct grid *grid, double scale, double unit) {
    switch (grid->kind) {
    case GRID_NVFP4: return unit > 0 ? (float)((double)to_e4m3(scale / unit) * unit) : 0;
    case GRID_Q3_K: {
        double part = unit != 0 ? nearbyint(scale / unit) : 0;
        return (float)(unit * fmin(fmax(part, Q3_K_LEAST), Q3_K_MOST)) + 0.0f;
    }
    default: return to_fp16(scale);
    }
}

static struct affine asymmetric_map(const struct grid *grid, double low, double high) {
    float scale = to_fp16((high - low) / grid->scale_divisor);
    if (scale == 0 || !isfinite(scale)) return (struct affine){scale, 0};
    double zero = nearbyint(-low / (double)scale);
    return (struct affine){scale, 0 - scale * (float)fmin(fmax(zero, 0), grid->n_levels - 1)};
}

// The width of the range is a float, as in llama.cpp.
static struct affine range_map(const struct grid *grid, double low, double high) {
    if (grid->kind == GRID_ASYMMETRIC) return asymmetric_map(grid, fmin(low, 0), fmax(high, 0));
    return (struct affine){to_fp16((double)(float)(high - low) / grid->scale_divisor), to_fp16(low)};
}

// ---- candidates ----

static double uniform_error(const struct grid *grid, const float *w, int64_t n, struct affine map) {
    const float low = grid->levels[0], high = grid->levels[grid->n_levels - 1];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float t = rintf((w[i] - map.offset) / map.scale);
        t = t < low ? low : t > high ? high : t;
        double error = (double)w[i] - (double)(map.scale * t + map.offset);
        sum += error * error;
    }
    return sum;
}

enum { STRIP = 64 };

// Levels outside, weights inside: the inner loop has no sum and vectorizes.
static double codebook_error(const struct grid *grid, const float *w, int64_t n, struct affine map) {
    double sum = 0;
    for (int64_t first = 0; first < n; first += STRIP) {
        float least[STRIP];
        int64_t m = n - first < STRIP ? n - first : STRIP;
        for (int64_t i = 0; i < m; i++) least[i] = INFINITY;
        for (int k = 0; k < grid->n_levels; k++) {
            float value = grid_value(grid, k, map.scale, map.offset);
            for (int64_t i = 0; i < m; i++) {
                float error = fabsf(w[first + i] - value);
                least[i] = error < least[i] ? error : least[i];
            }
        }
        for (int64_t i = 0; i < m; i++) sum += (double)least[i] * (double)least[i];
    }
    return sum;
}

static double squared_error(const struct grid *grid, const float *w, int64_t n, struct affine map) {
    if (grid->uniform && map.scale != 0) return uniform_error(grid, w, n, map);
    return codebook_error(grid, w, n, map);
}

struct best {
    const struct grid *grid;
    const float *w;
    int64_t n;
    struct affine map;
    double error;
};

static struct best best_of(const struct grid *grid, const float *w, int64_t n, struct affine map) {
    bool searches = grid->search == SCALE_SEARCH_MSE;
    return (struct best){grid, w, n, map, searches ? squared_error(grid, w, n, map) : 0};
}

static void consider(struct best *best, struct affine map) {
    if (map.scale == best->map.scale && map.offset == best->map.offset) return;
    double error = squared_error(best->grid, best->w, best->n, map);
    if (error < best->error) best->error = error, best->map = map;
}

static void search_scales(struct best *best, double scale, double unit) {
    for (int k = RATIO_LEAST; k <= RATIO_MOST; k++) {
        double candidate = scale * k / 100;
        consider(best, (struct affine){stored_scale(best->grid, candidate, unit), 0});
        if (is_signed(best->grid)) consider(best, (struct affine){stored_scale(best->grid, -candidate, unit), 0});
    }
}

static void search_ranges(struct best *best, double low, double high) {
    double center = best->grid->kind == GRID_ASYMMETRIC ? 0 : (low + high) / 2;
    for (int k = RATIO_LEAST; k <= RATIO_MOST; k++) {
        double ratio = k / 100.0;
        consider(best, range_map(best->grid, center + ratio * (low - center), center + ratio * (high - center)));
    }
}

static void search_multiples(struct best *best, double unit) {
    for (int part = Q3_K_LEAST; part <= Q3_K_MOST; part++)
        consider(best, (struct affine){(float)(unit * part) + 0.0f, 0});
}

// ---- groups ----

static struct affine power_fit(const struct grid *grid, const float *w, int64_t n) {
    float largest = largest_magnitude(w, n);
    int exponent = largest > 0 ? ilogbf(largest) - 2 : E8M0_LEAST;
    struct best best = best_of(grid, w, n, (struct affine){power_of_two(exponent), 0});
    if (grid->search == SCALE_SEARCH_MSE)
        for (int k = -2; k <= 1; k++) consider(&best, (struct affine){power_of_two(exponent + k), 0});
    return best.map;
}

static struct affine range_fit(const struct grid *grid, const float *w, int64_t n) {
    double low, high;
    range_of(w, n, &low, &high);
    struct best best = best_of(grid, w, n, range_map(grid, low, high));
    if (grid->search == SCALE_SEARCH_MSE) search_ranges(&best, low, high);
    return best.map;
}

static struct affine group_fit(const struct grid *grid, const float *w, int64_t n, double unit) {
    if (grid->kind == GRID_MXFP4) return power_fit(grid, w, n);
    if (grid->has_offset) return range_fit(grid, w, n);
    double scale = rule_scale(grid, w, n);
    struct best best = best_of(grid, w, n, (struct affine){stored_scale(grid, scale, unit), 0});
    if (grid->search == SCALE_SEARCH_MSE && grid->kind == GRID_Q3_K)
        search_multiples(&best, unit);
    else if (grid->search == SCALE_SEARCH_MSE)
        search_scales(&best, scale, unit);
    return best.map;
}

// d of the block of 256 that begins at w: what the group of largest scale is -32 times.
static double block_unit(const struct grid *grid, const float *w) {
    double largest = 0;
    for (int k = 0; k < Q3_K_GROUPS; k++) {
        double scale = rule_scale(grid, w + k * grid->group_size, grid->group_size);
        if (fabs(scale) > fabs(largest)) largest = scale;
    }
    return (double)to_fp16(largest / Q3_K_LEAST);
}

// To 20 significant bits.
static double tensor_unit(const struct grid *grid, const float *w, int64_t n) {
    double unit = (double)largest_magnitude(w, n) / (grid->scale_divisor * (double)E4M3_MOST);
    int exponent = 0;
    (void)frexp(unit, &exponent);
    double step = ldexp(1, exponent - 20);
    return unit > 0 ? (double)(float)(step * nearbyint(unit / step)) : 0;
}

static void row_fit(const struct grid *grid, const float *w, int64_t cols, double unit, float *scale) {
    int64_t group_cols = grid_group_cols(grid, cols), groups = grid_groups(grid, cols);
    for (int64_t k = 0; k < groups; k++) {
        int64_t first = k * group_cols, n = cols - first < group_cols ? cols - first : group_cols;
        if (grid->kind == GRID_Q3_K && k % Q3_K_GROUPS == 0) unit = block_unit(grid, w + first);
        struct affine map = group_fit(grid, w + first, n, unit);
        scale[k] = map.scale;
        if (grid->has_offset) scale[groups + k] = map.offset;
    }
}

enum status grid_fit(const struct grid *grid, const char *name, const float *w, int64_t rows, int64_t cols,
                     float *scale) {
    REQUIRE(cols % grid->block == 0, "grid_check has passed");
    int64_t scale_cols = grid_scale_cols(grid, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        if (!isfinite(w[i]))
            return status_set(STATUS_FORMAT, "%s: %g at [%lld, %lld] is no weight that could be rounded", name,
                              (double)w[i], (long long)(i / cols), (long long)(i % cols));
    double unit = grid->kind == GRID_NVFP4 ? tensor_unit(grid, w, rows * cols) : 1;
#pragma omp parallel for
    for (int64_t i = 0; i < rows; i++) row_fit(grid, w + i * cols, cols, unit, scale + i * scale_cols);
    for (int64_t i = 0; i < rows * scale_cols; i++)
        if (!isfinite(scale[i]))
            return status_set(STATUS_FORMAT, "%s: row %lld is too large for a grid with fp16 scales", name,
                              (long long)(i / scale_cols));
    return STATUS_OK;
}
