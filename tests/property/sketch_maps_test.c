// The random maps of the op sketch as maps: unbiased lengths and inner products, variances as in closed form, over KEYS
// independent maps per shape; linear, and independent of one another.
//
// False alarms: a mean of KEYS numbers is held within 5 of its standard errors, 6e-7 each, 3e-5 for all of a test. The standard
// deviation of KEYS numbers that are nearly normal (sums over hundreds of collisions) has a relative error of 1.6 to 2.5 %, so 10 % is
// 4 to 6 of them: below 1e-4 in all. The seeds are fixed: a run that passed passes again.
#include "tests/check.h"

#include "core/backend/backend.h"
#include "core/base/rng.h"
#include "core/base/threads.h"

enum { KEYS = 2000, MAPS = 250, DEPTH = 24 };

static struct backend *backend;

static double random_entry(uint64_t stream, int64_t i) {
    return rng_normal((struct rng){.seed = 21, .stream = RNG_TEST + stream}, (uint64_t)i);
}

enum channels { PLAIN, COLUMN, ROWS_AND_COLUMNS, RANK_ONE, ONE_ENTRY };

// Two related gradients, rows of [2, rows * cols]: dy^T x over DEPTH tokens, with channels of x (columns: in every row) or of dy 30
// times as large, one token only, or one entry 1000 times as large.
static float *gradients(int64_t rows, int64_t cols, enum channels channels) {
    int64_t depth = channels == RANK_ONE ? 1 : DEPTH;
    float *g = calloc((size_t)(2 * rows * cols), sizeof *g);
    for (int64_t t = 0; t < depth; t++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++) {
                double dy = random_entry(1, t * rows + r), x = random_entry(2, t * cols + c);
                double other = 0.5 * x + random_entry(3, t * cols + c);
                bool loud_column =
                    (channels == COLUMN && c == cols / 3) || (channels == ROWS_AND_COLUMNS && c % 16 == 5);
                bool loud_row = channels == ROWS_AND_COLUMNS && r % 16 == 3;
                double size = (loud_column ? 30 : 1) * (loud_row ? 30 : 1);
                g[r * cols + c] += (float)(size * dy * x), g[(rows + r) * cols + c] += (float)(size * dy * other);
            }
    if (channels == ONE_ENTRY) g[rows * cols / 2] *= 1000, g[rows * cols + rows * cols / 2] *= 1000;
    return g;
}

