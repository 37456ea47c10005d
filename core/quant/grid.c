#include "core/quant/grid.h"

#include <string.h>

// What --bits, --group-size and widths a grid takes.
struct rule {
    const char *name;
    int bits;                       // fixed; 0 = 2 .. 8
    int64_t group, usual_group;     // fixed, or 0 and what it is when nothing is given
    int64_t block;                  // widths are multiples
    double stored_bits, block_bits; // of a group besides its codes, of a block besides its groups
};

static const struct rule rules[] = {
    [GRID_BLOCK] = {.name = "block", .usual_group = -1, .block = 1, .stored_bits = 16},
    [GRID_ASYMMETRIC] = {.name = "asymmetric", .usual_group = -1, .block = 1, .stored_bits = 16}, // and a code
    [GRID_NF4] = {.name = "nf4", .bits = 4, .usual_group = 64, .block = 1, .stored_bits = 16},
    [GRID_MXFP4] = {.name = "mxfp4", .bits = 4, .group = 32, .block = 32, .stored_bits = 8},
    [GRID_NVFP4] = {.name = "nvfp4", .bits = 4, .group = 16, .block = 16, .stored_bits = 8}, // and 32 per matrix
    [GRID_Q4_0] = {.name = "q4_0", .bits = 4, .group = 32, .block = 32, .stored_bits = 16},
    [GRID_Q4_1] = {.name = "q4_1", .bits = 4, .group = 32, .block = 32, .stored_bits = 32},
    [GRID_Q8_0] = {.name = "q8_0", .bits = 8, .group = 32, .block = 32, .stored_bits = 16},
    [GRID_Q3_K] = {.name = "q3_k", .bits = 3, .group = 16, .block = 256, .stored_bits = 6, .block_bits = 16},
};

// Quantiles of a normal distribution, scaled to [-1, 1]: QLoRA, Appendix E.
static const float nf4_levels[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// E2M1; its two zeros are one level.
static const float fp4_levels[15] = {-6, -4, -3, -2, -1.5f, -1, -0.5f, 0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

static void integer_levels(struct grid *grid, int first) {
    grid->uniform = true;
    grid->n_levels = 1 << grid->bits;
    for (int i = 0; i < grid->n_levels; i++) grid->levels[i] = (float)(first + i);
}

static void codebook_levels(struct grid *grid, int n, const float *levels) {
    grid->n_levels = n;
    memcpy(grid->levels, levels, (size_t)n * sizeof *levels);
}

static void set_levels(struct grid *grid) {
    int half = 1 << (grid->bits - 1);
    switch (grid->kind) {
    case GRID_BLOCK:
        integer_levels(grid, -half);
        grid->scale_divisor = (double)(grid->n_levels - 1) / 2;
        break;
    case GRID_Q4_0:
    case GRID_Q3_K:
        integer_levels(grid, -half);
        grid->scale_divisor = -half;
        break;
    case GRID_Q8_0:
        integer_levels(grid, -half);
        grid->scale_divisor = half - 1;
        break;
    case GRID_ASYMMETRIC:
    case GRID_Q4_1:
        integer_levels(grid, 0);
        grid->scale_divisor = grid->n_levels - 1;
        grid->has_offset = true;
        break;
    case GRID_NF4:
        codebook_levels(grid, 16, nf4_levels);
        grid->scale_divisor = 1;
        break;
    case GRID_MXFP4:
    case GRID_NVFP4:
        codebook_levels(grid, 15, fp4_levels);
        grid->scale_divisor = 6;
        break;
    }
}

enum status grid_new(const struct grid_options *options, struct grid *out) {
    const struct rule *rule = &rules[options->kind];
    int bits = options->bits ? options->bits : rule->bits ? rule->bits : 4;
    int64_t group = options->group_size ? options->group_size : rule->group ? rule->group : rule->usual_group;
    if (rule->bits && bits != rule->bits)
        return status_set(STATUS_INVALID, "--bits %d: the grid %s has %d bits", bits, rule->name, rule->bits);
    if (bits < 2 || bits > 8)
        return status_set(STATUS_INVALID, "--bits %d: the grid %s has 2 to 8 bits", bits, rule->name);
    if (rule->group && group != rule->group)
        return status_set(STATUS_INVALID, "--group-size %lld: the grid %s has groups of %lld", (long long)group,
                          rule->name, (long long)rule->group);
    if (group != -1 && group < 1)
        return status_set(STATUS_INVALID, "--group-size %lld: give a positive number of columns, or -1 for whole rows",
                          (long long)group);
    struct grid grid = {
        .kind = options->kind, .search = options->search, .bits = bits, .group_size = group, .block = rule->block};
    set_levels(&grid);
    *out = grid;
    return STATUS_OK;
}

enum status grid_options_complete(struct grid_options *options) {
    struct grid grid;
    enum status status = grid_new(options, &grid);
    if (status != STATUS_OK) return status;
    options->bits = grid.bits;
    options->group_size = grid.group_size;
    return STATUS_OK;
}

enum status grid_block(int bits, int64_t group_size, struct grid *out) {
    REQUIRE(bits != 0 && group_size != 0, "0 asks for a default, which grid_new has");
    return grid_new(&(struct grid_options){.kind = GRID_BLOCK, .bits = bits, .group_size = group_size}, out);
}

enum { KINDS = sizeof rules / sizeof *rules, SEARCHES = 2 };
static const char *const searches[SEARCHES] = {[SCALE_SEARCH_NONE] = "none", [SCALE_SEARCH_MSE] = "mse"};

const char *grid_kind_name(enum grid_kind kind) { return rules[kind].name; }

const char *scale_search_name(enum scale_search search) { return searches[search]; }

bool grid_kind_named(const char *name, enum grid_kind *kind) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(name, rules[i].name) == 0) return *kind = (enum grid_kind)i, true;
    return false;
}