static double dot(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

// sketches [S, MAPS * k] of a [S, n] by MAPS maps of one seed and weight; += .
static void sketch_add(enum sketch_kind kind, uint64_t seed, int64_t weight, float *a, int64_t samples, int64_t n,
                       float *sketches, int64_t k) {
    double norms[16] = {0};
    assert_true(samples <= 16);
    check_ok(backend_run(
        backend, &(struct op_call){
                     .op = OP_sketch,
                     .accumulate = true,
                     .in = {view_new(a, DTYPE_F32, samples, n)},
                     .out = {view_new(norms, DTYPE_F64, samples, 1), view_new(sketches, DTYPE_F32, samples, MAPS * k)},
                     .params.sketch = {.kind = kind, .sketches = MAPS, .stream = weight, .seed = seed}}));
}

// Mean and standard deviation of |S x|^2 and of <S x, S y> over KEYS maps, as shares of |x|^2 and of |x| |y|.
struct moments {
    double length, length_sd, product, product_sd;
};

// x and y are the rows of each weight's gradients [2, n]; one map serves all weights, as in a group.
static struct moments moments_of(enum sketch_kind kind, float **gradients_of, const int64_t *n, int64_t weights,
                                 int64_t k) {
    double xx = 0, yy = 0, sums[2] = {0}, squares[2] = {0};
    for (int64_t w = 0; w < weights; w++) {
        xx += dot(gradients_of[w], gradients_of[w], n[w]);
        yy += dot(gradients_of[w] + n[w], gradients_of[w] + n[w], n[w]);
    }
    float *sketches = malloc((size_t)(2 * MAPS * k) * sizeof *sketches);
    for (uint64_t seed = 1; seed <= KEYS / MAPS; seed++) {
        memset(sketches, 0, (size_t)(2 * MAPS * k) * sizeof *sketches);
        for (int64_t w = 0; w < weights; w++) sketch_add(kind, seed, w, gradients_of[w], 2, n[w], sketches, k);
        for (int64_t j = 0; j < MAPS; j++) {
            const float *x = sketches + j * k, *y = sketches + (MAPS + j) * k;
            double value[2] = {dot(x, x, k) / xx, dot(x, y, k) / sqrt(xx * yy)};
            for (int i = 0; i < 2; i++) sums[i] += value[i], squares[i] += value[i] * value[i];
        }
    }
    free(sketches);
    struct moments m = {.length = sums[0] / KEYS, .product = sums[1] / KEYS};
    m.length_sd = sqrt(fmax(0, squares[0] - KEYS * m.length * m.length) / (KEYS - 1));
    m.product_sd = sqrt(fmax(0, squares[1] - KEYS * m.product * m.product) / (KEYS - 1));
    return m;
}

// Var |S x|^2 / |x|^4 of a rotation: 2/k times the share of pairs in different runs of k coordinates.
static double rotation_variance(const float *x, int64_t n, int64_t k) {
    double whole = dot(x, x, n), runs = 0;
    for (int64_t i = 0; i < n; i += k) runs += pow(dot(x + i, x + i, i + k < n ? k : n - i), 2);
    return 2 / (double)k * (1 - runs / (whole * whole));
}

static void check_means(const struct moments *m, float *x, float *y, int64_t n) {
    double product = dot(x, y, n) / sqrt(dot(x, x, n) * dot(y, y, n)), root = sqrt(KEYS);
    check_near(m->length, 1, 0, 5 * m->length_sd / root + 1e-6);
    check_near(m->product, product, 0, 5 * m->product_sd / root + 1e-6);
}

static const int64_t shapes[][2] = {{64, 64}, {32, 64}, {172, 64}, {64, 172}, {512, 64}, {1, 64}, {128, 64}, {344, 64}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// k = 2048 leaves a small matrix in one or two runs, where lengths are kept nearly or wholly: the closed form says how much.
static void rotations_of_every_layer_shape_are_unbiased(void **state) {
    (void)state;
    static const int64_t dims[] = {128, 2048};
    for (int s = 0; s < SHAPES; s++)
        for (int d = 0; d < 2; d++) {
            int64_t n = shapes[s][0] * shapes[s][1], k = dims[d];
            float *g = gradients(shapes[s][0], shapes[s][1], PLAIN);
            struct moments m = moments_of(SKETCH_ROTATION, &g, &n, 1, k);
            double sd = sqrt(rotation_variance(g, n, k));
            check_means(&m, g, g + n, n);
            check_near(m.length_sd, sd, 0.1, 1e-6);
            if (n >= 16 * k)
                check_near(m.length_sd, sqrt(2 / (double)k), 0.1, 0); // where runs are many: a Gaussian map's
            free(g);
        }
}

// Loud channels repeat in every row: an entry of a run meets those of others, whatever the shift. At most 1.5 times the standard
// deviation of a Gaussian map, and no bias.
static void loud_channels_do_not_spoil_a_rotation(void **state) {
    (void)state;
    for (int s = 0; s < SHAPES; s++)
        for (int channels = COLUMN; channels <= ONE_ENTRY; channels++) {
            int64_t n = shapes[s][0] * shapes[s][1], k = 128;
            float *g = gradients(shapes[s][0], shapes[s][1], (enum channels)channels);
            struct moments m = moments_of(SKETCH_ROTATION, &g, &n, 1, k);
            check_means(&m, g, g + n, n);
            assert_true(m.length_sd <= 1.5 * sqrt(2 / (double)k));
            assert_true(rotation_variance(g, n, k) <= 2 / (double)k);
            free(g);
        }
}

// All linear weights of stories260K in one group, k = 2048, with and without loud channels.
static void a_whole_network_is_sketched_like_by_a_gaussian_map(void **state) {
    (void)state;
    enum { LAYERS = 5, EACH = 7, WEIGHTS = LAYERS * EACH, K = 2048 };
    static const int64_t layer[EACH][2] = {{64, 64}, {32, 64}, {32, 64}, {64, 64}, {172, 64}, {172, 64}, {64, 172}};
    for (int channels = PLAIN; channels <= ROWS_AND_COLUMNS; channels++) {
        float *g[WEIGHTS];
        int64_t n[WEIGHTS];
        for (int w = 0; w < WEIGHTS; w++) {
            n[w] = layer[w % EACH][0] * layer[w % EACH][1];
            g[w] = gradients(layer[w % EACH][0], layer[w % EACH][1], (enum channels)channels);
        }
        struct moments m = moments_of(SKETCH_ROTATION, g, n, WEIGHTS, K);
        check_near(m.length, 1, 0, 5 * m.length_sd / sqrt(KEYS));
        if (channels == PLAIN)
            check_near(m.length_sd, sqrt(2.0 / K), 0.1, 0);
        else
            assert_true(m.length_sd <= 1.5 * sqrt(2.0 / K));
        for (int w = 0; w < WEIGHTS; w++) free(g[w]);
    }
}

// Signs: Var |S x|^2 = 2/k (|x|^4 - sum x_i^4); normals: 2/k |x|^4.
static void dense_maps_are_unbiased(void **state) {
    (void)state;
    for (int kind = SKETCH_GAUSSIAN; kind <= SKETCH_RADEMACHER; kind++)
        for (int channels = PLAIN; channels <= ONE_ENTRY; channels++) {
            int64_t n = 16 * 24, k = 96;
            float *g = gradients(16, 24, (enum channels)channels);
            double whole = dot(g, g, n), fourth = 0;
            for (int64_t i = 0; i < n; i++) fourth += pow((double)g[i], 4);
            double variance = 2 / (double)k * (1 - (kind == SKETCH_RADEMACHER ? fourth / (whole * whole) : 0));
            struct moments m = moments_of((enum sketch_kind)kind, &g, &n, 1, k);
            check_means(&m, g, g + n, n);
            check_near(m.length_sd, sqrt(variance), 0.1, 0.004);
            free(g);
        }
}

// Integers, so that no sum is rounded: the sketch of a sum is the sum of sketches, bit for bit.
static void a_rotation_is_linear(void **state) {
    (void)state;
    enum { N = 5000, K = 128 };
    static float a[3 * N], sketches[3 * MAPS * K];
    for (int64_t i = 0; i < N; i++) {
        a[i] = (float)(rng_bits((struct rng){4, RNG_TEST}, (uint64_t)i) % 200) - 100;
        a[N + i] = (float)(rng_bits((struct rng){5, RNG_TEST}, (uint64_t)i) % 200) - 100;
        a[2 * N + i] = a[i] + a[N + i];
    }
    sketch_add(SKETCH_ROTATION, 8, 3, a, 3, N, sketches, K);
    for (int64_t i = 0; i < MAPS * K; i++)
        assert_true(sketches[i] + sketches[MAPS * K + i] == sketches[2 * MAPS * K + i]);
}

// Maps of other sketches, weights and seeds: inner products of a vector's sketches have mean 0 and variance |x|^4 / k.
static void maps_are_independent_of_one_another(void **state) {
    (void)state;
    enum { N = 2000, K = 64 };
    float a[N], *first = calloc(MAPS * K, sizeof *first), *other = calloc(MAPS * K, sizeof *other);
    for (int64_t i = 0; i < N; i++) a[i] = (float)random_entry(6, i);
    double size = dot(a, a, N), allowed = 5 / sqrt((double)MAPS * K);
    for (int kind = SKETCH_ROTATION; kind <= SKETCH_RADEMACHER; kind++)
        for (int which = 0; which < 3; which++) {
            memset(first, 0, MAPS * K * sizeof *first), memset(other, 0, MAPS * K * sizeof *other);
            sketch_add((enum sketch_kind)kind, 8, 3, a, 1, N, first, K);
            sketch_add((enum sketch_kind)kind, which == 1 ? 9 : 8, which == 2 ? 4 : 3, a, 1, N, other, K);
            double mean = 0; // which 0: sketch j against j + 1
            for (int64_t j = 0; j < MAPS; j++)
                mean += dot(first + j * K, other + (which ? j : (j + 1) % MAPS) * K, K) / size / MAPS;
            check_near(mean, 0, 0, allowed);
        }
    free(first);
    free(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations_of_every_layer_shape_are_unbiased),
        cmocka_unit_test(loud_channels_do_not_spoil_a_rotation),
        cmocka_unit_test(a_whole_network_is_sketched_like_by_a_gaussian_map),
        cmocka_unit_test(dense_maps_are_unbiased),
        cmocka_unit_test(a_rotation_is_linear),
        cmocka_unit_test(maps_are_independent_of_one_another),
    };
    threads_set(2);
    check_ok(backend_open("cpu", &backend));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    backend_close(backend);
    return failed;
}