bool scale_search_named(const char *name, enum scale_search *search) {
    for (int i = 0; i < SEARCHES; i++)
        if (strcmp(name, searches[i]) == 0) return *search = (enum scale_search)i, true;
    return false;
}

enum status grid_check(const struct grid *grid, const char *name, int64_t cols) {
    if (cols % grid->block == 0) return STATUS_OK;
    return status_set(STATUS_INVALID,
                      "%s: %lld columns are no multiple of %lld, which the grid %s needs; take another --grid", name,
                      (long long)cols, (long long)grid->block, grid_kind_name(grid->kind));
}

int64_t grid_group_cols(const struct grid *grid, int64_t cols) {
    return grid->group_size < 0 || grid->group_size > cols ? cols : grid->group_size;
}

int64_t grid_groups(const struct grid *grid, int64_t cols) {
    int64_t group = grid_group_cols(grid, cols);
    return group ? (cols + group - 1) / group : 0;
}

int64_t grid_scale_cols(const struct grid *grid, int64_t cols) {
    return grid_groups(grid, cols) * (grid->has_offset ? 2 : 1);
}

double grid_bits_per_weight(const struct grid *grid, int64_t rows, int64_t cols) {
    const struct rule *rule = &rules[grid->kind];
    double group_bits = rule->stored_bits + (grid->kind == GRID_ASYMMETRIC ? grid->bits : 0);
    double row_bits = group_bits * (double)grid_groups(grid, cols) + rule->block_bits * (double)(cols / rule->block);
    double matrix_bits = grid->kind == GRID_NVFP4 ? 32 : 0;
    return grid->bits + (row_bits * (double)rows + matrix_bits) / ((double)rows * (double)cols);
}

// Largest index with levels[index] <= t; -1 when t is below all levels or NaN.
static int level_below(const struct grid *grid, float t) {
    int low = -1, high = grid->n_levels;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (grid->levels[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    return low;
}

float grid_value(const struct grid *grid, int code, float scale, float offset) {
    return scale * grid->levels[code] + offset;
}

struct neighbours grid_neighbours(const struct grid *grid, float w, float scale, float offset) {
    if (scale == 0) return (struct neighbours){offset, offset};
    float t = (w - offset) / scale;
    int below = level_below(grid, t), last = grid->n_levels - 1;
    int first = below < 0 ? 0 : below;
    int second = below < 0 ? 0 : below == last || grid->levels[below] == t ? below : below + 1;
    float a = grid_value(grid, first, scale, offset), b = grid_value(grid, second, scale, offset);
    return a <= b ? (struct neighbours){a, b} : (struct neighbours){b, a};
}

int grid_code(const struct grid *grid, float value, float scale, float offset) {
    float t = scale == 0 ? 0 : (value - offset) / scale;
    int below = level_below(grid, t), last = grid->n_levels - 1;
    if (below < 0) return 0;
    if (below == last) return last;
    float a = grid->levels[below], b = grid->levels[below + 1];
    bool tie_up = scale < 0; // the lower value is that of the higher level
    return t - a < b - t || (t - a == b - t && !tie_up) ? below : below + 1;
}
